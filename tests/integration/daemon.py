# SPDX-License-Identifier: MIT
"""What the tests of the daemon share: the real `serve` with a folder of its own."""

import contextlib
import glob
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import oracle
import tree_oracle
from receiver import HASH, RECEIVER
from runner import PATIENCE, until


CONTROL_STALL = 5  # seconds, CONTROL_STALL_MS


class BadDisk:
    """A disk as tests/integration/bad_disk.c makes it, for Daemon(env=disk.env)."""

    def __init__(self):
        self.path = f"/tmp/cellos-bad-disk.{os.getpid()}"
        self.env = {"LD_PRELOAD": os.environ["CELLOS_BAD_DISK"], "BAD_DISK": self.path}

    def set(self, words):
        with open(self.path + "#", "w") as f:
            f.write(words)
        os.rename(self.path + "#", self.path)

    def good(self):
        if os.path.exists(self.path):
            os.unlink(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.good()


def no_preload():
    """True, and the reason printed, where a library cannot be preloaded."""
    if "address" in os.environ.get("CELLOS_SANITIZE", ""):
        print("skipped: a preloaded library and AddressSanitizer do not go together", flush=True)
        return True
    return False


class Daemon:
    def __init__(self, config="", sign=True, env=None, evidence=None, start=True, args=()):
        self.tmp = tempfile.TemporaryDirectory(prefix="cellos-serve-")
        self.dir = self.tmp.name
        self.args = list(args)
        self.evidence = evidence or self.file("evidence")
        self.control = self.file("control.sock")
        os.makedirs(self.evidence, exist_ok=True)
        os.mkdir(self.file("state"))
        self.env = {**os.environ, **(env or {})}
        self.keys = None
        signing = ""
        if sign:
            subprocess.run([RECEIVER, "keygen", "--kid", "k1", "--out", self.dir], check=True,
                           stdout=subprocess.DEVNULL)
            with open(self.file("keyring.json")) as f:
                self.keys = json.load(f)
            signing = (f"[signing]\nalgorithm = ed25519\nkid = k1\n"
                       f"key_file = {self.file('k1.seed')}\n")
        self.base_config = (f"[receiver]\ncontrol_socket = {self.control}\n"
                            f"state_dir = {self.file('state')}\n"
                            f"[evidence]\ndir = {self.evidence}\n"
                            f"[metrics]\nlisten = unix:{self.file('metrics')}\n{signing}")
        self.configure(config)
        self.err = open(self.file("stderr"), "ab")
        self.process = None
        if start:
            self.start()

    def configure(self, config):
        """The base configuration and this."""
        base = self.base_config
        # An end in time is promised for a machine with time to spare, and a machine that stands
        # still makes every guest silent.
        for key, value in (("stop_timeout", f"{PATIENCE / 2:.0f}s"), ("keepalive", "0s"),
                           ("connect_within", "0s")):
            if key not in config:
                base = base.replace("[receiver]\n", f"[receiver]\n{key} = {value}\n")
        with open(self.file("conf"), "w") as f:
            f.write(base + config)

    def file(self, name):
        return os.path.join(self.dir, name)

    def log(self):
        with open(self.file("stderr")) as f:
            return f.read()

    def start(self, wait=True):
        before = self.log().count('msg="ready"')
        self.process = subprocess.Popen([RECEIVER, "serve", "--config", self.file("conf"),
                                         *self.args],
                                        stdin=subprocess.DEVNULL, stderr=self.err, env=self.env)
        if wait:
            until(lambda: self.process.poll() is not None or
                  self.log().count('msg="ready"') > before, "a ready daemon", 0.005)
            assert self.process.poll() is None, self.log()

    def wait_log(self, text, count=1, timeout=PATIENCE):
        until(lambda: self.log().count(text) >= count,
              lambda: f"{count} x {text!r} in the log:\n{self.log()}", patience=timeout)

    def _run_once(self, *args):
        """None: the daemon closed the connection of a client that stood still for CONTROL_STALL_MS
        before its request was there."""
        begin = time.monotonic()
        run = subprocess.run([RECEIVER, *args, "--control", self.control], capture_output=True,
                             text=True)
        closed = run.returncode == 69 and "no answer from the daemon" in run.stderr
        return None if closed and time.monotonic() - begin > CONTROL_STALL - 1 else run

    def run(self, *args, want=0):
        run = until(lambda: self._run_once(*args), f"an answer to {args}", 0)
        assert run.returncode == want, (args, run.returncode, run.stdout, run.stderr, self.log())
        return run.stdout if want == 0 else run.stderr

    def add(self, cell, *options, want=0):
        return self.run("cell", "add", "--cell-id", cell, "--run-id", "run", "--spec-hash", HASH,
                        "--uds", self.file(cell), *options, want=want).strip()

    def ask(self, request, timeout=PATIENCE):
        """A request past the client."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout)
            sock.connect(self.control)
            sock.sendall(request if isinstance(request, bytes)
                         else json.dumps(request).encode() + b"\n")
            data = b""
            while chunk := sock.recv(65536):
                data += chunk
            return json.loads(data) if data else None

    def http(self, path):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(self.file("metrics"))
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            data = b""
            while chunk := sock.recv(65536):
                data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def connect(self, cell):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.file(cell) + "_9001")
        return sock

    def segments(self):
        return sorted(glob.glob(os.path.join(self.evidence, "evidence-*.jsonl")))

    def raw_lines(self):
        """The whole lines on disk, in order."""
        data = b""
        for path in self.segments():
            try:
                with open(path, "rb") as f:
                    segment = f.read()
            except FileNotFoundError:
                continue  # retention was faster
            data += segment[:segment.rfind(b"\n") + 1]
        return data.splitlines(keepends=True)

    def logs(self):
        """The logs in the folder by their origins, judged by the oracle."""
        return tree_oracle.check(self.raw_lines(), self.keys)

    def entries(self):
        return [line for line in self.raw_lines() if tree_oracle.is_entry(line)]

    def all_events(self):
        in_tree = any(not tree_oracle.is_entry(line) for line in self.raw_lines()[:1])
        return [oracle.check_line(line, self.keys, in_tree=in_tree) for line in self.entries()]

    def lines(self):
        """The entries of the cells."""
        return [line for line in self.entries() if b'"source":"cellos-host-telemetry/log"' not in line]

    def events(self):
        """The events of the cells."""
        return [e for e in self.all_events() if not oracle.of_log(e)]

    def log_events(self):
        """The events of the log's own stream."""
        return [e for e in self.all_events() if oracle.of_log(e)]

    def wait_for(self, name, count=1, timeout=PATIENCE):
        """Until so many whole records of a type are on disk; those events."""
        end = f'"type":"{oracle.PREFIX}{name}"'.encode()

        def enough():
            # Counting is cheap and checking is not: check only what may be enough.
            if sum(end in line for line in self.lines()) < count:
                return None
            found = oracle.named(self.events(), name)
            return found if len(found) >= count else None

        return until(enough, lambda: f"{count} x {name}:\n{self.log()}", 0.02, timeout)

    def wait_metrics(self, text):
        """Until /metrics has this text; the whole of it."""
        return until(lambda: text in (page := self.http("/metrics")[1]) and page,
                     lambda: f"{text!r} in {self.http('/metrics')[1]}", 0.1)

    def wait_for_totals(self, timeout=PATIENCE, **want):
        """Until the daemon's own totals are these."""
        def totals():
            status = self.ask({"verb": "status"})
            return {k: status[k] for k in want}

        until(lambda: totals() == want, lambda: f"{want}: {totals()}", 0.1, timeout)

    def streams(self):
        """stream id -> its events, each checked to be without a hole."""
        streams = {}
        for event in self.events():
            streams.setdefault(event["data"]["streamId"], []).append(event)
        for events in streams.values():
            assert [e["data"]["sequence"] for e in events] == list(range(1, len(events) + 1))
            assert events[0]["type"] == oracle.PREFIX + "stream.v1.opened"
        return streams

    def kill(self):
        self.process.kill()
        self.process.wait()

    def cut_power(self, synced):
        """Everything ends at once, and of the evidence only what was synced is left: `synced` is
        what BadDisk's SYNCED= names, from before the first file."""
        processes = [self.process.pid]
        for pid in processes:
            with open(f"/proc/{pid}/task/{pid}/children") as f:
                processes += [int(child) for child in f.read().split()]
        for pid in processes:
            # Each ends when the one before it is gone.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        sizes = {}
        with open(synced) as f:
            for line in f:
                size, path = line.rstrip("\n").split(" ", 1)
                sizes[path] = int(size)
        for path in self.segments():
            if path in sizes:
                os.truncate(path, sizes[path])
            else:
                os.unlink(path)

    def stop(self, want=0):
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == want, self.log()
        return time.monotonic() - begin

    def verify(self, want=0, *options):
        args = ["--require-signed", "--keys", self.file("keyring.json")] if self.keys else []
        run = subprocess.run([RECEIVER, "verify", *args, *options, self.evidence], capture_output=True,
                             text=True)
        assert run.returncode == want or (want is None and run.returncode in (0, 4)), \
            run.stdout + run.stderr
        return run.stdout

    def __enter__(self):
        return self

    def __exit__(self, failure, *exc):
        if self.process and self.process.poll() is None:
            self.kill()
        self.err.close()
        if failure:
            print(f"the daemon said:\n{self.log()[-4000:]}", file=sys.stderr)
        # The signer and the forwarder end after it, and may still write.
        until(self._removed, "an end of the daemon's processes")

    def _removed(self):
        try:
            self.tmp.cleanup()
        except OSError:
            return False
        return True
