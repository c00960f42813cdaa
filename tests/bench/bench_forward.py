# SPDX-License-Identifier: MIT
"""How fast the forwarder catches up after an outage, in both modes, beside libnats' own publisher
of the same lines in the same run: entries a second, processor time an entry, memory."""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

import nats
from forwarder import Forwarder
from make_log import Log

ENTRIES = int(os.environ.get("CELLOS_BENCH_ENTRIES", "100000"))
BARE = os.environ["CELLOS_BENCH_NATS_BARE"]


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
        return int(n) / float(seconds), float(cpu) / int(n)


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


def main():
    nats.need_server()
    with Forwarder("nats://127.0.0.1:1", make=make) as f:
        rate, cpu = bare(f)
        print(f"{ENTRIES} entries of {os.path.getsize(f.log.path()) // ENTRIES} bytes\n")
        print("| | entries/s | us CPU an entry | x bare CPU | x bare rate | forwarder KiB | server KiB |")
        print("|---|---|---|---|---|---|---|")
        print(f"| libnats, asynchronous | {rate:.0f} | {cpu * 1e6:.1f} | 1.00 | 1.00 | | |")
        for mode in ["events", "batches"]:
            r, c, peak, server = forward(f, mode)
            print(f"| forwarder, {mode} | {r:.0f} | {c * 1e6:.1f} | {c / cpu:.2f} | {r / rate:.2f} "
                  f"| {peak} | {server} |")


if __name__ == "__main__":
    main()
