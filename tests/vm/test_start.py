# SPDX-License-Identifier: MIT
"""How the agent starts beside a receiver that is there, late, or missing."""

import time

from runner import main
from vm import Receiver, Vm, find, sessions_of

# Seconds since boot, as the guest's CLOCK_MONOTONIC counts them.
NOW = "read now rest < /proc/uptime"


def parent_waits_for_the_receiver():
    """The parent exits 0 once the hello is out, not before: here the receiver comes late."""
    script = f"""
        {NOW}; began=$now
        vm say starting
        cellos-telemetry --ready-timeout 60000 --ready-fd 3 3> /tmp/ready; code=$?
        {NOW}
        vm say parent $code $began $now $(cat /tmp/ready) $(cat /run/cellos-telemetry/agent.pid)
        vm await seen
    """
    receiver = Receiver()
    with Vm(script, receiver=receiver) as vm:
        vm.wait_mark("starting")
        time.sleep(1.5)
        assert "parent" not in vm.marks
        with receiver:
            code, began, ended, ready, pid = vm.wait_mark("parent").split()
            vm.tell("seen")
            hello = receiver.wait_event("telemetry.hello", 5)["data"]
            vm.wait().check()
    assert (code, ready) == ("0", pid)
    assert int(pid) == hello["guestPid"]
    assert float(ended) - float(began) > 1.4
    # /proc/uptime counts hundredths.
    assert hello["guestMonotonicNs"] / 1e9 < float(ended) + 0.01


def no_receiver():
    """Without a receiver the start fails with 3 when its time is over, says why and leaves nothing.
    The time is long: the first connect must have been answered by then."""
    script = f"""
        {NOW}; began=$now
        cellos-telemetry --ready-timeout 10000 2> /tmp/reason; code=$?
        {NOW}
        vm say parent $code $began $now
        vm put /tmp/reason
        pidof cellos-telemetry && exit 10
        [ -e /run/cellos-telemetry/agent.pid ] && exit 11
        exit 0
    """
    result = Vm(script).run().check()
    code, began, ended = result.mark("parent").split()
    assert code == "3"
    assert float(ended) - float(began) >= 9
    reason = result.files["/tmp/reason"].decode()
    assert "vsock:2:9001" in reason
    assert "Connection reset" in reason


def reconnects_to_a_receiver_that_comes_back():
    """A receiver that dies and comes back gets the next hello, of the same session, and what
    happened meanwhile."""
    script = """
        cellos-telemetry --heartbeat 300 --fs inotify --inotify /tmp || exit 10
        vm await dead
        touch /tmp/meanwhile
        vm say touched
        vm await seen
    """
    with Receiver() as receiver, Vm(script, receiver=receiver) as vm:
        receiver.wait_event("telemetry.hello", 20)
        assert receiver.stop() == 0
        time.sleep(0.3)
        vm.tell("dead")
        vm.wait_mark("touched")
        receiver.start()
        receiver.wait_event("fs.inotify_fired", 10, name="meanwhile")
        vm.tell("seen")
        vm.wait().check()
        events = receiver.finish()
    hellos = find(events, "telemetry.hello")
    assert len({e["data"]["streamId"] for e in hellos}) == 2
    assert len(sessions_of(events)) == 1
    # Without a log it does not remember what was acknowledged before, but only that can be missing.
    gaps = [e["data"] for e in find(events, "guest.v1.telemetry_gap")]
    assert {gap["reason"] for gap in gaps} <= {"session_start"}, gaps


if __name__ == "__main__":
    main()
