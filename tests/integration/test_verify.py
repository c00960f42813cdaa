# SPDX-License-Identifier: MIT
"""verify and keygen as an operator meets them: the golden evidence, forgeries, folders, keys."""

import base64
import json
import os
import subprocess
import sys
import tempfile

import nacl.signing

import oracle
from receiver import RECEIVER
from runner import PATIENCE, main

VECTORS = os.environ["CELLOS_VECTORS"]
KEYRING = os.path.join(VECTORS, "keyring.json")


def verify(*args, stdin=None):
    return subprocess.run([RECEIVER, "verify", *args], capture_output=True, input=stdin,
                          timeout=PATIENCE)


def golden():
    with open(os.path.join(VECTORS, "evidence-good.jsonl"), "rb") as f:
        return f.read().splitlines(keepends=True)


def seed():
    with open(os.path.join(VECTORS, "seed.txt")) as f:
        return nacl.signing.SigningKey(oracle.unbase64(f.read().strip()))


def sign(event, key=None, **outer):
    """A line as the receiver writes it, by other means."""
    message = oracle.canonical(event)
    data = {"algorithm": "ed25519", "event": event, "signerKid": "vector-key-1",
            "signature": base64.urlsafe_b64encode((key or seed()).sign(message).signature)
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
    assert verify("--keys", KEYRING, unsigned).returncode == 0
    assert verify("--keys", KEYRING, "--require-signed", unsigned).returncode == 2
    assert sign(event_of(golden()[1])) == golden()[1], "this test signs as the receiver does"


def findings_name_their_place():
    got = verify("--keys", KEYRING, os.path.join(VECTORS, "evidence-tampered.jsonl"))
    assert b"evidence-tampered.jsonl:3: the signature" in got.stdout, got.stdout
    assert b"NOT OK" in got.stdout
    got = json.loads(verify("--json", "--keys", KEYRING, os.path.join(
        VECTORS, "evidence-hole.jsonl")).stdout)
    assert got["exit"] == 3 and got["missing"] == 1 and got["verified"] == 23
    assert got["places"]["missing"][0]["line"] == 4


def forgeries_are_found():
    lines = golden()
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
            ("a stripped signature", 3, [lines[0], unsigned] + lines[2:]),
            ("an event moved to another stream", 3, [lines[0], sign(moved)] + lines[2:]),
            ("no beginning", 3, lines[1:]),
            ("an event behind the seal", 3,
             lines + [sign({**event_of(lines[1]), "data": {
                 **event_of(lines[1])["data"], "sequence": 13}})]),
            ("a stream that begins twice", 3, lines + lines),
            ("a cut last line", 1, lines[:-1] + [lines[-1][:-40]]),
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
    assert got.returncode == 0 and got.stdout.endswith(b"\nNOTHING: there is no record\n"), got
    got = json.loads(verify("--keys", KEYRING, "--json", "-", stdin=b"").stdout)
    assert (got["exit"], got["records"], got["verdict"]) == (0, 0, "there is no record")
    got = verify("--keys", KEYRING, "-", stdin=b"".join(golden()))
    assert got.stdout.splitlines()[-1].startswith(b"OK: every record"), got


def folders_are_read_in_order():
    lines = golden()
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
        assert got.returncode == 66 and b"no segment" in got.stderr


def what_cannot_be_read_is_said():
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
        # A seed without its entry is not overwritten either.
        with open(f"{d}/two.seed", "w") as f:
            f.write("mine")
        assert keygen("--kid", "two", "--out", d).returncode == 73
        with open(f"{d}/keyring.json") as f:
            assert list(json.load(f)) == ["one"], "and the keyring knows nothing of it"


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
    sys.exit(main([golden_evidence_ends_as_it_must, findings_name_their_place,
                   forgeries_are_found, nothing_is_not_called_fine, folders_are_read_in_order,
                   what_cannot_be_read_is_said,
                   keys_are_made_and_never_overwritten, many_keys_at_once_are_all_kept,
                   bad_kids_and_folders_are_refused]))
