# SPDX-License-Identifier: MIT
"""Root workloads under the profile that make the agent wait, exhaust what it shares with them, or
start it again: it neither waits nor loses anything silently, and no workload runs unreported."""

import itertools
from types import SimpleNamespace

from runner import case, main, once, until
from vm import Receiver, Vm, find, split_runs, test_program

HEARTBEAT_MS = 500
CLASSES = ("idle", "nice", "fifo", "rr")
# Sixty heartbeats: a busy host makes its guest stand still for seconds.
SILENCE_MS = 30000

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

# Without the profile: processes that the scheduler puts before or after the agent.
for class in {" ".join(CLASSES)}; do
    sched $class spawn 20 /bin/true > /tmp/null &
    vm say $class $!
    wait $! || exit 14
done

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
cellos-workload-exec --init -- sh -c 'touch /tmp/own; exec sleep 3600' &
own=$!
until [ -e /tmp/own ]; do sleep 0.1; done
kill -KILL $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
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


def second_agents_vias(events):
    """In their order; a connection that takes another's place says the same again."""
    runs = split_runs(events)
    vias = [e["data"]["detail"]["capabilityVia"]
            for e in find(runs[1] if len(runs) > 1 else [], "telemetry.hello")]
    return [via for via, _ in itertools.groupby(vias)]


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    with Receiver("--keepalive", str(SILENCE_MS), signed=True) as receiver:
        with Vm(SCRIPT, receiver=receiver, cpus=2, memory_mib=512, programs=[
                test_program("hostile"), test_program("spawn"), test_program("sched")]) as vm:
            vm.wait_mark("second", 300)
            for mark, via in (("stale", "seccomp-notify-stale"), ("none", "none"),
                              ("served", "seccomp-notify")):
                until(lambda via=via: via in second_agents_vias(receiver.events()),
                      f"the second agent says {via}")
                vm.tell(mark)
            got.result = vm.wait(300).check()
        got.events = receiver.finish()
        got.verdict = receiver.verify()
    got.runs = split_runs(got.events)
    return got


def denied(call, run=0):
    """How often the call was reported."""
    return sum(e["data"]["detail"].get("repeat", 1)
               for e in find(ran().runs[run], "capability.denied", syscall=call))


def lost(family):
    return sum(e["data"]["detail"].get(family, 0)
               for e in find(ran().events, "telemetry.dropped"))


def it_is_never_silent():
    assert find(ran().events, "guest.v1.agent_silenced", reason="no_frames") == []
    assert ran().verdict.returncode == 0, ran().verdict.stdout


def nothing_of_it_waits_for_a_page():
    # The null device, 1, 3.
    assert "/dev/userfaultfd" in ran().result.mark("device")
    assert ran().result.mark("denied").startswith("2 userfaultfd: Operation not"), \
        ran().result.mark("denied")
    assert ran().result.mark("freeze") == "0 free", ran().result.files["/tmp/errors"].decode()


def nothing_of_it_waits_for_a_lock():
    calls = int(ran().result.mark("starve"))
    print(f"refused calls answered under mmap_lock: {calls} in 8 s", flush=True)
    assert calls > 8


def a_flood_hides_no_process():
    calls = int(ran().result.mark("flood")) + int(ran().result.mark("starve"))
    print(f"refused calls of the flood: {ran().result.mark('flood')} in 4 s; "
          f"reported {denied('chroot')}, lost {lost('capability')}", flush=True)
    assert denied("chroot") + lost("capability") >= calls
    assert denied("reboot") + lost("capability") >= 1
    born = find(ran().runs[0], "process.spawned", ppid=int(ran().result.mark("spawn")))
    assert len(born) + lost("process") >= 20


def a_full_file_table_hides_nothing():
    # EPERM by the profile, EPERM by the kernel.
    assert ran().result.mark("files") == "full 1 1"
    watched = find(ran().runs[0], "capability.denied", syscall="sethostname", via="seccomp-notify")
    assert watched or lost("capability") > 0


def a_full_file_table_lets_no_workload_run_unreported():
    code, _, words = ran().result.mark("closed").partition(" ")
    assert code == "125", words
    assert "COMMAND was not run" in words
    assert "unreported" not in ran().result.marks


def a_second_agent_says_that_the_first_serves():
    assert second_agents_vias(ran().events)[:3] \
        == ["seccomp-notify-stale", "none", "seccomp-notify"]


def every_scheduling_class_is_reported():
    for name in CLASSES:
        with case(name):
            parent = int(ran().result.mark(name))
            born = [e["data"]["guestPid"]
                    for e in find(ran().runs[0], "process.spawned", ppid=parent)]
            assert len(born) == 20
            for kind in ("process.executed", "process.exited"):
                seen = [e["data"]["guestPid"] for e in find(ran().runs[0], kind)]
                assert all(pid in seen for pid in born), kind


if __name__ == "__main__":
    main()
