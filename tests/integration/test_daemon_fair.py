# SPDX-License-Identifier: MIT
"""One cell that floods, clients that freeze: the other cells do not suffer. Latencies are printed,
never judged; what is judged is that nothing is lost and everything is answered."""

import json
import os
import signal
import socket
import threading
import time

from daemon import Daemon
from oracle import named
from receiver import HASH, frame, hello, spawned
from runner import main, stand_still, until

ORDINARY = int(os.environ.get("CELLOS_CELLS", 40))
ROUNDS = 10


def percentile(values, p):
    values = sorted(values)
    return values[min(int(len(values) * p / 100), len(values) - 1)]


def send_rounds(d, socks, seq):
    """One frame a cell and round, spread over time; the time at which each is sent, by pid."""
    for _ in range(ROUNDS):
        seq += 1
        for sock in socks:
            sock.sendall(spawned(seq))
            time.sleep(0.0002)
        time.sleep(0.05)
    d.wait_for_totals(connected=d.ask({"verb": "status"})["connected"])
    return seq


def commit_histogram(d):
    """Upper bounds in milliseconds -> how many batches, from the metrics."""
    text = d.http("/metrics")[1]
    found = {}
    for line in text.splitlines():
        if line.startswith("cellos_host_telemetry_commit_seconds_bucket"):
            bound = line.split('le="')[1].split('"')[0]
            found[float(bound)] = int(line.split()[-1])
    return found


def describe(before, after):
    total = after[float("inf")] - before[float("inf")]
    out = []
    for p in (50, 99):
        bound = next(b for b in sorted(after)
                     if after[b] - before.get(b, 0) >= total * p / 100)
        out.append(f"p{p} <= {bound * 1000:g} ms")
    return ", ".join(out)


def a_flooder_beside_ordinary_cells():
    with Daemon("[receiver]\nrate = 1000\n") as d:
        socks = []
        for i in range(ORDINARY):
            d.ask({"verb": "add", "options": {"cell-id": f"c{i}", "run-id": "r",
                                              "spec-hash": HASH, "uds": d.file(f"c{i}")}})
            socks.append(d.connect(f"c{i}"))
            socks[-1].sendall(hello())
        d.add("flooder")
        flood = d.connect("flooder")
        start = commit_histogram(d)
        seq = send_rounds(d, socks, 0)
        time.sleep(1.2)
        quiet = commit_histogram(d)
        stop = threading.Event()
        sent = 0

        def run_flood():
            nonlocal sent
            data = b"".join(spawned(i) for i in range(1, 2000))
            rest = b""
            # A frame that was begun is sent whole.
            while rest or not stop.is_set():
                rest = rest or data
                n = flood.send(rest)
                rest = rest[n:]
                sent += n

        thread = threading.Thread(target=run_flood)
        thread.start()
        begin = time.monotonic()
        seq = send_rounds(d, socks, seq)
        stop.set()
        thread.join()
        seconds = time.monotonic() - begin
        flood.close()

        def show():
            return json.loads(d.run("cell", "show", "flooder", "--json"))["cell"]

        # All that it sent is read once its end is.
        until(lambda: not show()["connected"], "the end of the flooder")
        time.sleep(1.2)
        loud = commit_histogram(d)
        print(f"{ORDINARY} cells, quiet: {describe(start, quiet)}; beside a flooder "
              f"({sent / seconds / 1e6:.0f} MB/s): {describe(quiet, loud)}")
        shown = show()
        d.stop()
        streams = d.streams()
        for events in streams.values():
            cell = events[0]["data"]["cellId"]
            seqs = [e["data"]["seq"] for e in named(events, "guest.v1.process_spawned")]
            if cell == "flooder":
                # By the daemon's own clock, which a busy machine makes no difference to.
                stamps = [e["data"]["hostMonotonicNs"] for e in events]
                seconds = (stamps[-1] - stamps[0]) / 1e9
                limited = named(events, "guest.v1.rate_limited")
                assert limited and {e["data"]["limit"] for e in limited} == {"events"}
                # Nothing that was read is refused; above its rate it is not read.
                assert shown["framesRejected"] == 0 and shown["rateLimited"]["events"] > 0
                assert len(seqs) == shown["frames"], "each frame that was read is evidence"
                # Twice the rate at once, and the rate for as long as it lasted; one read more.
                assert len(seqs) <= 1000 * (seconds + 8) + 2000, (len(seqs), seconds)
                assert len(limited) <= seconds + 8, "at most one a second"
                paused = sum(e["data"]["pausedMs"] for e in limited)
                assert paused <= 1000 * (seconds + 8), paused
            else:
                assert seqs == list(range(1, seq + 1)), (cell, len(seqs))
        d.verify()


