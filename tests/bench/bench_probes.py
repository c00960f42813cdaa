# SPDX-License-Identifier: MIT
"""What the host probes cost: CPU and wall of a tick for many cells with each probe, and of the
daemon with all four. Makes TAPs and nftables in namespaces of its own, control groups in a folder
of its own, metrics with a writer that behaves as the VMM does.

    bench_probes.py [CELLS]"""

import glob
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.environ["CELLOS_INTEGRATION"])

import netns  # noqa: E402
from daemon import Daemon  # noqa: E402
from vmm import Vmm  # noqa: E402

CELLS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
RULES = 4
TICKS = 5
INTERVAL = 5000


def make_taps():
    script = "".join(f"tuntap add b{i} mode tap\nlink set b{i} up\n" for i in range(CELLS))
    subprocess.run(["ip", "-batch", "-"], input=script, text=True, check=True,
                   stdout=subprocess.DEVNULL)


def make_tables():
    script = "".join(
        f"table inet cell{i} {{\nchain c {{\ntype filter hook forward priority 0\n" +
        "".join(f"iifname \"b{i}\" ip saddr 10.{i // 250}.{i % 250}.{n} counter accept\n"
                for n in range(RULES)) + "}\n}\n" for i in range(CELLS))
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def run_ticks(kind, pattern, write=None):
    command = [os.environ["CELLOS_BENCH_PROBES"], kind, str(CELLS), str(TICKS), pattern]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        for line in process.stdout:
            if line.startswith("done"):
                wall, cpu, size = map(float, line.split()[1:])
                print(f"{kind:<12} {wall:>10.1f} {cpu:>10.1f} {cpu * 1000 / CELLS:>14.1f} "
                      f"{size:>12.0f}", flush=True)
                return cpu
            if write:
                write()
            process.stdin.write("\n")
            process.stdin.flush()
    sys.exit(f"{kind}: failed")


def cpu_ms(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def run_daemon(options, vmms):
    """CPU of a tick of the daemon, signing with Ed25519, its log synced by batch."""
    with Daemon() as d:
        empty = rss_kib(d.process.pid)
        for i in range(CELLS):
            request = {"verb": "add", "options": {
                "cell-id": f"c{i}", "run-id": "r", "spec-hash": "sha256:" + "5" * 64,
                "uds": d.file(f"c{i}"), "keepalive": "0", "connect-within": "0",
                "probe-interval": str(INTERVAL), **options(i)}}
            answer = d.ask(request)
            assert answer["ok"], answer
        time.sleep(INTERVAL / 1000 + 2)
        lines = len(d.lines())
        before, begin = cpu_ms(d.process.pid), time.monotonic()
        for _ in range(4):
            for vmm in vmms:
                vmm.flush()
            time.sleep(INTERVAL / 1000)
        ticks = (time.monotonic() - begin) * 1000 / INTERVAL
        cpu = (cpu_ms(d.process.pid) - before) / ticks
        return cpu, (len(d.lines()) - lines) / ticks, (rss_kib(d.process.pid) - empty) / CELLS


def main():
    netns.enter()
    make_taps()
    make_tables()
    with tempfile.TemporaryDirectory(prefix="cellos-bench-") as tmp:
        # The mount of our own /sys hides it; this is the same tree. Not in tmp, which is emptied.
        tree = "/mnt"
        leaf = f"{tree}/cellos-bench-{os.getpid()}"
        subprocess.run(["mount", "-t", "cgroup2", "none", tree], check=True)
        os.mkdir(leaf)
        try:
            print(f"{CELLS} cells, {RULES} rules each; milliseconds a tick; control groups with: "
                  + " ".join(sorted(os.path.basename(path) for path in
                                    glob.glob(f"{leaf}/*.events") + glob.glob(f"{leaf}/*.stat"))))
            print(f"{'probe':<12} {'wall':>10} {'CPU':>10} {'CPU us a cell':>14} "
                  f"{'output bytes':>12}")
            for i in range(CELLS):
                os.mkdir(f"{leaf}/c{i}")
                os.mkfifo(f"{tmp}/m{i}")
            vmms = [Vmm(f"{tmp}/m{i}") for i in range(CELLS)]

            def write():
                for vmm in vmms:
                    vmm.flush()

            run_ticks("cgroup", f"{leaf}/c%u")
            run_ticks("tap_link", "b%u")
            run_ticks("nftables", "inet/cell%u")
            run_ticks("fc_metrics", f"{tmp}/m%u", write)

            def options(i):
                return {"cgroup": f"{leaf}/c{i}", "tap": f"b{i}", "nft-table": f"inet/cell{i}",
                        "fc-metrics": f"{tmp}/m{i}"}

            cpu, events, kib = run_daemon(options, vmms)
            print(f"\nthe daemon, all four every {INTERVAL} ms: {cpu:.0f} ms CPU a tick "
                  f"({cpu / INTERVAL * 100:.1f} % of a processor), {events:.0f} signed events a tick, "
                  f"{cpu * 1000 / max(events, 1):.0f} us an event, {kib:.1f} KiB a cell")
            for vmm in vmms:
                vmm.close()
        finally:
            for path in glob.glob(leaf + "/c[0-9]*"):
                os.rmdir(path)
            os.rmdir(leaf)
            subprocess.run(["umount", tree], check=True)


main()
