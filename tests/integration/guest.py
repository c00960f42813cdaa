# SPDX-License-Identifier: MIT
"""Agents as the tests of delivery need them: one that keeps what is not settled and sends it again,
one that behaves as the reference does (it sends frames, and never reads)."""

import random
import select
import struct

from receiver import frame, spawned
from runner import PATIENCE, until

CAPACITY = 4096


def hello(session, next_seq, assigned=None, acks=True, boot="boot-1", capacity=CAPACITY):
    return frame("telemetry.hello", detail={
        "agent_version": "0", "session": session, "next_seq": next_seq,
        "assigned": next_seq if assigned is None else assigned, "acks": acks,
        "boot_id": boot, "queue_capacity": capacity})


class Acks:
    """The bytes of the host, read by the letter of delivery.md section 1."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""
        self.numbers = []
        self.liveness = 0
        self.ended = False

    def feed(self, data):
        self.buffer += data
        while self.buffer:
            if self.buffer[0] == 0:
                self.liveness += 1
                self.buffer = self.buffer[1:]
                continue
            assert self.buffer[0] == 1, self.buffer
            if len(self.buffer) < 9:
                return
            self.numbers.append(struct.unpack("<Q", self.buffer[1:9])[0])
            self.buffer = self.buffer[9:]

    def read(self, timeout=0):
        """Read what is there, waiting so long for the first byte. False at the end."""
        while not self.ended and select.select([self.sock], [], [], timeout)[0]:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if data:
                self.feed(data)
            else:
                self.ended = True
            timeout = 0
        return not self.ended

    def wait(self, n):
        """Until n is acknowledged; every number is above the one before it."""
        until(lambda: (self.read(0.05) or True) and self.numbers and self.numbers[-1] >= n,
              lambda: f"{n} to be acknowledged: {self.numbers}", 0)
        assert self.numbers == sorted(set(self.numbers)), self.numbers
        return self.numbers[-1]

    def wait_end(self):
        until(lambda: not self.read(0.05), "the end of the connection", 0)


class Guest:
    """Keeps each frame until the host has settled it; connects again by itself. connect() returns a
    socket or raises OSError. Nothing is ever dropped: the ring is as large as it must be."""

    def __init__(self, connect, session=None, boot="boot-1"):
        self.connect = connect
        self.session = session or f"{random.getrandbits(64):016x}"
        self.boot = boot
        self.assigned = 1  # the number of the next observation
        self.ring = {}  # seq -> frame: not settled yet
        self.sock = self.acks = None
        self.out = b""
        self.connections = 0

    def observe(self, n=1):
        for _ in range(n):
            self.ring[self.assigned] = data = spawned(self.assigned)
            self.assigned += 1
            if self.sock:
                self.out += data

    def _reconnect(self):
        try:
            self.sock = self.connect()
        except OSError:
            return
        self.connections += 1
        self.sock.setblocking(False)
        self.acks = Acks(self.sock)
        first = min(self.ring, default=self.assigned)
        self.out = hello(self.session, first, self.assigned, boot=self.boot) + b"".join(
            self.ring[seq] for seq in sorted(self.ring))

    def hang_up(self):
        if self.sock:
            self.sock.close()
        self.sock = self.acks = None

    def turn(self):
        """Send what can be sent, read what is there."""
        if not self.sock:
            self._reconnect()
        if not self.sock:
            return
        try:
            while self.out:
                self.out = self.out[self.sock.send(self.out[:262144]):]
        except BlockingIOError:
            pass
        except OSError:
            self.out = b""
        alive = self.acks.read()
        if self.acks.numbers:
            assert self.acks.numbers == sorted(set(self.acks.numbers)), self.acks.numbers
            settled = self.acks.numbers[-1]
            assert settled < self.assigned, (settled, self.assigned)
            for seq in [seq for seq in self.ring if seq <= settled]:
                del self.ring[seq]
            self.acks.numbers = [settled]
        if not alive:
            self.hang_up()

    def settle(self, timeout=PATIENCE):
        def settled():
            self.turn()
            return not self.ring

        until(settled, lambda: f"{len(self.ring)} numbers to be settled", 0.005, timeout)


class Reference:
    """The reference's agent, version 1: one connection, frames of keys 1 to 5, and it never reads
    (the host's bytes stay in its socket)."""

    def __init__(self, connect):
        self.sock = connect()

    def send(self, n=1, source="process.spawned"):
        for _ in range(n):
            self.sock.sendall(frame(source, version=1))

    def unread(self):
        """What the host has sent to it."""
        self.sock.setblocking(False)
        try:
            return self.sock.recv(65536)
        except BlockingIOError:
            return None
        finally:
            self.sock.setblocking(True)
