# SPDX-License-Identifier: MIT
"""The capability sources on a real kernel: what a process that gave up root is refused, reported by
notification and by audit; a listener that comes late; an agent that is stopped or killed while
callers wait for it."""

import errno
import unittest

from vm import Receiver, Vm, find, main, split_runs, test_program

CAPABILITIES = {
    "mount": "CAP_SYS_ADMIN",
    "mknodat": "CAP_MKNOD",
    "chroot": "CAP_SYS_CHROOT",
    "socket": "CAP_NET_RAW",
    "bind": "CAP_NET_BIND_SERVICE",
    "init_module": "CAP_SYS_MODULE",
    "reboot": "CAP_SYS_BOOT",
    "sethostname": "CAP_SYS_ADMIN",
    "setuid": "CAP_SETUID",
    "openat": "CAP_DAC_OVERRIDE",
}
REFUSED = ["mount", "chroot", "init_module", "reboot"]
WATCHED = ["mknodat", "socket", "sethostname"]
STOPPED_MS = 5000
LISTENERS = 64

COMMON = """
echo secret > /root/secret
chmod 600 /root/secret
end() {
    kill -TERM $1
    while [ -d /proc/$1 ]; do sleep 0.05; done
}
"""

NOTIFY = COMMON + f"""
cellos-telemetry --heartbeat 500 --net off || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
vm idle $agent
confine denied > /tmp/notify || exit 11
vm put /tmp/notify notify
vm idle $agent

# So many have room, one more has not.
mkfifo /tmp/hold
for i in $(seq {LISTENERS}); do confine cat < /tmp/hold > /dev/null & held="$held $!"; done
exec 3> /tmp/hold
# The agent has a filter, too.
until [ $(grep -l '^Seccomp:.2' /proc/[0-9]*/status | wc -l) -gt {LISTENERS} ]; do sleep 0.2; done
confine true 2> /tmp/full; vm say full $? $(cat /tmp/full)
exec 3>&-
wait $held
vm idle $agent

# Stopped: ordinary calls never wait, refused ones do, and are answered afterwards.
(confine sh -c 'vm say in; vm await go; mount -t tmpfs none /mnt; echo $? > /tmp/late-mount') &
vm await inside
denied loop 1000 > /tmp/alone
kill -STOP $agent
vm say stopped
denied loop {STOPPED_MS} > /tmp/loop
[ -e /tmp/late-mount ] && vm say impatient
vm say loop $(cat /tmp/alone) $(cat /tmp/loop)
kill -CONT $agent
while [ ! -s /tmp/late-mount ]; do sleep 0.05; done
vm idle $agent
vm say late $(cat /tmp/late-mount)

# Killed while a refused call waits: it stays refused, the workload lives.
(confine sh -c 'vm say in2; vm await go2; mount -t tmpfs none /mnt; echo $? > /tmp/killed-mount
    chroot / true; echo $? >> /tmp/killed-mount; echo alive >> /tmp/killed-mount') &
vm await inside2
kill -STOP $agent
vm say going2
sleep 1
kill -KILL $agent
until grep -q alive /tmp/killed-mount; do sleep 0.05; done
vm say killed $(cat /tmp/killed-mount)
grep -q /mnt /proc/mounts && vm say mounted

# What a killed agent has left is no hindrance to the next.
cellos-telemetry --heartbeat 500 --net off || exit 12
agent=$(cat /run/cellos-telemetry/agent.pid)
confine sh -c 'chroot /' ; true
vm idle $agent
end $agent
[ -e /run/cellos-telemetry/listener.sock ] && vm say left
true
"""

AUDIT = COMMON + """
cellos-telemetry --heartbeat 500 --process off --net audit --capability audit || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
denied > /tmp/audit || exit 11
vm put /tmp/audit audit
vm idle $agent
end $agent
vm say rules $(auditrules)

cellos-telemetry --heartbeat 500 --process off --net audit --capability audit || exit 20
kill -KILL $(cat /run/cellos-telemetry/agent.pid)
vm say leftover $(auditrules)

# The rules of the killed one are removed, not doubled; afterwards all are.
cellos-telemetry --heartbeat 500 --process off --net off --capability audit || exit 12
agent=$(cat /run/cellos-telemetry/agent.pid)
denied > /tmp/second || exit 13
vm put /tmp/second second
vm idle $agent
kill -STOP $agent
for i in 1 2 3 4 5; do denied > /dev/null; done
vm say loop $(denied loop 1000)
kill -CONT $agent
vm idle $agent
denied > /tmp/third || exit 14
vm put /tmp/third third
vm idle $agent
end $agent
vm say swept $(auditrules)

# Another daemon: it stays, the agent reads along.
auditd-like & other=$!
vm idle $other
cellos-telemetry --heartbeat 500 --process off --net off --capability audit || exit 15
agent=$(cat /run/cellos-telemetry/agent.pid)
denied > /tmp/beside || exit 16
vm put /tmp/beside beside
vm idle $agent
end $agent
kill $other
wait $other
vm say beside $? $(auditrules)

# Locked: nobody changes the rules any more, the agent neither.
cellos-telemetry --heartbeat 500 --process off --net off --capability audit --lock-audit || exit 17
agent=$(cat /run/cellos-telemetry/agent.pid)
vm idle $agent
end $agent
vm say locked $(auditrules)
cellos-telemetry --heartbeat 500 --process off --net off --capability audit || exit 18
agent=$(cat /run/cellos-telemetry/agent.pid)
denied > /tmp/locked || exit 19
vm put /tmp/locked after-lock
vm idle $agent
end $agent
"""


