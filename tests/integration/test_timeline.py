# SPDX-License-Identifier: MIT
"""tools/timeline shows what evidence holds, and no byte of a guest reaches the terminal."""

import json
import os
import re
import subprocess
import sys

from runner import main

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
VECTORS = os.path.join(SOURCE, "tests", "vectors")


def timeline(*args, **kwargs):
    return subprocess.run([sys.executable, os.path.join(SOURCE, "tools", "timeline"), *args],
                          capture_output=True, text=True, encoding="utf-8", check=True, **kwargs)


def signed_and_unsigned_evidence_is_shown():
    for name in ("evidence-good.jsonl", "evidence-unsigned.jsonl"):
        lines = timeline(os.path.join(VECTORS, name)).stdout.splitlines()
        with open(os.path.join(VECTORS, name), encoding="utf-8") as f:
            assert len(lines) == 1 + len(f.readlines())
        assert "stream.opened" in lines[1]
        assert re.search(r"^ +2  10:00:02\.002  guest  process\.spawned +102 ", lines[2])


def hostile_text_is_escaped():
    with open(os.path.join(VECTORS, "evidence-good.jsonl"), encoding="utf-8") as f:
        event = json.loads(f.readlines()[1])["data"]["event"]
    event["data"]["guestComm"] = "\x1b[2J\r\n\u202e\x9b0m"
    event["data"]["detail"] = {"exe": "/a b\x07\tx=1", "\x1b]0;k": "\x7f"}
    out = timeline(input=json.dumps(event) + "\n").stdout
    body = out.splitlines()
    assert len(body) == 2, out
    assert all(c.isprintable() for line in body for c in line), repr(out)
    assert r"\x1b[2J\r\n" in out


def other_lines_are_named():
    out = timeline(input='{"type":"x"}\nnonsense\n[]\n{"type":1,"data":{}}\n').stdout
    assert len([line for line in out.splitlines() if "is not an event" in line]) == 4


if __name__ == "__main__":
    main()
