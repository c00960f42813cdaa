#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""embed.py PAGE.html STYLE.css SCRIPT.js... > design.c: one document of the files, in pieces. In
PAGE.html, @style@ and @script@ stand for the files, @policy@ for what the document may run and
load, @title@ (twice) for the sentence of the verdict, @packed@ for the packed text."""

import base64
import hashlib
import sys

NAMES = ("title", "before", "between", "after")


def source(text):
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def literal(text):
    """A C string of any text, a line of it each."""
    lines = []
    for line in text.splitlines(keepends=True):
        escaped = "".join(f"\\{c}" if c in '"\\' else c if " " <= c <= "~" else
                          "\\n" if c == "\n" else "".join(f"\\{b:03o}" for b in c.encode())
                          for c in line).replace("??", "?\\?")
        lines.append(f'\t"{escaped}"')
    return "\n".join(lines) or '\t""'


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def main():
    page, style = read(sys.argv[1]), read(sys.argv[2])
    script = '"use strict";\n' + "".join(read(path) for path in sys.argv[3:])
    assert "</script" not in script and "</style" not in style
    policy = f"default-src 'none'; style-src {source(style)}; script-src {source(script)}"
    for word, text in (("policy", policy), ("style", style), ("script", script)):
        assert page.count(f"@{word}@") == 1, word
        page = page.replace(f"@{word}@", text)
    pieces = [part for half in page.split("@packed@") for part in half.split("@title@")]
    assert len(pieces) == len(NAMES) and "@packed@" not in pieces[-1], len(pieces)
    print("/* Made by embed.py. */\n#include \"host-receiver/report/design.h\"\n")
    for name, piece in zip(NAMES, pieces):
        print(f"const char report_design_{name}[] =\n{literal(piece)};\n")


if __name__ == "__main__":
    main()
