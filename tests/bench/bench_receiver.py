# SPDX-License-Identifier: MIT
"""The daemon under all the load that two senders can make: a table of figures. Evidence goes to
$TMPDIR, with the default sync (fdatasync of each group).

$CELLOS_BENCH_TURNS turns of all rows (default 1); then the medians. Each row is compared with the
bare figures just before and just after it, of all processors at once: two busy processors of one
machine are slower than one. $CELLOS_BENCH_MODES: only these, separated by commas."""

import base64
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from daemon import Daemon  # noqa: E402
from receiver import HASH, frame, hello  # noqa: E402
from test_daemon_fair import commit_histogram  # noqa: E402
from test_daemon_scale import cpu_ns, rss_kib  # noqa: E402
from test_signer import children  # noqa: E402

EVENTS = int(os.environ.get("CELLOS_BENCH_EVENTS", 300000))
TURNS = int(os.environ.get("CELLOS_BENCH_TURNS", 1))
ED25519 = "ed25519"
ED25519_LOG = "ed25519-log"
HMAC = "hmac-sha256"
MODES = os.environ.get("CELLOS_BENCH_MODES", f"off,{HMAC},{ED25519},{ED25519_LOG}").split(",")
# As large as the events of this run are, without their envelope.
SIZE = 728


def make_frames(n):
    return b"".join(frame(seq=i, pid=1000 + i % 1000, comm="worker", at=10**9 + i,
                          detail={"ppid": 1}) for i in range(1, n + 1))


def start(algorithm):
    d = Daemon("[receiver]\nrate = 1000000000\n", sign=algorithm in (ED25519, ED25519_LOG), start=False,
               env={"CELLOS_LOG": "0"})
    if algorithm == ED25519_LOG:
        d.base_config = d.base_config.replace("algorithm = ed25519", f"algorithm = {algorithm}")
        d.configure("[receiver]\nrate = 1000000000\n")
    if algorithm == HMAC:
        key = os.path.join(d.dir, "hmac.key")
        with open(os.open(key, os.O_CREAT | os.O_WRONLY, 0o600), "w") as f:
            f.write(base64.urlsafe_b64encode(b"k" * 32).decode())
        d.base_config += f"[signing]\nalgorithm = {HMAC}\nkid = h1\nkey_file = {key}\n"
        d.configure("[receiver]\nrate = 1000000000\n")
    d.start()
    return d


def add(d, cell):
    answer = d.ask({"verb": "add", "options": {
        "cell-id": cell, "run-id": "r", "spec-hash": HASH, "uds": d.file(cell), "keepalive": "0",
        "connect-within": "0"}}, timeout=60)
    assert answer["ok"], answer


def written(d):
    """By HTTP, which costs the loop nothing."""
    text = d.http("/metrics")[1]
    return int(text.split("\ncellos_host_telemetry_log_lines_total ")[1].split()[0])


def percentiles(before, after):
    total = after[float("inf")] - before[float("inf")]
    bounds = [next(b for b in sorted(after) if after[b] - before[b] >= total * p)
              for p in (0.5, 0.99)]
    return "/".join(f"{b * 1000:g}" for b in bounds)


def send_all(socks, data, barrier):
    """In turns of 32 KiB, as many guests at once would."""
    at = [0] * len(socks)
    barrier.wait()
    for sock in socks:
        sock.setblocking(False)
    todo = set(range(len(socks)))
    while todo:
        sent = 0
        for i in list(todo):
            try:
                n = socks[i].send(data[at[i]:at[i] + 32768])
            except BlockingIOError:
                continue
            at[i] += n
            sent += n
            if at[i] == len(data):
                todo.remove(i)
        if not sent:
            time.sleep(0.0005)


def all_cpu_ns(pid):
    """Of the receiver, its parent and its signer."""
    return cpu_ns(pid) + sum(cpu_ns(child) for child in children(pid))


def disk_bytes(d):
    return sum(os.path.getsize(path) for path in d.segments())


