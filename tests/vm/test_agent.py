# SPDX-License-Identifier: MIT
"""What happens in a real guest is evidence on the host, signed and complete; how the agent ends
is seen there too. The agent dials AF_VSOCK as it does in production."""

import unittest

from vm import Receiver, Vm, find, main, test_program

WINDOW_MS = 2000

WORKLOAD = """
mkdir /tmp/one /tmp/two
cellos-telemetry --heartbeat 500 --fs inotify --inotify /tmp/one --inotify /tmp/two || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say agent $agent $(uname -r) $(cat /proc/sys/kernel/random/boot_id)

# Processes that live long enough for a source that polls.
spawn 1 /bin/sleep 1 > /tmp/null & spawn=$!
vm say spawn $spawn $$
wait $spawn
echo hello > /tmp/one/new
mv /tmp/one/new /tmp/two/moved
chmod 600 /tmp/two/moved
rm /tmp/two/moved
vm idle $agent

# Somebody else dials the agent's port while the agent is connected.
printf '\\1\\0\\0\\0\\240' | vsock-cat 9001
vm await contested

vm put /proc/$agent/status status
vm put /proc/$agent/smaps_rollup smaps
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
vm say bye
# Longer than the keep-alive window: a goodbye has an event of its own.
vm await quiet

cellos-telemetry --heartbeat 500 || exit 11
vm idle $(cat /run/cellos-telemetry/agent.pid)
kill -KILL $(cat /run/cellos-telemetry/agent.pid)
vm say killed
vm await silenced
"""


