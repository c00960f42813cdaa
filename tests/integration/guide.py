# SPDX-License-Identifier: MIT
"""The commands of guides, in order, as it says them. A fenced block of a guide has a comment of HTML
in front of it:

    <!-- run -->        run it; it must succeed
    <!-- run: fails --> run it; its exit status does not matter
    <!-- run: vm -->    of the VM's test; "both": there, too
    <!-- run: long -->  run it only with CELLOS_LONG=1 (network, minutes)
    <!-- skip: WHY -->  commands that cannot run here
    <!-- output -->     what the last commands printed; "..." stands for anything
    <!-- file: PATH --> a file that the reader is to write
    <!-- example -->    shows a form; no commands

A block without one is a mistake."""

import os
import re
import subprocess
import sys
import tempfile

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
                out.append(f"cat > {block.word} <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK")
            elif block.kind == "run" and chosen(block.word):
                out.append(f"set +e\n{block.text}set -e" if block.word == "fails" else block.text)
            elif block.kind != "example":
                why = block.word if block.kind == "skip" else f"run: {block.word}"
                print(f"{path}:{block.line}: not run here: {why}", flush=True)
    out.append(f"echo '{MARK}end'")
    return "\n".join(out)


def matches(wanted, got):
    """Lines; "..." stands for anything, also for lines."""
    pattern = ".*".join(re.escape(part) for part in wanted.rstrip("\n").split("..."))
    return re.search(pattern, got, re.DOTALL)


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


# A throw-away view of this machine: an overlay over /, with nothing of ours on it but the source;
# own processes, mounts, network (loopback) and host name.
ENTER = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t tmpfs tmpfs root
rm -rf etc/cellos var/log/cellos var/lib/cellos srv/* usr/local/bin/cellos* usr/bin/cellos*
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mkdir -p usr/src/cellos-telemetry
for folder in run tmp; do mount -t tmpfs tmpfs $folder; done
tar -C "$2" -cf - --exclude=./build* --exclude=.git . | tar -C usr/src/cellos-telemetry -xf -
cp "$3" tmp/guide
if [ -d "$4" ]; then mkdir tmp/ccache && mount --bind "$4" tmp/ccache; fi
if [ "$5" = network ]; then cp -L /etc/resolv.conf etc/resolv.conf 2> /dev/null || true
else ip link set lo up; fi
hostname guide
exec chroot . /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive \\
    CCACHE_DIR=/tmp/ccache PATH="$6/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \\
    bash -c 'cd /usr/src/cellos-telemetry && exec bash /tmp/guide 2>&1'
"""


def run_in_a_copy_of_this_machine(paths):
    """Returns None, or why it cannot be done here."""
    if os.geteuid() != 0:
        return "not root: no namespaces"
    long = os.environ.get("CELLOS_LONG") == "1"
    cache = os.path.expanduser(os.environ.get("CCACHE_DIR", "~/.cache/ccache"))
    ccache = "/usr/lib/ccache:" if os.path.isdir(cache) and os.path.isdir("/usr/lib/ccache") else ""
    with tempfile.TemporaryDirectory(prefix="cellos-guide-") as tmp:
        os.mkdir(f"{tmp}/root")
        with open(f"{tmp}/script", "w", encoding="utf-8") as f:
            f.write(script(paths, lambda word: word in ("", "fails", "both") or (long and word == "long")))
        run = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--uts",
             "--ipc", "--kill-child", *([] if long else ["--net"]), "bash", "-ec", ENTER, "enter",
             f"{tmp}/root", SOURCE, f"{tmp}/script", cache if ccache else "",
             "network" if long else "", ccache],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if "@@" not in run.stdout:
        return f"no overlay over /: {run.stderr.strip()[-300:]}"
    judge(paths, run.stdout, run.returncode)
    return None


def test(paths):
    why = run_in_a_copy_of_this_machine(paths)
    if why:
        print(f"skipped: {why}", flush=True)
        sys.exit(77)
