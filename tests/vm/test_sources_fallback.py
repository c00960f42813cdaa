# SPDX-License-Identifier: MIT
"""Where a source cannot be had, the next one is taken, said so in hello, and works: in a pid
namespace, without each capability in turn, and when somebody takes it away."""

import unittest

from vm import VM_PATIENCE, Receiver, Vm, find, main, split_runs, test_program, wait_for

# linux/capability.h
CAPS = {
    "net_admin": 1 << 12,
    "bpf": 1 << 39 | 1 << 21,
    "sys_ptrace": 1 << 19,
    "dac": 1 << 1 | 1 << 2,
    "sys_resource": 1 << 24,
    "ipc_lock": 1 << 14,
    "setpcap": 1 << 8,
    "audit": 1 << 30 | 1 << 37,
    "all": (1 << 41) - 1,
}
BEST = ("proc-connector", "cgroup-bpf")
EXPECTED = {
    # CAP_SYS_ADMIN is enough for BPF.
    "net_admin": ("proc-walk", "cgroup-bpf"),
    "bpf": ("proc-connector", "proc-net"),
    "all": ("proc-walk", "proc-net"),
}
# From Linux 6.6 on anybody may listen to the process connector.
EXPECTED_6_6 = EXPECTED | {
    "net_admin": ("proc-connector", "cgroup-bpf"),
    "all": ("proc-connector", "proc-net"),
}
# A fresh folder for each, as after a boot: the last one gave its to its own user, and without
# CAP_DAC_OVERRIDE root cannot write there.
WITHOUT = "\n".join(f"""
rm -rf /run/cellos-telemetry
without {mask:x} cellos-telemetry --heartbeat 300 --poll 200 || vm say failed {name} $?
agent=$(cat /run/cellos-telemetry/agent.pid)
vm idle $agent
spawn 1 /bin/sleep 600 > /tmp/null & spawn=$!; vm say spawn_{name} $spawn
vm idle $spawn
vm idle $agent
kill $(pidof sleep)
wait $spawn
vm idle $agent
end $agent""" for name, mask in CAPS.items())

SCRIPT = """
end() {
    kill -TERM $1 || exit 30
    while [ -d /proc/$1 ]; do sleep 0.05; done
}
nc -ll -p 7777 -e /bin/cat &
mkfifo /tmp/hold
""" + WITHOUT + f"""
# Forced, they are not replaced: the start fails.
rm -rf /run/cellos-telemetry
without {CAPS["net_admin"]:x} cellos-telemetry --process proc-connector 2> /tmp/err
vm say forced_process $? $(cat /tmp/err)
agent=$(cat /run/cellos-telemetry/agent.pid 2> /tmp/null) && end $agent
without {CAPS["bpf"]:x} cellos-telemetry --net cgroup-bpf 2> /tmp/err
vm say forced_net $? $(cat /tmp/err)
without {CAPS["audit"]:x} cellos-telemetry --net audit 2> /tmp/err
vm say forced_audit $? $(cat /tmp/err)
unshare -p -f cellos-telemetry --process proc-connector 2> /tmp/err
vm say forced_pidns $? $(cat /tmp/err)

# A start that failed may hold its pid file for a moment longer than its caller waits.
rm -rf /run/cellos-telemetry
# PID 1 of a fresh pid namespace: the workload is PID 1, the agent PID 2.
unshare -p -f --mount-proc cellos-telemetry --poll 200 --heartbeat 300 -- sh -c '
    vm idle 2
    spawn 1 /bin/sleep 600 > /tmp/null & spawn=$!
    vm idle $spawn
    vm idle 2
    kill $(pidof sleep)
    # Its end must not interrupt the open of the pipe.
    wait $spawn
    connects hold 7777 < /tmp/hold & exec 3> /tmp/hold
    vm idle $!
    vm idle 2
    exec 3>&-
    wait
    vm idle 2
    kill 2
    while [ -d /proc/2 ]; do sleep 0.05; done' || vm say failed pidns $?

# Its program is taken away: the agent notices, and polls from then on.
cellos-telemetry --heartbeat 300 --poll 200 || exit 20
agent=$(cat /run/cellos-telemetry/agent.pid)
vm idle $agent
vm say detached $(detach)
vm await noticed
connects hold 7777 < /tmp/hold & hold=$!
exec 3> /tmp/hold
vm idle $hold
vm idle $agent
exec 3>&-
wait $hold
vm say polled $hold
cellos-telemetry --probe > /tmp/probe
vm put /tmp/probe probe
end $agent
"""


