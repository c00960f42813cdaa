# SPDX-License-Identifier: MIT
"""Where a source cannot be had, the next one is taken, said so in hello, and works: in a pid
namespace, without each capability in turn, and when somebody takes it away."""


import re
from types import SimpleNamespace

from runner import case, main, once, until
from vm import VM_PATIENCE, Receiver, Vm, find, split_runs, test_program

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

# Who connects executes something else, most likely before the next poll.
cellos-telemetry --heartbeat 300 --poll 1500 --net proc-net || exit 21
agent=$(cat /run/cellos-telemetry/agent.pid)
vm idle $agent
nc 127.0.0.1 7777 -e children name 6c61746572 & became=$!
vm say became $became
vm await seen
kill $became
wait $became
end $agent
"""


def hellos_of(got, run):
    return [e["data"]["detail"] for e in find(got.runs[run], "telemetry.hello")]


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    programs = [test_program(name) for name in ("children", "connects", "detach", "spawn", "without")]
    with Receiver("--keepalive", "0") as receiver:
        with Vm(SCRIPT, receiver=receiver, programs=programs) as vm:
            vm.wait_mark("detached", VM_PATIENCE)
            until(lambda: find(split_runs(receiver.events())[-1], "telemetry.hello")[-1]["data"]
                  ["detail"]["netVia"] == "proc-net", "the hello of the source that takes over")
            vm.tell("noticed")
            vm.wait_awaiting("seen")
            until(lambda: vm.process.poll() is not None or
                  find(split_runs(receiver.events())[-1], "net.connect_attempted", port=7777),
                  "the connect of nc")
            vm.tell("seen")
            got.result = vm.wait().check()
        got.events = receiver.finish()
    got.runs = split_runs(got.events)
    kernel = hellos_of(got, 0)[0]["kernel"].split(".")
    got.anybody_listens = (int(kernel[0]), int(kernel[1])) >= (6, 6)
    # Where the forced start of the process connector succeeded, it had a run of its own.
    got.later = len(CAPS) + got.anybody_listens
    return got


def without_each_capability():
    assert "failed" not in ran().result.marks
    expected = EXPECTED_6_6 if ran().anybody_listens else EXPECTED
    for run, name in enumerate(CAPS):
        with case(name):
            hello = hellos_of(ran(), run)[0]
            assert (hello["processVia"], hello["netVia"]) == expected.get(name, BEST)
            pid = int(ran().result.mark(f"spawn_{name}"))
            found = find(ran().runs[run], "process.spawned", ppid=pid)
            assert len(found) == 1
            ended = find(ran().runs[run], "process.exited",
                         guestPid=found[0]["data"]["guestPid"])
            assert [e["data"]["guestComm"] for e in ended] == ["sleep"]
            assert len(find(ran().runs[run], "telemetry.bye")) == 1


def forced_is_not_replaced():
    for name, source in [("process", "proc-connector"), ("net", "cgroup-bpf"),
                         ("audit", "audit"), ("pidns", "proc-connector")]:
        with case(name):
            status, _, text = ran().result.mark(f"forced_{name}").partition(" ")
            if name == "process" and ran().anybody_listens:
                assert status == "0", text
                assert hellos_of(ran(), len(CAPS))[0]["processVia"] == source
                continue
            assert status == "3"
            assert source in text
            assert "why=" in text


def pid_namespace():
    run = ran().later
    hello = hellos_of(ran(), run)[0]
    assert (hello["processVia"], hello["netVia"]) == ("proc-walk", "proc-net")
    assert find(ran().runs[run], "telemetry.hello")[0]["data"]["guestPid"] == 2
    names = {e["data"]["guestComm"] for e in find(ran().runs[run], "process.exited")}
    assert "sleep" in names
    addresses = {e["data"]["detail"]["address"]
                 for e in find(ran().runs[run], "net.connect_attempted", guestComm="connects")}
    assert addresses == {"127.0.0.1", "::1"}


def taken_away():
    run = ran().later + 1
    assert ran().result.mark("detached") == "9"
    hellos = hellos_of(ran(), run)
    assert list(dict.fromkeys(h["netVia"] for h in hellos)) == ["cgroup-bpf", "proc-net"]
    assert len({h["session"] for h in hellos}) == 1
    pid = int(ran().result.mark("polled"))
    found = find(ran().runs[run], "net.connect_attempted", guestPid=pid)
    assert len(found) == 2


def the_program_is_not_the_next_one():
    """A poll sees a connection later, when its process may run another program."""
    pid = int(ran().result.mark("became"))
    run = ran().runs[ran().later + 2]
    assert find(run, "process.executed", guestPid=pid, exe="/bin/children")
    found = find(run, "net.connect_attempted", guestPid=pid, port=7777)
    assert len(found) == 1
    assert "children" not in found[0]["data"]["detail"].get("exe", ""), found


def probe():
    lines = ran().result.files["probe"].decode().split("\n")[:-1]
    verdicts = {tuple(line.split()[:2]): line for line in lines}
    for source in [("process", "proc-connector"), ("process", "proc-walk"),
                   ("net", "cgroup-bpf"), ("net", "proc-net"), ("net", "audit"),
                   ("capability", "audit")]:
        assert re.search(" available(, taken)?: .*; misses: ", verdicts[source])
    for source in [("process", "proc-connector"), ("net", "cgroup-bpf")]:
        assert " available, taken: " in verdicts[source]
    # An agent runs beside it and has the socket.
    assert "not available: another agent" in verdicts["capability", "seccomp-notify"]


if __name__ == "__main__":
    main()
