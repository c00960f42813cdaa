# SPDX-License-Identifier: MIT
"""The loopback transport of the harness: what a guest's vsock connection sees is what a VMM would show it. Only
sockets of the test's own on the host's side; no agent, no receiver."""

import hashlib
import os
import socket
import tempfile
import threading
import unittest

from vm import PATIENCE, Vm, main


class Listener:
    """A UNIX socket at <base>_<port>."""

    def __init__(self, directory, port):
        self.base = os.path.join(directory, "v")
        self.path = f"{self.base}_{port}"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind(self.path)
        self.sock.listen()
        self.sock.settimeout(PATIENCE)

    def accept(self):
        sock, _ = self.sock.accept()
        sock.settimeout(PATIENCE)
        return sock

    def close(self):
        self.sock.close()
        os.unlink(self.path)


def read_all(sock):
    data = bytearray()
    while chunk := sock.recv(65536):
        data += chunk
    return bytes(data)


class Relay(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.listener = Listener(self.directory.name, 9001)
        self.addCleanup(self.listener.close)

    def vm(self, script, **kwargs):
        return Vm(script, base=self.listener.base, agent=False, transport="loopback", **kwargs)

    def test_bytes_and_ends(self):
        """Both directions, both kinds of end, several connections, refusal, status, files."""
        script = """
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
            echo error >&2
            exit 42
        """
        with self.vm(script, ports=(9001, 9002)) as vm:
            with self.listener.accept() as first:
                self.assertEqual(read_all(first), b"question\n")
                first.sendall(b"answer to question\n")
            vm.wait_mark("second")
            self.listener.accept().close()
            vm.wait_mark("third")
            with self.listener.accept() as third:
                vm.tell("accepted")
                self.assertEqual(read_all(third), b"")
            self.listener.close()
            vm.tell("gone")
            vm.wait_mark("refused")
            self.listener = Listener(self.directory.name, 9001)
            vm.tell("back")
            with self.listener.accept() as fourth:
                self.assertEqual(read_all(fourth), b"again\n")
            result = vm.wait()
        self.assertEqual(result.status, 42, result.output)
        self.assertEqual(result.mark("last"), "word of it")
        self.assertEqual(len(result.files["result"]), 300000)
        self.assertIn(hashlib.sha256(result.files["result"]).hexdigest(), result.output)
        self.assertTrue(result.output.endswith("error\n"), result.output)

    def test_back_pressure(self):
        """A host that does not read stops its guest at a bound, and nobody else; no byte is lost
        or out of place when it goes on."""
        total = 8 << 20
        script = f"""
            head -c {total} /dev/urandom > /tmp/data
            sha256sum /tmp/data
            vsock-cat 9001 < /tmp/data & slow=$!
            written() {{ sed -n 's/^wchar: //p' /proc/$slow/io; }}
            until one=$(written); sleep 1; [ $one -gt 65536 ] && [ $one = $(written) ]; do :; done
            vm say written $one
            echo quick | vsock-cat 9001 || exit 10
            vm await read
            wait $slow || exit 11
        """
        with self.vm(script, cpus=2) as vm:
            slow = self.listener.accept()
            self.assertLess(int(vm.wait_mark("written")), 2 << 20)
            with self.listener.accept() as quick:
                self.assertEqual(read_all(quick), b"quick\n")
            vm.tell("read")
            data = read_all(slow)
            slow.close()
            result = vm.wait()
        result.check()
        self.assertEqual(len(data), total)
        self.assertIn(hashlib.sha256(data).hexdigest(), result.output)

    def test_host_to_guest_and_many(self):
        """Many connections at once, each with its own bytes there and back; and a guest that
        does not read stops the host."""
        count, size = 24, 100_000
        script = f"""
            vsock-cat 9001 < /dev/null > /tmp/out & stuck=$!
            vm await stopped
            kill -STOP $stuck
            vm say stopped
            for i in $(seq {count}); do
                head -c {size} /dev/urandom > /tmp/in$i
                vsock-cat 9001 < /tmp/in$i > /tmp/out$i &
                pids="$pids $!"
            done
            wait $pids
            for i in $(seq {count}); do cmp /tmp/in$i /tmp/out$i || exit 10; done
            kill -CONT $stuck
            wait $stuck
            [ $(wc -c < /tmp/out) = {4 << 20} ] || exit 11
        """
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

        with self.vm(script, cpus=2) as vm:
            first = self.listener.accept()
            vm.tell("stopped")
            vm.wait_mark("stopped")
            first.settimeout(PATIENCE)
            flooder = threading.Thread(target=flood, args=(first,))
            flooder.start()
            for i in range(count):
                threading.Thread(target=echo, args=(self.listener.accept(),)).start()
                if i == 0:
                    self.assertLess(sent, 2 << 20)
            vm.wait().check()
            flooder.join()

    def test_end_of_the_vm(self):
        """What the guest sent before it ended arrives; a VMM that is killed ends connections."""
        with self.vm("head -c 200000 /dev/zero | vsock-cat 9001 & vm idle $!; true") as vm:
            with self.listener.accept() as sock:
                self.assertEqual(len(read_all(sock)), 200000)
            vm.wait().check()
        with self.vm("tail -f /dev/null | vsock-cat 9001") as vm:
            with self.listener.accept() as sock:
                vm.kill()
                self.assertEqual(read_all(sock), b"")
            self.assertIsNone(vm.wait().status)

    def test_panic(self):
        """A guest that dies says so instead of hanging."""
        result = self.vm("echo c > /proc/sysrq-trigger; sleep 30").run()
        self.assertIsNone(result.status)
        self.assertIn("Kernel panic", result.console)


if __name__ == "__main__":
    main()
