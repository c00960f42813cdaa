# SPDX-License-Identifier: MIT
"""The vsock device of the test VM behaves as a VMM's: bytes both ways within the credit, ends, a
connect that is refused, a full backlog, and the reset of the transport, which ends the agent's session."""

import hashlib
import os
import socket
import tempfile
import threading
import time
import unittest

from vm import PATIENCE, Receiver, Vm, find, main, wait_for

DRIVER = "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport"


def read_all(sock):
    data = bytearray()
    while chunk := sock.recv(65536):
        data += chunk
    return bytes(data)


class Device(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.base = os.path.join(self.directory.name, "v")
        self.listener = self.listen(9001)

    def listen(self, port, backlog=128):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(f"{self.base}_{port}")
        sock.listen(backlog)
        sock.settimeout(PATIENCE)
        self.addCleanup(sock.close)
        return sock

    def accept(self):
        sock, _ = self.listener.accept()
        sock.settimeout(PATIENCE)
        return sock

    def vm(self, script, **kwargs):
        return Vm(script, base=self.base, agent=False, transport="device", **kwargs)

    def test_ends_and_refusals(self):
        script = """
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
        """
        self.listen(9003, 0)
        with self.vm(script) as vm:
            with self.accept() as first:
                first.sendall(b"answer\n")
            with self.accept() as second:
                vm.tell("accepted")
                self.assertEqual(read_all(second), b"")
            vm.wait_mark("half")
            with self.accept() as third:
                self.assertEqual(third.recv(64), b"question\n")
                third.settimeout(0.5)
                with self.assertRaises(TimeoutError):
                    third.recv(64)
                third.sendall(b"late answer\n")
            with self.accept() as fourth:
                self.assertEqual(fourth.recv(64), b"last\n")
            vm.wait().check()

    def test_credit(self):
        """A host that does not read stops its guest at a bound, and nobody else; a guest that does
        not read stops the host; no byte is lost or out of place when they go on."""
        total = 4 << 20
        script = f"""
            head -c {total} /dev/urandom > /tmp/data
            sha256sum /tmp/data
            vsock-cat 9001 < /tmp/data > /tmp/back & slow=$!
            vm idle $slow
            vm say written $(sed -n 's/^wchar: //p' /proc/$slow/io)
            echo quick | vsock-cat 9001 || exit 10
            vm await stop
            kill -STOP $slow
            vm say stopped
            vm await filled
            kill -CONT $slow
            wait $slow || exit 11
            cmp /tmp/data /tmp/back || exit 12
        """
        sent, data = 0, b""

        def send_back(sock):
            nonlocal sent
            for at in range(0, total, 4096):
                sock.sendall(data[at:at + 4096])
                sent += 4096
            sock.close()

        def stands_still():
            before = sent
            time.sleep(1)
            return before == sent > 0

        with self.vm(script, cpus=2) as vm:
            slow = self.accept()
            # The guest's own buffer, the credit, the Unix socket.
            self.assertLess(int(vm.wait_mark("written")), 2 << 20)
            with self.accept() as quick:
                self.assertEqual(quick.recv(64), b"quick\n")
            while len(data) < total:
                data += slow.recv(65536)
            vm.tell("stop")
            vm.wait_mark("stopped")
            sender = threading.Thread(target=send_back, args=(slow,))
            sender.start()
            wait_for("a guest that takes no more", stands_still)
            self.assertLess(sent, 2 << 20)
            vm.tell("filled")
            sender.join()
            result = vm.wait().check()
        self.assertIn(hashlib.sha256(data).hexdigest(), result.output)

    def test_transport_reset(self):
        """The driver unbound and bound again: every connection is reset, and new ones work."""
        script = f"""
            mkfifo /tmp/endless; exec 3<> /tmp/endless
            vsock-cat 9001 <&3 2> /tmp/error & kitty=$!
            vm await accepted
            device=$(basename {DRIVER}/virtio*)
            echo $device > {DRIVER}/unbind || exit 10
            wait $kitty && exit 11
            grep -q 'Connection reset' /tmp/error || exit 12
            echo $device > {DRIVER}/bind || exit 13
            echo again | vsock-cat 9001 || exit 14
        """
        with self.vm(script) as vm:
            with self.accept() as first:
                vm.tell("accepted")
                self.assertEqual(read_all(first), b"")
            with self.accept() as second:
                self.assertEqual(second.recv(64), b"again\n")
            vm.wait().check()

    def test_what_was_sent_arrives(self):
        """What the guest sent before it ended, and the end of a VMM that is killed."""
        with self.vm("head -c 200000 /dev/zero | vsock-cat 9001 & vm idle $!; true") as vm:
            with self.accept() as sock:
                self.assertEqual(len(read_all(sock)), 200000)
            vm.wait().check()
        with self.vm("tail -f /dev/null | vsock-cat 9001") as vm:
            with self.accept() as sock:
                vm.kill()
                self.assertEqual(read_all(sock), b"")
            self.assertIsNone(vm.wait().status)


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


class Agent(unittest.TestCase):
    def test_a_reset_begins_a_new_session(self):
        """As after a snapshot: the old session is finished, a new one begins, nothing is lost."""
        with Receiver("--keepalive", "0", signed=True) as receiver:
            with Vm(AGENT_SCRIPT, receiver=receiver, transport="device") as vm:
                for name in ("one", "two"):
                    receiver.wait_event("fs.inotify_fired", name=name)
                    vm.tell(name)
                vm.wait().check()
            events = receiver.finish()
            verdict = receiver.verify()
        self.assertEqual(verdict.returncode, 0, verdict.stdout + verdict.stderr)
        sessions = [e["data"]["detail"]["session"] for e in find(events, "telemetry.hello")]
        # The old one on a connection of its own, if anything of it was still to be settled.
        self.assertIn(sessions[:-1], ([sessions[0]], [sessions[0]] * 2))
        self.assertNotEqual(sessions[0], sessions[-1])
        for name in ("one", "two"):
            self.assertEqual(len(find(events, "fs.inotify_fired", name=name, event="create")) +
                             len(find(events, "fs.inotify_fired", name=name,
                                      event="create,attrib")), 1, name)
        self.assertEqual(find(events, "guest.v1.telemetry_gap"), [])


if __name__ == "__main__":
    main()