class Fallback(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        programs = [test_program(name) for name in ("connects", "detach", "spawn", "without")]
        with Receiver("--keepalive", "0") as receiver:
            with Vm(SCRIPT, receiver=receiver, programs=programs) as vm:
                vm.wait_mark("detached", VM_PATIENCE)
                wait_for("the hello of the source that takes over", lambda: len(
                    find(split_runs(receiver.events())[-1], "telemetry.hello")) > 1)
                vm.tell("noticed")
                cls.result = vm.wait().check()
            cls.events = receiver.finish()
        cls.runs = split_runs(cls.events)
        kernel = cls.hellos(0)[0]["kernel"].split(".")
        cls.anybody_listens = (int(kernel[0]), int(kernel[1])) >= (6, 6)
        # Where the forced start of the process connector succeeded, it had a run of its own.
        cls.later = len(CAPS) + cls.anybody_listens

    @classmethod
    def hellos(cls, run):
        return [e["data"]["detail"] for e in find(cls.runs[run], "telemetry.hello")]

    def test_without_each_capability(self):
        self.assertNotIn("failed", self.result.marks)
        expected = EXPECTED_6_6 if self.anybody_listens else EXPECTED
        for run, name in enumerate(CAPS):
            with self.subTest(name):
                hello = self.hellos(run)[0]
                self.assertEqual((hello["processVia"], hello["netVia"]), expected.get(name, BEST))
                pid = int(self.result.mark(f"spawn_{name}"))
                found = find(self.runs[run], "process.spawned", ppid=pid)
                self.assertEqual(len(found), 1)
                ended = find(self.runs[run], "process.exited",
                             guestPid=found[0]["data"]["guestPid"])
                self.assertEqual([e["data"]["guestComm"] for e in ended], ["sleep"])
                self.assertEqual(len(find(self.runs[run], "telemetry.bye")), 1)

    def test_forced_is_not_replaced(self):
        for name, source in [("process", "proc-connector"), ("net", "cgroup-bpf"),
                             ("audit", "audit"), ("pidns", "proc-connector")]:
            with self.subTest(name):
                status, _, text = self.result.mark(f"forced_{name}").partition(" ")
                if name == "process" and self.anybody_listens:
                    self.assertEqual(status, "0", text)
                    self.assertEqual(self.hellos(len(CAPS))[0]["processVia"], source)
                    continue
                self.assertEqual(status, "3")
                self.assertIn(source, text)
                self.assertIn("why=", text)

    def test_pid_namespace(self):
        run = self.later
        hello = self.hellos(run)[0]
        self.assertEqual((hello["processVia"], hello["netVia"]), ("proc-walk", "proc-net"))
        self.assertEqual(find(self.runs[run], "telemetry.hello")[0]["data"]["guestPid"], 2)
        names = {e["data"]["guestComm"] for e in find(self.runs[run], "process.exited")}
        self.assertIn("sleep", names)
        addresses = {e["data"]["detail"]["address"]
                     for e in find(self.runs[run], "net.connect_attempted", guestComm="connects")}
        self.assertEqual(addresses, {"127.0.0.1", "::1"})

    def test_taken_away(self):
        run = self.later + 1
        self.assertEqual(self.result.mark("detached"), "9")
        hellos = self.hellos(run)
        self.assertEqual([h["netVia"] for h in hellos], ["cgroup-bpf", "proc-net"])
        self.assertEqual(len({h["session"] for h in hellos}), 1)
        pid = int(self.result.mark("polled"))
        found = find(self.runs[run], "net.connect_attempted", guestPid=pid)
        self.assertEqual(len(found), 2)

    def test_probe(self):
        lines = self.result.files["probe"].decode().split("\n")[:-1]
        verdicts = {tuple(line.split()[:2]): line for line in lines}
        for source in [("process", "proc-connector"), ("process", "proc-walk"),
                       ("net", "cgroup-bpf"), ("net", "proc-net"), ("net", "audit"),
                       ("capability", "audit")]:
            self.assertRegex(verdicts[source], " available(, taken)?: .*; misses: ")
        for source in [("process", "proc-connector"), ("net", "cgroup-bpf")]:
            self.assertIn(" available, taken: ", verdicts[source])
        # An agent runs beside it and has the socket.
        self.assertIn("not available: another agent", verdicts["capability", "seccomp-notify"])


if __name__ == "__main__":
    main()
