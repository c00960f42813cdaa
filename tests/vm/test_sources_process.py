# SPDX-License-Identifier: MIT
"""The process source on a real kernel: every start, execution and end of many short processes, with
their parents, names and statuses; whatever a process calls itself; pids that are used again; a
buffer that overruns; a connector that somebody silences."""

import collections
import os
from types import SimpleNamespace

from runner import main, once
from vm import VM_PATIENCE, Receiver, Vm, find, test_program

COUNT = int(os.environ.get("CELLOS_CHILDREN", 1000))
REUSE = 600
STOPPED = 2000
NAMES = [b"\xff\xfe\x80", b'quo"te', b"new\nline", b"a) S 1 (b", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80"]

SCRIPT = f"""
cellos-telemetry --heartbeat 500 || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)

vm say many $(children {COUNT} /tmp/many)
vm put /tmp/many many

mkfifo /tmp/hold
for hex in {" ".join(name.hex() for name in NAMES)}; do
    children name $hex < /tmp/hold & names="$names $!"
done
exec 3> /tmp/hold
vm idle $agent
exec 3>&-
wait
vm say names $names

echo 400 > /proc/sys/kernel/pid_max
vm say reuse $(children {REUSE} /tmp/reuse)
vm put /tmp/reuse reuse
echo 32768 > /proc/sys/kernel/pid_max

# More than fits into the buffer while the agent does not read: into the one that the kernel gives to
# everybody, which a sixth of those processes fills.
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
refuse setsockopt-rcvbufforce cellos-telemetry --heartbeat 500 || exit 11
agent=$(cat /run/cellos-telemetry/agent.pid)
mkfifo /tmp/before /tmp/after
children name 6265666f7265 < /tmp/before & before=$!
exec 4> /tmp/before
vm idle $agent
kill -STOP $agent
exec 4>&-
vm say stopped $(children fork {STOPPED} /tmp/stopped)
vm put /tmp/stopped stopped
children name 6166746572 < /tmp/after & after=$!
exec 5> /tmp/after
vm idle $after
kill -CONT $agent
vm idle $agent
vm say unseen $before $after $$
exec 5>&-
wait $after
vm say again $(children 20 /tmp/again)
vm put /tmp/again again

# Nobody listens any more, says somebody; within its self-test's period the agent notices, and that
# may be at once: it cannot be at once each time.
vm say healthy
for n in 1 2 3; do
    silence 8
    vm say silenced$n $(children 20 /tmp/silenced)
    vm put /tmp/silenced silenced$n
done
vm say silenced
while [ ! -e /tmp/seen ]; do children name 626561636f6e < /dev/null; sleep 0.5; done &
vm await seen
touch /tmp/seen
wait $!
vm say restored $(children 20 /tmp/restored)
vm put /tmp/restored restored
vm idle $agent
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
"""


def expected_end(number):
    """leaf() of tests/vm/programs/children.c."""
    return [("exitCode", 0), ("exitCode", number % 251), ("signal", 15), ("signal", 9)][number % 4]


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    programs = [test_program(name) for name in ("children", "refuse", "silence")]
    with Receiver("--keepalive", "0", "--rate", "1000000") as receiver:
        with Vm(SCRIPT, receiver=receiver, programs=programs,
                append="transparent_hugepage=never") as vm:
            vm.wait_mark("silenced", VM_PATIENCE)
            receiver.wait_event("process.exited", guestComm="beacon")
            vm.tell("seen")
            got.result = vm.wait().check()
        got.events = receiver.finish()
    got.of_pid = collections.defaultdict(list)
    for event in got.events:
        source = event["data"].get("probeSource", "")
        if source.startswith("process."):
            got.of_pid[event["data"]["guestPid"]].append(event["data"])
    return got


def children_of(name):
    """(pid of the parent, [(pid, number)...]) of a run."""
    parent = int(ran().result.mark(name).split()[0])
    lines = ran().result.files[name].decode().split("\n")[:-1]
    return parent, [tuple(map(int, line.split())) for line in lines]


def check_life(parent, number, life):
    assert [e["probeSource"] for e in life] \
        == ["process.spawned", "process.executed", "process.exited"]
    spawned, executed, exited = life
    assert spawned["guestComm"] == "children"
    assert {e["detail"]["ppid"] for e in life} == {parent}
    # The child executes the program that it is a copy of.
    assert executed["detail"]["exe"] \
        in (["/bin/children"] if executed["detail"]["resolved"] else [""])
    key, value = expected_end(number)
    assert exited["detail"].get(key) == value
    assert spawned["guestMonotonicNs"] <= exited["guestMonotonicNs"]


def many():
    parent, children = children_of("many")
    assert len(children) == COUNT
    complete = 0
    for pid, number in children:
        life = ran().of_pid[pid][:3]
        if len(life) == 3 and life[0]["detail"]["ppid"] == parent:
            check_life(parent, number, life)
            complete += 1
    milliseconds = int(ran().result.mark("many").split()[2])
    print(f"{complete} of {COUNT} short processes whole, in {milliseconds} ms", flush=True)
    receipts = [e for e in find(ran().events, "telemetry.dropped")
                if e["data"]["sequence"] < last_before_stop()]
    assert receipts == []
    assert complete == COUNT


@once
def last_before_stop():
    """Sequence of the last event of which is certain that the agent was not stopped yet: the
    execution of "before". Its end is not: other events can come before it."""
    before = int(ran().result.mark("unseen").split()[0])
    ended = next(e["data"]["sequence"] for e in find(ran().events, "process.exited")
                 if e["data"]["guestPid"] == before and e["data"]["guestComm"] == "before")
    return max(e["sequence"] for e in ran().of_pid[before]
               if e["probeSource"] == "process.executed" and e["sequence"] < ended)


def names():
    pids = [int(pid) for pid in ran().result.mark("names").split()]
    expected = [
        "\ufffd\ufffd\ufffd", 'quo"te', "new\nline", "a) S 1 (b", "\U0001f600",
        "\ufffd\ufffd\ufffd",
    ]
    for pid, name in zip(pids, expected, strict=True):
        exited = [e for e in ran().of_pid[pid] if e["probeSource"] == "process.exited"]
        assert name in [e["guestComm"] for e in exited], pid


def reuse():
    parent, children = children_of("reuse")
    pids = collections.Counter(pid for pid, _ in children)
    assert max(pids.values()) > 2, "no pid was used again: nothing was tested"
    lives = collections.defaultdict(list)
    for pid in pids:
        life = []
        for event in ran().of_pid[pid]:
            life.append(event)
            if event["probeSource"] == "process.exited":
                if life[0]["detail"]["ppid"] == parent and len(life) == 3:
                    lives[pid].append(life)
                life = []
    for pid, number in children:
        check_life(parent, number, lives[pid].pop(0))


def overrun():
    parent, children = children_of("stopped")
    before, after, shell = map(int, ran().result.mark("unseen").split())
    told = sum(1 for pid, _ in children for e in ran().of_pid[pid]
               if e["detail"].get("ppid") == parent)
    receipts = [e["data"]["detail"] for e in find(ran().events, "telemetry.dropped")
                if e["data"]["sequence"] > last_before_stop()]
    lost = sum(r["kernelOverrun"] for r in receipts)
    dropped = sum(r["queueFull"] + r["tooLarge"] + r["channel"] for r in receipts)
    print(f"stopped: {told} events told, {lost} lost in the kernel, {dropped} dropped",
          flush=True)
    assert lost > 0, "the buffer did not overrun: nothing was tested"
    assert told + lost + dropped >= 2 * STOPPED
    # Not many more than there were: a loss is counted once.
    assert told + lost < 2 * STOPPED + 200
    # Who was there before has ended and is told so, who came meanwhile is told too.
    ended = [e for e in ran().of_pid[before] if e["guestComm"] == "before" and
             e["probeSource"] == "process.exited"]
    assert len(ended) == 1
    began = [e["probeSource"] for e in ran().of_pid[after]
             if e["guestMonotonicNs"] > ended[0]["guestMonotonicNs"]]
    # Unless it is one of those that did not fit into the queue.
    assert dropped or "process.spawned" in began
    assert began[-1] == "process.exited"
    assert ran().of_pid[after][-1]["guestComm"] == "after"
    assert ran().of_pid[after][-1]["detail"]["ppid"] == shell


def whole(name):
    parent, children = children_of(name)
    return sum(1 for pid, number in children
               if [e["probeSource"] for e in ran().of_pid[pid][-3:]] ==
               ["process.spawned", "process.executed", "process.exited"] and
               ran().of_pid[pid][-3]["detail"]["ppid"] == parent)


def right_again_after_the_overrun():
    assert whole("again") == 20


def silenced_and_restored():
    assert min(whole(f"silenced{n}") for n in (1, 2, 3)) == 0, \
        "it was not silenced: nothing was tested"
    assert whole("restored") == 20


if __name__ == "__main__":
    main()
