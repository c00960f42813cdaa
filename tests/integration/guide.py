# SPDX-License-Identifier: MIT
"""The commands of guides, in order, as it says them. A fenced block of a guide has a comment of HTML
in front of it:

    <!-- run -->        run it; it must succeed
    <!-- run: fails --> run it; its exit status does not matter
    <!-- run: vm -->    of the VM with a service manager; "both": there, too
    <!-- run: guest --> of the VM with the agent
    <!-- run: long -->  run it only with CELLOS_LONG=1 (network, minutes)
    <!-- run: debian --> without CELLOS_LONG in a Debian at rootfs-debian that the runner puts there
    <!-- skip: WHY -->  commands that cannot run here
    <!-- output -->     what the last commands printed; "..." stands for anything
    <!-- file: PATH --> a file that the reader is to write
    <!-- example -->    shows a form; no commands

A block without one is a mistake."""

import glob
import os
import re
import shutil
import subprocess
import sys

import debian

SOURCE = os.environ["CELLOS_SOURCE"]
MARK = "@@ guide block "

BLOCK = re.compile(r"(?:^[ ]*<!-- (?P<kind>[a-z]+)(?:: (?P<word>[^\n]*?))? -->\n+)?"
                   r"^(?P<indent>[ ]*)```[a-z]*\n(?P<text>.*?)^[ ]*```$", re.MULTILINE | re.DOTALL)


class Block:
    def __init__(self, kind, word, text, line):
        self.kind, self.word, self.text, self.line = kind, word, text, line
        self.wanted = None  # the output


def blocks(path):
    """The blocks of a guide. An output belongs to the block before it."""
    with open(os.path.join(SOURCE, path), encoding="utf-8") as f:
        whole = f.read()
    found = []
    for match in BLOCK.finditer(whole):
        line = whole.count("\n", 0, match.start("text"))
        kind = match["kind"]
        assert kind in ("run", "skip", "output", "file", "example"), \
            f"{path}:{line}: a block that does not say whether it is run"
        text = re.sub("^" + match["indent"], "", match["text"], flags=re.MULTILINE)
        if kind == "output":
            found[-1].wanted = text
        else:
            found.append(Block(kind, match["word"] or "", text, line))
    return found


def script(paths, chosen):
    """A shell script of the guides' blocks for which chosen(word) is true; the others are named."""
    out = ["set -eo pipefail", "source=$PWD"]
    for path in paths:
        out.append('cd "$source"')
        for block in blocks(path):
            out.append(f"echo '{MARK}{path}:{block.line}'")
            if block.kind == "file":
                out.append(f"mkdir -p {os.path.dirname(block.word) or '.'}\n"
                           f"cat > {block.word} <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK")
            elif block.kind == "run" and chosen(block.word):
                out.append(f"set +e\n{block.text}set -e" if block.word == "fails" else block.text)
            elif block.kind != "example":
                why = block.word if block.kind == "skip" else f"run: {block.word}"
                print(f"{path}:{block.line}: not run here: {why}", flush=True)
    out.append(f"echo '{MARK}end'")
    return "\n".join(out)


def matches(wanted, got):
    """Lines; "..." stands for anything, also for lines."""
    start = 0
    for part in wanted.rstrip("\n").split("..."):
        found = got.find(part, start)
        if found < 0:
            return False
        start = found + len(part)
    return True


def judge(paths, output, status):
    """Every block ended well and printed what the guide says."""
    parts = re.split(f"^{MARK}(.+)\n", output, flags=re.MULTILINE)
    said = dict(zip(parts[1::2], parts[2::2], strict=True))
    if status != 0 or "end" not in said:
        last = [*said][-1]
        raise AssertionError(f"{last}: exit status {status}\n{said[last][-6000:]}")
    for path in paths:
        for block in blocks(path):
            got = said[f"{path}:{block.line}"]
            if block.wanted is not None and got.strip():
                assert matches(block.wanted, got), (f"{path}:{block.line}: it printed\n{got}\nand "
                                                    f"the guide says\n{block.wanted}")


# The folder of the source, as in the guides.
TREE = "usr/src/cellos-telemetry"
# Of this machine's own, where no clean Debian can be made.
OURS = ["etc/cellos", "var/log/cellos", "var/lib/cellos", "srv", "usr/local/bin/cellos*",
        "usr/bin/cellos*"]


def installs(paths, chosen):
    """The guides' commands that install packages: they need Debian's mirror and run first, once for
    all runs. They run again in their places, with nothing left to do."""
    text = "".join(block.text for path in paths for block in blocks(path)
                   if block.kind == "run" and chosen(block.word))
    return "".join(command[0] for command in
                   re.finditer(r"^apt-get install (?:.*\\\n)*.*\n", text, re.MULTILINE))


