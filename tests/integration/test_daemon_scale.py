# SPDX-License-Identifier: MIT
"""Hundreds of cells on one daemon, or $CELLOS_CELLS of them: what each costs, and that they all come
back. The figures are printed; what is asserted is what was promised."""

import glob
import os
import resource
import signal
import threading
import time

from daemon import BadDisk, Daemon
from receiver import HASH, hello, spawned
from runner import main, need, stand_still

PLAIN = os.environ.get("CELLOS_SANITIZE", "none") == "none"
CELLS = int(os.environ.get("CELLOS_CELLS", 320 if PLAIN else 128))
PART = CELLS // 16


def cpu_ns(pid):
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            with open(path) as f:
                total += int(f.read().split()[0])
        except FileNotFoundError:
            pass
    return total


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def add(d, i):
    answer = d.ask({"verb": "add", "options": {
        "cell-id": f"c{i}", "run-id": "r", "spec-hash": HASH, "uds": d.file(f"c{i}"),
        "keepalive": "0", "connect-within": "0"}})
    assert answer["ok"], answer


def connect_all(d):
    return [d.connect(f"c{i}") for i in range(CELLS)]


def thousands_of_cells():
    # A sanitizer signs many times slower, and the end may take 5 s like any other.
    config = "" if PLAIN else "[receiver]\nmax_inflight = 4M\n"
    with BadDisk() as disk, Daemon(config, env=disk.env if PLAIN else {}) as d:
        counts = d.file("counts")
        if PLAIN:
            disk.set(f"COUNT={counts}")

        def syncs():
            if not os.path.exists(counts):
                return 0, 0
            with open(counts) as f:
                text = f.read()
            return text.count("s"), text.count("d")

        add(d, 0)
        empty = rss_kib(d.process.pid)
        costs = []
        for part in range(16):
            begin = time.monotonic(), cpu_ns(d.process.pid), syncs()
            for i in range(max(part * PART, 1), (part + 1) * PART):
                add(d, i)
            n = (part + 1) * PART - max(part * PART, 1)
            end = time.monotonic(), cpu_ns(d.process.pid), syncs()
            costs.append((n, (end[0] - begin[0]) / n, (end[1] - begin[1]) / n / 1000,
                          end[2][0] - begin[2][0], end[2][1] - begin[2][1]))
        for n, seconds, cpu, fsyncs, fdatasyncs in (costs[0], costs[-1]):
            print(f"an add: {seconds * 1000:.2f} ms, {cpu:.0f} us of CPU, {fsyncs / n:.2f} fsync, "
                  f"{fdatasyncs / n:.2f} fdatasync of the log")
            if PLAIN:
                assert fsyncs == 2 * n, "two for each cell, the first like the last"
                assert fdatasyncs <= n + 1
        disk.good()
        socks = connect_all(d)
        for sock in socks:
            sock.sendall(hello() + spawned(1))
        d.wait_for_totals(frames=2 * CELLS, connected=CELLS)
        d.wait_metrics(f"cellos_host_telemetry_cells {CELLS}\n")
        idle = (rss_kib(d.process.pid) - empty) / (CELLS - 1)
        print(f"{CELLS} cells, each connected: {idle:.1f} KiB a cell")
        if PLAIN:
            assert idle <= 24, idle
        d.kill()
        begin = time.monotonic()
        d.start()
        seconds = time.monotonic() - begin
        print(f"killed; {CELLS} cells served again in {seconds:.2f} s")
        for sock in socks:
            sock.close()
        assert "cellos_host_telemetry_cells " in d.http("/metrics")[1]
        socks = connect_all(d)
        for sock in socks:
            sock.sendall(hello("1" * 16) + spawned(1))
        d.wait_for_totals(frames=2 * CELLS, connected=CELLS)
        # Sockets full of what was not read in time.
        stand_still(d.process.pid)
        for sock in socks:
            sock.setblocking(False)
            try:
                while True:
                    sock.send(b"".join(spawned(i) for i in range(2, 40)))
            except BlockingIOError:
                pass
        threading.Timer(0.2, os.kill, (d.process.pid, signal.SIGCONT)).start()
        seconds = d.stop()
        print(f"{CELLS} cells with full sockets sealed in {seconds:.2f} s")
        n = 0
        for line in d.lines():
            n += b"stream.v1.sealed" in line and b'"reason":"shutdown"' in line
        assert n == CELLS, n
        text = d.verify(None)
        print(text.strip().splitlines()[0])


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need(hard >= 3 * CELLS + 200,
         f"needs a hard limit of {3 * CELLS + 200} open files, and it is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    main()
