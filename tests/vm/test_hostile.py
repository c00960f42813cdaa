# SPDX-License-Identifier: MIT
"""Root workloads under the profile that make the agent wait, exhaust what it shares with them, or
start it again: it neither waits nor loses anything silently, and no workload runs unreported."""

import unittest

from vm import Receiver, Vm, find, main, test_program, wait_for

HEARTBEAT_MS = 500
# Twenty heartbeats.
SILENCE_MS = 10000

SCRIPT = f"""
cellos-telemetry --heartbeat {HEARTBEAT_MS} || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say agent $agent

# The device is masked even where the call is allowed.
cellos-workload-exec -- sh -c 'exec 3<> /dev/userfaultfd && ls -l /proc/self/fd/3' > /tmp/device
vm say device $(cat /tmp/device)
cellos-workload-exec -- hostile freeze 1 > /tmp/denied 2>&1
vm say denied $? $(cat /tmp/denied)
echo 1 > /proc/sys/vm/unprivileged_userfaultfd
cellos-workload-exec --allow userfaultfd -- hostile freeze 5 > /tmp/freeze 2> /tmp/errors
vm say freeze $? $(cat /tmp/freeze)
vm put /tmp/errors

cellos-workload-exec --init -- hostile starve 8 > /tmp/starve || exit 12
vm say starve $(cat /tmp/starve)

# Meanwhile another workload and other sources.
cellos-workload-exec --init -- hostile flood 4 > /tmp/flood &
flood=$!
sleep 1
cellos-workload-exec --init -- sh -c 'reboot -f; true' 2> /dev/null
spawn 20 /bin/true > /tmp/null &
vm say spawn $!
wait $!
wait $flood || exit 13
vm say flood $(cat /tmp/flood)

# A table with a little room. This shell's capabilities go past its limit.
mkfifo /tmp/hold
used=$(cut -f 1 /proc/sys/fs/file-nr)
old=$(cat /proc/sys/fs/file-max)
echo $((used + 300)) > /proc/sys/fs/file-max
cellos-workload-exec --init -- hostile files < /tmp/hold > /tmp/files &
files=$!
exec 3> /tmp/hold
until grep -q full /tmp/files; do sleep 0.1; done
cellos-workload-exec --ready-timeout 2000 -- touch /tmp/unreported 2> /tmp/closed
vm say closed $? $(cat /tmp/closed)
[ -e /tmp/unreported ] && vm say unreported
sleep 1
exec 3>&-
wait $files
vm say files $(cat /tmp/files)
echo $old > /proc/sys/fs/file-max
cellos-workload-exec -- touch /tmp/reported || exit 15
[ -e /tmp/reported ] || exit 16

# A second agent, while a workload of the first still knows the first one's pid.
cellos-workload-exec --share-pidns -- sleep 3600 &
shared=$!
until grep -q '^Seccomp:.2' /proc/$shared/status; do sleep 0.1; done
cellos-workload-exec --init -- sleep 3600 &
own=$!
sleep 1
kill -KILL $agent
cellos-telemetry --heartbeat {HEARTBEAT_MS} || exit 17
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say second
vm await stale 300
kill $shared
wait $shared
vm await none 300
cellos-workload-exec -- true || exit 18
vm await served 300
kill $own
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
"""


def split_runs(events):
    runs = []
    for event in events:
        if event["type"].endswith("agent_connected"):
            runs.append([])
        if runs:
            runs[-1].append(event)
    return runs


def second_agents_vias(events):
    runs = split_runs(events)
    return [e["data"]["detail"]["capabilityVia"]
            for e in find(runs[1] if len(runs) > 1 else [], "telemetry.hello")]


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Receiver("--keepalive", str(SILENCE_MS), signed=True) as receiver:
            with Vm(SCRIPT, receiver=receiver, cpus=2, memory_mib=512, programs=[
                    test_program("hostile"), test_program("spawn")]) as vm:
                vm.wait_mark("second", 300)
                for mark, via in (("stale", "seccomp-notify-stale"), ("none", "none"),
                                  ("served", "seccomp-notify")):
                    wait_for(f"the second agent says {via}", lambda via=via:
                             via in second_agents_vias(receiver.events()), 300)
                    vm.tell(mark)
                cls.result = vm.wait(300).check()
            cls.events = receiver.finish()
            cls.verdict = receiver.verify()
        cls.runs = split_runs(cls.events)

    def denied(self, call, run=0):
        """How often the call was reported."""
        return sum(e["data"]["detail"].get("repeat", 1)
                   for e in find(self.runs[run], "capability.denied", syscall=call))

    def lost(self, family):
        return sum(e["data"]["detail"].get(family, 0)
                   for e in find(self.events, "telemetry.dropped"))

    def test_it_is_never_silent(self):
        self.assertEqual(find(self.events, "guest.v1.agent_silenced", reason="no_frames"), [])
        self.assertEqual(self.verdict.returncode, 0, self.verdict.stdout)

    def test_nothing_of_it_waits_for_a_page(self):
        # The null device, 1, 3.
        self.assertIn("/dev/userfaultfd", self.result.mark("device"))
        self.assertTrue(self.result.mark("denied").startswith("2 userfaultfd: Operation not"),
                        self.result.mark("denied"))
        self.assertEqual(self.result.mark("freeze"), "0 free",
                         self.result.files["/tmp/errors"].decode())

    def test_nothing_of_it_waits_for_a_lock(self):
        calls = int(self.result.mark("starve"))
        print(f"refused calls answered under mmap_lock: {calls} in 8 s", flush=True)
        self.assertGreater(calls, 8)

    def test_a_flood_hides_nobody(self):
        calls = int(self.result.mark("flood")) + int(self.result.mark("starve"))
        print(f"refused calls of the flood: {self.result.mark('flood')} in 4 s; "
              f"reported {self.denied('chroot')}, lost {self.lost('capability')}", flush=True)
        self.assertGreaterEqual(self.denied("chroot") + self.lost("capability"), calls)
        self.assertGreaterEqual(self.denied("reboot") + self.lost("capability"), 1)
        born = find(self.runs[0], "process.spawned", ppid=int(self.result.mark("spawn")))
        self.assertGreaterEqual(len(born) + self.lost("process"), 20)

    def test_a_full_file_table_hides_nothing(self):
        # EPERM by the profile, EPERM by the kernel.
        self.assertEqual(self.result.mark("files"), "full 1 1")
        watched = find(self.runs[0], "capability.denied", syscall="sethostname", via="seccomp-notify")
        self.assertTrue(watched or self.lost("capability") > 0)

    def test_a_full_file_table_lets_no_workload_run_unreported(self):
        code, _, words = self.result.mark("closed").partition(" ")
        self.assertEqual(code, "125", words)
        self.assertIn("COMMAND was not run", words)
        self.assertNotIn("unreported", self.result.marks)

    def test_a_second_agent_says_who_knows_the_first(self):
        self.assertEqual(second_agents_vias(self.events)[:3],
                         ["seccomp-notify-stale", "none", "seccomp-notify"])


if __name__ == "__main__":
    main()
