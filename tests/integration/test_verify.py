# SPDX-License-Identifier: MIT
"""verify and keygen as an operator meets them: the golden evidence, forgeries, folders, keys."""

import base64
import json
import os
import subprocess
import tempfile

import nacl.signing

import oracle
from receiver import RECEIVER
from runner import PATIENCE, main

VECTORS = os.environ["CELLOS_VECTORS"]
KEYRING = os.path.join(VECTORS, "keyring.json")
PLAIN = os.environ.get("CELLOS_SANITIZE", "none") == "none"
# The search for leaks traces the process, and strace does already.
TRACED = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}


def verify(*args, stdin=None):
    return subprocess.run([RECEIVER, "verify", *args], capture_output=True, input=stdin,
                          timeout=PATIENCE)


def _golden():
    with open(os.path.join(VECTORS, "evidence-good.jsonl"), "rb") as f:
        return f.read().splitlines(keepends=True)


def _seed():
    with open(os.path.join(VECTORS, "seed.txt")) as f:
        return nacl.signing.SigningKey(oracle.unbase64(f.read().strip()))


def sign(event, key=None, **outer):
    """A line as the receiver writes it, by other means."""
    message = oracle.canonical(event)
    data = {"algorithm": "ed25519", "event": event, "signerKid": "vector-key-1",
            "signature": base64.urlsafe_b64encode((key or _seed()).sign(message).signature)
            .decode().rstrip("=")}
    data.update(outer.pop("data", {}))
    line = {"data": data, "datacontenttype": "application/json", "id": event["id"],
            "source": event["source"], "specversion": "1.0", "time": event["time"],
            "type": oracle.ENVELOPE}
    line.update(outer)
    return oracle.canonical(line) + b"\n"


def event_of(line):
    return json.loads(line)["data"]["event"]


def golden_evidence_ends_as_it_must():
    with open(os.path.join(VECTORS, "verify-exit-codes.json")) as f:
        wanted = json.load(f)
    for name, status in wanted.items():
        got = verify("--keys", KEYRING, os.path.join(VECTORS, name))
        assert got.returncode == status, (name, got)
    unsigned = os.path.join(VECTORS, "evidence-unsigned.jsonl")
    assert verify("--keys", KEYRING, unsigned).returncode == 2, "signatures are required"
    assert verify("--keys", KEYRING, "--require-signed", unsigned).returncode == 2
    assert verify("--require-signed", unsigned).returncode == 2
    assert verify("--keys", KEYRING, "--allow-unsigned", unsigned).returncode == 0
    assert verify(unsigned).returncode == 0, "without keys nobody can require any"
    assert sign(event_of(_golden()[1])) == _golden()[1], "this test signs as the receiver does"


def findings_name_their_place():
    got = verify("--keys", KEYRING, os.path.join(VECTORS, "evidence-tampered.jsonl"))
    assert b"evidence-tampered.jsonl:3: the signature" in got.stdout, got.stdout
    assert b"NOT OK" in got.stdout
    got = json.loads(verify("--json", "--keys", KEYRING, os.path.join(
        VECTORS, "evidence-hole.jsonl")).stdout)
    assert got["exit"] == 3 and got["missing"] == 1 and got["verified"] == 23
    assert got["places"]["missing"][0]["line"] == 4


def forgeries_are_found():
    lines = _golden()
    second = event_of(lines[1])
    moved = json.loads(json.dumps(second))
    moved["data"]["streamId"] = "00000000-0000-4000-8000-000000000002"
    stranger = nacl.signing.SigningKey(b"x" * 32)
    unsigned = oracle.canonical(second) + b"\n"
    for what, status, evidence in (
            ("an outer id of its own", 1, [lines[0], sign(second, id="urn:x")] + lines[2:]),
            ("an outer time of its own", 1,
             [lines[0], sign(second, time="2026-01-01T00:00:00.000Z")] + lines[2:]),
            ("an outer type of data of its own", 1,
             [lines[0], sign(second, datacontenttype="text/html")] + lines[2:]),
            ("a member that nobody signed", 1,
             [lines[0], sign(second, cellid="forged")] + lines[2:]),
            ("a member beside the signature", 1,
             [lines[0], sign(second, data={"cellId": "forged"})] + lines[2:]),
            ("another's signature", 1, [lines[0], sign(second, stranger)] + lines[2:]),
            ("the public key as HMAC key", 2,
             [lines[0], sign(second, data={"algorithm": "hmac-sha256"})] + lines[2:]),
            ("no algorithm", 1, [lines[0], sign(second, data={"algorithm": "off"})] + lines[2:]),
            ("a kid that nobody knows", 2,
             [lines[0], sign(second, data={"signerKid": "k2"})] + lines[2:]),
            ("a stripped signature", 2, [lines[0], unsigned] + lines[2:]),
            ("an event moved to another stream", 3, [lines[0], sign(moved)] + lines[2:]),
            ("no beginning", 3, lines[1:]),
            ("an event after the seal", 3,
             lines + [sign({**event_of(lines[1]), "data": {
                 **event_of(lines[1])["data"], "sequence": 13}})]),
            ("a stream that begins twice", 3, lines + lines),
            ("a cut last line", 2, lines[:-1] + [lines[-1][:-40]]),
            ("an empty line", 1, lines + [b"\n"]),
            ("a number like 1.0", 1, [lines[0].replace(b'"sequence":1,', b'"sequence":1.0,')]),
            ("something that is no record", 1, lines + [b"{}\n"]),
            ("a deep nest", 1, lines + [b"[" * 100000 + b"\n"]),
            ("a line beyond all limits", 1, lines + [b'"' + b"x" * 300000 + b'"\n'])):
        got = verify("--keys", KEYRING, "-", stdin=b"".join(evidence))
        assert got.returncode == status, (what, got.stdout.decode())
        if what.startswith("a member"):
            assert b"-:2: the envelope has a member that is not" in got.stdout, got.stdout


