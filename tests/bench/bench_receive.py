# SPDX-License-Identifier: MIT
"""What the receiver costs: frames a second and CPU an event for 1, 16 and 256 cells, unsigned, with
HMAC and with Ed25519; beside the bare signature of the same bytes in the same run; how long a frame
takes from its arrival to the disk; memory of a cell.

    bench_receive.py [FRAMES]"""

import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.environ["CELLOS_INTEGRATION"])

from daemon import Daemon  # noqa: E402

FRAMES = int(sys.argv[1]) if len(sys.argv) > 1 else 200000
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_MS / 1000


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def signing(d, algorithm):
    if algorithm != "hmac-sha256":
        return ""
    with open(d.file("hmac.key"), "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write("A" * 43)
    return f"[signing]\nalgorithm = hmac-sha256\nkid = k1\nkey_file = {d.file('hmac.key')}\n"


def daemon(algorithm):
    d = Daemon(sign=algorithm == "ed25519", start=False)
    # Its sections may stand once only.
    d.base_config = d.base_config.replace(
        "[receiver]\n", "[receiver]\nrate = 1000000000\nkeepalive = 0\nconnect_within = 0\n")
    d.configure(signing(d, algorithm))
    d.start()
    return d


def metric(d, name):
    return float(re.search(rf"^cellos_host_telemetry_{name} (\S+)$", d.http("/metrics")[1],
                           re.M).group(1))


def committed(d):
    """Lines; the pipeline's own number, which needs no turn of the loop."""
    return metric(d, "log_lines_total")


def send(d, cells, frames, rate=0):
    paths = [d.file(f"c{i}") + "_9001" for i in range(cells)]
    out = subprocess.run([os.environ["CELLOS_SEND_FRAMES"], str(frames // cells), str(rate), *paths],
                         check=True, capture_output=True, text=True).stdout.split()
    return int(out[1])


def throughput(algorithm, cells):
    with daemon(algorithm) as d:
        for i in range(cells):
            d.ask({"verb": "add", "options": {"cell-id": f"c{i}", "run-id": "r", "uds":
                                              d.file(f"c{i}"), "spec-hash": "sha256:" + "5" * 64}})
        pid = d.process.pid
        before, cpu, begin = committed(d), cpu_s(pid), time.monotonic()
        sent = send(d, cells, FRAMES)
        while committed(d) < before + sent:
            time.sleep(0.01)
        wall, cpu = time.monotonic() - begin, cpu_s(pid) - cpu
        events = committed(d) - before
        sample = None
        if algorithm == "off" and cells == 1:
            sample = f"/tmp/cellos-bench-{os.getpid()}.jsonl"
            with open(sample, "wb") as f:
                f.writelines(d.lines()[:20000])
        print(f"{algorithm:<12} {cells:>6} {sent / wall:>12.0f} {cpu * 1e6 / events:>13.2f} "
              f"{cpu / wall * 100:>8.0f} %", flush=True)
        return cpu * 1e6 / events, sample


def percentiles(d):
    text = d.http("/metrics")[1]
    buckets = [(float(le), int(n)) for le, n in re.findall(
        r'commit_seconds_bucket\{le="([0-9.e+-]+)"\} (\d+)', text)]
    total = int(re.search(r"commit_seconds_count (\d+)", text).group(1))
    found = []
    for share in (0.5, 0.9, 0.99, 0.999):
        found.append(next((le for le, n in buckets if n >= share * total), float("inf")))
    return found


def latency(rate):
    with daemon("ed25519") as d:
        for i in range(16):
            d.ask({"verb": "add", "options": {"cell-id": f"c{i}", "run-id": "r", "uds":
                                              d.file(f"c{i}"), "spec-hash": "sha256:" + "5" * 64}})
        send(d, 16, rate * 5, rate)
        print(f"{rate:>8} frames/s: " + "  ".join(
            f"p{share} <= {le * 1000:g} ms" for share, le in
            zip(("50", "90", "99", "99.9"), percentiles(d))), flush=True)


def memory(cells):
    with daemon("off") as d:
        empty = rss_kib(d.process.pid)
        for i in range(cells):
            d.ask({"verb": "add", "options": {"cell-id": f"c{i}", "run-id": "r", "uds":
                                              d.file(f"c{i}"), "spec-hash": "sha256:" + "5" * 64}})
        idle = rss_kib(d.process.pid)
        sockets = [d.connect(f"c{i}") for i in range(cells)]
        time.sleep(1)
        connected = rss_kib(d.process.pid)
        for sock in sockets:
            sock.close()
        print(f"{cells} cells: {(idle - empty) / cells:.1f} KiB each before its agent connects, "
              f"{(connected - empty) / cells:.1f} KiB connected")


def bare(algorithm, sample):
    out = subprocess.run([os.environ["CELLOS_BENCH_SIGN"], sample, algorithm], check=True,
                         capture_output=True, text=True).stdout.split()
    return int(out[3]) / 1000, int(out[2])


def main():
    print(f"{FRAMES} frames, sync = batch, on {os.cpu_count()} processors that the sender shares\n"
          f"{'signing':<12} {'cells':>6} {'frames/s':>12} {'CPU us/event':>13} {'CPU':>10}")
    cost, sample = {}, None
    for algorithm in ("off", "hmac-sha256", "ed25519"):
        for cells in (1, 16, 256):
            cost[algorithm, cells], found = throughput(algorithm, cells)
            sample = sample or found
    print()
    for algorithm in ("hmac-sha256", "ed25519"):
        us, size = bare(algorithm, sample)
        print(f"bare {algorithm} of the same {size} bytes: {us:.2f} us; the receiver's event costs "
              + ", ".join(f"{cost[algorithm, cells] / us:.2f} x ({cells})" for cells in (1, 16, 256)))
    os.unlink(sample)
    print("\nfrom a frame's arrival to its evidence on disk, Ed25519, 16 cells (upper bounds of the "
          "histogram's buckets)")
    for rate in (1000, 10000):
        latency(rate)
    print()
    memory(1000)


main()
