# SPDX-License-Identifier: MIT
"""A host that does not read, and a guest that does more than fits: the workload goes on, and what
was lost is counted to the last event."""

import signal
import unittest

from vm import Receiver, Vm, find, main, test_program

COUNT = 3000

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


class Loss(unittest.TestCase):
    def test_loss_is_counted(self):
        with Receiver("--keepalive", "0", "--rate", "1000000") as receiver:
            with Vm(SCRIPT, receiver=receiver, programs=[test_program("spawn")]) as vm:
                vm.wait_mark("ready")
                receiver.process.send_signal(signal.SIGSTOP)
                vm.tell("stopped")
                # The workload is not stopped with the host.
                count, milliseconds = vm.wait_mark("spawned").split()
                receiver.process.send_signal(signal.SIGCONT)
                vm.tell("going")
                vm.wait().check()
            events = receiver.finish()
        print(f"{count} processes in {milliseconds} ms against a stopped receiver", flush=True)

        sequence = [e["data"]["seq"] for e in events if "seq" in e["data"]]
        self.assertEqual(sequence, sorted(set(sequence)))
        bye = find(events, "telemetry.bye")[-1]["data"]["detail"]
        missing = bye["nextSeq"] - 1 - len(sequence)
        self.assertGreater(missing, 0, "the queue never overflowed: nothing was tested")
        self.assertEqual(bye["dropped"], missing)
        self.assertEqual(bye["observed"], bye["sent"] + bye["dropped"])

        # Observations and receipts are numbered.
        receipts = [e["data"]["detail"] for e in find(events, "telemetry.dropped")]
        self.assertEqual(bye["observed"] + len(receipts), bye["nextSeq"] - 1)
        self.assertEqual(sum(r["process"] for r in receipts),
                         sum(r["queueFull"] + r["kernelOverrun"] for r in receipts))
        self.assertEqual(sum(r["queueFull"] + r["tooLarge"] + r["channel"] for r in receipts),
                         missing)
        gaps = [e["data"] for e in find(events, "guest.v1.telemetry_gap")]
        self.assertEqual(sum(g["lastMissing"] - g["firstMissing"] + 1 for g in gaps), missing)

        # Each process is three events: seen, dropped, or lost before the agent.
        lost = sum(r["kernelOverrun"] for r in receipts)
        self.assertGreaterEqual(bye["observed"] + lost, 3 * COUNT)


if __name__ == "__main__":
    main()