def bytes_of_dead_connections_delay_no_cell():
    """All of it is evidence, and the other cell does not wait for it."""
    with Daemon("[receiver]\nrate = 1000000\n", sign=False) as d:
        for cell in ("a", "b"):
            d.add(cell)
        b = d.connect("b")
        d.wait_for("guest.v1.agent_connected")
        stand_still(d.process.pid)
        each = 100000 // len(spawned(1))
        for i in range(20):
            with d.connect("a") as sock:
                sock.sendall(b"".join(spawned(i * each + k) for k in range(1, each + 1)))
        b.sendall(spawned(1))
        os.kill(d.process.pid, signal.SIGCONT)
        d.wait_for_totals(frames=20 * each + 1)
        d.stop()
        said = named(d.events(), "guest.v1.process_spawned")
        assert [e["data"]["seq"] for e in said if e["data"]["cellId"] == "a"] == list(
            range(1, 20 * each + 1))
        before = [e["data"]["cellId"] for e in said].index("b")
        # A share each of the first ones, and no more.
        assert before <= 4 * each, before


def a_build_server_is_no_flood():
    """3000 processes a second, each with its program, arguments and end, on default settings."""
    seconds, rate = 1, 3000
    args = "cc -O2 -g -Wall -Iinclude -c " + "x" * 200
    with Daemon(sign=False) as d:
        d.add("a")
        with d.connect("a") as sock:
            sock.sendall(hello())
            begin, seq = time.monotonic(), 0
            while seq < 3 * seconds * rate:
                due = min((time.monotonic() - begin) * rate, seconds * rate)
                data = b""
                while seq < 3 * due:
                    data += (spawned(seq + 1) +
                             frame("process.executed", seq=seq + 2, detail={
                                 "exe": "/usr/bin/cc", "args": args, "ppid": 1, "uid": 0}) +
                             frame("process.exited", seq=seq + 3, detail={"exit_code": 0}))
                    seq += 3
                sock.sendall(data)
                time.sleep(0.01)
            d.wait_for_totals(frames=seq + 1)
            limited = d.ask({"verb": "show", "cell": "a"})["cell"]["rateLimited"]
        # Where the machine stands still, what is in flight may pause it; no rate does.
        assert not {"events", "bytes", "connections"} & set(limited), limited
        d.stop()
        events = d.events()
        assert [e["data"]["seq"] for e in events if "seq" in e["data"]] == list(range(1, seq + 1))
        assert not named(events, "guest.v1.telemetry_gap")


def frozen_clients_delay_no_cell():
    """Clients of HTTP and of the control socket that never read, send half, or stay for ever."""
    with Daemon("[metrics]\nper_cell = yes\n") as d:
        for i in range(60):
            d.add(f"cell-with-a-name-as-long-as-they-are-{i}")
        d.add("a")
        sock = d.connect("a")
        frozen = []
        for i in range(40):
            web = socket.socket(socket.AF_UNIX)
            web.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            web.connect(d.file("metrics"))
            web.sendall((b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20, b"GET /met", b"")[i % 3])
            frozen.append(web)
            ask = socket.socket(socket.AF_UNIX)
            ask.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            ask.connect(d.control)
            ask.sendall((b'{"verb":"list"}\n', b'{"verb":', b"")[i % 3])
            frozen.append(ask)
        for seq in range(1, 201):
            sock.sendall(spawned(seq))
            if seq % 20 == 0:
                d.wait_for("guest.v1.process_spawned", seq)
                assert d.ask({"verb": "show", "cell": "a"})["ok"]
                # 503 where this machine let the daemon stand still for five seconds.
                until(lambda: d.http("/healthz") == (200, "ok\n"), "an answer of /healthz", 0.1)
        for client in frozen:
            client.close()
        d.stop()
        d.verify()


if __name__ == "__main__":
    main()
