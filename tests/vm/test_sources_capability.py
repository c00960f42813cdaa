# SPDX-License-Identifier: MIT
"""The capability sources on a real kernel: what a process that gave up root is refused, reported by
notification and by audit; a listener that comes late; an agent that is stopped or killed while
callers wait for it."""

import errno
from types import SimpleNamespace

from runner import case, main, once
from vm import Receiver, Vm, find, split_runs, test_program

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
confine -w 5 true 2> /tmp/full; vm say full $? $(cat /tmp/full)
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
until grep -q alive /tmp/killed-mount && [ ! -d /proc/$agent ]; do sleep 0.05; done
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
agent=$(cat /run/cellos-telemetry/agent.pid)
kill -KILL $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
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


def boot(script, programs, during=lambda vm: None):
    """What a run with a receiver left: its result, and its events by agent."""
    with Receiver("--keepalive", "0", "--rate", "1000000") as receiver:
        with Vm(script, receiver=receiver,
                programs=[test_program(name) for name in programs]) as vm:
            during(vm)
            result = vm.wait().check()
        return SimpleNamespace(result=result, runs=split_runs(receiver.finish()))


def let_it_go_on(vm):
    vm.wait_mark("in")
    vm.tell("inside")
    vm.wait_mark("stopped")
    vm.tell("go")
    vm.wait_mark("in2", 60)
    vm.tell("inside2")
    vm.wait_mark("going2")
    vm.tell("go2")


@once
def with_profile():
    return boot(NOTIFY, ["denied", "confine"], let_it_go_on)


@once
def with_audit():
    return boot(AUDIT, ["denied", "auditd-like", "auditrules"])


def outcomes_of(name, result):
    """(pid, {system call: errno})."""
    lines = [line.split() for line in result.files[name].decode().split("\n")[:-1]]
    assert lines[0][0] == "pid"
    return int(lines[0][1]), {call: int(error) for call, error in lines[1:]}


def check_denials(name, ran, run, expected, via):
    pid, outcomes = outcomes_of(name, ran.result)
    denied = [e["data"] for e in find(ran.runs[run], "capability.denied", guestPid=pid)]
    assert [e["detail"]["syscall"] for e in denied] \
        == [call for call in outcomes if call in expected]
    for event in denied:
        call = event["detail"]["syscall"]
        assert event["detail"]["error"] == errno.errorcode[outcomes[call]], call
        assert event["detail"]["capability"] == CAPABILITIES[call]
        assert event["detail"]["exe"] == "/bin/denied"
        assert event["detail"]["via"] == via(call)
        # What it calls itself holds a quote, a newline and a byte that is no UTF-8.
        assert event["guestComm"] == 'de"ni\n\ufffded'


def a_late_listener_is_announced():
    vias = [e["data"]["detail"]["capabilityVia"]
            for e in find(with_profile().runs[0], "telemetry.hello")]
    assert list(dict.fromkeys(vias)) == ["none", "seccomp-notify"]
    sessions = {e["data"]["detail"]["session"]
                for e in find(with_profile().runs[0], "telemetry.hello")}
    assert len(sessions) == 1


def the_profiles_denials_are_reported():
    check_denials("notify", with_profile(), 0, REFUSED + WATCHED,
                  lambda call: "profile" if call in REFUSED else "seccomp-notify")


def a_workload_too_many_is_refused():
    assert with_profile().result.mark("full").split()[0] == "125"
    assert "the agent refuses" in with_profile().result.mark("full")


def a_stopped_agent_delays_no_ordinary_call():
    alone, stopped = map(int, with_profile().result.mark("loop").split())
    print(f"longest ordinary call: {alone} us alone, {stopped} us with the agent stopped",
          flush=True)
    # A call that waited for the agent would never have returned. Here it is the host that makes
    # the whole guest wait.
    assert stopped < 1000 * STOPPED_MS
    assert "impatient" not in with_profile().result.marks
    # And the call that waited has been refused since, and reported.
    assert with_profile().result.mark("late") != "0"
    mounts = find(with_profile().runs[0], "capability.denied", syscall="mount", exe="/bin/busybox")
    assert len(mounts) == 1


def a_killed_agent_lets_no_call_through():
    mount, chroot, alive = with_profile().result.mark("killed").split()
    assert mount != "0"
    assert chroot != "0"
    assert alive == "alive"
    assert "mounted" not in with_profile().result.marks


def the_next_agent_serves_new_workloads():
    assert len(find(with_profile().runs[1], "capability.denied", syscall="chroot")) == 1
    assert "left" not in with_profile().result.marks


def audits_denials_are_reported():
    for name, run in [("audit", 0), ("second", 2), ("third", 2), ("beside", 3),
                      ("after-lock", 5)]:
        with case(name):
            hello = find(with_audit().runs[run], "telemetry.hello")[0]["data"]["detail"]
            assert hello["capabilityVia"] == "audit"
            _, outcomes = outcomes_of(name, with_audit().result)
            assert set(outcomes) == set(CAPABILITIES)
            check_denials(name, with_audit(), run, list(CAPABILITIES), lambda _: "audit")


def rules_are_removed():
    assert with_audit().result.mark("rules") == "0 0"
    # A killed one leaves them, and audit enabled; the next sweeps its rules away.
    assert int(with_audit().result.mark("leftover").split()[0]) >= 5
    assert with_audit().result.mark("swept") == "0 1"


def beside_another_daemon():
    # It was never thrown out, and afterwards only what was there before is there.
    assert with_audit().result.mark("beside") == "0 0 1"


def locked_rules_stay():
    ours, enabled = map(int, with_audit().result.mark("locked").split())
    assert ours >= 2
    assert enabled == 2


def a_stopped_agent_delays_no_call():
    assert int(with_audit().result.mark("loop")) < 60_000_000


if __name__ == "__main__":
    main()
