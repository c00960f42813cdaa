# SPDX-License-Identifier: MIT
"""The host's half of the test VM's vsock: what the VMM would do. Connections that the guest opens
come over one byte stream (tests/vm/guest/mux.h) and become connections to the UNIX sockets
`<base>_<port>`, or to the harness itself. Nothing here or anywhere on the host uses AF_VSOCK."""

import contextlib
import os
import select
import socket
import struct
import threading
import time

START, OPEN, DATA, EOF, CLOSE, CREDIT, LISTEN, UNLISTEN, BYE = range(1, 10)

HEADER = struct.Struct("<BBHI")
CHUNK = 8192
WINDOW = 65536
OUT_LIMIT = 256 * 1024
CONTROL_PORT = 0
# What a connection to the harness begins with that carries the output of the script.
OUTPUT = b"output\n"

# How often the harness looks whether somebody listens on the host's sockets.
WATCH_SECONDS = 0.05


def is_listening(path):
    """Whether a UNIX socket at path accepts connections, found out without connecting
    (sock_diag(7), struct unix_diag_req): a receiver must not see connections nobody made. Only
    sockets of this network namespace are seen."""
    try:
        at_path = os.stat(path)
    except OSError:
        return False
    netlink_sock_diag, diag_by_family, dump, done, error = 4, 20, 0x301, 3, 2
    listen_state, show_vfs, attribute_vfs = 10, 2, 1
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 1 << listen_state, 0, show_vfs,
                          0xFFFFFFFF, 0xFFFFFFFF)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, netlink_sock_diag) as diag:
        diag.send(struct.pack("=IHHII", 16 + len(request), diag_by_family, dump, 1, 0) + request)
        while True:
            data = diag.recv(65536)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind in (done, error):
                    return False
                # nlmsghdr 16, unix_diag_msg 16, then attributes.
                at = 32
                while at + 4 <= length:
                    size, attribute = struct.unpack_from("=HH", data, at)
                    if attribute == attribute_vfs:
                        inode, device = struct.unpack_from("=II", data, at + 4)
                        # The kernel's dev_t: 12 bits of major, 20 of minor.
                        if (inode == at_path.st_ino & 0xFFFFFFFF and
                                (device >> 20, device & 0xFFFFF) ==
                                (os.major(at_path.st_dev), os.minor(at_path.st_dev))):
                            return True
                    at += (size + 3) & ~3
                data = data[(length + 3) & ~3:]


class Connection:
    def __init__(self, number, sock):
        self.number = number
        self.sock = sock
        self.credit = WINDOW  # bytes the guest still takes
        self.due = 0          # bytes passed on that the guest does not know of
        self.out = bytearray()  # on their way to sock
        self.first = b""      # bytes of it
        self.guest_eof = False
        self.guest_gone = False
        self.shut = False