def measure(algorithm, cells):
    """Frames a second, microseconds an event, and the row's beginning as text."""
    with start(algorithm) as d:
        pid = d.process.pid
        empty = rss_kib(pid)
        for i in range(cells):
            add(d, f"c{i}")
        socks = [d.connect(f"c{i}") for i in range(cells)]
        for sock in socks:
            sock.sendall(hello())
        d.wait_for_totals(frames=cells)
        idle = (rss_kib(pid) - empty) / cells
        # At rest: a frame now and then.
        h0 = commit_histogram(d)
        few = frame(detail={"ppid": 1})
        for i in range(200):
            socks[i % cells].sendall(few)
            time.sleep(0.003)
        time.sleep(0.2)
        h1 = commit_histogram(d)
        per_cell = EVENTS // cells
        data = make_frames(per_cell)
        before, bytes_before = written(d), disk_bytes(d)
        senders = 1 if cells == 1 else 2
        barrier = threading.Barrier(senders + 1)
        threads = [threading.Thread(target=send_all, args=(socks[i::senders], data, barrier))
                   for i in range(senders)]
        for thread in threads:
            thread.start()
        barrier.wait()
        begin, cpu = time.monotonic(), all_cpu_ns(pid)
        want = before + per_cell * cells
        while written(d) < want:
            time.sleep(0.05)
        seconds, cpu = time.monotonic() - begin, all_cpu_ns(pid) - cpu
        for thread in threads:
            thread.join()
        h2 = commit_histogram(d)
        n = per_cell * cells
        each = cpu / n / 1000
        size = (disk_bytes(d) - bytes_before) / n
        return n / seconds, each, (
            f"{algorithm:12} {cells:5} {n / seconds:10.0f} {each:9.2f} {cpu / seconds / 1e9:6.2f} "
            f"{size:7.0f} {percentiles(h0, h1):>12} {percentiles(h1, h2):>12} "
            f"{idle if cells > 1 else 0:8.1f}")


def measure_bare():
    """Microseconds, for each way to sign: the mean of one process for each processor."""
    command = [os.environ["CELLOS_BENCH_BARE"], str(SIZE), tempfile.gettempdir()]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
               for _ in range(os.cpu_count())]
    found = {}
    for process in running:
        out, _ = process.communicate()
        assert process.returncode == 0, command
        for line in out.splitlines():
            found.setdefault(line.split()[0], []).append(int(line.split()[1]) / 1000)
    bare = {name: statistics.mean(all_of_it) for name, all_of_it in found.items()}
    bare["off"] = bare.pop("append")
    bare[ED25519_LOG] = bare[ED25519]
    return bare


def print_medians(rows):
    print(f"medians of {TURNS} turns, and the smallest and largest ratio")
    for (algorithm, cells), found in rows.items():
        rates, each, ratios = zip(*found)
        print(f"{algorithm:12} {cells:5} {statistics.median(rates):10.0f} "
              f"{statistics.median(each):9.2f} us {statistics.median(ratios):.3f} x bare "
              f"({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


def main():
    print(f"{EVENTS} events a row; {os.cpu_count()} processors, load average "
          f"{os.getloadavg()[0]:.1f} at the start; bare: of {SIZE} bytes, in us")
    print(f"{'signing':12} {'cells':>5} {'frames/s':>10} {'CPU us':>9} {'cores':>6} {'B/event':>7} "
          f"{'rest p50/99':>12} {'load p50/99':>12} {'KiB/cell':>8}  x bare", flush=True)
    rows = {}
    before = measure_bare()
    for _ in range(TURNS):
        for algorithm in MODES:
            for cells in (1, 16, 256):
                rate, each, text = measure(algorithm, cells)
                after = measure_bare()
                bare = (before[algorithm] + after[algorithm]) / 2
                before = after
                print(f"{text}  {each / bare:.2f} x {bare:.2f}", flush=True)
                rows.setdefault((algorithm, cells), []).append((rate, each, each / bare))
    print_medians(rows)


if __name__ == "__main__":
    main()
