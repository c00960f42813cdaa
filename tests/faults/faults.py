# SPDX-License-Identifier: MIT
"""Programs whose n-th call of a function fails, once (tests/faults/fault.c), for each n until they
make no such call any more. Allowed ends: it works, or it says what failed and exits as the manual
says. Never: a signal without a message, a hang, evidence that is corrupt, exit 0 with something lost,
an acknowledged number that is not in the evidence.

Without an argument a sample of a few seconds, as tools/test runs it. `--all` walks everything;
`SCENARIO[:CALL[:ERRNO[:N]]]`... walks only that."""

import argparse
import atexit
import base64
import errno
import glob
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import nacl.signing

import logmaker
import oracle
from guest import Guest
from receiver import HASH, RECEIVER, cpu_seconds

FAULT = os.environ["CELLOS_FAULT"]
# Seconds after which a program hangs; on a machine that is busy a start can take many.
HANG = float(os.environ.get("CELLOS_PATIENCE", 120))
FRAMES = 12

NO_SPACE = ["ENOSPC", "EIO", "EINTR"]
NO_MEMORY = ["ENOMEM"]
NO_DESCRIPTOR = ["EMFILE", "ENFILE", "ENOMEM"]
CALLS = {
    "read": ["EIO", "EINTR"], "write": NO_SPACE, "pread": ["EIO"], "pwritev": NO_SPACE,
    "pwrite": NO_SPACE,
    "open": ["EMFILE", "EACCES", "EIO", "ENOSPC"], "fsync": ["EIO", "ENOSPC"],
    "fdatasync": ["EIO", "ENOSPC"], "rename": ["EIO", "ENOSPC", "EACCES"],
    "unlink": ["EIO", "EACCES"], "socket": NO_DESCRIPTOR,
    "accept4": ["EMFILE", "ECONNABORTED", "ENOMEM"], "bind": ["EADDRINUSE", "EACCES"],
    "listen": ["EADDRINUSE"], "eventfd": NO_DESCRIPTOR, "epoll_ctl": ["ENOMEM", "ENOSPC"],
    "pipe2": NO_DESCRIPTOR, "pthread_create": ["EAGAIN"], "malloc": NO_MEMORY,
    "calloc": NO_MEMORY, "realloc": NO_MEMORY,
}


class Finding(Exception):
    """What must never happen, has."""


def expect(condition, what):
    if not condition:
        raise Finding(what)


class Page:
    """What the preloaded library reports: struct page of fault.c."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "page")
        with open(self.path, "wb") as f:
            f.truncate(mmap.PAGESIZE)

    def read(self):
        with open(self.path, "rb") as f:
            return struct.unpack("II", f.read(8))


class Program:
    """A program under a fault."""

    def __init__(self, case, *args):
        self.case = case
        self.err = open(case.file("stderr"), "ab")
        self.process = subprocess.Popen([RECEIVER, *args], stdin=subprocess.DEVNULL,
                                        stdout=open(case.file("stdout"), "ab"), stderr=self.err,
                                        env={**os.environ, **case.env})

    def wait_until(self, condition, what):
        """The condition's value, or None when the program has ended."""
        begin = time.monotonic()
        while True:
            value = condition()
            if value:
                return value
            if self.process.poll() is not None:
                return None
            expect(time.monotonic() - begin < HANG, f"hangs: {what}: {self.case.said()[-600:]}")
            time.sleep(0.002)

    def end(self, documented):
        """Its exit status, which is as the manual says, and a reason is given for each but 0."""
        try:
            status = self.process.wait(HANG)
        except subprocess.TimeoutExpired:
            raise Finding(f"does not end after {HANG:.0f} s "
                          f"({cpu_seconds(self.process.pid):.1f} s of CPU): "
                          f"{self.case.said()[-600:]}") from None
        finally:
            self.stop()
        said = self.case.said()
        # The message itself may be what could not be written.
        said = said or self.case.call == "write"
        expect(status >= 0 or said, f"signal {-status} without a message")
        expect(status in documented, f"exit {status}, which is not in the manual: {self.case.said()[-600:]}")
        expect(status == 0 or said, f"exit {status} without a message")
        return status

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.err.close()


class Case:
    """A fault, and a folder for the run."""

    def __init__(self, call, n, code):
        self.tmp = tempfile.TemporaryDirectory(prefix="cellos-fault-")
        self.dir = self.tmp.name
        self.page = Page(self.dir)
        self.call = call
        self.env = {"LD_PRELOAD": FAULT, "FAULT": f"{call}:{n}:{getattr(errno, code)}",
                    "FAULT_PAGE": self.page.path}

    def file(self, name):
        return os.path.join(self.dir, name)

    def text(self, name):
        with open(self.file(name), encoding="utf-8", errors="replace") as f:
            return f.read()

    def said(self):
        return self.text("stderr")

    def hit(self):
        return self.page.read()[0] > 0

    def connect(self, path):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return sock


def run(*args, **options):
    return subprocess.run([RECEIVER, *args], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=HANG, **options)


