# SPDX-License-Identifier: MIT
"""A guest that sends anything at all for ten seconds, and the receiver that must outlive it. The
sanitizers' builds run this too."""

import os
import random
import struct
import time

from oracle import named
from receiver import Receiver, body, frame, spawned
from runner import main, until

SECONDS = 10


def mutated(rng):
    """A good frame with some bits flipped, bytes inserted or removed; its length right or not."""
    data = bytearray(body("net.connect_attempted", seq=rng.randrange(1, 2**64), detail={
        "family": "inet", "address": "192.0.2.1", "port": 443, "exe": "/bin/x" * rng.randrange(9)}))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data))
        what = rng.randrange(3)
        if what == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[at:at] = os.urandom(rng.randrange(1, 9))
        else:
            del data[at:at + rng.randrange(1, 9)]
    length = len(data) if rng.randrange(8) else rng.randrange(2**32)
    return struct.pack("<I", length) + bytes(data)


def noise(rng):
    return os.urandom(rng.randrange(1, 4096))


def framed_noise(rng):
    data = os.urandom(rng.randrange(1, 300))
    return struct.pack("<I", len(data)) + data


def anything_for_ten_seconds():
    seed = int(os.environ.get("CELLOS_SEED", time.time_ns()))
    print(f"CELLOS_SEED={seed}", flush=True)
    rng = random.Random(seed)
    with Receiver("--rate", "1000000", "--keepalive", "0") as r:
        end, connections = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            sock = r.connect()
            connections += 1
            try:
                sock.sendall(spawned(connections))
                for _ in range(rng.randrange(1, 30)):
                    sock.sendall(rng.choice((mutated, noise, framed_noise))(rng))
            except (BrokenPipeError, ConnectionResetError):
                pass
            sock.close()
            # Ten seconds of it, and no more evidence than the oracle can judge in ten more.
            time.sleep(0.003)
            assert r.process.poll() is None, r.log()
        sock = r.connect()
        sock.sendall(frame("process.exited", comm="the last", version=1))
        until(lambda: b'"the last"' in r.lines()[-100000:] or r.process.poll() is not None, r.log,
              0.1)
        assert r.process.poll() is None, r.log()
        # The whole of it is judged by the oracle and by verify.
        events = r.stop()
        assert named(events, "guest.v1.channel_violation")
        print(f"{connections} connections, {len(events)} events", flush=True)


if __name__ == "__main__":
    main()
