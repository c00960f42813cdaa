# SPDX-License-Identifier: MIT
"""checkpoint, prove and verify --proof; and whether others agree: Go's golang.org/x/mod/sumdb, and
the verifier that the auditor's guide prints."""

import base64
import glob
import json
import os
import shutil
import subprocess
import tempfile

import golden
import logmaker
import oracle
from logmaker import Log, ordinary
from receiver import RECEIVER
from runner import PATIENCE, case, main, need

VECTORS = os.environ["CELLOS_VECTORS"]
SOURCE = os.path.dirname(os.path.dirname(VECTORS))
EXAMPLES = f"{SOURCE}/docs/examples"
KEY = logmaker.new_key()
GO = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "",
      "GOPROXY": "off"}


def run(*args, **options):
    return subprocess.run(args, capture_output=True, timeout=PATIENCE, **options)


def tool(verb, *args, want=0, **options):
    got = run(RECEIVER, verb, *args, **options)
    assert got.returncode == want, (verb, args, want, got)
    return got


def python(script, *args):
    return run("/usr/bin/python3", f"{EXAMPLES}/{script}", *args)


def vkey(origin, public):
    ident = logmaker.key_id(origin, public).hex()
    return f"{origin}+{ident}+" + base64.b64encode(b"\1" + public).decode()


class Judges:
    """The Go program, built once."""

    program = None

    @classmethod
    def go(cls, *args):
        if not cls.program:
            folder = tempfile.mkdtemp()
            cls.program = f"{folder}/sumdb"
            env = {**GO, "GOCACHE": f"{folder}/cache"}
            got = run("go", "build", "-o", cls.program, "main.go", env=env,
                      cwd=f"{SOURCE}/tests/integration/sumdb")
            shutil.rmtree(f"{folder}/cache", ignore_errors=True)
            assert got.returncode == 0, got
        return run(cls.program, *args)

    @classmethod
    def clean(cls):
        if cls.program:
            shutil.rmtree(os.path.dirname(cls.program))


def golden_logs_by_others():
    """Each golden log: the guide's verifier has verify's exit status; Go agrees on the tree."""
    for path, status, kept in golden.cases():
        with case(path):
            got = python("verify.py", golden.KEYRING, *sorted(glob.glob(f"{path}/*.jsonl")),
                         *([kept] if kept else []))
            assert got.returncode == status, got
    folder = golden.FOLDER
    with open(f"{folder}/keyring.json") as f:
        public = oracle.unbase64(json.load(f)["log-key-1"])
    with open(f"{folder}/kept.checkpoint") as f:
        key = vkey(f.readline().strip(), public)
    for name, want in (("good", 0), ("entry-changed", 1), ("stream-deleted", 1),
                       ("entries-swapped", 1), ("checkpoint-damaged", 1),
                       ("rewritten-with-the-key", 0)):
        got = Judges.go("log", key, *sorted(glob.glob(f"{folder}/{name}/*.jsonl")))
        assert got.returncode == want, (name, got)


class Made:
    """A log on disk, and its keyring."""

    def __init__(self, log):
        self.dir = tempfile.mkdtemp()
        self.made = log
        self.log = log.write(f"{self.dir}/log")
        self.out = f"{self.dir}/out"
        os.mkdir(self.out)
        self.keyring = self.file("keyring.json", logmaker.keyring(("k1", KEY)))
        self.vkey = vkey(log.origin, bytes(KEY.verify_key))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)

    def file(self, name, data):
        with open(f"{self.dir}/{name}", "wb") as f:
            f.write(data)
        return f"{self.dir}/{name}"


