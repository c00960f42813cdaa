# SPDX-License-Identifier: MIT
"""The agent as a user of its own: what root uses up is not the agent's; and every way in which a
start is refused."""

import json
from types import SimpleNamespace

from runner import main, once
from vm import Receiver, Vm, find, test_program

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
cellos-telemetry --probe --require process=proc-walk,net=audit > /tmp/probe.txt; vm say unmet $?
vm put /tmp/probe.txt
unshare -m sh -c 'mount -t tmpfs none /proc; exec cellos-telemetry' 2> /tmp/noproc
vm say noproc $? $(cat /tmp/noproc)
exit 0
"""


def root_can_exhaust_limits_and_the_agent_goes_on():
    with Receiver("--keepalive", "0") as receiver:
        with Vm(EXHAUST, receiver=receiver, programs=[test_program("exhaust")]) as vm:
            held = vm.wait_mark("held", 180)
            print(f"epoll watches, inotify watches: {held}", flush=True)
            assert receiver.stop() == 0
            vm.tell("dead")
            vm.wait_mark("away", 60)
            receiver.start()
            vm.tell("back")
            receiver.wait_event("fs.inotify_fired", 180, name="after")
            vm.tell("seen")
            vm.wait().check()
        events = receiver.finish()
    assert len(find(events, "telemetry.hello")) >= 2
    bye = find(events, "telemetry.bye")[-1]["data"]["detail"]
    assert bye["dropped"] == 0


@once
def start_run():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    with Receiver("--keepalive", "0") as receiver:
        got.result = Vm(START, receiver=receiver).run(300).check()
        got.events = receiver.finish()
    return got


def exit_of(mark):
    code, _, words = start_run().result.mark(mark).partition(" ")
    return int(code), words


def the_agent_has_a_user_of_its_own():
    status = dict(line.split(":\t", 1)
                  for line in start_run().result.files["/tmp/status"].decode().splitlines()
                  if ":\t" in line)
    assert status["Uid"].split() == [str(AGENT_UID)] * 4
    assert status["Gid"].split() == [str(AGENT_UID)] * 4
    assert status["Groups"].strip() == ""
    kept = 1 << NET_ADMIN | 1 << SYS_PTRACE | 1 << DAC_READ_SEARCH
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert int(status[name], 16) == kept, name
    assert int(status["CapInh"], 16) | int(status["CapAmb"], 16) == 0
    assert status["Seccomp"].strip() == "2"
    assert start_run().result.mark("folder") == f"{AGENT_UID}:755 {AGENT_UID}"
    assert int(start_run().result.mark("filemax")) >= 1048576


def its_sources_work():
    hello = find(start_run().events, "telemetry.hello")[0]["data"]["detail"]
    assert (hello["processVia"], hello["netVia"]) == ("proc-connector", "cgroup-bpf")
    beats = find(start_run().events, "process.executed")
    assert [e for e in beats if e["data"]["detail"].get("exe")], beats[:3]


def a_second_start_is_refused():
    code, words = exit_of("second")
    assert code == 5, words
    assert "an agent runs already" in words


def nothing_is_left():
    assert start_run().result.mark("left") == ""


def a_start_fails_without_the_required_sources():
    code, words = exit_of("required")
    assert code == 3, words
    assert "required=fs=inotify" in words
    assert "CONFIG_INOTIFY_USER" in words
    code, words = exit_of("met")
    assert code == 0, words
    assert "/nowhere" in words


def the_probe_reports_every_source():
    assert start_run().result.mark("probe") == "0"
    report = json.loads(start_run().result.files["/tmp/probe.json"])
    assert report["requirementsHold"]
    assert report["vsock"]["host"] == "not tried"
    taken = {s["family"]: s["source"] for s in report["sources"] if s["taken"]}
    assert (taken["process"], taken["net"], taken["capability"]) \
        == ("proc-connector", "cgroup-bpf", "seccomp-notify")
    for source in report["sources"]:
        if not source["available"]:
            assert source["needs"] and source["why"], source
    assert start_run().result.mark("unmet") == "3"
    words = start_run().result.files["/tmp/probe.txt"].decode()
    for required in ("process=proc-walk", "net=audit"):
        assert f"required:  {required} is not available" in words, words


def without_proc_the_start_is_refused():
    code, words = exit_of("noproc")
    assert code == 3, words
    assert "/proc" in words


if __name__ == "__main__":
    main()
