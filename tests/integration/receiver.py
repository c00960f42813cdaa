# SPDX-License-Identifier: MIT
"""What the tests of the receiver share: the real `receive` over a real socket, and frames."""

import array
import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time

import cbor2

import oracle
from runner import PATIENCE, until

RECEIVER = os.environ["CELLOS_RECEIVER"]
HASH = "sha256:" + "5" * 64


def body(source="process.spawned", version=2, pid=7, comm="w", at=42, **more):
    fields = {"content_version": version, "probe_source": source, "guest_pid": pid,
              "guest_comm": comm, "guest_monotonic_ns": at}
    fields.update(more)
    return cbor2.dumps(fields)


def frame(*args, **more):
    data = body(*args, **more)
    return struct.pack("<I", len(data)) + data


def spawned(seq):
    return frame(seq=seq, detail={"ppid": 1})


def hello(session="0123456789abcdef", next_seq=1):
    return frame("telemetry.hello", detail={"agent_version": "0", "session": session,
                                            "next_seq": next_seq})


def heartbeat(next_seq, observed=0, dropped=0):
    return frame("telemetry.heartbeat", detail={
        "observed": observed, "sent": observed - dropped, "dropped": dropped, "kernel_lost": 0,
        "next_seq": next_seq})


def bye(next_seq=1):
    return frame("telemetry.bye", detail={"reason": "test", "next_seq": next_seq})


def say(sock, data):
    """Sends to a receiver that ends the connection by itself, maybe before it has read all of it."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(data)


class Receiver:
    """The real receiver of one cell, with a fresh key."""

    def __init__(self, *options, sign=True, base=None, wait=True, stdout=None, env=None):
        self.dir = tempfile.TemporaryDirectory(prefix="cellos-receive-")
        self.base = base or os.path.join(self.dir.name, "v.sock")
        self.path = self.base + "_9001"
        self.evidence_path = os.path.join(self.dir.name, "evidence.jsonl")
        self.keys = None
        args = [RECEIVER, "receive", "--uds", self.base, "--cell-id", "cell-1", "--run-id",
                "run-1", "--spec-hash", HASH,
                # Tests connect more often than agents; those that do not say so themselves.
                "--rate-connections", "1000000",
                # A machine that stands still makes every guest silent.
                "--keepalive", "0", "--connect-within", "0"]
        if sign:
            subprocess.run([RECEIVER, "keygen", "--kid", "k1", "--out", self.dir.name],
                           check=True, stdout=subprocess.DEVNULL)
            with open(self.file("keyring.json")) as f:
                self.keys = json.load(f)
            args += ["--sign-alg", "ed25519", "--sign-kid", "k1", "--sign-key-file",
                     self.file("k1.seed")]
        self.out = open(self.evidence_path, "wb") if stdout is None else None
        self.err = open(self.file("stderr"), "wb")
        self.process = subprocess.Popen(
            args + list(options), stdin=subprocess.DEVNULL, stdout=stdout or self.out,
            stderr=self.err, env={**os.environ, **(env or {})})
        # The path is there an instant before it listens.
        if wait:
            until(lambda: self.process.poll() is not None or 'msg="listening"' in self.log(),
                  "a receiver that listens", 0.005)
            assert self.process.poll() is None, self.log()

    def file(self, name):
        return os.path.join(self.dir.name, name)

    def log(self):
        with open(self.file("stderr")) as f:
            return f.read()

    def connect(self):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Short, whatever the path: as the VMM connects inside its jail.
        fd = os.open(os.path.dirname(self.path), os.O_PATH)
        try:
            sock.connect(f"/proc/self/fd/{fd}/{os.path.basename(self.path)}")
        finally:
            os.close(fd)
        return sock

    def visit(self, data):
        """Come, say something to whoever still listens, and go."""
        with self.connect() as sock:
            say(sock, data)

    def lines(self):
        with open(self.evidence_path, "rb") as f:
            return f.read()

    def wait_for(self, name, count=1, timeout=PATIENCE):
        """Until so many events of the type are on disk; the events so far."""
        end = f'"type":"{oracle.PREFIX}{name}"'.encode()

        def enough():
            data = self.lines()
            # Counting is cheap and checking is not: check only what may be enough.
            if data.count(end) < count:
                return None
            events = oracle.check(data[:data.rfind(b"\n") + 1], self.keys, sealed=False)
            return events if len(oracle.named(events, name)) >= count else None

        return until(enough, lambda: f"{count} x {name}:\n{self.lines()[-4000:]}\n{self.log()}",
                     patience=timeout)

    def wait_log(self, text, count=1):
        until(lambda: self.log().count(text) >= count,
              lambda: f"{count} x {text!r} in the log:\n{self.log()}")

    def stop(self, timeout=PATIENCE):
        """Seal, then judge by the oracle and by `verify`; the events."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout) == 0, self.log()
        events = oracle.check(self.lines(), self.keys)
        self.verify()
        return events

    def stop_and_read(self, read_end, timeout=PATIENCE):
        """Seal what waits for a reader of standard output that stood still; the events."""
        self.process.terminate()
        with os.fdopen(read_end, "rb") as f:
            evidence = f.read()
        assert self.process.wait(timeout) == 0, self.log()
        return oracle.check(evidence, self.keys)

    def verify(self, want=0):
        args = [RECEIVER, "verify"]
        if self.keys:
            args += ["--require-signed", "--keys", self.file("keyring.json")]
        run = subprocess.run(args + [self.evidence_path], capture_output=True, text=True)
        assert run.returncode == want, run.stdout + run.stderr
        return run.stdout

    def __enter__(self):
        return self

    def __exit__(self, failure, *exc):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.err.close()
        if self.out:
            self.out.close()
        if failure:
            print(f"the receiver (ended with {self.process.returncode}) said:\n{self.log()}",
                  file=sys.stderr)
        self.dir.cleanup()


