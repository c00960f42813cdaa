# SPDX-License-Identifier: MIT
"""How long a turn of the agent's loop takes under attack, whichever sources it has: at most 50 ms,
and no heartbeat is late by a period. The guest's clock counts instructions, so that this says
something on a busy machine, too. A turn includes the time in which the attackers have the only
processor."""

import os
import re

from runner import case, main, need, once
from vm import Receiver, Vm, find, split_runs, test_program

HEARTBEAT_MS = 500
TURN_US = 50000
MANY = 2200
# Whose end the kernel takes longer to free than a turn may last: the polling walk asks for the stat
# of every process, and would free it in its own time (guest-agent/probes/proc_facts.h).
STARVE_MIB = 256

# Each source is in one of these.
SOURCES = {
    "default": "--inotify /tmp/w --inotify /tmp/many",
    "polling": "--process proc-walk --net proc-net --fs inotify --inotify /tmp/w "
               "--inotify /tmp/many",
    "audit": "--process off --net audit --capability audit",
}
# Without the listener the filter refuses by itself; audit sees that it did.
LAUNCH = {"audit": "--no-listener --init"}

SCRIPT = f"""
mkdir /tmp/w /tmp/much
echo 1 > /tmp/w/file
echo 1 > /proc/sys/vm/unprivileged_userfaultfd
files many /tmp/much {MANY} > /tmp/null || exit 9
""" + "".join(f"""
cellos-telemetry --heartbeat {HEARTBEAT_MS} {options} 2> /tmp/log || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say freeze_{name} $(cellos-workload-exec {LAUNCH.get(name, "--init")} --allow userfaultfd -- \
    hostile freeze 1 2> /tmp/errors)
vm say starve_{name} $(cellos-workload-exec {LAUNCH.get(name, "--init")} -- hostile starve 1 {STARVE_MIB})
vm say flood_{name} $(cellos-workload-exec {LAUNCH.get(name, "--init")} -- hostile flood 1)
# A folder with more files than there are marks takes the place of a watched path, and goes.
mv /tmp/much /tmp/many
sleep 0.3
mv /tmp/many /tmp/much
sleep 0.3
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
vm put /tmp/log log_{name}
""" for name, options in SOURCES.items())


@once
def ran():
    """The result of the VM's one run, and its events."""
    with Receiver("--keepalive", "0", "--rate", "1000000") as receiver:
        result = Vm(SCRIPT, receiver=receiver, memory_mib=512, counted_time=True,
                    programs=[test_program("hostile"), test_program("files")]).run().check()
        return result, split_runs(receiver.finish())


def no_turn_is_long():
    result, _ = ran()
    for name in SOURCES:
        with case(name):
            log = result.files[f"log_{name}"].decode()
            turn, cpu, late = (int(re.search(rf" {word}=(\d+)", log)[1]) for word in
                               ("longest_turn_us", "longest_turn_cpu_us", "heartbeat_late_us"))
            where = re.search(r" longest_turn_in=([\w-]+)", log)[1]
            print(f"{name}: longest turn {turn / 1000:.1f} ms, of which it computed "
                  f"{cpu / 1000:.1f} ms, in {where}; latest heartbeat by {late / 1000:.1f} ms",
                  flush=True)
            assert turn <= TURN_US, log
            assert late <= HEARTBEAT_MS * 1000, log


def the_attacks_ran():
    result, runs = ran()
    for run, name in enumerate(SOURCES):
        with case(name):
            assert result.mark(f"freeze_{name}") == "free", result.output
            assert int(result.mark(f"starve_{name}")) > 8
            assert int(result.mark(f"flood_{name}")) > 8
            assert len(find(runs[run], "telemetry.bye")) == 1
            assert find(runs[run], "net.connect_attempted") or name == "polling"
            if name != "audit":
                assert find(runs[run], "fs.changed" if name == "default" else "fs.inotify_fired")


if __name__ == "__main__":
    need(os.environ.get("CELLOS_LONG") == "1",
         "figures of the loop, and minutes long: tools/soak --tests, or CELLOS_LONG=1")
    main()
