# SPDX-License-Identifier: MIT
"""A host that does not read, and a guest that does more than fits: the workload goes on, and what
was lost is counted to the last event."""

import signal

from runner import main, stand_still
from vm import Receiver, Vm, find, test_program

COUNT = 1500

SCRIPT = f"""
cellos-telemetry --queue 256 --heartbeat 500 || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say ready
vm await stopped
spawn {COUNT} /bin/true > /tmp/spawn || exit 11
vm say spawned $(cat /tmp/spawn)
vm await going
vm idle $agent
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
"""


def loss_is_counted():
    with Receiver("--keepalive", "0", "--rate", "1000000") as receiver:
        with Vm(SCRIPT, receiver=receiver, programs=[test_program("spawn")]) as vm:
            vm.wait_mark("ready")
            stand_still(receiver.process.pid)
            vm.tell("stopped")
            # The workload is not stopped with the host.
            count, milliseconds = vm.wait_mark("spawned").split()
            receiver.process.send_signal(signal.SIGCONT)
            vm.tell("going")
            vm.wait().check()
        events = receiver.finish()
    print(f"{count} processes in {milliseconds} ms against a stopped receiver", flush=True)

    sequence = [e["data"]["seq"] for e in events if "seq" in e["data"]]
    assert sequence == sorted(set(sequence))
    bye = find(events, "telemetry.bye")[-1]["data"]["detail"]
    missing = bye["nextSeq"] - 1 - len(sequence)
    assert missing > 0, "the queue never overflowed: nothing was tested"
    assert bye["dropped"] == missing
    assert bye["observed"] == bye["sent"] + bye["dropped"]

    # Observations and receipts are numbered.
    receipts = [e["data"]["detail"] for e in find(events, "telemetry.dropped")]
    assert bye["observed"] + len(receipts) == bye["nextSeq"] - 1
    assert sum(r["process"] for r in receipts) \
        == sum(r["queueFull"] + r["kernelOverrun"] for r in receipts)
    assert sum(r["queueFull"] + r["tooLarge"] + r["channel"] for r in receipts) == missing
    gaps = [e["data"] for e in find(events, "guest.v1.telemetry_gap")]
    assert sum(g["lastMissing"] - g["firstMissing"] + 1 for g in gaps) == missing

    # Each process is three events: seen, dropped, or lost before the agent.
    lost = sum(r["kernelOverrun"] for r in receipts)
    assert bye["observed"] + lost >= 3 * COUNT


if __name__ == "__main__":
    main()
