# SPDX-License-Identifier: MIT
"""Saves the state of a running test VM, and sets the machine back to it, as often as the test
likes: savevm and loadvm of the emulator, whose monitor is a UNIX socket."""

import array
import contextlib
import fcntl
import os
import socket
import struct
import termios

from runner import PATIENCE, until

CLUSTER = 65536
# What an ioctl says of a socket: bytes that its reader has not taken yet, and bytes to read.
SIOCOUTQ, FIONREAD = termios.TIOCOUTQ, termios.FIONREAD


def _write_empty_qcow2(path):
    """An image without data: savevm keeps its states in one (docs/interop/qcow2.txt of QEMU).
    Header, refcount table, refcount block, L1 table: a cluster each."""
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, 1 << 20, 0, 1, 3 * CLUSTER,
                         CLUSTER, 1, 0, 0)
    clusters = [header, struct.pack(">Q", 2 * CLUSTER), struct.pack(">4H", 1, 1, 1, 1), b""]
    with open(path, "wb") as f:
        f.write(b"".join(c.ljust(CLUSTER, b"\0") for c in clusters))


def _pending(sock, what):
    n = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), what, n)
    return n[0]


class States:
    """args are more qemu_args of a Vm of the loopback transport; folder outlives it."""

    def __init__(self, folder):
        self.monitor = os.path.join(folder, "monitor")
        image = os.path.join(folder, "states.qcow2")
        _write_empty_qcow2(image)
        self.args = ["-drive", f"if=none,id=states,format=qcow2,file={image}",
                     "-monitor", f"unix:{self.monitor},server=on,wait=off"]
        self.kept = None

    def _ask(self, command):
        """One command of the monitor; it answers with its prompt at the end."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(self.monitor)
            answer = b""
            for line in (b"", command.encode() + b"\n"):
                sock.sendall(line)
                answer = b""
                while not answer.endswith(b"(qemu) "):
                    part = sock.recv(65536)
                    assert part, f"the monitor ended at {command}"
                    answer += part
        assert b"Error" not in answer, answer.decode(errors="replace")

    @contextlib.contextmanager
    def _stopped(self, vm):
        """The machine stands still, and nothing is on its way between it and the harness."""
        stream = vm.mux.stream
        with vm.mux.held():
            until(lambda: not vm.mux.out and not _pending(stream, SIOCOUTQ), "a machine that reads")
            self._ask("stop")
            until(lambda: not _pending(stream, FIONREAD), "a harness that reads")
            yield
            self._ask("cont")

    def save(self, vm):
        with self._stopped(vm):
            self._ask("savevm one")
            self.kept = vm.mux.state()

    def set_back(self, vm):
        """The machine has the connections that it had; on the host they are gone."""
        with self._stopped(vm):
            self._ask("loadvm one")
            vm.mux.set_back(self.kept)
