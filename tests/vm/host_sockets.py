# SPDX-License-Identifier: MIT
"""UNIX sockets of a test at <base>_<port>, where a guest's connects arrive, without a receiver."""

import os
import socket
import tempfile

from runner import PATIENCE
from vm import Vm


class HostSockets:
    """Listens on port 9001 from the start; vm() boots a machine whose ports lead here."""

    def __init__(self, transport):
        self.transport = transport
        self.directory = tempfile.TemporaryDirectory()
        self.base = os.path.join(self.directory.name, "v")
        self.listening = {}
        self.listen(9001)

    def vm(self, script, **kwargs):
        return Vm(script, base=self.base, agent=False, transport=self.transport, **kwargs)

    def listen(self, port, backlog=128):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(f"{self.base}_{port}")
        sock.listen(backlog)
        sock.settimeout(PATIENCE)
        self.listening[port] = sock

    def accept(self, port=9001):
        sock, _ = self.listening[port].accept()
        sock.settimeout(PATIENCE)
        return sock

    def unlisten(self, port):
        self.listening.pop(port).close()
        os.unlink(f"{self.base}_{port}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in self.listening.values():
            sock.close()
        self.directory.cleanup()


def read_all(sock):
    data = bytearray()
    while chunk := sock.recv(65536):
        data += chunk
    return bytes(data)


# The last of a script; what it sends arrives after the machine's end. It is sent, or the sender has
# ended: who waits for a connect has nothing to do either.
SENT_BEFORE_THE_END = """
    head -c 200000 /dev/zero | vsock-cat 9001 & sent=$!
    while [ -d /proc/$sent ] && ! [ "$(sed -n 's/^wchar: //p' /proc/$sent/io)" -ge 200000 ]; do
        sleep 0.05
    done 2> /tmp/null
"""


def check_sent_before_the_end(host):
    with host.accept() as sock:
        assert len(read_all(sock)) == 200000


def check_killed_machine(transport):
    """A VMM that is killed ends its connections."""
    with HostSockets(transport) as host, host.vm("tail -f /dev/null | vsock-cat 9001") as vm:
        with host.accept() as sock:
            vm.kill()
            assert read_all(sock) == b""
        assert vm.wait().status is None