def nothing_is_not_called_fine():
    got = verify("--keys", KEYRING, "--require-signed", "-", stdin=b"")
    assert got.returncode == 5 and got.stdout.endswith(b"\nNOTHING: there is no record\n"), got
    got = json.loads(verify("--keys", KEYRING, "--json", "-", stdin=b"").stdout)
    assert (got["exit"], got["records"], got["verdict"]) == (5, 0, "there is no record")
    got = verify("--keys", KEYRING, "-", stdin=b"".join(_golden()))
    assert got.stdout.splitlines()[-1].startswith(b"OK: every record"), got


def folders_are_read_in_order():
    lines = _golden()
    with tempfile.TemporaryDirectory() as d:
        for number, part in ((2, lines[10:]), (1, lines[:10])):
            with open(f"{d}/evidence-{number:020}.jsonl", "wb") as f:
                f.writelines(part)
        with open(f"{d}/evidence-{3:020}.torn", "wb") as f:
            f.write(b"half a li")
        assert verify("--keys", KEYRING, d).returncode == 0
        os.rename(f"{d}/evidence-{1:020}.jsonl", f"{d}/evidence-{3:020}.jsonl")
        assert verify("--keys", KEYRING, d).returncode == 3
        os.mkdir(f"{d}/empty")
        got = verify("--keys", KEYRING, f"{d}/empty")
        assert got.returncode == 5 and b"no segment" in got.stderr


def read_errors_are_reported():
    good = os.path.join(VECTORS, "evidence-good.jsonl")
    got = verify("--keys", KEYRING, "/nonexistent")
    assert got.returncode == 66 and b"/nonexistent" in got.stderr
    for args in ([], ["--keys"], ["--nonsense", good], ["--keys", KEYRING]):
        assert verify(*args).returncode == 64, args
    key = base64.urlsafe_b64encode(b"k" * 32).decode()
    with tempfile.TemporaryDirectory() as d:
        for name, text, words in (
                ("twice", f'{{"a":"{key}","a":"{key}"}}', [b"a"]),
                ("short", '{"a":"AAAA"}', [b"kid a", b"3 bytes", b"32"]),
                ("number", '{"a":1}', [b"kid a", b"base64url"]),
                ("list", "[]", [b"object"]),
                ("cut", '{"a":', [b":1:"]),
                ("badkid", f'{{"a b":"{key}"}}', [b"kid"])):
            with open(f"{d}/{name}", "w") as f:
                f.write(text)
            got = verify("--keys", f"{d}/{name}", good)
            assert got.returncode == 78 and f"{d}/{name}".encode() in got.stderr, (name, got)
            for word in words:
                assert word in got.stderr, (name, word, got.stderr)
        os.symlink(KEYRING, f"{d}/link")
        assert verify("--keys", f"{d}/link", good).returncode == 78
        with open(f"{d}/hmac", "w") as f:
            f.write(f'{{"a":"{key}"}}')
        os.chmod(f"{d}/hmac", 0o644)
        got = verify("--hmac-keys", f"{d}/hmac", good)
        assert got.returncode == 78 and b"0600" in got.stderr
        with open(f"{d}/x.seed", "w") as f:
            f.write(key + "\n")
        got = verify("--keys", f"{d}/x.seed", good)
        assert got.returncode == 78 and b"secret seed, not a keyring" in got.stderr, got
        # All of a keyring's keys count, not only the first.
        with open(KEYRING) as f:
            known = json.load(f)["vector-key-1"]
        for text in (f'{{"a":"{key}","vector-key-1":"{known}","zz":"{key}"}}',
                     f'{{"vector-key-1":{{"key":"{known}"}},"zz":"{key}"}}'):
            with open(f"{d}/many", "w") as f:
                f.write(text)
            assert verify("--keys", f"{d}/many", good).returncode == 0


