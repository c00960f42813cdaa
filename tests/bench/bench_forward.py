# SPDX-License-Identifier: MIT
"""How fast the forwarder catches up after an outage, in both modes, beside libnats' own publisher
of the same lines, in turns of one run: entries a second, processor time an entry, memory. Then what
forwarding does to the latency of the daemon's commits.

CELLOS_BENCH_ENTRIES (100000), CELLOS_BENCH_ROUNDS (3), CELLOS_BENCH_SECONDS (3, of a latency turn)."""

import collections
import os
import re
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

import nats
from daemon import Daemon
from forwarder import Forwarder
from make_log import Log
from receiver import frame

ENTRIES = int(os.environ.get("CELLOS_BENCH_ENTRIES", "100000"))
ROUNDS = int(os.environ.get("CELLOS_BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("CELLOS_BENCH_SECONDS", "3"))
BARE = os.environ["CELLOS_BENCH_NATS_BARE"]
RATE = 500  # frames a second of the latency turns


def make(folder):
    log = Log(folder)
    log.open()
    log.fill(ENTRIES, per_commit=160, cells=64, pad=300)
    return log


def cpu_and_memory(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    with open(f"/proc/{pid}/status") as f:
        peak = next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), peak


def bare(f):
    folder = f.file("evidence")
    files = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    with nats.Server() as server, server.client() as client:
        client.make_stream()
        run = subprocess.run([BARE, server.url, *files], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        n, seconds, cpu = run.stdout.split()
        return int(n) / float(seconds), float(cpu) / int(n), None, cpu_and_memory(server.process.pid)[1]


def forward(f, mode):
    with nats.Server() as server:
        f.configure(server.url, f"create_stream = yes\nmode = {mode}\n")
        state = f.file("state/forward")
        for name in os.listdir(state) if os.path.isdir(state) else []:
            os.unlink(os.path.join(state, name))
        begin = time.monotonic()
        f.start().wait_done()
        seconds = time.monotonic() - begin
        cpu, peak = cpu_and_memory(f.process.pid)
        server_peak = cpu_and_memory(server.process.pid)[1]
        f.stop()
        return ENTRIES / seconds, cpu / ENTRIES, peak, server_peak


def catch_up():
    ways = {"libnats, asynchronous": bare, "forwarder, events": lambda f: forward(f, "events"),
            "forwarder, batches": lambda f: forward(f, "batches")}
    runs = {name: [] for name in ways}
    with Forwarder("nats://127.0.0.1:1", make=make) as f:
        size = sum(e.stat().st_size for e in os.scandir(f.file("evidence")))
        print(f"{ENTRIES} entries of {size // ENTRIES} bytes, the median of {ROUNDS} turns each\n")
        for _ in range(ROUNDS):
            for name, way in ways.items():
                runs[name].append(way(f))
    base = runs["libnats, asynchronous"]
    print("| | entries/s | us CPU an entry | x bare CPU (by turn) | x bare rate (by turn) "
          "| forwarder KiB | server KiB |")
    print("|---|---|---|---|---|---|---|")
    for name, all_turns in runs.items():
        rate, cpu, server = (statistics.median(turn[i] for turn in all_turns) for i in (0, 1, 3))
        cpus = [turn[1] / b[1] for turn, b in zip(all_turns, base)]
        rates = [turn[0] / b[0] for turn, b in zip(all_turns, base)]
        peak = max((turn[2] or 0) for turn in all_turns) or ""
        print(f"| {name} | {rate:.0f} | {cpu * 1e6:.2f} "
              f"| {statistics.median(cpus):.2f} ({' '.join(f'{x:.2f}' for x in cpus)}) "
              f"| {statistics.median(rates):.2f} ({' '.join(f'{x:.2f}' for x in rates)}) "
              f"| {peak} | {server:.0f} |", flush=True)


# ---- commits ----

def histogram(d):
    """Upper bound in seconds -> commits, cumulative."""
    found = re.findall(r'commit_seconds_bucket\{le="([^"]+)"\} (\d+)', d.http("/metrics")[1])
    return {float(bound): int(n) for bound, n in found}


def quantile(counts, q):
    """Within a bucket as if its commits were spread evenly."""
    want = q * counts[max(counts)]
    low, below = 0.0, 0
    for bound in sorted(counts):
        if counts[bound] >= want:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (want - below) / max(counts[bound] - below, 1)
        low, below = bound, counts[bound]
    return low


def send_frames(d, stop):
    """Steadily, whatever the daemon does."""
    begin, n = time.monotonic(), 0
    with d.connect("web-7") as sock:
        while not stop.is_set():
            sock.sendall(frame("process.spawned", pid=1 + n % 30000))
            n += 1
            time.sleep(max(0.0, begin + n / RATE - time.monotonic()))


def commit_latency():
    turns, added = {False: [], True: []}, False
    total = {False: collections.Counter(), True: collections.Counter()}
    with nats.Server() as server, Daemon(start=False) as d:
        d.base_config = d.base_config.replace("= ed25519\n", "= ed25519-log\n")
        configs = {False: "", True: f"[nats]\nurl = {server.url}\ncreate_stream = yes\n"}
        for with_nats in [False, True] * ROUNDS:
            d.configure(configs[with_nats])
            d.start()
            if not added:
                added = d.add("web-7")
            stop = threading.Event()
            sender = threading.Thread(target=send_frames, args=(d, stop))
            sender.start()
            time.sleep(1)  # connected, caught up
            before = histogram(d)
            time.sleep(SECONDS)
            after = histogram(d)
            stop.set()
            sender.join()
            counts = {bound: after[bound] - before.get(bound, 0) for bound in after}
            total[with_nats].update(counts)
            turns[with_nats].append(quantile(counts, 0.99) * 1000)
            d.kill()
    print(f"\n{RATE} frames a second, {ROUNDS} turns of {SECONDS:.0f} s each way in alternation, "
          "all turns together\n")
    print("| commit latency | p50 ms | p90 ms | p99 ms (by turn) |")
    print("|---|---|---|---|")
    for with_nats, name in [(False, "nothing is forwarded"), (True, "forwarded, events")]:
        p50, p90, p99 = (quantile(total[with_nats], q) * 1000 for q in (0.5, 0.9, 0.99))
        print(f"| {name} | {p50:.2f} | {p90:.2f} | {p99:.2f} ("
              f"{' '.join(f'{turn:.1f}' for turn in turns[with_nats])}) |")


def main():
    nats.need_server()
    catch_up()
    commit_latency()


if __name__ == "__main__":
    main()
