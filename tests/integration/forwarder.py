# SPDX-License-Identifier: MIT
"""A real forwarder process on a made log, with this test as its daemon."""

import os
import signal
import socket
import struct
import subprocess
import tempfile
import time

from make_log import Log
from receiver import RECEIVER
from runner import PATIENCE

END, REWIND_INDEX, REWIND_TIME = 1, 2, 3
ERRORS = ["ok", "connect", "credentials", "tls", "disconnected", "timeout", "no_jetstream",
          "no_stream", "wrong_stream", "stream", "full", "too_large", "refused", "read"]
COUNTERS = ["read", "published", "acked", "duplicates", "retries", "skipped", "cursor_lost"]
STATUS = struct.Struct(f"=IIII384s384s256s{len(COUNTERS)}Q{len(ERRORS)}Q4Q")


def text(data):
    return data.split(b"\0")[0].decode()


class Forwarder:
    def __init__(self, url, config="", entries=100, make=None):
        self.tmp = tempfile.TemporaryDirectory(prefix="cellos-forward-")
        self.dir = self.tmp.name
        self.log = make(self.file("evidence")) if make else Log(self.file("evidence"))
        if not make:
            self.log.open()
            self.log.fill(entries)
        os.mkdir(self.file("state"))
        self.configure(url, config)
        self.stderr = open(self.file("stderr"), "ab")
        self.status, self.process = None, None

    def file(self, name):
        return os.path.join(self.dir, name)

    def configure(self, url, config=""):
        with open(self.file("conf"), "w") as f:
            f.write(f"[receiver]\nstate_dir = {self.file('state')}\n"
                    f"[evidence]\ndir = {self.file('evidence')}\n[nats]\nurl = {url}\n{config}")

    def start(self, env=None):
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = theirs.fileno()

        def at_three():
            os.dup2(fd, 3)

        self.process = subprocess.Popen(
            [RECEIVER, "forward", "run", "--config", self.file("conf")], stdin=subprocess.DEVNULL,
            stderr=self.stderr, pass_fds=(3,), preexec_fn=at_three,
            env={**os.environ, **(env or {})})
        theirs.close()
        self.status = None
        self.say_end()
        return self

    def order(self, kind, at=(0, 0), index=0, ms=0):
        self.link.send(struct.pack("=IIQQQQ", kind, 0, *at, index, ms))

    def say_end(self):
        segment, offset, entries = self.log.end()
        self.order(END, (segment, offset), entries)

    def take_status(self):
        self.link.settimeout(PATIENCE)
        fields = STATUS.unpack(self.link.recv(65536))
        status = {"state": ["waiting", "connected"][fields[0]], "error": ERRORS[fields[1]],
                  "landlock": fields[2],
                  "why": text(fields[4]), "warnings": text(fields[5]), "server": text(fields[6])}
        counters = fields[7:7 + len(COUNTERS)]
        errors = fields[7 + len(COUNTERS):7 + len(COUNTERS) + len(ERRORS)]
        status |= dict(zip(COUNTERS, counters)) | {"errors": dict(zip(ERRORS, errors))}
        status |= dict(zip(["index", "lag_events", "lag_ms", "unacked_ms"], fields[-4:]))
        self.status = status
        return status

    def wait(self, condition, timeout=240):
        until = time.monotonic() + timeout
        while not (self.status and condition(self.status)):
            assert time.monotonic() < until, (self.status, self.output())
            assert self.process.poll() is None, self.output()
            self.take_status()
        return self.status

    def wait_done(self):
        """Until all is acknowledged, also the checkpoints after the last entry: before that it lags."""
        return self.wait(lambda s: s["index"] == self.log.tree.size and s["state"] == "connected" and
                         s["lag_ms"] == 0)

    def wait_error(self, name):
        return self.wait(lambda s: s["error"] == name)

    def output(self):
        with open(self.file("stderr")) as f:
            return f.read()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.link.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.output()
        self.link.close()

    def __enter__(self):
        return self

    def __exit__(self, failure, *exc):
        if self.process and self.process.poll() is None:
            self.kill()
        self.stderr.close()
        if failure:
            print(self.output()[-4000:], flush=True)
        self.tmp.cleanup()