def the_newest_checkpoint_is_printed():
    with Made(ordinary(KEY)) as m:
        text = tool("checkpoint", m.log).stdout
        assert text.decode() == m.made.note
        kept = m.file("kept", text)
        tool("verify", "--keys", m.keyring, "--checkpoint", kept, m.log)
        assert python("verify.py", m.keyring, *sorted(glob.glob(f"{m.log}/*.jsonl")),
                      kept).returncode == 0
        # A torn tail is not in it; a segment without a checkpoint falls back on its first line.
        last = sorted(os.listdir(m.log))[-1]
        with open(f"{m.log}/{last}", "ab") as f:
            f.write(b'{"data":{"au')
        assert tool("checkpoint", m.log).stdout == text
        # What the entries do not support is not given out.
        with open(f"{m.log}/{last}", "r+b") as f:
            data = f.read().replace(b'"guestComm":"web', b'"guestComm":"wep', 1)
            f.seek(0)
            f.write(data)
        got = tool("checkpoint", m.log, want=1)
        assert b"is not of the entries that stand before it" in got.stderr
        os.mkdir(f"{m.dir}/empty")
        assert b"there is no log" in tool("checkpoint", f"{m.dir}/empty", want=66).stderr
        tool("checkpoint", f"{m.dir}/none", want=66)
        tool("checkpoint", "--origin", "example.net", m.log, want=66)
        tool("checkpoint", "--config", f"{m.dir}/none", want=78)
        tool("checkpoint", m.log, m.log, want=64)