def packages(commands):
    """The names in these commands of apt-get install."""
    return {word for word in commands.replace("\\\n", " ").split()
            if not word.startswith("-")} - {"apt-get", "install"}


# The guides that build from the source. What both install is made once for both.
BUILDERS = ["docs/guide-image-builder.md", "docs/guide-operator.md"]


def steps(paths, chosen):
    """What makes the Debian of these guides: debian.made() shares the first step."""
    commands = installs(paths, chosen)
    shared = set.intersection(*(packages(installs([path], chosen)) for path in BUILDERS))
    if not shared or not shared <= packages(commands):
        return [commands]
    return [f"apt-get install -y --no-install-recommends {' '.join(sorted(shared))}\n", commands]


def files_of_the_source():
    """What a checkout has and `meson dist` packs: a build needs nothing else."""
    run = subprocess.run(["git", "-C", SOURCE, "ls-files", "-z", "--cached", "--others",
                          "--exclude-standard"], stdout=subprocess.PIPE, check=False)
    names = run.stdout.decode().split("\0")[:-1] if run.returncode == 0 else os.listdir(SOURCE)
    return [name for name in names if os.path.lexists(os.path.join(SOURCE, name)) and
            not name.startswith(("build", ".git/"))]


def copy_source(folder):
    os.makedirs(folder)
    subprocess.run(f"tar -C {SOURCE} --null -T - -cf - | tar -C {folder} -xf -", shell=True,
                   input="\0".join(files_of_the_source()), text=True, check=True)


def debian_without_network(path, lower, folder):
    """What debootstrap would make at `path`: an overlay over a Debian that is there already."""
    for name in ("upper", "work"):
        os.makedirs(f"{folder}/memory/second/{name}")
    os.mkdir(path)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                    f"lowerdir={lower},upperdir={folder}/memory/second/upper,"
                    f"workdir={folder}/memory/second/work", path], check=True)


def run_inside(paths, chosen):
    """In namespaces of its own: every command, in order, in the Debian that the caller made."""
    lower = os.environ["CELLOS_DEBIAN"]
    folder = os.environ[debian.INSIDE]
    root = debian.mount(folder, lower)
    if lower == "/":
        subprocess.run(f"cd {root} && rm -rf {' '.join(OURS)} && mount -t tmpfs tmpfs root",
                       shell=True, check=True)
    copy_source(f"{root}/{TREE}")
    if long_run():
        shutil.copy("/etc/resolv.conf", f"{root}/etc/resolv.conf")
    else:
        subprocess.run(["hostname", "guide"], check=True)
        debian_without_network(f"{root}/{TREE}/rootfs-debian", lower, folder)
    with open(f"{root}/tmp/guide", "w", encoding="utf-8") as f:
        f.write(script(paths, chosen))
    # A file: a pipe would stay open as long as a daemon that the guide has started.
    with open(f"{folder}/output", "wb") as output:
        run = subprocess.run(
            ["chroot", root, "/usr/bin/env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb",
             "DEBIAN_FRONTEND=noninteractive",
             "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
             "bash", "-c", f"cd /{TREE} && exec bash /tmp/guide 2>&1"],
            stdin=subprocess.DEVNULL, stdout=output, check=False)
    with open(f"{folder}/output", encoding="utf-8", errors="replace") as output:
        judge(paths, output.read(), run.returncode)
    for image in glob.glob(f"{root}/{TREE}/rootfs*.cpio.gz"):
        shutil.copy(image, folder)


def long_run():
    return os.environ.get("CELLOS_LONG") == "1"


def chosen_here(word):
    return word in ("", "fails", "both", "debian") or (long_run() and word == "long")


def test(paths, afterwards=lambda folder: None):
    """Exits as a test does. afterwards(folder) sees the images that the guides made."""
    if debian.INSIDE in os.environ:
        run_inside(paths, chosen_here)
        sys.exit(0)
    if os.geteuid() != 0:
        print("skipped: not root: no namespaces", flush=True)
        sys.exit(77)
    try:
        lower = debian.made(*steps(paths, chosen_here))
    except debian.CannotBeMade as e:
        print(f"no clean Debian can be made here ({e}): in a copy of this machine", flush=True)
        lower = "/"
    with debian.folder() as folder:
        status = debian.enter(folder, network=long_run(), CELLOS_DEBIAN=lower)
        if status == 0:
            afterwards(folder)
    sys.exit(status)
