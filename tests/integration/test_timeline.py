# SPDX-License-Identifier: MIT
"""tools/timeline shows what evidence holds, and no byte of a guest reaches the terminal."""

import json
import os
import subprocess
import sys
import unittest

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
VECTORS = os.path.join(SOURCE, "tests", "vectors")


def timeline(*args, **kwargs):
    return subprocess.run([sys.executable, os.path.join(SOURCE, "tools", "timeline"), *args],
                          capture_output=True, text=True, encoding="utf-8", check=True, **kwargs)


class Timeline(unittest.TestCase):
    def test_signed_and_unsigned(self):
        for name in ("evidence-good.jsonl", "evidence-unsigned.jsonl"):
            lines = timeline(os.path.join(VECTORS, name)).stdout.splitlines()
            with open(os.path.join(VECTORS, name), encoding="utf-8") as f:
                self.assertEqual(len(lines), 1 + len(f.readlines()))
            self.assertIn("stream.opened", lines[1])
            self.assertRegex(lines[2], r"^ +2  10:00:02\.002  guest  process\.spawned +102 ")

    def test_hostile_text_is_escaped(self):
        with open(os.path.join(VECTORS, "evidence-good.jsonl"), encoding="utf-8") as f:
            event = json.loads(f.readlines()[1])["data"]["event"]
        event["data"]["guestComm"] = "\x1b[2J\r\n\u202e\x9b0m"
        event["data"]["detail"] = {"exe": "/a b\x07\tx=1", "\x1b]0;k": "\x7f"}
        out = timeline(input=json.dumps(event) + "\n").stdout
        body = out.splitlines()
        self.assertEqual(len(body), 2, out)
        self.assertTrue(all(c.isprintable() for line in body for c in line), repr(out))
        self.assertIn(r"\x1b[2J\r\n", out)

    def test_what_is_no_event_is_said(self):
        out = timeline(input='{"type":"x"}\nnonsense\n[]\n{"type":1,"data":{}}\n').stdout
        self.assertEqual(len([line for line in out.splitlines() if "is not an event" in line]), 4)


if __name__ == "__main__":
    unittest.main()
