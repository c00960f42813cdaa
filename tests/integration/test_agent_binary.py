# SPDX-License-Identifier: MIT
"""The agent as an image builder makes it: small, static, and the same bytes wherever it is built.

Each C library's agent is built twice, from copies of the source in folders of different names and
depths, with the time and the locale of different builders."""

import os
import shutil
import struct
import subprocess
import tempfile

from runner import Skip, main

SOURCE = os.environ["CELLOS_SOURCE"]
PARTS = ("meson.build", "meson_options.txt", "LICENSE", "common", "cross", "docs", "guest-agent",
         "packaging", "seccomp")
# Debug information is where most paths would be; strip takes it away before the size is read.
GUEST_HALF = ("--buildtype", "minsize", "-Ddebug=true", "-Dhost_receiver=disabled",
              "-Dtests=disabled", "-Dman=disabled")
MUSL = ("--cross-file", "cross/x86_64-linux-musl.ini")
PT_INTERP, PT_GNU_STACK, PT_GNU_RELRO = 3, 0x6474E551, 0x6474E552


def build(folder, options, environment):
    """The path of an agent made from a copy of the source in that folder."""
    source, out = os.path.join(folder, "source"), os.path.join(folder, "out")
    if not os.path.isdir(source):
        os.makedirs(source)
        for part in PARTS:
            path = os.path.join(SOURCE, part)
            copy = shutil.copytree if os.path.isdir(path) else shutil.copy
            copy(path, os.path.join(source, part))
    environment = {**os.environ, **environment}
    # What a build around this one says is not for these.
    for name in ("CC", "CFLAGS", "LDFLAGS", "DESTDIR", "NINJA_STATUS", "MAKEFLAGS"):
        environment.pop(name, None)
    # Two builds: the second one takes no object of the first.
    environment["CCACHE_DISABLE"] = "1"
    for command in (["meson", "setup", out, source, *GUEST_HALF, *options],
                    ["ninja", "-C", out, "guest-agent/cellos-telemetry"]):
        run = subprocess.run(command, cwd=source, env=environment, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
        assert run.returncode == 0, run.stdout
    return os.path.join(out, "guest-agent", "cellos-telemetry")


def content(path):
    with open(path, "rb") as f:
        return f.read()


def check(libc, options, budget, relro):
    with tempfile.TemporaryDirectory(prefix="cellos-binary-") as top:
        one = build(os.path.join(top, "a"), options, {"LC_ALL": "C", "TZ": "UTC"})
        two = build(os.path.join(top, "much", "deeper", "folder"), options,
                    {"LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"})
        assert content(one) == content(two), f"two builds with {libc} differ"
        elf = content(one)
        assert top.encode() not in elf, f"the agent of {libc} names the folder it was built in"
        subprocess.run(["strip", one], check=True)
        size = os.path.getsize(one)
        print(f"{libc}: {size} bytes stripped, of {budget}")
        assert size <= budget, f"the agent of {libc} has {size} bytes, more than {budget}"
        offset, entry, count = (*struct.unpack_from("<Q", elf, 32),
                                *struct.unpack_from("<HH", elf, 54))
        segments = {kind: flags for kind, flags in (
            struct.unpack_from("<II", elf, offset + i * entry) for i in range(count))}
        (kind,) = struct.unpack_from("<H", elf, 16)
        assert kind == 3, "position independent"
        assert PT_INTERP not in segments, "static"
        assert not segments[PT_GNU_STACK] & 1, segments
        assert (PT_GNU_RELRO in segments) == relro, segments


def musl():
    if not shutil.which("musl-gcc"):
        raise Skip("no musl-gcc: install musl-tools")
    # musl's start code protects no RELRO segment of a static program.
    check("musl", MUSL, 160 * 1024, relro=False)


def glibc():
    check("glibc", (), 900 * 1024, relro=True)


if __name__ == "__main__":
    main()
