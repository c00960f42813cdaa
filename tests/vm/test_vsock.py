# SPDX-License-Identifier: MIT
"""The vsock device of the test VM behaves as a VMM's: bytes both ways within the credit, ends, a
connect that is refused, a full backlog, and the reset of the transport, which ends the agent's
session."""

import hashlib
import threading
import time

from host_sockets import (
    SENT_BEFORE_THE_END, HostSockets, check_killed_machine, check_sent_before_the_end, read_all)
from runner import main, until
from vm import Receiver, Vm, find, sessions_of

DRIVER = "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport"


TOTAL = 4 << 20

# One machine for what does not end it.
SCRIPT = f"""
    # The host closes: the guest reads its bytes, then the end, though its own input goes on.
    mkfifo /tmp/endless; exec 3<> /tmp/endless
    vsock-cat 9001 <&3 > /tmp/answer || exit 10
    [ "$(cat /tmp/answer)" = answer ] || exit 11
    # The guest is killed: the host sees the end.
    vsock-cat 9001 <&3 & kitty=$!
    vm await accepted
    kill -9 $kitty
    # One direction ended is no end for the host, as with the VMM.
    vm say half
    echo question | vsock-cat 9001 > /tmp/answer || exit 12
    [ "$(cat /tmp/answer)" = "late answer" ] || exit 13
    # Nobody listens on this port; nobody is another host.
    vsock-cat 9002 < /dev/null 2> /tmp/error && exit 14
    grep -q 'Connection reset' /tmp/error || exit 15
    # A backlog that is full is a refusal too, and delays no other connection.
    vsock-cat 9003 <&3 & vm idle $!
    vsock-cat 9003 < /dev/null 2> /tmp/error && exit 16
    grep -q 'Connection reset' /tmp/error || exit 17
    echo last | vsock-cat 9001 > /dev/null || exit 18

    head -c {TOTAL} /dev/urandom > /tmp/data
    sha256sum /tmp/data
    vsock-cat 9001 < /tmp/data > /tmp/back & slow=$!
    vm idle $slow
    vm say written $(sed -n 's/^wchar: //p' /proc/$slow/io)
    echo quick | vsock-cat 9001 || exit 20
    vm await stop
    kill -STOP $slow
    vm say stopped
    vm await filled
    kill -CONT $slow
    wait $slow || exit 21
    cmp /tmp/data /tmp/back || exit 22

    vsock-cat 9001 <&3 2> /tmp/error & kitty=$!
    vm await reset
    device=$(basename {DRIVER}/virtio*)
    echo $device > {DRIVER}/unbind || exit 30
    wait $kitty && exit 31
    grep -q 'Connection reset' /tmp/error || exit 32
    echo $device > {DRIVER}/bind || exit 33
    echo again | vsock-cat 9001 || exit 34
    {SENT_BEFORE_THE_END}
    true
"""


def _ends_and_refusals(host, vm):
    with host.accept() as first:
        first.sendall(b"answer\n")
    with host.accept() as second:
        vm.tell("accepted")
        assert read_all(second) == b""
    vm.wait_mark("half")
    with host.accept() as third:
        assert third.recv(64) == b"question\n"
        third.settimeout(0.5)
        try:
            raise AssertionError(third.recv(64))
        except TimeoutError:
            pass
        third.sendall(b"late answer\n")
    with host.accept() as fourth:
        assert fourth.recv(64) == b"last\n"


def _credit(host, vm):
    """A host that does not read stops its guest at a bound, and nobody else; a guest that does
    not read stops the host; no byte is lost or out of place when they go on."""
    sent, data = 0, b""

    def send_back(sock):
        nonlocal sent
        for at in range(0, TOTAL, 4096):
            sock.sendall(data[at:at + 4096])
            sent += 4096
        sock.close()

    def stands_still():
        before = sent
        time.sleep(1)
        return before == sent > 0

    slow = host.accept()
    # The guest's own buffer, the credit, the Unix socket.
    assert int(vm.wait_mark("written")) < 2 << 20
    with host.accept() as quick:
        assert quick.recv(64) == b"quick\n"
    while len(data) < TOTAL:
        data += slow.recv(65536)
    vm.tell("stop")
    vm.wait_mark("stopped")
    sender = threading.Thread(target=send_back, args=(slow,))
    sender.start()
    until(stands_still, "a guest that takes no more")
    assert sent < 2 << 20
    vm.tell("filled")
    sender.join()
    return data


def _transport_reset(host, vm):
    """The driver unbound and bound again: every connection is reset, and new ones work."""
    with host.accept() as first:
        vm.tell("reset")
        assert read_all(first) == b""
    with host.accept() as second:
        assert second.recv(64) == b"again\n"


def it_behaves_as_a_vmm():
    with HostSockets("device") as host, host.vm(SCRIPT, cpus=2) as vm:
        host.listen(9003, 0)
        _ends_and_refusals(host, vm)
        data = _credit(host, vm)
        _transport_reset(host, vm)
        check_sent_before_the_end(host)
        result = vm.wait().check()
    assert hashlib.sha256(data).hexdigest() in result.output


def a_killed_machine_ends_its_connections():
    check_killed_machine("device")


AGENT_SCRIPT = f"""
cellos-telemetry --heartbeat 300 --fs inotify --inotify /tmp || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
touch /tmp/one
vm await one
device=$(basename {DRIVER}/virtio*)
echo $device > {DRIVER}/unbind || exit 11
touch /tmp/two
echo $device > {DRIVER}/bind || exit 12
vm await two
kill $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
"""


def a_reset_begins_a_new_session():
    """As after a snapshot: the old session is finished, a new one begins, nothing is lost."""
    with Receiver("--keepalive", "0", signed=True) as receiver:
        with Vm(AGENT_SCRIPT, receiver=receiver, transport="device") as vm:
            for name in ("one", "two"):
                receiver.wait_event("fs.inotify_fired", name=name)
                vm.tell(name)
            vm.wait().check()
        events = receiver.finish()
        verdict = receiver.verify()
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    sessions = [e["data"]["detail"]["session"] for e in find(events, "telemetry.hello")]
    # The old one on connections of its own, if anything of it was still to be settled.
    assert len(sessions_of(events)) == 2 and sessions == sorted(sessions, key=sessions.index), \
        sessions
    for name in ("one", "two"):
        created = [find(events, "fs.inotify_fired", name=name, event=event)
                   for event in ("create", "create,attrib")]
        assert len(created[0]) + len(created[1]) == 1, name
    assert find(events, "guest.v1.telemetry_gap") == []


if __name__ == "__main__":
    main()
