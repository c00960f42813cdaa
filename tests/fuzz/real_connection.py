# SPDX-License-Identifier: MIT
"""A whole connection, in both directions, against the real programs: a guest that keeps the protocol
most of the time and breaks it at random points, with acknowledgements, against the receiver; a host
that answers anything against the agent. CELLOS_FUZZ_SECONDS for both together; run by tools/fuzz.

The receiver must live, acknowledge only numbers that were sent, rise with each acknowledgement and end
with evidence that verifies. The agent must live and keep its session's promises: a number is sent
again only if it was not acknowledged."""

import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time

from guest import Acks, hello as hello_of
from receiver import Receiver, bye, frame, heartbeat, spawned
from runner import until

SECONDS = float(os.environ["CELLOS_FUZZ_SECONDS"])
SEED = int(os.environ.get("CELLOS_SEED", time.time_ns()))
EDGES = [0, 1, 2, 3, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]
AGENT = os.environ.get("CELLOS_AGENT")


def number(rng, near):
    return rng.choice([near, near + 1, near + rng.randrange(50), max(near - rng.randrange(50), 0),
                       rng.choice(EDGES)])


def steps(rng, state):
    """Bytes of one step of a guest, valid or nearly."""
    what = rng.randrange(12)
    if what < 5:
        out = b"".join(spawned(state["next"] + i) for i in range(rng.randrange(1, 8)))
        state["next"] += out.count(b"process.spawned")
        return out
    if what == 5:
        return heartbeat(number(rng, state["next"]), rng.choice(EDGES) % 2**63, rng.randrange(9))
    if what == 6:
        return hello_of(rng.choice([state["session"], f"{rng.getrandbits(64):016x}", "", "x" * 40]),
                        number(rng, state["next"]), number(rng, state["next"]),
                        acks=rng.random() < 0.8, boot=rng.choice(["b1", "b2"]),
                        capacity=rng.choice([0, 1, 4096, 2**32, 2**64 - 1]))
    if what == 7:
        return spawned(number(rng, state["next"]))
    if what == 8:
        return bye(number(rng, state["next"]))
    if what == 9:
        data = bytearray(spawned(state["next"]))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)
    if what == 10:
        return frame("telemetry.dropped", seq=state["next"], detail={
            key: rng.choice(EDGES) for key in ("queue_full", "channel", "first_seq", "last_seq")})
    return os.urandom(rng.randrange(1, 40))


def one_connection(rng, r, state):
    """Returns how many acknowledgements came."""
    sock = r.connect()
    acks = Acks(sock)
    try:
        if rng.random() < 0.9:
            sock.sendall(hello_of(state["session"], state["settled"] + 1, state["next"],
                                  boot="b1"))
        for _ in range(rng.randrange(1, 40)):
            data = steps(rng, state)
            if rng.random() < 0.1:
                data = data[:rng.randrange(len(data) + 1)]
            sock.sendall(data)
            acks.read(rng.choice([0, 0, 0, 0.002]))
            if acks.ended:
                break
        if rng.random() < 0.3:
            sock.shutdown(socket.SHUT_WR)
            acks.read(0.01)
    except OSError:
        pass
    sock.close()
    assert acks.numbers == sorted(set(acks.numbers)), f"acknowledgements fall: {acks.numbers}"
    return len(acks.numbers)


def fuzz_receiver(rng, seconds):
    runs = connections = acknowledged = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with Receiver("--rate", "1000000", "--keepalive", rng.choice(["0", "50", "1000"])) as r:
            state = {"session": f"{rng.getrandbits(64):016x}", "next": 1, "settled": 0}
            for _ in range(150):
                if time.monotonic() > end:
                    break
                if rng.random() < 0.05:
                    state = {"session": f"{rng.getrandbits(64):016x}", "next": 1, "settled": 0}
                acknowledged += one_connection(rng, r, state)
                connections += 1
                assert r.process.poll() is None, r.log()
            r.stop()
        runs += 1
    print(f"{'connection':12} {seconds:8.0f} {connections:12} connections of {runs} receivers, "
          f"{acknowledged} acknowledgements", flush=True)


# ---- the other direction ----

def answer(rng, seen):
    """What a host says: acknowledgements that are right, wrong, cut, and noise."""
    what = rng.randrange(10)
    if what < 5:
        return b"\x01" + struct.pack("<Q", number(rng, seen))
    if what == 5:
        return b"\x00" * rng.randrange(1, 9)
    if what == 6:
        return b"\x01" + struct.pack("<Q", rng.choice(EDGES))
    if what == 7:
        return (b"\x01" + struct.pack("<Q", seen))[:rng.randrange(1, 9)]
    return os.urandom(rng.randrange(1, 30))


def serve_agent(rng, conn, folder, n):
    """One connection as its host; returns the bytes that came."""
    conn.setblocking(False)
    got = seen = 0
    try:
        for _ in range(rng.randrange(1, 30)):
            path = os.path.join(folder, str(n))
            os.mkdir(path)
            os.rmdir(path)
            try:
                got += len(conn.recv(65536))
            except BlockingIOError:
                pass
            seen += rng.randrange(4)
            conn.send(answer(rng, seen))
            time.sleep(rng.choice([0, 0, 0.002]))
    except OSError:
        pass
    conn.close()
    return got


def fuzz_agent(rng, seconds):
    if not AGENT:
        return
    with tempfile.TemporaryDirectory(prefix="cellos-fuzz-") as work:
        path, folder = os.path.join(work, "v_9001"), os.path.join(work, "watched")
        os.mkdir(folder)
        with socket.socket(socket.AF_UNIX) as listener, open(os.path.join(work, "err"), "w+b") as err:
            listener.bind(path)
            listener.listen(16)
            agent = subprocess.Popen(
                [AGENT, "--foreground", "--uid", "0", "--keep-sysctls", "--connect", f"unix:{path}",
                 "--process", "off", "--net", "off", "--capability", "off", "--fs", "inotify",
                 "--inotify", folder, "--pid-file", os.path.join(work, "pid"), "--listener-socket",
                 os.path.join(work, "l"), "--heartbeat", "100"], stdin=subprocess.DEVNULL, stderr=err)
            end, connections, got = time.monotonic() + seconds, 0, 0

            def said():
                err.seek(0)
                return err.read()[-4000:].decode(errors="replace")

            listener.settimeout(60)
            while time.monotonic() < end:
                conn, _ = listener.accept()
                got += serve_agent(rng, conn, folder, connections)
                connections += 1
                assert agent.poll() is None, said()
            agent.terminate()
            listener.settimeout(0.05)

            def ended():
                try:
                    listener.accept()[0].close()
                except OSError:
                    pass
                return agent.poll() is not None

            until(ended, "the agent's end", 0)
            assert agent.returncode == 0, (agent.returncode, said())
    print(f"{'agent':12} {seconds:8.0f} {connections:12} connections, {got} bytes of frames",
          flush=True)


def main():
    print(f"CELLOS_SEED={SEED}", flush=True)
    rng = random.Random(SEED)
    fuzz_receiver(rng, SECONDS * 0.6)
    fuzz_agent(rng, SECONDS * 0.4)


if __name__ == "__main__":
    sys.exit(main())
