# SPDX-License-Identifier: MIT
"""Whatever the kernel refuses the agent with EPERM, one call at a time: it starts, says in hello
what it has instead and in its log what it lacks, goes on reporting, and ends in order."""


from types import SimpleNamespace

from runner import case, main, once, until
from vm import VM_PATIENCE, Receiver, Vm, find, test_program

BEST = {"processVia": "proc-connector", "netVia": "cgroup-bpf", "fsVia": "fanotify"}
WALK = {"processVia": "proc-walk"}
POLL = {"netVia": "proc-net"}

# What is refused: what the last hello says otherwise, words of the log.
EXPECTED = {
    "bpf": (POLL, ["source=cgroup-bpf"]),
    "fsopen": (POLL, ["source=cgroup-bpf"]),
    "fsconfig": (POLL, ["source=cgroup-bpf"]),
    "fsmount": (POLL, ["source=cgroup-bpf"]),
    "socket-netlink": (WALK, ["source=proc-connector", "socket(AF_NETLINK)"]),
    "socket-inet": ({}, []),
    "socket-unix": ({}, ["source=seccomp-notify"]),
    "bind": (WALK, ["source=proc-connector", "source=seccomp-notify"]),
    "listen": ({}, ["source=seccomp-notify"]),
    "setsockopt-rcvbufforce": ({}, []),
    "getsockopt-meminfo": ({}, []),
    "sendto": (WALK, ["source=proc-connector", "LISTEN"]),
    "recvmmsg": ({**WALK, "netVia": "none"}, ["source failed", "source=proc-connector"]),
    "clone": (WALK, ["source=proc-connector", "self-test"]),
    "prlimit64": ({}, ["cannot raise all limits", "resource limits: "]),
    "mlockall": ({}, ["cannot harden", "mlockall: "]),
    "prctl-capbset": ({}, ["cannot harden", "capset: "]),
    "prctl-dumpable": ({}, ["cannot harden", "dumpable: "]),
    # Without it, and without CAP_SYS_ADMIN by then, there is no filter either.
    "prctl-no-new-privs": ({}, ["cannot harden", "no_new_privs: ", "seccomp: "]),
    "capget": ({}, ["cannot become the agent's own user", "cannot harden", "capset: "]),
    "capset": ({}, ["cannot become the agent's own user", "cannot harden", "capset: "]),
    "seccomp-filter": ({}, ["cannot harden", "seccomp: "]),
    "seccomp-sizes": ({}, ["source=seccomp-notify", "SECCOMP_GET_NOTIF_SIZES"]),
    # Only paths that fanotify cannot mark need it.
    "inotify_init1": ({}, []),
    "inotify_add_watch": ({}, []),
    "readlink": ({}, ["source=seccomp-notify"]),
    "close_range": ({}, []),
    "chdir": ({}, ["cannot change to /"]),
    "getrandom": ({}, []),
    "open-write": ({}, ["cannot raise all limits", "oom_score_adj: "]),
}

SCRIPT = """
mkdir /tmp/watched
# The limit of kernels before 5.16: a source that takes over must not run into it.
ulimit -l 64
for call in $(refuse list); do
    net=auto
    # The BPF source would raise the limit for itself.
    [ $call = recvmmsg ] && net=off
    refuse $call cellos-telemetry --heartbeat 300 --poll 200 --inotify /tmp/watched --net $net \\
        --ready-fd 5 5> /tmp/ready 2> /tmp/log || vm say failed $call $?
    agent=$(cat /tmp/ready)
    vm put /tmp/log log_$call
    [ -n "$agent" ] || continue
    vm say agent_$call $agent
    vm idle $agent
    spawn 1 /bin/sleep 600 > /tmp/null & spawn=$!; vm say spawn_$call $spawn
    vm await born_$call
    kill $(pidof sleep)
    wait $spawn
    vm await ended_$call
    kill -TERM $agent || vm say dead $call
    while [ -d /proc/$agent ]; do sleep 0.05; done
    vm put /tmp/log log_$call
done
vm say calls $(refuse list)
"""


def child_of(events, parent):
    """What is told of its only child: the pid, and the events."""
    born = find(events, "process.spawned", ppid=int(parent))
    assert len(born) <= 1, born
    pid = born[0]["data"]["guestPid"] if born else None
    return pid, [e["data"] for e in events if born and e["data"].get("guestPid") == pid and
                 e["data"]["probeSource"].startswith("process.")]


def wait_for_child(vm, receiver, parent, told):
    """Until an event of it is as told() says. A polling agent comes to it when it can."""
    until(lambda: vm.process.poll() is not None or
          any(map(told, child_of(receiver.events(), parent)[1])),
          f"the child of {parent}", pause=0.2, patience=VM_PATIENCE)


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    programs = [test_program("refuse"), test_program("spawn")]
    with Receiver("--keepalive", "0", signed=True) as receiver:
        vm = Vm(SCRIPT, receiver=receiver, programs=programs)
        with vm:
            for call in EXPECTED:
                parent = vm.wait_mark(f"spawn_{call}")
                wait_for_child(vm, receiver, parent, lambda data: data["guestComm"] == "sleep")
                vm.tell(f"born_{call}")
                wait_for_child(vm, receiver, parent,
                               lambda data: data["probeSource"] == "process.exited")
                vm.tell(f"ended_{call}")
            got.result = vm.wait().check()
        events = receiver.finish()
        got.verdict = receiver.verify()
    got.sessions = {}
    for event in events:
        if event["type"].endswith("agent_connected"):
            session = []
        elif event["data"].get("probeSource") == "telemetry.hello":
            got.sessions[event["data"]["guestPid"]] = session
        if "guestPid" in event["data"]:
            session.append(event)
    return got


def session_of(call):
    return ran().sessions[int(ran().result.mark(f"agent_{call}"))]


def all_calls_are_here():
    assert ran().result.mark("calls").split() == list(EXPECTED)
    assert "failed" not in ran().result.marks
    assert "dead" not in ran().result.marks
    assert ran().verdict.returncode == 0, ran().verdict.stderr


def hello_and_log_report_the_refusal():
    for call, (instead, words) in EXPECTED.items():
        with case(call):
            hello = find(session_of(call), "telemetry.hello")[-1]["data"]["detail"]
            assert {key: hello[key] for key in BEST} == {**BEST, **instead}
            log = ran().result.files[f"log_{call}"].decode()
            for word in words:
                assert word in log
            # And nothing is said that is not so.
            for word in ("cannot harden", "cannot raise", "cannot become",
                         "source not available", "source failed"):
                if word in log:
                    assert any(w.startswith(word) or (word.startswith("source") and
                                                      w.startswith("source"))
                               for w in words), log


def the_agent_goes_on_after_each_refusal():
    for call in EXPECTED:
        with case(call):
            session = session_of(call)
            parent = ran().result.mark(f"spawn_{call}")
            pid, told = child_of(session, parent)
            ended = [data["guestComm"] for data in told if data["probeSource"] == "process.exited"]
            assert ended == ["sleep"], told
            assert len(find(session, "telemetry.bye")) == 1
            for e in find(session, "process.executed", guestPid=pid):
                detail = e["data"]["detail"]
                # On a busy machine the process may have ended first.
                if call == "readlink" or detail.get("why") not in ("gone", "unsure"):
                    assert detail["resolved"] == (call != "readlink"), detail


if __name__ == "__main__":
    main()
