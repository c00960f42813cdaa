# SPDX-License-Identifier: MIT
"""What the tests of the agent share: a Unix listener that plays the host, the real agent, and
python3-cbor2 as the independent decoder of its frames."""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time

import cbor2

from runner import PATIENCE, until

AGENT = os.environ["CELLOS_AGENT"]


class Connection:
    """One connection of the agent, frame by frame. A host that acknowledges settles each frame when
    the test takes it; its memory of the sessions is the host's."""

    def __init__(self, sock, settled=None):
        self.sock = sock
        self.data = b""
        self.closed = False
        self.settled = settled  # session -> number; None: acknowledges nothing by itself
        self.session = None

    def ack(self, number):
        try:
            self.sock.sendall(b"\x01" + struct.pack("<Q", number))
        except OSError:
            pass  # the agent is gone already

    def settle(self, frame):
        if frame["probe_source"] == "telemetry.hello":
            self.session = frame["detail"]["session"]
            self.ack(self.settled.setdefault(self.session, 0))
        elif frame.get("seq", 0) > self.settled.get(self.session, 2**64):
            self.settled[self.session] = frame["seq"]
            self.ack(frame["seq"])

    def read(self, timeout):
        """Read once; False at the time-out or the end."""
        ready, _, _ = select.select([self.sock], [], [], max(timeout, 0))
        if not ready:
            return False
        try:
            chunk = self.sock.recv(65536)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            self.closed = True
            return False
        self.data += chunk
        return True

    def frame(self, timeout=PATIENCE):
        """The next frame as a dict, or None at the time-out or the end."""
        until = time.monotonic() + timeout
        while True:
            if len(self.data) >= 4:
                (length,) = struct.unpack("<I", self.data[:4])
                if len(self.data) >= 4 + length:
                    body, self.data = self.data[4:4 + length], self.data[4 + length:]
                    frame = cbor2.loads(body)
                    if self.settled is not None:
                        self.settle(frame)
                    return frame
            if self.closed or not self.read(until - time.monotonic()):
                if self.closed or time.monotonic() >= until:
                    return None

    def frames(self, seconds):
        """All frames of the next so many seconds."""
        until, out = time.monotonic() + seconds, []
        while time.monotonic() < until:
            f = self.frame(until - time.monotonic())
            if f is not None:
                out.append(f)
            elif self.closed:
                break
        return out

    def until(self, match, timeout=PATIENCE):
        """Frames up to and with the first that matches; fails when none comes."""
        until, out = time.monotonic() + timeout, []
        while time.monotonic() < until:
            f = self.frame(until - time.monotonic())
            if f is None:
                break
            out.append(f)
            if match(f):
                return out
        raise AssertionError(f"no frame matched within {timeout} s; got {out[-20:]}")

    def waiting(self):
        """How many bytes have come and are not read."""
        return struct.unpack("i", fcntl.ioctl(self.sock, termios.FIONREAD, bytes(4)))[0]

    def reset(self):
        """The guest's side sees ECONNRESET. A Unix socket gives that when it is closed with bytes
        unread, so it must not be drained before."""
        self.sock.close()

    def close(self):
        self.sock.close()


class Host:
    """A listening socket and a folder of its own. acks: it settles what is read from it."""

    def __init__(self, acks=True):
        self.settled = {} if acks else None
        self.dir = tempfile.TemporaryDirectory(prefix="cellos-agent-")
        self.path = os.path.join(self.dir.name, "v.sock_9001")
        self.listen()

    def listen(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind(self.path)
        self.sock.listen(16)

    def stop_listening(self):
        self.sock.close()
        os.unlink(self.path)

    def accept(self, timeout=PATIENCE):
        self.sock.settimeout(timeout)
        sock, _ = self.sock.accept()
        sock.settimeout(None)
        return Connection(sock, self.settled)

    def file(self, name):
        return os.path.join(self.dir.name, name)

    def args(self, *more):
        """The agent's command line. The net source is off unless asked for: its BPF program would
        stand at this machine's root cgroup."""
        # This machine's sysctls are not ours, and another user could not connect to this folder.
        line = [AGENT, "--connect", f"unix:{self.path}", "--pid-file", self.file("pid"),
                "--listener-socket", self.file("listener.sock"), "--keep-sysctls", "--uid", "0"]
        if "--net" not in more:
            line += ["--net", "off"]
        if "--ready-timeout" not in more:
            line += ["--ready-timeout", "60000"]
        return line + list(more)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()
        self.dir.cleanup()


class Agent:
    """The real agent in the foreground; ended with the block."""

    def __init__(self, host, *options, **popen):
        popen.setdefault("stderr", subprocess.PIPE)
        self.process = subprocess.Popen(host.args("--foreground", *options),
                                        stdin=subprocess.DEVNULL, **popen)
        self.pid = self.process.pid

    def wait_idle(self):
        """Until it has nothing more to do: asleep at each of ten looks, and no more than a
        heartbeat's work between them."""
        def cpu_and_state():
            with open(f"/proc/{self.pid}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12]), fields[0]

        def idle():
            begin, _ = cpu_and_state()
            for _ in range(10):
                time.sleep(0.03)
                cpu, state = cpu_and_state()
                if state != "S" or cpu > begin + 1:
                    return False
            return True

        until(idle, "an agent with nothing to do")

    def stop(self, timeout=PATIENCE):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, failure, *exc):
        ended = self.process.poll()
        if ended is None:
            self.process.kill()
            self.process.wait()
        if failure and self.process.stderr and not self.process.stderr.closed:
            said = self.process.stderr.read().decode(errors="replace")
            print(f"the agent (ended by itself: {ended}) said:\n{said}", file=sys.stderr)
        if self.process.stderr:
            self.process.stderr.close()


def source(name):
    return lambda f: f["probe_source"] == name


def of(frames, name):
    return [f for f in frames if f["probe_source"] == name]