def devices_and_endless_files_are_refused():
    """A FIFO or a device is no evidence; a line without an end is never held in memory."""
    with tempfile.TemporaryDirectory() as d:
        os.mkfifo(f"{d}/evidence-{1:020}.jsonl")
        for path in (d, f"{d}/evidence-{1:020}.jsonl", "/dev/zero"):
            got = verify("--keys", KEYRING, path)
            assert got.returncode == 66 and b"not a regular file" in got.stderr, got
        os.unlink(f"{d}/evidence-{1:020}.jsonl")
        huge = f"{d}/huge"
        with open(huge, "wb") as f:
            f.seek(1500 << 20)
            f.write(b"\n" + b"".join(_golden()))
        # A sanitizer's own address space is larger.
        limit = ["prlimit", "--as=900000000"] if PLAIN else []
        got = subprocess.run([*limit, RECEIVER, "verify", "--keys", KEYRING, huge],
                             capture_output=True, timeout=PATIENCE)
        assert got.returncode == 1 and b"a line longer than 65535 bytes" in got.stdout, got
        assert b"24 verified" in got.stdout, got.stdout
        # At the limit it is judged, above it is not.
        for n, words in ((65534, b"not a record"), (65535, b"not a record"),
                         (65536, b"a line longer than 65535 bytes")):
            got = verify("--keys", KEYRING, "-", stdin=b"x" * n + b"\n")
            assert got.returncode == 1 and words in got.stdout, (n, got.stdout)


