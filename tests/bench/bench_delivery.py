# SPDX-License-Identifier: MIT
"""What one guest costs the others (delivery.md section 5): 100 cells with 10 events a second each,
from the moment an event is sent until its acknowledgement, alone and beside each attack. Quiet and
loud seconds alternate. A figure is the median of the seconds' own quantiles, so that a second in which
the disk or another program held everything up does not decide. Prints a table of figures and of
ratios; it judges nothing.

"cpu" is the time that the daemon's processes computed between the sending and the acknowledgement,
so it counts the work that was done before an event was settled, on any machine.

	bench_delivery.py [ROUNDS] [ATTACK...]

The attackers run at nice 19: they stand for guests, whose processors are not the daemon's, and at its
own priority on two processors their load would be measured too. CELLOS_BENCH_GUEST_NICE=0 measures that.
CELLOS_BENCH_SYNC_MS=N: each fdatasync of the evidence takes so much longer, by tests/integration/bad_disk.c;
with the evidence on a tmpfs (TMPDIR) it is a disk that nobody else uses.
CELLOS_BENCH_REALTIME=1: on a machine that others use too, daemon and guests are scheduled before them
(SCHED_RR, the attackers below the daemon). An attack that makes the daemon use all processors is
then stopped by the kernel for 50 ms of each second, see sched(7): there, use nice -n -20 instead.
"""

import fcntl
import multiprocessing
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from daemon import BadDisk, Daemon  # noqa: E402
from guest import Acks, hello  # noqa: E402
from receiver import RECEIVER, frame, spawned  # noqa: E402

CELLS, RATE = 100, 10
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 9
GUEST_NICE = int(os.environ.get("CELLOS_BENCH_GUEST_NICE", 19))
SYNC_MS = int(os.environ.get("CELLOS_BENCH_SYNC_MS", 0))
REALTIME = os.environ.get("CELLOS_BENCH_REALTIME") == "1"


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(child) for child in f.read().split()]


class Clocks:
    """The time that the processes of a daemon have computed."""

    def __init__(self, pid):
        pids = [pid]
        for parent in pids:
            pids += children(parent)
        # CPUCLOCK_SCHED of each: see clock_getcpuclockid(3).
        self.clocks = [(~each << 3) | 2 for each in pids]

    def now(self):
        return sum(time.clock_gettime(clock) for clock in self.clocks)


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

    def send(self, clocks):
        self.seq += 1
        self.sent[self.seq] = (time.monotonic(), clocks.now())
        self.sock.send(spawned(self.seq))

    def take(self, clocks, latencies):
        self.acks.read()
        now, cpu = time.monotonic(), clocks.now()
        settled = self.acks.numbers[-1] if self.acks.numbers else 0
        for seq in [s for s in self.sent if s <= settled]:
            sent, before = self.sent.pop(seq)
            latencies.append((now - sent, cpu - before))


def measure(guests, clocks, seconds):
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
            guests[i].send(clocks)
            due.append((at + 1 / RATE, i))
        wait = due[0][0] - now if due[0][0] < begin + seconds else 1
        for key, _ in selector.select(max(wait, 0)):
            key.data.take(clocks, latencies)
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


def tails(d):
    """They follow the log, and nobody reads what they print."""
    for _ in range(40):
        reader, writer = os.pipe()
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        subprocess.Popen([RECEIVER, "tail", "-f", d.evidence], stdout=writer)
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
    "40 tail -f": (tails, lambda d: (d,)),
}


def quantile(values, which, p):
    values = sorted(value[which] for value in values)
    return values[min(len(values) - 1, int(len(values) * p / 100))] * 1000 if values else 0


class Attacker:
    """The attack in a process group of its own, which can stand still."""

    def __init__(self, target, args):
        def run():
            os.setpgid(0, 0)
            if REALTIME:
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1 if GUEST_NICE else 2))
            os.nice(GUEST_NICE)
            target(*args)

        self.process = multiprocessing.get_context("fork").Process(target=run)
        self.process.start()

    def signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            os.kill(self.process.pid, number)

    def end(self):
        self.signal(signal.SIGKILL)
        self.process.join()


def wait_idle(clocks):
    """Until nothing of the attack is on its way any more: the daemon computes next to nothing."""
    before, clean = clocks.now(), 0
    while clean < 3:
        time.sleep(0.05)
        now = clocks.now()
        clean = clean + 1 if now - before < 0.002 else 0
        before = now


def run_attack(target, args):
    """The latencies of each quiet second, and of each loud one."""
    quiet, loud = [], []
    with BadDisk() as disk, Daemon(start=False, env=disk.env if SYNC_MS else None) as d:
        disk.set(f"fdatasync={SYNC_MS}")
        # The mode of the packaged configuration.
        d.base_config = d.base_config.replace("algorithm = ed25519\n", "algorithm = ed25519-log\n")
        d.configure("")
        d.start()
        for i in range(16):
            d.add(f"x{i}")
        guests = [Honest(d, i) for i in range(CELLS)]
        clocks = Clocks(d.process.pid)
        measure(guests, clocks, 1)
        attacker = Attacker(target, args(d))
        try:
            time.sleep(1)
            for _ in range(ROUNDS):
                attacker.signal(signal.SIGSTOP)
                wait_idle(clocks)
                quiet.append(measure(guests, clocks, 1))
                attacker.signal(signal.SIGCONT)
                time.sleep(0.3)
                loud.append(measure(guests, clocks, 1))
        finally:
            attacker.end()
            d.kill()
    return quiet, loud


def main():
    wanted = sys.argv[2:]
    if REALTIME:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
    print(f"{'':26} {'quiet':^31} {'beside the attack':^31} {'ratio of p99':^15}\n"
          f"{'attack':26} " + f"{'p50':>7} {'p99':>7} {'cpu p50':>7} {'p99':>7} " * 2 +
          f"{'time':>7} {'cpu':>7}   (milliseconds)", flush=True)
    for name, (target, args) in ATTACKS.items():
        if wanted and not any(w in name for w in wanted):
            continue
        runs = run_attack(target, args)
        figures = [[statistics.median(quantile(second, which, p) for second in run)
                    for which in (0, 1) for p in (50, 99)] for run in runs]
        ratios = [figures[1][i] / figures[0][i] for i in (1, 3)]
        print(f"{name:26} " + "".join(f"{v:7.2f} " for run in figures for v in run) +
              "".join(f"{r:6.1f}x " for r in ratios), flush=True)


if __name__ == "__main__":
    main()