def deliver(program, guest):
    """FRAMES observations until they are settled, or the program has ended."""
    guest.observe(FRAMES)

    def settled():
        guest.turn()
        return not guest.ring

    program.wait_until(settled, "frames are not settled")
    return set(range(1, FRAMES + 1)) - set(guest.ring)


def judge(paths, keyring, settled, clean):
    """The evidence after the end: whole, and what was acknowledged is in it."""
    lines = []
    for path in paths:
        with open(path, "rb") as f:
            lines += f.read().split(b"\n")[:-1]
    seqs = []
    for line in lines:
        if b"guest.v1.process_spawned" in line:
            event = json.loads(line)
            seqs.append(event["data"].get("event", event)["data"]["seq"])
    expect(len(seqs) == len(set(seqs)), f"a number stands twice in the evidence: {seqs}")
    expect(settled <= set(seqs), f"acknowledged, and not in the evidence: {settled - set(seqs)}")
    if paths:
        verdict = run("verify", "--require-signed", "--keys", keyring, *paths)
        allowed = {0} if clean else {0, 4, 5}
        expect(verdict.returncode in allowed,
               f"verify says {verdict.returncode}: {verdict.stdout[-600:]}{verdict.stderr[-300:]}")


def new_key(case):
    made = run("keygen", "--kid", "k1", "--out", case.dir)
    assert made.returncode == 0, made.stderr


def receive(case):
    new_key(case)
    evidence = case.file("stdout")
    program = Program(case, "receive", "--uds", case.file("v"), "--cell-id", "c", "--run-id", "r",
                      "--spec-hash", HASH, "--rate-connections", "1000000", "--sign-alg",
                      "ed25519", "--sign-kid", "k1", "--sign-key-file", case.file("k1.seed"))
    guest, settled = Guest(lambda: case.connect(case.file("v_9001"))), set()
    try:
        settled = deliver(program, guest)
        program.process.send_signal(signal.SIGTERM)
        status = program.end({0, 1, 70, 71, 73, 77, 78})
    finally:
        guest.hang_up()
        program.stop()
    judge([evidence], case.file("keyring.json"), settled, status == 0)
    if status == 0:
        expect(len(settled) == FRAMES, "exit 0, and frames were not settled")


def serve(case):
    new_key(case)
    for name in ("evidence", "state"):
        os.mkdir(case.file(name))
    with open(case.file("conf"), "w", encoding="utf-8") as f:
        f.write(f"[receiver]\ncontrol_socket = {case.file('control')}\n"
                f"state_dir = {case.file('state')}\n[evidence]\ndir = {case.file('evidence')}\n"
                f"[metrics]\nlisten = unix:{case.file('metrics')}\n"
                f"[signing]\nalgorithm = ed25519-log\nkid = k1\nkey_file = {case.file('k1.seed')}\n")
    program = Program(case, "serve", "--config", case.file("conf"))
    guest, settled = Guest(lambda: case.connect(case.file("c_9001"))), set()

    def added():
        """The operator tries again after a refusal with a reason."""
        answer = run("cell", "add", "--cell-id", "c", "--run-id", "r", "--spec-hash", HASH, "--uds",
                     case.file("c"), "--control", case.file("control"))
        expect(answer.returncode == 0 or answer.stderr, "an add fails without a reason")
        return answer.returncode == 0 or "served already" in answer.stderr or \
            "exists" in answer.stderr
    try:
        if program.wait_until(added, "no cell can be added"):
            settled = deliver(program, guest)
            guest.hang_up()
            program.process.send_signal(signal.SIGTERM)
        status = program.end({0, 1, 70, 71, 73, 78})
    finally:
        guest.hang_up()
        program.stop()
    paths = sorted(glob.glob(case.file("evidence/evidence-*.jsonl")))
    judge(paths, case.file("keyring.json"), settled, status == 0)
    if status != 0:
        again(case, settled)


def again(case, settled):
    """After a failure the next start, without a fault, serves and ends well."""
    program = Program(case, "serve", "--config", case.file("conf"))
    program.process.kill()
    program.stop()
    os.unlink(case.file("stderr"))
    case.env = {}
    program = Program(case, "serve", "--config", case.file("conf"))
    try:
        if program.wait_until(lambda: 'msg="ready"' in case.said(), "not ready"):
            program.process.send_signal(signal.SIGTERM)
        status = program.end({0})
    finally:
        program.stop()
    expect(status == 0, "the next start")
    judge(sorted(glob.glob(case.file("evidence/evidence-*.jsonl"))), case.file("keyring.json"),
          settled, False)


def verify(case):
    key = nacl.signing.SigningKey(b"\1" * 32)
    logmaker.ordinary(key, name="01234567-0123-4123-8123-0123456789ab").write(case.file("log"))
    with open(case.file("keyring.json"), "wb") as f:
        f.write(logmaker.keyring(("k1", key)))
    args = ("verify", "--require-signed", "--keys", case.file("keyring.json"), case.file("log"))
    program = Program(case, *args)
    try:
        status = program.end({0, 66, 70, 71, 78})
    finally:
        program.stop()
    if status == 0:
        expect(case.text("stdout") == run(*args).stdout, f"another verdict: {case.text('stdout')}")