class Mux(threading.Thread):
    """Owns the stream to the guest and all connections. Other threads only start and stop it.

    control(sock) is called on a thread of its own with each connection to the harness."""

    def __init__(self, stream, base, ports, control):
        super().__init__(name="vm-mux", daemon=True)
        self.stream = stream
        self.base = base
        self.ports = {port: False for port in ports} if base else {}
        self.control = control
        self.connections = {}
        self.out = bytearray()
        self.inp = bytearray()
        self.bye = False
        self.started = False
        self.opened = {}  # port -> connections opened by the guest, for tests
        self.refused = {}
        self.error = None
        self.wake, self.woken = socket.socketpair()
        self.stopping = False
        self.hold = threading.Lock()  # for a turn, or for as long as somebody holds the machine
        self.holding = False

    def run(self):
        try:
            self._run()
        except Exception as e:  # pylint: disable=broad-except
            self.error = e
        finally:
            for connection in self.connections.values():
                connection.sock.close()
            self.stream.close()

    def stop(self):
        self.stopping = True
        self.wake.send(b"x")
        self.join()
        self.wake.close()
        self.woken.close()

    @contextlib.contextmanager
    def held(self):
        """Until the end nothing is sent to the guest but what is on its way; it is still read."""
        with self.hold:
            self.holding = True
        try:
            yield
        finally:
            with self.hold:
                self.holding = False

    def state(self):
        """What the guest believes of its connections; held, and the guest stands still."""
        with self.hold:
            return bytes(self.inp), {c.number: (c.first == OUTPUT, bytes(c.out), c.due)
                                     for c in self.connections.values()}

    def set_back(self, state):
        """The guest is as it was when state() said so. Of its connections of then only the output
        of the script is left."""
        with self.hold:
            for connection in self.connections.values():
                connection.sock.close()
            self.connections.clear()
            self.inp[:], connections = state
            for number, (is_output, out, due) in connections.items():
                if not is_output:
                    self._frame(CLOSE, number)
                    continue
                self._open(number, CONTROL_PORT)
                connection = self.connections[number]
                connection.sock.send(OUTPUT)
                connection.first, connection.due = OUTPUT, due
                connection.out += out

    def _frame(self, kind, number, payload=b""):
        self.out += HEADER.pack(kind, 0, len(payload), number) + payload

    def _watch(self):
        for port, listening in self.ports.items():
            now = is_listening(f"{self.base}_{port}")
            if now != listening:
                self.ports[port] = now
                self._frame(LISTEN if now else UNLISTEN, port)

    def _open(self, number, port):
        if port == CONTROL_PORT:
            sock, other = socket.socketpair()
            threading.Thread(target=self.control, args=(other,), daemon=True).start()
        else:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(f"{self.base}_{port}")
            except OSError:
                sock.close()
                self.refused[port] = self.refused.get(port, 0) + 1
                self._frame(CLOSE, number)
                return
        sock.setblocking(False)
        self.opened[port] = self.opened.get(port, 0) + 1
        self.connections[number] = Connection(number, sock)

    def _take(self, kind, number, payload):
        if kind == START:
            self._watch()
            self._frame(START, 0)
            self.started = True
            return
        if kind == BYE:
            self.bye = True
            return
        if kind == OPEN:
            self._open(number, struct.unpack("<I", payload)[0])
            return
        c = self.connections.get(number)
        if c is None:
            return
        if kind == DATA:
            c.first += payload[:len(OUTPUT) - len(c.first)]
            c.out += payload
            assert len(c.out) <= WINDOW, f"connection {number}: more than the window"
        elif kind == CREDIT:
            c.credit += struct.unpack("<I", payload)[0]
        elif kind == EOF:
            c.guest_eof = True
        elif kind == CLOSE:
            c.guest_gone = True
        else:
            raise ValueError(f"frame type {kind} from the guest")

    def _read_stream(self):
        try:
            data = self.stream.recv(65536)
        except BlockingIOError:
            return True
        except ConnectionError:
            data = b""
        if not data:
            return False
        self.inp += data
        at = 0
        while len(self.inp) - at >= HEADER.size:
            kind, _, length, number = HEADER.unpack_from(self.inp, at)
            if len(self.inp) - at < HEADER.size + length:
                break
            self._take(kind, number, bytes(self.inp[at + HEADER.size:at + HEADER.size + length]))
            at += HEADER.size + length
        del self.inp[:at]
        return True

    def _drop(self, c, tell):
        if tell:
            self._frame(CLOSE, c.number)
        c.sock.close()
        del self.connections[c.number]

    def _write_sock(self, c):
        """False when nobody reads there any more."""
        while c.out:
            try:
                sent = c.sock.send(c.out)
            except BlockingIOError:
                break
            except OSError:
                return False
            del c.out[:sent]
            c.due += sent
        # In few frames: the window is large against this.
        if c.due >= CHUNK or (c.due and not c.out):
            self._frame(CREDIT, c.number, struct.pack("<I", c.due))
            c.due = 0
        return True

    def _read_sock(self, c):
        """False at its end: the VMM makes a full close of a host's end of one direction."""
        while c.credit > 0 and len(self.out) < OUT_LIMIT:
            try:
                data = c.sock.recv(min(CHUNK, c.credit))
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._frame(DATA, c.number, data)
            c.credit -= len(data)
        return True

    def _serve(self, c):
        if not self._write_sock(c):
            self._drop(c, tell=not c.guest_gone)
            return
        if c.guest_gone and not c.out:
            self._drop(c, tell=False)
            return
        if c.guest_eof and not c.out and not c.shut:
            c.sock.shutdown(socket.SHUT_WR)
            c.shut = True
        if not c.guest_gone and not self._read_sock(c):
            self._drop(c, tell=True)

    def _run(self):
        self.stream.setblocking(False)
        next_watch = 0.0
        bye_sent = False
        while not self.stopping:
            with self.hold:
                for c in [] if self.holding else list(self.connections.values()):
                    self._serve(c)
                if self.bye and not self.connections and not bye_sent:
                    self._frame(BYE, 0)
                    bye_sent = True
                if self.started and not self.holding and time.monotonic() >= next_watch:
                    self._watch()
                    next_watch = time.monotonic() + WATCH_SECONDS
                try:
                    while self.out:
                        del self.out[:self.stream.send(self.out)]
                except BlockingIOError:
                    pass
                except ConnectionError:
                    return
                poll = self._poll()
                ready = poll.poll(0)
                if self._is_over(ready):
                    return
            if not ready:
                poll.poll(WATCH_SECONDS * 1000)

    def _poll(self):
        """What says that something can go on."""
        poll = select.poll()
        poll.register(self.woken, select.POLLIN)
        poll.register(self.stream, select.POLLIN | (select.POLLOUT if self.out else 0))
        for c in [] if self.holding else list(self.connections.values()):
            readable = not c.guest_gone and c.credit > 0 and len(self.out) < OUT_LIMIT
            wanted = (select.POLLIN if readable else 0) | (select.POLLOUT if c.out else 0)
            if wanted:
                poll.register(c.sock, wanted)
        return poll

    def _is_over(self, ready):
        """Reads the stream; whether the guest is gone."""
        return any(fd == self.stream.fileno() and events & ~select.POLLOUT
                   for fd, events in ready) and not self._read_stream()
