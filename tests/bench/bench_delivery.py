# SPDX-License-Identifier: MIT
"""What one guest costs the others (delivery.md section 5): 100 cells with 10 events a second each,
from the moment an event is sent until its acknowledgement, alone and beside each attack. Prints a
table of figures and of ratios to the quiet run before each attack; it judges nothing.

	bench_delivery.py [SECONDS] [ATTACK...]
"""

import multiprocessing
import os
import selectors
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from daemon import Daemon  # noqa: E402
from guest import Acks, hello  # noqa: E402
from receiver import frame, spawned  # noqa: E402

CELLS, RATE = 100, 10
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 5


class Honest:
    def __init__(self, d, i):
        d.ask({"verb": "add", "options": {"cell-id": f"honest{i}", "run-id": "r",
                                          "spec-hash": "sha256:" + "5" * 64,
                                          "uds": d.file(f"honest{i}")}})
        self.sock = d.connect(f"honest{i}")
        # An acknowledgement for each event: capacity 8 makes the eighth of it one.
        self.sock.sendall(hello(f"{i:016x}", 1, capacity=8, boot=f"boot-{i}"))
        self.sock.setblocking(False)
        self.acks = Acks(self.sock)
        self.seq = 0
        self.sent = {}

    def send(self):
        self.seq += 1
        self.sent[self.seq] = time.monotonic()
        self.sock.send(spawned(self.seq))

    def take(self, latencies):
        self.acks.read()
        now = time.monotonic()
        settled = self.acks.numbers[-1] if self.acks.numbers else 0
        for seq in [s for s in self.sent if s <= settled]:
            latencies.append(now - self.sent.pop(seq))


def measure(guests, seconds):
    """Every guest in its own phase, so that no two send in the same instant."""
    selector = selectors.DefaultSelector()
    for guest in guests:
        selector.register(guest.sock, selectors.EVENT_READ, guest)
    latencies = []
    begin = time.monotonic()
    due = sorted((begin + i / len(guests) / RATE, i) for i in range(len(guests)))
    while due[0][0] < begin + seconds or any(g.sent for g in guests):
        now = time.monotonic()
        while due[0][0] <= now and due[0][0] < begin + seconds:
            at, i = due.pop(0)
            guests[i].send()
            due.append((at + 1 / RATE, i))
        wait = due[0][0] - now if due[0][0] < begin + seconds else 1
        for key, _ in selector.select(max(wait, 0)):
            key.data.take(latencies)
    latencies.sort()
    return latencies


def flood(d, cells, data):
    """As much as is taken, on a connection to each cell."""
    socks = [d.connect(cell) for cell in cells]
    selector = selectors.DefaultSelector()
    for sock in socks:
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_WRITE)
    while True:
        for key, _ in selector.select():
            try:
                key.fileobj.send(data)
            except BlockingIOError:
                pass


def storm(d, cell):
    while True:
        try:
            d.connect(cell).close()
        except OSError:
            time.sleep(0.001)


def many(d, cell):
    socks = []
    while len(socks) < 2000:
        try:
            socks.append(d.connect(cell))
        except OSError:
            time.sleep(0.001)
    time.sleep(3600)


def loris(d, cells):
    socks = [d.connect(cell) for cell in cells]
    data = frame(version=1)
    while True:
        for i in range(len(data)):
            for sock in socks:
                sock.send(data[i:i + 1])


def clients(path, n, request):
    """They ask, and never read."""
    socks = []
    for _ in range(n):
        try:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            sock.send(request)
            socks.append(sock)
        except OSError:
            pass
    time.sleep(3600)


PLAIN = frame(version=1) * 600
ESCAPED = frame("capability.denied", detail={
    "syscall": "\x01" * 1000, "error": "EPERM", "exe": "\x01" * 1000, "via": "audit"}) * 30
REFUSED = frame("kernel.magic", version=1) * 600

ATTACKS = {
    "2000 connections": (many, lambda d: (d, "x0")),
    "connect/close storm": (storm, lambda d: (d, "x0")),
    "refused frames": (flood, lambda d: (d, ["x0"], REFUSED)),
    "accepted frames, 1 cell": (flood, lambda d: (d, ["x0"], PLAIN)),
    "accepted frames, 16 cells": (flood, lambda d: (d, [f"x{i}" for i in range(16)], PLAIN)),
    "escaped characters": (flood, lambda d: (d, ["x0", "x1"], ESCAPED)),
    "slow-loris bytes": (loris, lambda d: (d, [f"x{i}" for i in range(16)])),
    "64 control clients": (clients, lambda d: (d.control, 64, b'{"verb":')),
    "200 HTTP clients": (clients, lambda d: (d.file("metrics"), 200, b"GET /met")),
}


def quantile(values, p):
    return values[min(len(values) - 1, int(len(values) * p / 100))] * 1000 if values else 0


def main():
    wanted = sys.argv[2:]
    print(f"{'attack':28} {'quiet p50':>10} {'p99':>8} {'p50':>8} {'p99':>8} {'ratio p99':>10}")
    for name, (target, args) in ATTACKS.items():
        if wanted and not any(w in name for w in wanted):
            continue
        with Daemon() as d:
            for i in range(16):
                d.add(f"x{i}")
            guests = [Honest(d, i) for i in range(CELLS)]
            measure(guests, 1)
            quiet = measure(guests, SECONDS)
            attacker = multiprocessing.get_context("fork").Process(target=target, args=args(d))
            attacker.start()
            time.sleep(1)
            loud = measure(guests, SECONDS)
            attacker.kill()
            attacker.join()
            d.kill()
        print(f"{name:28} {quantile(quiet, 50):7.1f} ms {quantile(quiet, 99):5.1f} ms "
              f"{quantile(loud, 50):5.1f} ms {quantile(loud, 99):5.1f} ms "
              f"{quantile(loud, 99) / quantile(quiet, 99):9.2f}x", flush=True)


if __name__ == "__main__":
    main()