class Agent(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Receiver("--keepalive", str(WINDOW_MS), signed=True) as receiver:
            cls.boot(receiver)

    @classmethod
    def boot(cls, receiver):
        with Vm(WORKLOAD, receiver=receiver, programs=[test_program("spawn")]) as vm:
            receiver.wait_event("guest.v1.channel_contested")
            vm.tell("contested")
            vm.wait_mark("bye")
            # A goodbye ends the expectation of frames, not of evidence.
            receiver.wait_event("guest.v1.agent_silenced", reason="after_bye")
            cls.after_bye = receiver.events()
            vm.tell("quiet")
            vm.wait_mark("killed")
            cls.silenced = receiver.wait_event("guest.v1.agent_silenced", connected=False,
                                               reason="no_frames")
            vm.tell("silenced")
            cls.result = vm.wait().check()
        cls.events = receiver.finish()
        cls.verdict = receiver.verify()

    def mark(self, name):
        return self.result.mark(name).split()

    def only(self, kind, **data):
        found = find(self.events, kind, **data)
        self.assertEqual(len(found), 1, f"{kind} {data}: {found}")
        return found[0]["data"]

    def test_hello_comes_first_and_names_the_guest(self):
        agent, release, boot_id = self.mark("agent")
        kinds = [e["type"].rsplit(".", 1)[-1] for e in self.events[:3]]
        self.assertEqual(kinds, ["opened", "agent_connected", "telemetry_hello"])
        hello = self.events[2]["data"]
        self.assertEqual(hello["guestPid"], int(agent))
        self.assertEqual(hello["guestComm"], "cellos-telemetr")
        self.assertEqual(hello["detail"]["kernel"], release)
        self.assertEqual(hello["detail"]["bootId"], boot_id)
        self.assertEqual(hello["detail"]["arch"], "x86_64")
        self.assertEqual(hello["detail"]["heartbeatMs"], 500)
        self.assertEqual(hello["detail"]["fsVia"], "inotify")
        self.assertNotEqual(hello["detail"]["processVia"], "none")

    def test_processes_have_their_pids_and_comms(self):
        spawn, shell = map(int, self.mark("spawn"))
        spawned = self.only("process.spawned", guestPid=spawn)
        self.assertEqual(spawned["detail"]["ppid"], shell)
        executed = self.only("process.executed", guestPid=spawn)
        self.assertEqual((executed["guestComm"], executed["detail"]["exe"]),
                         ("spawn", "/bin/spawn"))

        # Its child, which only the evidence knows the pid of.
        child = self.only("process.spawned", ppid=spawn)
        pid = child["guestPid"]
        executed = self.only("process.executed", guestPid=pid)
        self.assertEqual((executed["guestComm"], executed["detail"]["exe"]),
                         ("sleep", "/bin/busybox"))
        exited = self.only("process.exited", guestPid=pid)
        self.assertEqual((exited["guestComm"], exited["detail"]["ppid"]), ("sleep", spawn))
        lived = exited["guestMonotonicNs"] - child["guestMonotonicNs"]
        self.assertGreaterEqual(lived, 900_000_000)
        self.assertEqual(self.only("process.exited", guestPid=spawn)["guestComm"], "spawn")

    def test_the_agent_does_not_report_itself(self):
        agent = int(self.mark("agent")[0])
        found = [e for e in self.events if e["data"].get("guestPid") == agent and
                 not e["data"]["probeSource"].startswith("telemetry.")]
        self.assertEqual(found, [])

    def test_inotify_on_two_paths(self):
        seen = [(e["data"]["detail"]["path"], e["data"]["detail"].get("name"), part)
                for e in find(self.events, "fs.inotify_fired")
                for part in e["data"]["detail"]["event"].split(",")]
        expected = [
            ("/tmp/one", "new", "create"), ("/tmp/one", "new", "modify"),
            ("/tmp/one", "new", "moved_from"), ("/tmp/two", "moved", "moved_to"),
            ("/tmp/two", "moved", "attrib"), ("/tmp/two", "moved", "delete"),
        ]
        self.assertEqual([e for e in seen if e in expected], expected)

    def test_orderly_end_is_not_silence(self):
        bye = find(self.after_bye, "telemetry.bye")
        self.assertEqual(len(bye), 1)
        # A machine that stands still for seconds makes its guest silent, but only for so long.
        silenced = find(self.after_bye, "guest.v1.agent_silenced")
        self.assertEqual([e for e in silenced if e["data"]["sequence"] >
                          bye[0]["data"]["sequence"] and e["data"]["reason"] != "after_bye"], [])
        ended = find(self.after_bye, "guest.v1.agent_disconnected")[0]
        self.assertEqual(ended["data"]["reason"], "eof")
        self.assertGreater(ended["data"]["sequence"], bye[0]["data"]["sequence"])
        detail = bye[0]["data"]["detail"]
        self.assertEqual((detail["dropped"], detail["observed"]), (0, detail["sent"]))
        self.assertEqual(find(self.after_bye, "guest.v1.telemetry_gap"), [])

    def test_killed_agent_is_silence_within_the_window(self):
        silenced = self.only("guest.v1.agent_silenced", connected=False, reason="no_frames")
        self.assertEqual(silenced["windowMs"], WINDOW_MS)
        self.assertEqual(silenced["reason"], "no_frames")
        # Heartbeats are no events: the last frame is at most one of them after the last event.
        last = [e["data"]["hostMonotonicNs"] for e in self.events
                if e["data"]["sequence"] < silenced["sequence"] and
                e["data"]["authority"] == "declared"][-1]
        waited = (silenced["hostMonotonicNs"] - last) / 1e6
        self.assertGreaterEqual(waited, WINDOW_MS)
        self.assertGreaterEqual(silenced["lastFrameAgeMs"], WINDOW_MS)
        disconnected = find(self.events, "guest.v1.agent_disconnected", connection=2)
        self.assertEqual(len(disconnected), 1)

    def test_evidence_verifies(self):
        self.assertEqual(self.verdict.returncode, 0, self.verdict.stdout + self.verdict.stderr)
        sequence = [e["data"]["sequence"] for e in self.events]
        self.assertEqual(sequence, list(range(1, len(sequence) + 1)))
        self.assertTrue(self.events[-1]["type"].endswith("stream.v1.sealed"))

    def test_an_impostor_is_turned_away(self):
        contested = self.only("guest.v1.channel_contested")
        self.assertEqual(contested["reason"], "second_connection")
        self.assertEqual(find(self.events, "guest.v1.channel_violation"), [])
        # The first is the agent's, to its goodbye; the second is the next agent's.
        connections = [e["data"]["connection"] for e in find(self.events, "telemetry.bye")]
        self.assertEqual(connections, [1])
        self.assertEqual(len(find(self.events, "guest.v1.agent_connected")), 2)

    def test_memory(self):
        def kib(file, *names):
            lines = self.result.files[file].decode().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in names)

        private = kib("smaps", "Private_Clean", "Private_Dirty")
        print(f"agent in the VM: VmRSS {kib('status', 'VmRSS')} KiB, resident by its mappings "
              f"{kib('smaps', 'Rss')} KiB, private {private} KiB", flush=True)
        self.assertGreater(private, 0)
        self.assertLessEqual(private, 1024)


if __name__ == "__main__":
    main()