def compressed_evidence_is_read():
    lines = _golden()
    with tempfile.TemporaryDirectory() as d:
        for number, part, pack in ((1, lines[:9], ["gzip", "-c"]), (2, lines[9:15], ["zstd", "-cq"]),
                                   (3, lines[15:], ["cat"])):
            suffix = {"gzip": ".gz", "zstd": ".zst", "cat": ""}[pack[0]]
            data = subprocess.run(pack, input=b"".join(part), stdout=subprocess.PIPE,
                                  check=True).stdout
            with open(f"{d}/evidence-{number:020}.jsonl{suffix}", "wb") as f:
                f.write(data)
        got = verify("--keys", KEYRING, d)
        assert got.returncode == 0 and b"24 records: 24 verified" in got.stdout, got
        for suffix in (".gz", ".zst"):
            name = f"{d}/evidence-{1 if suffix == '.gz' else 2:020}.jsonl{suffix}"
            with open(name, "rb") as f:
                whole = f.read()
            assert verify("--keys", KEYRING, "-", stdin=whole + whole).returncode == 3
            for cut in (whole[:-1], whole[:len(whole) // 2]):
                got = verify("--keys", KEYRING, "-", stdin=cut)
                assert got.returncode == 66, (suffix, got)
            broken = bytearray(whole)
            broken[len(broken) // 2] ^= 0x55
            assert verify("--keys", KEYRING, "-", stdin=bytes(broken)).returncode in (1, 3, 66)


def a_read_error_is_no_end():
    env = {**os.environ, "LD_PRELOAD": os.environ["CELLOS_BAD_DISK"]}
    log = os.path.join(VECTORS, "log")
    failed = 0
    # A sanitizer has reads of its own, which would fail.
    for call in range(1, 100) if PLAIN else ():
        run = ["strace", "-f", "-o", "/dev/null", "-e", f"inject=read:error=EIO:when={call}",
               RECEIVER, "verify", "--keys", f"{log}/keyring.json", f"{log}/good"]
        got = subprocess.run(run, capture_output=True, timeout=PATIENCE)
        if got.returncode == 66:
            assert b"evidence-" in got.stderr and b"Input/output error" in got.stderr, got
            failed += 1
        # The loader's and the keyring's reads; those of the machine's description are optional.
        assert got.returncode in (0, 66, 78, 127), (call, got)
        if got.returncode == 0 and failed >= 4:
            break
    assert failed >= 4 or not PLAIN, "two segments, a look and a read each"
    with tempfile.TemporaryDirectory() as d:
        os.mkdir(f"{d}/folder")
        got = subprocess.run([RECEIVER, "verify", "--keys", KEYRING, "-"], capture_output=True,
                             stdin=os.open(f"{d}/folder", os.O_RDONLY), timeout=PATIENCE, env=env)
        assert got.returncode == 66 and b"directory" in got.stderr, got


def keygen(*args):
    return subprocess.run([RECEIVER, "keygen", *args], capture_output=True, text=True)


def keys_are_made_and_never_overwritten():
    with tempfile.TemporaryDirectory() as d:
        assert keygen("--kid", "one", "--out", d).returncode == 0
        with open(f"{d}/one.seed") as f:
            first = f.read()
        assert os.stat(f"{d}/one.seed").st_mode & 0o777 == 0o600
        public = nacl.signing.SigningKey(oracle.unbase64(first.strip())).verify_key
        with open(f"{d}/keyring.json") as f:
            assert oracle.unbase64(json.load(f)["one"]) == bytes(public)
        got = keygen("--kid", "one", "--out", d)
        assert got.returncode == 73 and "one" in got.stderr
        with open(f"{d}/one.seed") as f:
            assert f.read() == first
        # A file that is no seed is not overwritten either.
        with open(f"{d}/two.seed", "w") as f:
            f.write("mine")
        assert keygen("--kid", "two", "--out", d).returncode == 73
        with open(f"{d}/keyring.json") as f:
            assert list(json.load(f)) == ["one"], "and the keyring knows nothing of it"


def an_interrupted_keygen_goes_on():
    """Killed at any of its system calls, it leaves nothing half, and the same command ends it."""
    strace = ["strace", "-o", "/dev/null", "-f"]
    calls = ("openat", "write", "fsync", "linkat", "renameat", "unlinkat", "flock")
    for call in calls:
        for when in range(1, 1000):
            with tempfile.TemporaryDirectory() as d:
                assert keygen("--kid", "old", "--out", d).returncode == 0
                run = subprocess.run(
                    strace + ["-e", f"inject={call}:signal=KILL:when={when}", RECEIVER, "keygen",
                              "--kid", "new", "--out", d], capture_output=True, env=TRACED)
                if run.returncode == 0:
                    break
                with open(f"{d}/keyring.json") as f:
                    assert "old" in json.load(f)
                names = set(os.listdir(d)) - {".keyring.json.new", "new.seed"}
                assert names == {"old.seed", "keyring.json"}, names
                got = keygen("--kid", "new", "--out", d)
                with open(f"{d}/keyring.json") as f:
                    ring = json.load(f)
                assert (got.returncode == 0) or "has a kid new already" in got.stderr, got
                with open(f"{d}/new.seed") as f:
                    key = nacl.signing.SigningKey(oracle.unbase64(f.read().strip()))
                assert oracle.unbase64(ring["new"]) == bytes(key.verify_key)
                assert set(ring) == {"old", "new"}
                assert sorted(os.listdir(d)) == ["keyring.json", "new.seed", "old.seed"], call
        else:
            raise AssertionError(f"{call} was killed {when} times and never let through")


def a_keyring_keeps_what_it_says():
    key = base64.urlsafe_b64encode(b"k" * 32).decode().rstrip("=")
    old = {"a": {"key": key, "origins": ["x/y"], "notAfterSize": 7}, "b": key}
    with tempfile.TemporaryDirectory() as d:
        with open(f"{d}/keyring.json", "w") as f:
            json.dump(old, f)
        assert keygen("--kid", "c", "--out", d).returncode == 0
        with open(f"{d}/keyring.json") as f:
            new = json.load(f)
        assert new.pop("c") and new == old, new


def many_keys_at_once_are_all_kept():
    with tempfile.TemporaryDirectory() as d:
        running = [subprocess.Popen([RECEIVER, "keygen", "--kid", f"k{i}", "--out", d],
                                    stdout=subprocess.DEVNULL) for i in range(12)]
        assert [p.wait() for p in running] == [0] * 12
        with open(f"{d}/keyring.json") as f:
            assert sorted(json.load(f)) == sorted(f"k{i}" for i in range(12))


def bad_kids_and_folders_are_refused():
    with tempfile.TemporaryDirectory() as d:
        for kid in ("", ".", "..", "../x", "a/b", "x" * 129, "a b"):
            assert keygen("--kid", kid, "--out", d).returncode == 64, kid
        assert keygen("--kid", "x" * 128, "--out", d).returncode == 0
        assert keygen("--kid", "a", "--out", f"{d}/none").returncode == 73
        assert keygen("--kid", "a").returncode == 64
        with open(f"{d}/keyring.json", "w") as f:
            f.write("not a keyring")
        got = keygen("--kid", "b", "--out", d)
        assert got.returncode == 78 and "keyring.json" in got.stderr
        assert not os.path.exists(f"{d}/b.seed")


if __name__ == "__main__":
    main()
