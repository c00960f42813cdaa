#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the agent costs and what it catches, beside (a) the polling walk alone and (b) Debian's
auditd with equal rules: binary sizes, memory, wake-ups, CPU an event, what the workload feels, and
how much of a load each reports. Prints tables; never a verdict on time.

The agent is the one of a size-optimised musl build. All ways run in one VM, one after the other,
with the workload on its first CPU. Times of an emulated machine are some ten times those of a real
one: read the ratios. The CPU of a process event is also measured on this machine, by the process
connector, over a Unix socket.

CELLOS_BENCH_MINUTES=60: instead, memory over so many minutes of load."""

import contextlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "vm"), os.path.join(HERE, "..", "integration")]

from runner import Skip  # noqa: E402
from test_agent_binary import MUSL, build  # noqa: E402
from vm import Receiver, Vm, find, test_program  # noqa: E402

SKIP = 77
TURNS = 2
NATIVE_TURNS = 5
LOADS = {"spawn": (250, 3), "connect": (2000, 3), "sendto": (2000, 3), "bind": (2000, 3),
         "raw": (2000, 3), "write": (1000, 3), "getpid": (50000, 3), "open": (5000, 3),
         "read": (20000, 3)}
# Events of the agent in one operation: a spawn is a start, an execution and an end.
EVENTS = {"spawn": 3, "connect": 1, "sendto": 1, "bind": 1, "raw": 1, "write": 1}
RATES = (50, 200, 1000)
RATE_SECONDS = 4
IDLE_SECONDS = 12
AUDITS = ("audit", "auditd")

# The same as the audit source's, and what tells of processes.
RULES = """
-D
-e 1
-b 8192
--backlog_wait_time 0
-a always,exit -F arch=b64 -S connect,sendto,sendmsg,bind,socket
-a always,exit -F arch=b32 -S connect,sendto,sendmsg,bind,socket
-w /tmp/w -p wa
-a always,exit -F arch=b64 -S all -F exit=-EPERM
-a always,exit -F arch=b32 -S all -F exit=-EPERM
-a always,exit -F arch=b64 -S all -F exit=-EACCES
-a always,exit -F arch=b32 -S all -F exit=-EACCES
-a always,exit -F arch=b64 -S fork,vfork,clone,clone3,execve,execveat,exit_group
-a always,exit -F arch=b32 -S fork,vfork,clone,clone3,execve,execveat,exit_group
"""
AUDITD_CONF = """
local_events = yes
write_logs = yes
log_file = /var/log/audit/audit.log
log_group = root
log_format = RAW
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 200
num_logs = 2
max_log_file_action = IGNORE
space_left = 2
space_left_action = IGNORE
admin_space_left = 1
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
"""

START = {
    "none": "pids=",
    "default": "agent --inotify /tmp/w",
    "inotify": "agent --fs inotify --inotify /tmp/w",
    "walk": "agent --process proc-walk --net proc-net --capability off",
    "audit": "agent --net audit --capability audit",
    "auditd": "auditd_start",
}
NAMES = {
    "none": "nothing",
    "default": "the agent, default sources",
    "inotify": "the same, but inotify",
    "walk": "polling walk only",
    "audit": "the agent, audit sources",
    "auditd": "auditd, equal rules",
}

# CPU is in nanoseconds of the processes in $pids: first word of schedstat.
COMMON = """
mkdir /tmp/w
echo > /tmp/w/file
ip link set lo up
# The agent's children that live: its readers of /proc. What they use is the agent's.
readers() {
    for stat in /proc/[0-9]*/stat; do
        read pid comm state ppid rest < $stat 2> /dev/null && [ "$ppid" = "$1" ] &&
            [ $state != Z ] && echo $pid
    done
}
agent() {
    cellos-telemetry "$@" || exit 10
    pids=$(cat /run/cellos-telemetry/agent.pid)
}
auditd_start() {
    auditctl -R /etc/audit/rules > /dev/null || exit 11
    mkdir -p /var/log/audit
    auditd -s nochange || exit 12
    sleep 1
    pids="$(pidof auditd) $(pidof kauditd)"
}
cpu() {
    sum=0
    for p in $pids $(readers ${pids%% *}); do
        read ns rest < /proc/$p/schedstat && sum=$((sum + ns))
    done
    echo $sum
}
print_memory() {
    mode=$1
    shift
    awk -v mode=$mode '/^Rss/ { r = $2 } /^Private/ { p += $2 } END { if (r) print "memory", mode, r, p }' \\
        "$@" 2> /dev/null
}
memory() {
    for p in $pids; do
        print_memory $1 /proc/$p/smaps_rollup
    done
    set -- $1 $(readers ${pids%% *})
    [ -n "$2" ] && print_memory ${1}_reader ${2:+/proc/$2/smaps_rollup} ${3:+/proc/$3/smaps_rollup}
}
stop() {
    [ -n "$pids" ] || return
    set -- $pids
    kill -TERM $1
    while [ -d /proc/$1 ]; do sleep 0.1; done
}
"""


def phase(mode, turn):
    """One way: its loads, and in the first turn its idle time and its rates."""
    script = f"{START[mode]}\nsleep 1\n"
    if turn == 0 and mode != "none":
        script += f"echo idle {mode} $(load idle {IDLE_SECONDS} 1 $pids)\n"
    for name, (n, rounds) in LOADS.items():
        script += f"""
