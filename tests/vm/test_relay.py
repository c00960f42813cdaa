# SPDX-License-Identifier: MIT
"""The loopback transport of the harness shows the guest what a VMM would. Without an agent and a
receiver: on the host's side are sockets of the test."""

import hashlib
import threading

from host_sockets import (
    SENT_BEFORE_THE_END, HostSockets, check_killed_machine, check_sent_before_the_end, read_all)
from runner import PATIENCE, main


TOTAL = 4 << 20
COUNT, SIZE = 24, 100_000

# One machine for what does not end it.
SCRIPT = f"""
    # A host that does not read.
    head -c {TOTAL} /dev/urandom > /tmp/data
    sha256sum /tmp/data
    vsock-cat 9001 < /tmp/data & slow=$!
    written() {{ sed -n 's/^wchar: //p' /proc/$slow/io; }}
    until one=$(written); sleep 1; [ $one -gt 65536 ] && [ $one = $(written) ]; do :; done
    vm say written $one
    echo quick | vsock-cat 9001 || exit 20
    vm await read
    wait $slow || exit 21
    # A guest that does not read, beside others.
    vsock-cat 9001 < /dev/null > /tmp/out & stuck=$!
    vm await stopped
    kill -STOP $stuck
    vm say stopped
    for i in $(seq {COUNT}); do
        head -c {SIZE} /dev/urandom > /tmp/in$i
        vsock-cat 9001 < /tmp/in$i > /tmp/out$i &
        pids="$pids $!"
    done
    wait $pids
    for i in $(seq {COUNT}); do cmp /tmp/in$i /tmp/out$i || exit 30; done
    kill -CONT $stuck
    wait $stuck
    [ $(wc -c < /tmp/out) = {4 << 20} ] || exit 31
    vm say many
    # The guest ends its direction, the host answers after that.
    echo question | vsock-cat 9001 > /tmp/answer || exit 10
    [ "$(cat /tmp/answer)" = "answer to question" ] || exit 11
    # The host closes: the guest sees the end though its own input goes on.
    vm say second
    mkfifo /tmp/endless; exec 3<> /tmp/endless
    vsock-cat 9001 <&3 || exit 12
    # The guest is killed: the host sees the end.
    vm say third
    vsock-cat 9001 <&3 & kitty=$!
    vm await accepted
    kill -9 $kitty
    # Nobody listens on this port.
    vsock-cat 9002 < /dev/null 2> /tmp/error && exit 13
    grep -q 'Connection reset' /tmp/error || exit 14
    vm await gone
    # Nobody listens any more, which the relay learns.
    while vsock-cat 9001 < /dev/null 2> /tmp/error; do sleep 0.1; done
    grep -q 'Connection reset' /tmp/error || exit 16
    vm say refused
    vm await back
    until echo again | vsock-cat 9001; do sleep 0.1; done
    head -c 300000 /dev/urandom > /tmp/file
    sha256sum < /tmp/file
    vm put /tmp/file result
    vm say last word of it
    {SENT_BEFORE_THE_END}
    echo error >&2
    exit 42
"""


def _a_host_that_does_not_read(host, vm):
    """It stops its guest at a bound, and nobody else; no byte is lost or out of place when it goes
    on."""
    slow = host.accept()
    assert int(vm.wait_mark("written")) < 2 << 20
    with host.accept() as quick:
        assert read_all(quick) == b"quick\n"
    vm.tell("read")
    data = read_all(slow)
    slow.close()
    return data


def _many_connections_at_once(host, vm):
    """Each with its own bytes there and back; and a guest that does not read stops the host."""
    sent = 0

    def echo(sock):
        with sock:
            sock.sendall(read_all(sock))

    def flood(sock):
        nonlocal sent
        with sock:
            for _ in range(64):
                sock.sendall(bytes(65536))
                sent += 65536

    first = host.accept()
    vm.tell("stopped")
    vm.wait_mark("stopped")
    first.settimeout(PATIENCE)
    flooder = threading.Thread(target=flood, args=(first,))
    flooder.start()
    for i in range(COUNT):
        threading.Thread(target=echo, args=(host.accept(),)).start()
        if i == 0:
            assert sent < 2 << 20
    vm.wait_mark("many")
    flooder.join()


def _ends_in_both_directions(host, vm):
    """Both kinds of end, refusal, status, files."""
    with host.accept() as first:
        assert read_all(first) == b"question\n"
        first.sendall(b"answer to question\n")
    vm.wait_mark("second")
    host.accept().close()
    vm.wait_mark("third")
    with host.accept() as third:
        vm.tell("accepted")
        assert read_all(third) == b""
    host.unlisten(9001)
    vm.tell("gone")
    vm.wait_mark("refused")
    host.listen(9001)
    vm.tell("back")
    with host.accept() as fourth:
        assert read_all(fourth) == b"again\n"


def bytes_and_ends_in_both_directions():
    with HostSockets("loopback") as host, \
            host.vm(SCRIPT, ports=(9001, 9002), cpus=2) as vm:
        data = _a_host_that_does_not_read(host, vm)
        _many_connections_at_once(host, vm)
        _ends_in_both_directions(host, vm)
        check_sent_before_the_end(host)
        result = vm.wait()
    assert result.status == 42, result.output
    assert len(data) == TOTAL
    assert hashlib.sha256(data).hexdigest() in result.output
    assert result.mark("last") == "word of it"
    assert len(result.files["result"]) == 300000
    assert hashlib.sha256(result.files["result"]).hexdigest() in result.output
    assert result.output.endswith("error\n"), result.output


def a_killed_machine_ends_its_connections():
    check_killed_machine("loopback")


def a_panic_is_reported():
    """A guest that dies says so instead of hanging."""
    with HostSockets("loopback") as host:
        result = host.vm("echo c > /proc/sysrq-trigger; sleep 30").run()
    assert result.status is None
    assert "Kernel panic" in result.console


if __name__ == "__main__":
    main()