def no_more_descriptors(pid, but=0):
    """From now on the process has those that it has; give one of them up, and it has one."""
    # Some are open for a moment only, which is long where the process stands still.
    until(lambda: is_idle(pid), "a process with nothing to do", 0)
    have = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    free = [fd for fd in range(len(have) + 1 + but) if fd not in have]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[but], hard))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waits(pid, task):
    """The thread of the process waits for something: proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/task/{task}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] == "S"
    except (FileNotFoundError, ProcessLookupError):
        return False  # a thread that has just ended


def open_files(pid):
    """Descriptor -> path, but for those that are closed meanwhile."""
    files = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            files[fd] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return files


def is_idle(pid):
    """At each of twenty looks every thread of the process waits for something."""
    for _ in range(20):
        if not all(waits(pid, task) for task in os.listdir(f"/proc/{pid}/task")):
            return False
        time.sleep(0.03)
    return True


def send_until_nobody_reads(receiver, sock, data, most):
    """Sends it again and again, at most so often; how often it was taken. It is over when the socket
    is full and the receiver has nothing to do: a busy machine is waited for. A commit that hangs for
    PIPELINE_STALL_MS lets it read on, so it has nothing to do only after that."""
    sock.settimeout(3)
    for sent in range(most):
        rest = data
        while rest:
            try:
                rest = rest[sock.send(rest):]
            except TimeoutError:
                if is_idle(receiver.process.pid) and not select.select([], [sock], [], 0)[1]:
                    return sent
    return most


def closed_by_host(sock, timeout=PATIENCE):
    """True when the receiver ends the connection in time; liveness bytes are read on the way."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        ready, _, _ = select.select([sock], [], [], max(until - time.monotonic(), 0))
        if not ready:
            return False
        try:
            if not sock.recv(64):
                return True
        except ConnectionResetError:
            return True
    return False


def wait_until_read(sock):
    """The peer has taken everything that was sent: unix(7), SIOCOUTQ."""
    left = array.array("i", [1])
    until = time.monotonic() + 60
    while left[0] > 0:
        assert time.monotonic() < until, "the receiver does not read"
        fcntl.ioctl(sock, termios.TIOCOUTQ, left)


def wait_until_loop_waits(receiver, sock):
    """The receiver has read what was sent, and its loop waits again. Before that, the recv(2) that
    took the bytes may still run, and would take the next ones with them."""
    wait_until_read(sock)
    until(lambda: waits(receiver.process.pid, receiver.process.pid), "a loop that waits", 0)
