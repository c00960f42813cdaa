# SPDX-License-Identifier: MIT
"""The agent as a user of its own: what root uses up is not the agent's; and every way in which a
start is refused."""

import json
import unittest

from vm import Receiver, Vm, find, main, test_program

AGENT_UID = 64042
NET_ADMIN, SYS_PTRACE, DAC_READ_SEARCH = 12, 19, 2

EXHAUST = """
sysctl -q -w fs.inotify.max_user_instances=64 fs.inotify.max_user_watches=1000
cellos-telemetry --heartbeat 300 --keep-sysctls --fs inotify --inotify /tmp/later || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
mkfifo /tmp/hold
exhaust epoll < /tmp/hold > /tmp/epoll &
epoll=$!
exhaust inotify < /tmp/hold > /tmp/inotify &
inotify=$!
exec 3> /tmp/hold
until grep -q held /tmp/epoll && grep -q held /tmp/inotify; do
    [ -d /proc/$epoll ] && [ -d /proc/$inotify ] || exit 11
    sleep 0.1
done
vm say held $(cat /tmp/epoll /tmp/inotify)
vm await dead
mkdir /tmp/later
vm say away
vm await back
# The agent looks for the folder every --poll ms, and dials again in its own time.
{ vm await seen; : > /tmp/seen; } &
until [ -e /tmp/seen ]; do
    touch /tmp/later/after
    sleep 0.2
done
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
"""

START = """
cellos-telemetry --heartbeat 300 || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
cat /proc/$agent/status > /tmp/status
vm put /tmp/status
vm say folder $(stat -c %u:%a /run/cellos-telemetry) $(stat -c %u /run/cellos-telemetry/listener.sock)
vm say filemax $(cat /proc/sys/fs/file-max)

cellos-telemetry 2> /tmp/second; vm say second $? $(cat /tmp/second)
[ $(cat /run/cellos-telemetry/agent.pid) = $agent ] || exit 11
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
vm say left $(ls -A /run/cellos-telemetry)

cellos-telemetry --require net=cgroup-bpf,fs=inotify 2> /tmp/required
vm say required $? $(cat /tmp/required)
cellos-telemetry --require net=cgroup-bpf,process=proc-connector --inotify /nowhere 2> /tmp/met
vm say met $? $(cat /tmp/met)
agent=$(cat /run/cellos-telemetry/agent.pid)
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done

cellos-telemetry --probe --json --require process=proc-connector > /tmp/probe.json; vm say probe $?
vm put /tmp/probe.json
cellos-telemetry --probe --require net=audit > /tmp/probe.txt; vm say unmet $?
vm put /tmp/probe.txt
unshare -m sh -c 'mount -t tmpfs none /proc; exec cellos-telemetry' 2> /tmp/noproc
vm say noproc $? $(cat /tmp/noproc)
exit 0
"""


class Exhausted(unittest.TestCase):
    def test_what_root_uses_up_is_not_the_agents(self):
        with Receiver("--keepalive", "0") as receiver:
            with Vm(EXHAUST, receiver=receiver, programs=[test_program("exhaust")]) as vm:
                held = vm.wait_mark("held", 180)
                print(f"epoll watches, inotify watches: {held}", flush=True)
                self.assertEqual(receiver.stop(), 0)
                vm.tell("dead")
                vm.wait_mark("away", 60)
                receiver.start()
                vm.tell("back")
                receiver.wait_event("fs.inotify_fired", 180, name="after")
                vm.tell("seen")
                vm.wait().check()
            events = receiver.finish()
        self.assertGreaterEqual(len(find(events, "telemetry.hello")), 2)
        bye = find(events, "telemetry.bye")[-1]["data"]["detail"]
        self.assertEqual(bye["dropped"], 0)


class Start(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Receiver("--keepalive", "0") as receiver:
            cls.result = Vm(START, receiver=receiver).run(300).check()
            cls.events = receiver.finish()

    def code(self, mark):
        code, _, words = self.result.mark(mark).partition(" ")
        return int(code), words

    def test_a_user_of_its_own(self):
        status = dict(line.split(":\t", 1)
                      for line in self.result.files["/tmp/status"].decode().splitlines()
                      if ":\t" in line)
        self.assertEqual(status["Uid"].split(), [str(AGENT_UID)] * 4)
        self.assertEqual(status["Gid"].split(), [str(AGENT_UID)] * 4)
        self.assertEqual(status["Groups"].strip(), "")
        kept = 1 << NET_ADMIN | 1 << SYS_PTRACE | 1 << DAC_READ_SEARCH
        for name in ("CapEff", "CapPrm", "CapBnd"):
            self.assertEqual(int(status[name], 16), kept, name)
        self.assertEqual(int(status["CapInh"], 16) | int(status["CapAmb"], 16), 0)
        self.assertEqual(status["Seccomp"].strip(), "2")
        self.assertEqual(self.result.mark("folder"), f"{AGENT_UID}:755 {AGENT_UID}")
        self.assertGreaterEqual(int(self.result.mark("filemax")), 1048576)

    def test_its_sources_work(self):
        hello = find(self.events, "telemetry.hello")[0]["data"]["detail"]
        self.assertEqual((hello["processVia"], hello["netVia"]), ("proc-connector", "cgroup-bpf"))
        beats = find(self.events, "process.executed")
        self.assertTrue([e for e in beats if e["data"]["detail"].get("exe")], beats[:3])

    def test_a_second_start_is_refused(self):
        code, words = self.code("second")
        self.assertEqual(code, 5, words)
        self.assertIn("an agent runs already", words)

    def test_nothing_is_left(self):
        self.assertEqual(self.result.mark("left"), "")

    def test_what_is_required(self):
        code, words = self.code("required")
        self.assertEqual(code, 3, words)
        self.assertIn("required=fs=inotify", words)
        self.assertIn("CONFIG_INOTIFY_USER", words)
        code, words = self.code("met")
        self.assertEqual(code, 0, words)
        self.assertIn("/nowhere", words)

    def test_the_probe(self):
        self.assertEqual(self.result.mark("probe"), "0")
        report = json.loads(self.result.files["/tmp/probe.json"])
        self.assertTrue(report["requirementsHold"])
        self.assertEqual(report["vsock"]["host"], "not tried")
        taken = {s["family"]: s["source"] for s in report["sources"] if s["taken"]}
        self.assertEqual((taken["process"], taken["net"], taken["capability"]),
                         ("proc-connector", "cgroup-bpf", "seccomp-notify"))
        for source in report["sources"]:
            if not source["available"]:
                self.assertTrue(source["needs"] and source["why"], source)
        self.assertEqual(self.result.mark("unmet"), "3")
        self.assertIn("required:  net=audit", self.result.files["/tmp/probe.txt"].decode())

    def test_without_proc(self):
        code, words = self.code("noproc")
        self.assertEqual(code, 3, words)
        self.assertIn("/proc", words)


if __name__ == "__main__":
    main()