class Case(unittest.TestCase):
    @classmethod
    def boot(cls, script, programs, cpus=1):
        with Receiver("--keepalive", "0", "--rate", "1000000") as receiver:
            with Vm(script, receiver=receiver, cpus=cpus,
                    programs=[test_program(name) for name in programs]) as vm:
                cls.during(vm)
                cls.result = vm.wait().check()
            cls.runs = split_runs(receiver.finish())

    @classmethod
    def during(cls, vm):
        pass

    def outcomes(self, name):
        """(pid, {system call: errno})."""
        lines = [line.split() for line in self.result.files[name].decode().split("\n")[:-1]]
        self.assertEqual(lines[0][0], "pid")
        return int(lines[0][1]), {call: int(error) for call, error in lines[1:]}

    def check_denials(self, name, events, expected, via):
        pid, outcomes = self.outcomes(name)
        denied = [e["data"] for e in find(events, "capability.denied", guestPid=pid)]
        self.assertEqual([e["detail"]["syscall"] for e in denied],
                         [call for call in outcomes if call in expected])
        for event in denied:
            call = event["detail"]["syscall"]
            self.assertEqual(event["detail"]["error"], errno.errorcode[outcomes[call]], call)
            self.assertEqual(event["detail"]["capability"], CAPABILITIES[call])
            self.assertEqual(event["detail"]["exe"], "/bin/denied")
            self.assertEqual(event["detail"]["via"], via(call))
            # What it calls itself holds a quote, a newline and a byte that is no UTF-8.
            self.assertEqual(event["guestComm"], 'de"ni\n\ufffded')


class Notify(Case):
    @classmethod
    def setUpClass(cls):
        cls.boot(NOTIFY, ["denied", "confine"])

    @classmethod
    def during(cls, vm):
        vm.wait_mark("in")
        vm.tell("inside")
        vm.wait_mark("stopped")
        vm.tell("go")
        vm.wait_mark("in2", 60)
        vm.tell("inside2")
        vm.wait_mark("going2")
        vm.tell("go2")

    def test_a_late_listener_is_announced(self):
        vias = [e["data"]["detail"]["capabilityVia"]
                for e in find(self.runs[0], "telemetry.hello")]
        self.assertEqual(vias[:2], ["none", "seccomp-notify"])
        sessions = {e["data"]["detail"]["session"]
                    for e in find(self.runs[0], "telemetry.hello")}
        self.assertEqual(len(sessions), 1)

    def test_denials(self):
        self.check_denials("notify", self.runs[0], REFUSED + WATCHED,
                           lambda call: "profile" if call in REFUSED else "seccomp-notify")

    def test_all_places_taken(self):
        self.assertEqual(self.result.mark("full").split()[0], "125")
        self.assertIn("the agent refuses", self.result.mark("full"))

    def test_stopped_agent(self):
        alone, stopped = map(int, self.result.mark("loop").split())
        print(f"longest ordinary call: {alone} us alone, {stopped} us with the agent stopped",
              flush=True)
        # Far from the five seconds that it was stopped for.
        self.assertLess(stopped, 1_000_000)
        self.assertNotIn("impatient", self.result.marks)
        # And the call that waited has been refused since, and reported.
        self.assertNotEqual(self.result.mark("late"), "0")
        mounts = find(self.runs[0], "capability.denied", syscall="mount", exe="/bin/busybox")
        self.assertEqual(len(mounts), 1)

    def test_killed_agent(self):
        mount, chroot, alive = self.result.mark("killed").split()
        self.assertNotEqual(mount, "0")
        self.assertNotEqual(chroot, "0")
        self.assertEqual(alive, "alive")
        self.assertNotIn("mounted", self.result.marks)

    def test_next_agent(self):
        self.assertEqual(len(find(self.runs[1], "capability.denied", syscall="chroot")), 1)
        self.assertNotIn("left", self.result.marks)


class Audit(Case):
    @classmethod
    def setUpClass(cls):
        cls.boot(AUDIT, ["denied", "auditd-like", "auditrules"])

    def test_denials(self):
        for name, run in [("audit", 0), ("second", 2), ("third", 2), ("beside", 3),
                          ("after-lock", 5)]:
            with self.subTest(name):
                hello = find(self.runs[run], "telemetry.hello")[0]["data"]["detail"]
                self.assertEqual(hello["capabilityVia"], "audit")
                _, outcomes = self.outcomes(name)
                self.assertEqual(set(outcomes), set(CAPABILITIES))
                self.check_denials(name, self.runs[run], list(CAPABILITIES), lambda _: "audit")

    def test_rules_are_removed(self):
        self.assertEqual(self.result.mark("rules"), "0 0")
        # A killed one leaves them, and audit enabled; the next sweeps its rules away.
        self.assertGreaterEqual(int(self.result.mark("leftover").split()[0]), 5)
        self.assertEqual(self.result.mark("swept"), "0 1")

    def test_beside_another_daemon(self):
        # It was never thrown out, and afterwards only what was there before is there.
        self.assertEqual(self.result.mark("beside"), "0 0 1")

    def test_locked(self):
        ours, enabled = map(int, self.result.mark("locked").split())
        self.assertGreaterEqual(ours, 2)
        self.assertEqual(enabled, 2)

    def test_a_stopped_agent_makes_nobody_wait(self):
        self.assertLess(int(self.result.mark("loop")), 60_000_000)


if __name__ == "__main__":
    main()
