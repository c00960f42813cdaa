# SPDX-License-Identifier: MIT
"""A clean Debian for a test: a folder with the smallest Debian, made once by mmdebstrap, and what a
guide's own apt-get commands install. It is kept in CELLOS_CHROOTS under a name that is a hash of its
content. A test never writes to it: it gets an overlay over it, in memory, in namespaces that end
with the test, with a network of its own and no device of this machine."""

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile

RELEASE = "bookworm"
# What a Debian machine has and mmdebstrap's smallest variant has not.
BASE = ["systemd"]
# The folder of what runs in the namespaces; whoever made them removes it.
INSIDE = "CELLOS_DEBIAN_FOLDER"


class CannotBeMade(Exception):
    """No Debian can be made here. The text is the reason."""


def _devices(root):
    """Devices of its own: nothing of this machine's is within reach."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{root}/dev"], check=True)
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(f"{root}/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        os.chmod(f"{root}/dev/{name}", 0o666)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{root}/dev/{name}")
    os.symlink("/proc/self/fd", f"{root}/dev/fd")


def mount(folder, lower):
    """Only in enter(). Mounts an overlay over `lower` at folder/root; returns its path."""
    memory, root = os.path.join(folder, "memory"), os.path.join(folder, "root")
    os.mkdir(memory)
    os.mkdir(root)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", memory], check=True)
    for name in ("upper", "work"):
        os.mkdir(f"{memory}/{name}")
    for command in (["mount", "-t", "overlay", "overlay", "-o",
                     f"lowerdir={lower},upperdir={memory}/upper,workdir={memory}/work", root],
                    ["mount", "-t", "proc", "proc", f"{root}/proc"],
                    ["mount", "-t", "tmpfs", "tmpfs", f"{root}/run"],
                    ["mount", "-t", "tmpfs", "tmpfs", f"{root}/tmp"]):
        subprocess.run(command, check=True)
    os.chmod(f"{root}/tmp", 0o1777)
    _devices(root)
    return root


def enter(folder, network=False, **more):
    """Runs this program again in namespaces of its own, with INSIDE = folder and the environment
    `more`; returns its exit status. The kernel ends every process and every mount in them together
    with the first process."""
    return subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child",
         "--mount-proc", "--uts", "--ipc", *([] if network else ["--net"]),
         "sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, *sys.argv],
        env={**os.environ, INSIDE: folder, **more}, stdin=subprocess.DEVNULL,
        check=False).returncode


# apt-get in the new folder, in namespaces of its own but with this machine's network.
INSTALL = """
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/dev"
for device in "null 3" "zero 5" "full 7" "random 8" "urandom 9"; do
    set -- "$1" "$2" "$3" $device
    mknod -m 666 "$1/dev/$4" c 1 "$5"
done
ln -s /proc/self/fd "$1/dev/fd"
for name in hosts resolv.conf; do
    : > "$1/etc/$name"
    mount --bind "$(readlink -f /etc/$name)" "$1/etc/$name"
done
mount --bind "$2" "$1/var/cache/apt/archives"
inside() {
    chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \\
        DEBIAN_FRONTEND=noninteractive bash -ec "$2"
}
inside "$1" "$3" || {
    echo "again, with new lists"
    inside "$1" "apt-get -q update; $3"
}
"""


def _run(command):
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    if run.returncode != 0:
        assert "Unable to locate package" not in run.stdout, run.stdout[-3000:]
        assert "has no installation candidate" not in run.stdout, run.stdout[-3000:]
        raise CannotBeMade(f"{command[0]}: {run.stdout.strip()[-600:]}")


def _make_base(new):
    # What it mounts there ends with it, however it ends: /dev/shm would be this machine's own.
    _run(["unshare", "--mount", "mmdebstrap", "--quiet", "--variant=minbase",
          "--skip=cleanup/apt/lists", "--dpkgopt=force-unsafe-io",
          "--include=" + ",".join(BASE), RELEASE, new])
    # No package starts its daemon: there is no service manager.
    policy = os.path.join(new, "usr/sbin/policy-rc.d")
    with open(policy, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\nexit 101\n")
    os.chmod(policy, 0o755)


def _hash(content):
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _make(chroots, name, fill):
    """The folder of that name, made by fill(folder) unless it is there."""
    path = os.path.join(chroots, name)
    if not os.path.exists(path):
        new = path + "#new"
        shutil.rmtree(new, ignore_errors=True)
        try:
            fill(new)
            os.rename(new, path)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return path


def _installed(below, commands, archives):
    """The fill() of a Debian like the one in the folder `below`, in which these commands have run."""
    def fill(new):
        _run(["cp", "-a", "--reflink=auto", below, new])
        _run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-ec", INSTALL,
              "install", new, archives, commands])
    return fill


def made(*steps):
    """The path of a Debian in which these shell commands (apt-get install ...) have run, one step
    after the other. Tests whose first steps are the same share what these have made."""
    for program in ("mmdebstrap", "unshare", "setpriv"):
        if not shutil.which(program):
            raise CannotBeMade(f"not installed: {program}")
    chroots = os.environ["CELLOS_CHROOTS"]
    archives = os.path.join(chroots, "archives")
    os.makedirs(os.path.join(archives, "partial"), exist_ok=True)
    with open(os.path.join(chroots, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = " ".join([RELEASE, *BASE])
        path = _make(chroots, "base-" + _hash(content), _make_base)
        for commands in filter(None, steps):
            content += commands
            path = _make(chroots, "debian-" + _hash(content), _installed(path, commands, archives))
        return path


def folder():
    return tempfile.TemporaryDirectory(prefix="cellos-debian-")