def keygen(case):
    folder = case.file("keys")
    os.mkdir(folder)
    program = Program(case, "keygen", "--kid", "k1", "--out", folder)
    try:
        status = program.end({0, 70, 71, 73, 78})
    finally:
        program.stop()
    if status == 0:
        with open(os.path.join(folder, "k1.seed"), "rb") as f:
            seed = base64.urlsafe_b64decode(f.read().strip() + b"==")
        with open(os.path.join(folder, "keyring.json"), "rb") as f:
            ring = json.load(f)
        expect(ring == json.loads(logmaker.keyring(("k1", nacl.signing.SigningKey(seed)))),
               "the keyring is not the seed's")
        return
    left = sorted(os.listdir(folder))
    if left == ["k1.seed", "keyring.json"]:
        return  # a whole key, of which it is not sure that it would survive a power cut
    made = run("keygen", "--kid", "k1", "--out", folder)
    expect(made.returncode == 0, f"left {left}, so that the next keygen fails: {made.stderr}")


_shared = {}


def _broker():
    """One server for all runs of this program, without a stream."""
    import nats

    if "server" not in _shared:
        _shared["server"] = nats.Server()
        atexit.register(_shared["server"].__exit__, None, None, None)
    with _shared["server"].client() as client:
        client.request("$JS.API.STREAM.DELETE.CELLOS_EVENTS", None)
    return _shared["server"]


def _forwarded(case, f):
    """The forwarder under the fault; its status, once it has done its work or has ended."""
    try:
        f.start(case.env)
        f.wait(lambda s: s["index"] == f.log.tree.size and s["state"] == "connected", HANG)
        f.process.send_signal(signal.SIGTERM)
    except (AssertionError, OSError, struct.error):
        pass  # it ended, or it hangs
    try:
        return f.process.wait(HANG)
    except subprocess.TimeoutExpired:
        raise Finding(f"hangs: {f.status} {f.output()[-600:]}") from None


def forward(case):
    """Its own process on a made log. What the fault keeps it from is done by the next one."""
    from forwarder import Forwarder
    from test_forward import check

    server = _broker()
    with Forwarder(server.url, "create_stream = yes\n", entries=20) as f:
        status = _forwarded(case, f)
        expect(status >= 0 or f.output(), f"signal {-status} without a message")
        expect(status == 0 or f.output() or case.call == "write", f"exit {status} without a message")
        f.link.close()
        try:
            f.start().wait_done()
            f.stop()
            check(server, f)
        except AssertionError as problem:
            raise Finding(f"after exit {status}: {problem}; {f.output()[-600:]}") from None


SCENARIOS = {f.__name__: f for f in (keygen, verify, receive, serve, forward)}
# What tools/test walks: the first calls of each, which is where programs are least careful.
SAMPLE = {"keygen": 3, "verify": 2, "receive": 1}
# An n-th call of memory is tried up to here, then every STRIDE-th: there are thousands.
EACH, STRIDE = 150, 37


def numbers(call, last):
    n = 1
    while last is None or n <= last:
        yield n
        n += 1 if n < EACH or "alloc" not in call else STRIDE


def walk(name, call, code, last=None, only=None):
    """Returns (runs, findings)."""
    runs, findings = 0, []
    for n in [only] if only else numbers(call, last):
        case = Case(call, n, code)
        runs += 1
        try:
            SCENARIOS[name](case)
        except (Finding, ValueError, subprocess.TimeoutExpired) as problem:
            findings.append(f"{name}:{call}:{code}:{n}: {problem}")
            print(f"FINDING {findings[-1]}", flush=True)
        hit = case.hit()
        case.tmp.cleanup()
        if not hit:
            break
    return runs, findings


def walk_all(chosen):
    """chosen: lists of [scenario, call, errno, n], each part from the left."""
    findings = []
    for part in chosen:
        name, call, code, n = part + [None] * (4 - len(part))
        for one_call in [call] if call else CALLS:
            for one_code in [code] if code else CALLS[one_call]:
                begin = time.monotonic()
                runs, found = walk(name, one_call, one_code, only=int(n) if n else None)
                findings += found
                print(f"{name:8} {one_call:14} {one_code:12} {runs:5} runs {len(found):3} findings "
                      f"{time.monotonic() - begin:6.0f} s", flush=True)
    return findings


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("what", nargs="*")
    args = parser.parse_args()
    if args.all or args.what:
        findings = walk_all([what.split(":") for what in args.what] or [[s] for s in SCENARIOS])
        print(f"{len(findings)} findings")
        return 1 if findings else 0
    findings = []
    for name, last in SAMPLE.items():
        runs = 0
        for call, codes in CALLS.items():
            n, found = walk(name, call, codes[0], last=last)
            runs += n
            findings += found
        print(f"ok {name}: {runs} runs", flush=True)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
