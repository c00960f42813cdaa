# SPDX-License-Identifier: MIT
"""The Debian packages in a small Debian of their own: installed, used, upgraded over a changed
configuration, removed and purged. lintian finds no error in them.

The Debian is tests/integration/debian.py's.
"""

import glob
import os
import re
import shutil
import signal
import subprocess
import sys

import debian
from runner import PATIENCE, main, until

SOURCE = os.environ["CELLOS_SOURCE"]
UNIT = "lib/systemd/system/cellos-host-telemetry.service"
CONF = "etc/cellos/host-telemetry.conf"
EVIDENCE = "var/log/cellos/evidence"
HASH = "sha256:" + "5" * 64


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def said(run):
    return f"{run.args} ended with {run.returncode}:\n{run.stdout}{run.stderr}"


def make_packages(folder):
    """The paths of the two, host and guest."""
    run = subprocess.run([os.path.join(SOURCE, "tools", "package"), "--host-build",
                          os.environ["CELLOS_HOST_BUILD"], "--guest-build",
                          os.environ["CELLOS_GUEST_BUILD"], folder],
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, said(run)
    return [glob.glob(f"{folder}/{name}_*.deb")[0] for name in
            ("cellos-host-telemetry", "cellos-telemetry-guest")]


def needed(package):
    """The command that installs what the package depends on."""
    depends = subprocess.run(["dpkg-deb", "-f", package, "Depends"], check=True,
                             capture_output=True, text=True).stdout
    names = sorted(re.match(r"\s*([a-z0-9.+-]+)", one)[1] for one in depends.split(","))
    return f"apt-get install -y --no-install-recommends {' '.join(names)}\n"


class World:
    """The two packages, and a Debian to install them in."""

    def __init__(self):
        self.dir = os.environ[debian.INSIDE]
        self.host, self.guest = sorted(glob.glob(f"{self.dir}/*.deb"))
        self.root = debian.mount(self.dir, os.environ["CELLOS_DEBIAN"])
        shutil.copy(self.host, f"{self.root}/host.deb")
        shutil.copy(self.guest, f"{self.root}/guest.deb")

    def file(self, path):
        return os.path.join(self.root, path)

    def run(self, *args, want=0):
        run = subprocess.run(["chroot", self.root, *args], capture_output=True, text=True,
                             timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL,
                             env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                                  "DEBIAN_FRONTEND": "noninteractive"})
        assert run.returncode == want, said(run)
        return run.stdout + run.stderr

    def owner(self, path):
        return self.run("stat", "-c", "%U:%G %a", "/" + path).strip()

    def unit(self, key):
        """A command of the unit, as it was installed. ! : with the unit's capabilities."""
        with open(self.file(UNIT), encoding="utf-8") as f:
            return re.search(f"^{key}=!?(.*)$", f.read(), re.MULTILINE)[1].split()

    def serve(self):
        process = subprocess.Popen(
            ["chroot", self.root, *self.unit("ExecStart")],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until(lambda: process.poll() is not None or
              os.path.exists(self.file("run/cellos/host-telemetry.sock")), "a daemon that listens")
        assert process.poll() is None, process.stderr.read()
        return process


def the_host_is_installed(w):
    w.run("dpkg", "-i", "host.deb")
    # lower-case types and modes: what the sysusers and tmpfiles files say.
    assert w.owner(EVIDENCE) == "cellos-telemetry:cellos-telemetry 750"
    assert w.owner("var/lib/cellos/host-telemetry") == "cellos-telemetry:cellos-telemetry 700"
    assert w.owner(CONF) == "root:root 644"
    assert os.path.exists(w.file(UNIT))
    assert glob.glob(w.file("etc/systemd/system/*/cellos-host-telemetry.service")) == [], \
        "not enabled"
    # Without a key nothing would start, and it says why.
    out = w.run(*w.unit("ExecStartPre"), want=78)
    assert "[signing] required = yes" in out, out
    w.run(*w.unit("ExecStart"), want=78)


def as_readme_debian_says(w):
    with open(w.file("usr/share/doc/cellos-host-telemetry/README.Debian"), encoding="utf-8") as f:
        readme = f.read()
    commands = [line.strip() for line in readme.splitlines() if line.startswith("    ")]
    settings = [line for line in commands if " = " in line]
    for command in commands:
        if command == settings[0]:
            with open(w.file(CONF), encoding="utf-8") as f:
                text = f.read()
            with open(w.file(CONF), "w", encoding="utf-8") as f:
                f.write(text.replace("[signing]\n", "[signing]\n" + "\n".join(settings) + "\n"))
        elif command not in settings and not command.startswith("systemctl"):
            w.run("sh", "-c", command)
    out = w.run(*w.unit("ExecStartPre"))
    assert "OK: signed by host-1" in out, out


def it_serves(w):
    daemon = w.serve()
    w.run("cellos-host-telemetry", "cell", "add", "--cell-id", "web-1", "--run-id", "r",
          "--spec-hash", HASH, "--uds", "/run/cellos/web-1")
    assert "web-1" in w.run("cellos-host-telemetry", "status")
    w.run("cellos-host-telemetry", "cell", "remove", "web-1")
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(PATIENCE) == 0, daemon.stderr.read()
    daemon.stderr.close()
    assert "OK: " in w.run("cellos-host-telemetry", "verify", "--keys", "/etc/cellos/keyring.json",
                           "/" + EVIDENCE)


def newer(w):
    """The same package with a higher version and another default configuration."""
    tree = w.file("newer")
    subprocess.run(["dpkg-deb", "-R", w.file("host.deb"), tree], check=True)
    for path, old, new in (("DEBIAN/control", r"^Version: .*$", "Version: 9.0"),
                           (CONF, r"\A", "# Of the newer package.\n")):
        with open(os.path.join(tree, path), encoding="utf-8") as f:
            text = f.read()
        with open(os.path.join(tree, path), "w", encoding="utf-8") as f:
            f.write(re.sub(old, new, text, count=1, flags=re.MULTILINE))
    subprocess.run(["dpkg-deb", "-Znone", "-b", tree, w.file("newer.deb")], check=True,
                   stdout=subprocess.DEVNULL)


def an_upgrade_keeps_the_configuration(w):
    newer(w)
    with open(w.file(CONF), encoding="utf-8") as f:
        before = f.read()
    w.run("dpkg", "--force-confdef", "--force-confold", "-i", "newer.deb")
    with open(w.file(CONF), encoding="utf-8") as f:
        assert f.read() == before
    with open(w.file(CONF + ".dpkg-dist"), encoding="utf-8") as f:
        assert f.read().startswith("# Of the newer package.\n")
    assert "OK: " in w.run(*w.unit("ExecStartPre"))
    assert "OK: " in w.run("cellos-host-telemetry", "verify", "--keys", "/etc/cellos/keyring.json",
                           "/" + EVIDENCE)


def evidence_and_keys_outlive_the_package(w):
    segments = os.listdir(w.file(EVIDENCE))
    w.run("dpkg", "-r", "cellos-host-telemetry")
    assert not os.path.exists(w.file("usr/bin/cellos-host-telemetry"))
    assert os.path.exists(w.file(CONF)), "removed, not purged"
    out = w.run("dpkg", "-P", "cellos-host-telemetry")
    assert "/var/log/cellos/evidence" in out and "are kept" in out, out
    assert os.listdir(w.file(EVIDENCE)) == segments
    assert not os.path.exists(w.file(CONF))
    assert os.path.exists(w.file("etc/cellos/host-1.seed"))
    # What never served leaves nothing.
    for folder in ("etc/cellos", EVIDENCE):
        shutil.rmtree(w.file(folder))
    w.run("dpkg", "-i", "host.deb")
    w.run("dpkg", "-P", "cellos-host-telemetry")
    left = [path for path in ("etc/cellos", "var/lib/cellos", "var/log/cellos", "run/cellos",
                              "usr/share/cellos-host-telemetry") if os.path.exists(w.file(path))]
    assert left == [], left


def the_guests_half(w):
    w.run("dpkg", "-i", "guest.deb")
    for program in ("cellos-telemetry", "cellos-workload-exec"):
        assert w.run(program, "--version").startswith(program + " "), program
    assert os.path.exists(w.file("usr/share/cellos-telemetry/seccomp/workload.policy"))
    w.run("dpkg", "-P", "cellos-telemetry-guest")
    assert not os.path.exists(w.file("usr/share/cellos-telemetry"))


def lintian_finds_no_error(w):
    run = subprocess.run(["lintian", "--allow-root", "--fail-on", "error", w.host, w.guest],
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, said(run)


TESTS = [the_host_is_installed, as_readme_debian_says, it_serves, an_upgrade_keeps_the_configuration,
         evidence_and_keys_outlive_the_package, the_guests_half, lintian_finds_no_error]


def in_order():
    """One Debian: each step begins where the one before it ended."""
    w = World()
    for test in TESTS:
        test(w)
        print(f"ok {test.__name__}", flush=True)


def outside():
    missing = [name for name in ("dh", "lintian", "musl-gcc", "scdoc") if not shutil.which(name)]
    if missing:
        skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        skip("not root: nothing can be installed")
    with debian.folder() as folder:
        host, _ = make_packages(folder)
        try:
            made = debian.made(needed(host))
        except debian.CannotBeMade as e:
            skip(f"no Debian can be made here: {e}")
        return debian.enter(folder, CELLOS_DEBIAN=made)


if __name__ == "__main__":
    if debian.INSIDE in os.environ:
        sys.exit(main([in_order]))
    sys.exit(outside())