def each_entry_is_proven():
    log = ordinary(KEY, envelope=KEY)
    checkpoints = [json.loads(line)["data"] for segment in log.segments for line in segment
                   if b'log_checkpoint.v1"' in line]
    with Made(log) as m:
        for index in (0, 1, 2, 5, 17, len(log.entries) // 2, len(log.entries) - 1):
            got = tool("prove", str(index), m.log, "--out", m.out)
            entry, proof = f"{m.out}/entry-{index}.json", f"{m.out}/entry-{index}.tlog-proof"
            assert got.stdout.decode().split() == [entry, proof]
            with open(entry, "rb") as f:
                assert f.read() == log.entries[index] + b"\n"
            got = tool("verify", "--keys", m.keyring, "--proof", proof)
            assert f"number {index} of log {log.origin}" in got.stdout.decode()
            tool("verify", "--keys", m.keyring, "--proof", proof, entry)
            assert Judges.go("inclusion", m.vkey, proof, entry).returncode == 0
            assert python("verify_proof.py", m.keyring, proof, entry).returncode == 0
            # The first checkpoint that covers it.
            covering = next(data["checkpoint"] for data in checkpoints if data["size"] > index)
            with open(proof, encoding="utf-8") as f:
                assert f.read().endswith("\n" + covering)
        ident = json.loads(log.entries[7])["id"]
        tool("prove", "--id", ident, m.log, "--out", m.out)
        tool("verify", "--keys", m.keyring, "--proof", f"{m.out}/entry-7.tlog-proof")
        got = tool("prove", "--id", "urn:cellos:event:none", m.log, want=1)
        assert b"has no event" in got.stderr
        tool("prove", str(len(log.entries)), m.log, want=1)
        tool("prove", "-1", m.log, want=64)
        tool("prove", m.log, want=64)
        tool("prove", "1", m.log, "--out", f"{m.dir}/none", want=73)


def a_wrong_proof_is_refused():
    log = ordinary(KEY)
    stranger = logmaker.new_key()
    with Made(log) as m:
        tool("prove", "5", m.log, "--out", m.out)
        tool("prove", "6", m.log, "--out", m.out)
        proof, entry = f"{m.out}/entry-5.tlog-proof", f"{m.out}/entry-5.json"
        with open(proof, "rb") as f:
            good = f.read()
        tool("verify", "--keys", m.keyring, "--proof", proof, f"{m.out}/entry-6.json", want=1)
        for what, text in (("index", good.replace(b"index 5", b"index 4")),
                           ("zeros", good.replace(b"index 5", b"index 05")),
                           ("header", good.replace(b"proof@v1", b"proof@v2")),
                           ("cut", good[:-5]), ("empty", b""), ("binary", bytes(range(256))),
                           ("one hash less", b"\n".join(good.split(b"\n")[:2] +
                                                        good.split(b"\n")[3:])),
                           ("a hash twice", b"\n".join(good.split(b"\n")[:3] +
                                                       good.split(b"\n")[2:])),
                           ("huge", b"x" * 100000)):
            bad = m.file("bad.tlog-proof", text)
            got = tool("verify", "--keys", m.keyring, "--proof", bad, entry, want=1)
            assert got.stdout.startswith(b"NOT OK"), (what, got)
        extra = m.file("x.tlog-proof", good.replace(b"index", b"extra AAAA\nindex"))
        tool("verify", "--keys", m.keyring, "--proof", extra, entry)
        unknown = m.file("other.json", logmaker.keyring(("k1", stranger)))
        tool("verify", "--keys", unknown, "--proof", proof, want=2)
        tool("verify", "--keys", m.keyring, "--origin", "elsewhere", "--proof", proof, want=2)
        tool("verify", "--keys", m.keyring, "--proof", proof, f"{m.dir}/none", want=66)
        tool("verify", "--keys", m.keyring, "--proof", f"{m.dir}/none", want=66)


def growth_is_proven():
    log = ordinary(KEY)
    notes = [json.loads(x)["data"]["checkpoint"] for s in log.segments for x in s
             if b"log_checkpoint" in x]
    with Made(log) as m:
        for text in notes:
            kept = m.file("kept", text.encode())
            proof = m.file("proof", tool("prove", "--consistency", kept, m.log).stdout)
            got = tool("verify", "--keys", m.keyring, "--proof", proof, "--checkpoint", kept)
            assert b"extends the kept checkpoint" in got.stdout
            assert Judges.go("consistency", m.vkey, proof, kept).returncode == 0
        other = m.file("other", notes[1].encode())
        tool("verify", "--keys", m.keyring, "--proof", proof, "--checkpoint", other, want=1)
        tool("verify", "--keys", m.keyring, "--proof", proof, want=64)
        # A log that was rewritten has no such proof.
        forged = Log(KEY, name=log.uuid)
        for _ in range(3):
            forged.seal("c", forged.open("c"))
        forged.close()
        text = json.loads(forged.segments[0][-1])["data"]["checkpoint"]
        kept = m.file("kept", text.encode())
        got = tool("prove", "--consistency", kept, m.log, want=1)
        assert b"it was rewritten" in got.stderr, got
        bigger = logmaker.note(log.origin, 10**6, b"x" * 32, KEY)
        tool("prove", "--consistency", m.file("kept", bigger.encode()), m.log, want=1)
        tool("prove", "--consistency", m.file("kept", b"none"), m.log, want=1)


def the_log_after_retention_is_enough():
    log = ordinary(KEY)
    with Made(log) as m:
        names = sorted(os.listdir(m.log))
        with open(f"{m.log}/{names[1]}", "rb") as f:
            first = json.loads(f.readline())["data"]
        os.unlink(f"{m.log}/{names[0]}")
        for index in (first["firstIndex"], len(log.entries) - 1):
            tool("prove", str(index), m.log, "--out", m.out)
            proof = f"{m.out}/entry-{index}"
            tool("verify", "--keys", m.keyring, "--proof", proof + ".tlog-proof")
            assert Judges.go("inclusion", m.vkey, proof + ".tlog-proof",
                             proof + ".json").returncode == 0
        tool("prove", "0", m.log, want=1)
        kept = m.file("kept", first["checkpoint"].encode())
        proof = m.file("proof", tool("prove", "--consistency", kept, m.log).stdout)
        assert Judges.go("consistency", m.vkey, proof, kept).returncode == 0
        early = json.loads(log.segments[0][2])["data"]["checkpoint"]
        got = tool("prove", "--consistency", m.file("kept", early.encode()), m.log, want=1)
        assert b"begins after it" in got.stderr


def made_logs_by_others():
    with Made(ordinary(KEY, cells=5, events=20)) as m:
        paths = sorted(glob.glob(f"{m.log}/*.jsonl"))
        assert Judges.go("log", m.vkey, *paths).returncode == 0
        assert python("verify.py", m.keyring, *paths).returncode == 0
        with open(f"{EXAMPLES}/verify.py") as f:
            assert len(f.readlines()) <= 100, "the auditor's guide prints it"


if __name__ == "__main__":
    need(shutil.which("go") and os.path.isdir("/usr/share/gocode/src/golang.org/x/mod"),
         "needs the packages golang-go and golang-golang-x-mod-dev")
    try:
        main()
    finally:
        Judges.clean()