c0=$(cpu)
figure=$(load {name} {n} {rounds}) || exit 20
sleep 1
c1=$(cpu)
echo load {mode} $figure $((c1 - c0)) {n * rounds}
"""
    if turn == 0 and mode != "none":
        for rate in RATES:
            script += f"echo caught {mode} {rate} $(load rate {rate} {RATE_SECONDS})\nsleep 1\n"
        script += f"memory {mode}\n"
    return script + "stop\n"


def whole_script():
    script = COMMON
    for turn in range(TURNS):
        for mode in START:
            if mode not in AUDITS:
                script += phase(mode, turn)
    # What audit leaves in the kernel stays until it is booted again: these are last.
    for mode in filter(START.get, AUDITS):
        script += phase(mode, 0)
    return script + r"""
[ -e /var/log/audit/audit.log ] || exit 0
grep -o 'syscall=59 .* ppid=[0-9]* pid=[0-9]*' /var/log/audit/audit.log |
    sed 's/.* ppid=\([0-9]*\) pid=.*/\1/' | sort | uniq -c | while read n ppid; do
    echo logged $ppid $n
done
auditctl -s | grep lost
"""


class Figures:
    """What the guest printed."""

    def __init__(self, output):
        self.ns, self.cpu, self.idle, self.memory, self.caught, self.logged = {}, {}, {}, {}, [], {}
        for line in output.splitlines():
            match line.split():
                case ["load", mode, name, ns, _, cpu, n]:
                    key = mode, name
                    self.ns[key] = min(self.ns.get(key, 1 << 62), int(ns))
                    self.cpu[key] = min(self.cpu.get(key, 1 << 62), int(cpu) / int(n))
                case ["idle", mode, wakeups, ns]:
                    self.idle[mode] = int(wakeups), int(ns)
                case ["memory", mode, rss, private]:
                    self.memory[mode] = int(rss), int(private)
                case ["caught", mode, rate, "rate", count, pid]:
                    self.caught.append((mode, int(rate), int(count), int(pid)))
                case ["logged", pid, n]:
                    self.logged[int(pid)] = int(n)


def table(head, rows):
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(str(cell).ljust(width) if i == 0 else str(cell).rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths))))
    print(flush=True)


def auditd_programs():
    paths = [shutil.which(name, path="/usr/sbin:/sbin") for name in ("auditd", "auditctl")]
    if not all(paths):
        print("without auditd: install auditd\n")
        del START["auditd"]
        return []
    return [(path, f"/sbin/{os.path.basename(path)}") for path in paths]


def print_load(f):
    head = ["ns an operation", *LOADS]
    table(head, [[NAMES[mode], *(f.ns[mode, name] for name in LOADS)] for mode in START])
    head = ["ratio to nothing", *LOADS]
    table(head, [[NAMES[mode], *(f"{f.ns[mode, name] / f.ns['none', name]:.3f}" for name in LOADS)]
                 for mode in START])


def print_cost(f):
    table(["its own, us an event", *EVENTS],
          [[NAMES[mode], *(f"{f.cpu[mode, name] / 1000 / n:.1f}" for name, n in EVENTS.items())]
           for mode in list(START)[1:]])
    rows = []
    for mode in list(START)[1:]:
        wakeups, ns = f.idle[mode]
        rows.append([NAMES[mode], f"{wakeups / IDLE_SECONDS:.2f}",
                     f"{ns / IDLE_SECONDS / 1e7:.3f}", *f.memory.get(mode, ("?", "?")),
                     *f.memory.get(f"{mode}_reader", ("-", "-"))[1:]])
    table(["its own", "idle wake-ups/s", "idle % of a core", "Rss KiB", "private KiB",
           "its readers' private KiB"], rows)


def print_caught(f, events):
    seen = {}
    for event in find(events, "process.spawned"):
        ppid = event["data"]["detail"].get("ppid")
        seen.setdefault(ppid, set()).add(event["data"]["guestPid"])
    rows = []
    for mode in list(START)[1:]:
        row = [NAMES[mode]]
        for rate in RATES:
            _, _, count, pid = next(c for c in f.caught if c[0] == mode and c[1] == rate)
            got = f.logged.get(pid, 0) if mode == "auditd" else len(seen.get(pid, ()))
            row.append(f"{got} of {count}")
        rows.append(row)
    table(["processes reported", *(f"{rate}/s asked" for rate in RATES)], rows)
    losses = find(events, "telemetry.dropped")
    print("loss receipts of the agent:", len(losses), *(e["data"].get("detail") for e in losses))


class NativeAgent:
    """The agent on this machine, with a source that touches nothing of it, its CPU time, and the
    process events that it sends: also those of whatever else the machine does. Its host reads and
    acknowledges nothing."""

    def __init__(self, agent, source):
        self.top = tempfile.TemporaryDirectory(prefix="cellos-bench-")
        path = os.path.join(self.top.name, "s")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.listener.settimeout(5)
        self.events = 0
        self.process = subprocess.Popen(
            [agent, "--foreground", "--uid", "0", "--keep-sysctls", "--connect", f"unix:{path}", "--net", "off", "--process",
             source, "--capability", "off", "--pid-file", os.path.join(self.top.name, "pid")],
            stderr=subprocess.DEVNULL)

    def __enter__(self):
        connection, _ = self.listener.accept()
        connection.settimeout(None)
        threading.Thread(target=self.count, args=(connection,), daemon=True).start()
        time.sleep(0.5)
        return self

    def count(self, connection):
        with connection.makefile("rb") as frames:
            while head := frames.read(4):
                self.events += b"process." in frames.read(int.from_bytes(head, "little"))

    def ns(self):
        """Of the agent and its readers."""
        pid = self.process.pid
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            pids = [str(pid), *f.read().split()]
        total = 0
        for each in pids:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with open(f"/proc/{each}/schedstat") as f:
                    total += int(f.read().split()[0])
        return total

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.listener.close()
        self.top.cleanup()


def native(agent):
    """A process event on this machine: the agent's CPU, and what the workload feels."""
    sources = ("nothing", "proc-connector", "proc-walk")
    best, cpu = {}, {}
    load, _ = test_program("load")
    count = 1000

    def spawn():
        out = subprocess.run([load, "spawn", str(count), "1"], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
        return int(out.split()[1])

    for _ in range(NATIVE_TURNS):
        for source in sources:
            if source == "nothing":
                best[source] = min(best.get(source, 1 << 62), spawn())
                continue
            try:
                with NativeAgent(agent, source) as a:
                    before, events = a.ns(), a.events
                    ns = spawn()
                    time.sleep(0.3)
                    # The walk sends next to none.
                    used = (a.ns() - before) / max(a.events - events, 3 * count)
            except (TimeoutError, FileNotFoundError):
                continue
            best[source] = min(best.get(source, 1 << 62), ns)
            cpu[source] = min(cpu.get(source, 1 << 62), used)
    table(["on this machine", "ns a fork+exec", "ratio", "us of the agent's CPU a process event"],
          [[source, best[source], f"{best[source] / best['nothing']:.3f}",
            f"{cpu.get(source, 0) / 1000:.1f}"] for source in sources if source in best])


def long_run(agent, minutes):
    script = COMMON + START["default"] + f"""
i=0
memory $i
while [ $i -lt {minutes} ]; do
    t=0
    while [ $t -lt 10 ]; do
        load rate 100 5 > /dev/null
        load connect 500 1 > /dev/null
        t=$((t + 1))
    done
    i=$((i + 1))
    memory "$(cut -d' ' -f1 /proc/uptime)"
done
stop
"""
    with Receiver() as receiver:
        result = Vm(script, receiver=receiver, agent=False, cpus=2,
                    programs=[(agent, "/bin/cellos-telemetry"),
                              test_program("load")]).run(minutes * 240 + 60)
        result.check()
        events = receiver.finish()
    rows = [line.split()[1:] for line in result.output.splitlines() if line.startswith("memory")]
    table(["uptime s", "Rss KiB", "private KiB"], rows)
    print(f"{len(find(events, 'process.spawned'))} processes, "
          f"{len(find(events, 'net.connect_attempted'))} connects, "
          f"{len(find(events, 'telemetry.dropped'))} loss receipts")


def main():
    with tempfile.TemporaryDirectory(prefix="cellos-bench-") as top:
        agent = shutil.copy(build(os.path.join(top, "musl"), MUSL, {}), os.path.join(top, "agent"))
        subprocess.run(["strip", agent], check=True)
        minutes = int(os.environ.get("CELLOS_BENCH_MINUTES", "0"))
        if minutes:
            long_run(agent, minutes)
            return
        glibc = build(os.path.join(top, "glibc"), (), {})
        subprocess.run(["strip", glibc], check=True)
        print(f"machine: {platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, "
              f"Linux {platform.release()}; the VM is emulated and has 2 CPUs\n")
        table(["agent, stripped", "bytes"], [["musl", os.path.getsize(agent)],
                                             ["glibc", os.path.getsize(glibc)]])
        native(agent)
        auditd = auditd_programs()
        with Receiver() as receiver:
            result = Vm(whole_script(), receiver=receiver, agent=False, cpus=2, memory_mib=768,
                        programs=[(agent, "/bin/cellos-telemetry"), test_program("load"),
                                  *auditd],
                        files={"/etc/audit/rules": RULES, "/etc/audit/auditd.conf": AUDITD_CONF,
                               "/etc/libaudit.conf": "failure_action = ignore\n"}).run(900)
            if os.environ.get("CELLOS_BENCH_RAW"):
                print(result.output)
            result.check()
            events = receiver.finish()
        f = Figures(result.output)
        print_load(f)
        print_cost(f)
        print_caught(f, events)
        lost = re.search(r"^lost (\d+)", result.output, re.M)
        print("records that audit lost, all in all:", lost.group(1) if lost else "?")


if __name__ == "__main__":
    try:
        main()
    except Skip as e:
        print(e)
        sys.exit(SKIP)
