# SPDX-License-Identifier: MIT
"""The control socket of a real daemon: requests of every verb with options that are right, nearly
right and noise, cut anywhere, several at a time, while guests come to the cells. For
CELLOS_FUZZ_SECONDS; run by tools/fuzz. The daemon must live, answer each whole request with JSON that
says ok or why not, end well, and leave evidence that verifies."""

import json
import os
import random
import socket
import sys
import time

from daemon import Daemon
from receiver import HASH, hello, spawned

SECONDS = float(os.environ["CELLOS_FUZZ_SECONDS"])
SEED = int(os.environ.get("CELLOS_SEED", time.time_ns()))
VERBS = ["add", "remove", "list", "show", "status", "forward_rewind", "acknowledge", "nope", "", 1]
OPTIONS = ["cell-id", "run-id", "spec-hash", "uds", "rate", "rate-bytes", "keepalive", "cgroup", "tap",
           "fc-metrics", "connect-within", "socket-owner", "socket-mode", "probe-interval", "nft",
           "rate-connections", "x", ""]
VALUES = ["", "0", "1", "-1", "1000", "99999999999999999999", "x" * 300, "../../etc", "/", "\u0000",
          "\u00e9\U0001f600", "\"", "a b", "root:root", "0600", "9999", None, 1, 1.5, True, [], {}]


def request(rng, d):
    verb = rng.choice(VERBS)
    out = {"verb": verb, "cell": rng.choice([f"c{rng.randrange(6)}", *VALUES])}
    if verb == "add" or rng.random() < 0.2:
        cell = rng.randrange(6)
        out["options"] = {"cell-id": f"c{cell}", "run-id": "r", "spec-hash": HASH,
                          "uds": d.file(f"c{cell}")}
        for _ in range(rng.randrange(3)):
            out["options"][rng.choice(OPTIONS)] = rng.choice(VALUES)
    if rng.random() < 0.2:
        out[rng.choice(["index", "since", "options", "verb", "why"])] = rng.choice(VALUES + [2**63])
    return out


def broken(rng, data):
    data = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        what = rng.randrange(3)
        if what == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[at:at] = os.urandom(3)
        else:
            del data[at:]
            data += b"\n"
    return bytes(data)


def ask(rng, d):
    """True: it was answered."""
    data = json.dumps(request(rng, d), ensure_ascii=rng.random() < 0.5).encode() + b"\n"
    if rng.random() < 0.3:
        data = broken(rng, data)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(120)
        sock.connect(d.control)
        try:
            sock.sendall(data)
            if rng.random() < 0.05:
                return False  # asks, and does not wait
            if b"\n" not in data:
                sock.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
        except (BrokenPipeError, ConnectionResetError):
            return False
    if answer:
        said = json.loads(answer)
        assert said["ok"] is True or said["error"], (data, said)
    return bool(answer)


def visit(rng, d):
    """A guest of some cell."""
    try:
        with d.connect(f"c{rng.randrange(6)}") as sock:
            sock.sendall(hello() + b"".join(spawned(i) for i in range(1, rng.randrange(2, 9))))
    except OSError:
        pass


def main():
    print(f"CELLOS_SEED={SEED}", flush=True)
    rng = random.Random(SEED)
    end, asked, answered, daemons = time.monotonic() + SECONDS, 0, 0, 0
    while time.monotonic() < end:
        with Daemon("[receiver]\nrate = 100000\n") as d:
            for _ in range(4000):
                if time.monotonic() > end:
                    break
                asked += 1
                answered += ask(rng, d)
                if rng.random() < 0.1:
                    visit(rng, d)
                assert d.process.poll() is None, d.log()[-4000:]
            d.stop()
            d.verify()
        daemons += 1
    print(f"{'control':12} {SECONDS:8.0f} {asked:12} requests, {answered} answered, of {daemons} "
          "daemons", flush=True)


if __name__ == "__main__":
    sys.exit(main())
