# SPDX-License-Identifier: MIT
"""docs/reference/wire.md and evidence.md say what the programs do: their tables are held against the
sources, the grammar, the programs' own vocabulary and the golden vectors, by a decoder and a hash
that are not ours."""

import base64
import glob
import hashlib
import io
import json
import os
import re
import subprocess
import sys

import cbor2
from runner import case, main

SOURCE = os.environ["CELLOS_SOURCE"]
VECTORS = os.environ["CELLOS_VECTORS"]
UNITS = {"u32": 2**32 - 1, "2^63-1": 2**63 - 1}


def _read(*path):
    with open(os.path.join(SOURCE, *path), encoding="utf-8") as f:
        return f.read()


def _rows(text, heading):
    """The cells of the table that begins with this heading."""
    lines = text[text.index(heading):].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


WIRE = _read("docs", "reference", "wire.md")
EVIDENCE = _read("docs", "reference", "evidence.md")
FIELDS = {row[0].strip("`"): row[1:] for row in _rows(WIRE, "| key | type | range |")}
VOCABULARY = [json.loads(line) for line in subprocess.run(
    [os.environ["CELLOS_VOCABULARY"]], capture_output=True, text=True, check=True)
    .stdout.splitlines()]


def _define(name, path):
    value = re.search(rf"{name}\s+(.+?)(?:\s*/\*.*)?$", _read(*path), re.MULTILINE)[1]
    return re.sub(r"UINT64_C\((\d+)\)|\b(\d+)u\b", r"\1\2", value).strip("()")


def the_fields_are_those_of_the_source_and_of_the_grammar():
    decoder = re.findall(r'\[FIELD_\w+\] = T\("(\w+)"\)', _read("common", "wire_decode.c"))
    assert list(FIELDS) == decoder
    grammar = re.search(r"^frame = \{(.*?)^\}", _read("common", "wire.cddl"),
                        re.MULTILINE | re.DOTALL)[1]
    assert list(FIELDS) == re.findall(r"^  \??\s*(\w+):", grammar, re.MULTILINE)
    optional = re.findall(r"^  \?\s*(\w+):", grammar, re.MULTILINE)
    assert [name for name, (_, _, since) in FIELDS.items() if since == "2"] == optional


def the_limits_are_those_of_the_source():
    header = ("common", "wire.h")
    for name, said in (("WIRE_SOURCE_MAX", FIELDS["probe_source"][1]),
                       ("WIRE_COMM_MAX", FIELDS["guest_comm"][1]),
                       ("WIRE_DETAIL_PAIRS_MAX", FIELDS["detail"][1] + FIELDS["detail"][0]),
                       ("WIRE_DETAIL_TEXT_MAX", FIELDS["detail"][0] + FIELDS["detail"][1]),
                       ("WIRE_BODY_ACCEPT_MAX", WIRE[WIRE.index("## Frames"):]),
                       ("WIRE_BODY_SEND_MAX", WIRE[WIRE.index("## Frames"):]),
                       ("WIRE_VSOCK_PORT", WIRE), ("WIRE_VSOCK_HOST_CID", WIRE)):
        with case(name):
            assert re.search(rf"\b{_define(name, header)}\b", said)
    refusals = WIRE[WIRE.index("## Refusals"):]
    assert f"`too_deep` (more than {_define('WIRE_DEPTH_MAX', header)})" in refusals
    assert f"`too_many_pairs` (more than {_define('WIRE_PAIRS_MAX', header)})" in refusals
    for name, said in (("WIRE_LIVENESS_BYTE", "`0x00`"), ("WIRE_ACK_BYTE", "`0x01`")):
        assert f"`{_define(name, header)}`" == said and said in WIRE


def the_refusals_are_those_of_the_source_and_of_the_vectors():
    text = WIRE[WIRE.index("## Refusals"):]
    documented = set(re.findall(r"`([a-z]\w+)`", text.split(":\n\n")[1]))
    names = re.findall(r'\[WIRE_[A-Z0-9_]+\] = "(\w+)"',
                       re.search(r"errors\[.*?\};", _read("common", "wire.c"), re.DOTALL)[0])
    alone = {"unsupported_version", "unknown_source"}
    assert documented == set(names) - alone - {"ok"}, documented ^ set(names)
    with open(os.path.join(VECTORS, "frames.json"), encoding="utf-8") as f:
        seen = {frame["result"] for frame in json.load(f)} - {"accepted"}
    assert seen == documented | alone, seen ^ (documented | alone)


def _fits(kind, value, limits):
    """Whether a value is of the type and the range that a row says."""
    if kind.startswith("map"):
        return isinstance(value, dict) and len(value) <= int(re.search(r"(\d+) pairs", limits)[1])
    if kind == "text":
        low, high = map(int, re.match(r"(\d+)\.\.(\d+) bytes", limits).groups())
        return isinstance(value, str) and low <= len(value.encode()) <= high
    assert kind == "uint", kind
    if limits.startswith("high byte"):
        assert "major, 0" in limits and "minor, 0..255" in limits
        return isinstance(value, int) and 0 <= value <= 255
    low, _, high = limits.split(";")[0].partition("..")
    high = UNITS[high or low]
    low = int(low) if low.isdigit() else 0
    return isinstance(value, int) and low <= value <= high


def another_decoder_reads_the_golden_frames_as_the_page_says():
    with open(os.path.join(VECTORS, "frames.json"), encoding="utf-8") as f:
        frames = json.load(f)
    accepted = [frame for frame in frames if frame["result"] == "accepted"]
    assert len(accepted) > 15
    for frame in accepted:
        with case(frame["name"]):
            data = bytes.fromhex(frame["frame"])
            assert int.from_bytes(data[:4], "little") == len(data) - 4 <= 65536
            body = cbor2.load(io.BytesIO(data[4:]))
            minor = body["content_version"] & 0xff
            want = {re.sub(r"[A-Z]", lambda m: "_" + m[0].lower(), key): value
                    for key, value in frame["want"].items()}
            for name, (kind, limits, since) in FIELDS.items():
                if int(since) == 1:
                    assert _fits(kind, body[name], limits) and body[name] == want[name], name
                elif name in want and name != "detail":
                    assert minor >= 2 and _fits(kind, body[name], limits), name
            # Nothing but these fields gets into the evidence.
            assert set(want) <= set(FIELDS), want


def the_details_of_the_heartbeat():
    row = next(row for row in VOCABULARY if row["name"] == "telemetry.heartbeat")
    said = re.search(r"\(`telemetry.heartbeat`: (.*?)\) makes", WIRE, re.DOTALL)[1]
    required, _, optional = said.partition(" uint, ")
    assert set(re.findall(r"\*\*(\w+)\*\*", required)) == set(row["required"])
    rest = {name: row["allowed"][name] for name in row["allowed"] if name not in row["required"]}
    assert dict(re.findall(r"`(\w+)`\s+(\w+)", optional)) == rest
    assert set(row["required"].values()) == {"uint"}


def the_lines_of_a_log():
    """The table of line types against the golden log, and what the hashes are made of."""
    table = {row[0].strip("`"): re.findall(r"`([a-zA-Z]+)`", row[2])
             for row in _rows(EVIDENCE, "| line | where |") if row[0].startswith("`")}
    source = _read("host-receiver", "evidence", "lines.h")
    assert set(table) == set(re.findall(r'LINE_TYPE_\w+\s+"(.*?)"', source))
    seen, leaves = set(), []
    for path in sorted(glob.glob(f"{VECTORS}/log/good/*.jsonl")):
        assert re.fullmatch(r"evidence-\d{20}\.jsonl", os.path.basename(path))
        with open(path, "rb") as f:
            for number, line in enumerate(f.read().split(b"\n")[:-1]):
                kind = json.loads(line)["type"]
                if kind not in table:
                    leaves.append(hashlib.sha256(b"\0" + line).digest())
                    continue
                data = json.loads(line)["data"]
                assert set(data) == set(table[kind]), (kind, data)
                assert (number == 0) == kind.endswith("log_segment.v1")
                seen.add(kind)
                if data["checkpoint"]:
                    _checkpoint(data, leaves)
    assert set(seen) == set(table)


def _root(leaves):
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + _root(leaves[:half]) + _root(leaves[half:])).digest()


def _checkpoint(data, leaves):
    """As the page draws it."""
    origin, size, root, empty, *signatures = data["checkpoint"].rstrip("\n").split("\n")
    assert origin == data["origin"] and int(size) == data.get("size", data.get("firstIndex"))
    assert empty == "" and base64.b64decode(root) == _root(leaves[:int(size)])
    with open(f"{VECTORS}/log/keyring.json", encoding="utf-8") as f:
        keys = [base64.urlsafe_b64decode(key + "=") for key in json.load(f).values()]
    ids = [hashlib.sha256(origin.encode() + b"\n\1" + key).digest()[:4] for key in keys]
    for line in signatures:
        dash, name, signature = line.split(" ")
        assert dash == "\u2014" and name == origin and base64.b64decode(signature)[:4] in ids


def the_envelope():
    shape = re.search(r"^\{\"data\":\{\"algorithm\".*?\}$", EVIDENCE, re.MULTILINE | re.DOTALL)[0]
    with open(f"{VECTORS}/evidence-good.jsonl", encoding="utf-8") as f:
        for line in f:
            envelope = json.loads(line)
            said = re.findall(r'"(\w+)":', shape)
            assert sorted(said) == sorted([*envelope, *envelope["data"]]), said
            assert f'"type":"{envelope["type"]}"' in shape and '"specversion":"1.0"' in shape


def the_keyring():
    text = EVIDENCE[EVIDENCE.index("## Keyring"):]
    said = re.findall(r'"(\w+)"', re.search(r"`\{(.*?)\}`", text)[1])
    source = set(re.findall(r'json_text_is\(name, "(\w+)"\)',
                            _read("host-receiver", "sign", "keyring.c")))
    assert set(said) == source, source


def the_groups_have_the_limits_of_the_source():
    text = " ".join(EVIDENCE.split())
    assert f"at most {_define('EVIDENCE_GROUP_ENTRIES_MAX', GROUP)} or 64 MiB" in text
    assert f"at most {_define('INPUT_LINE_MAX', INPUT)} bytes of canonical JSON" in text


GROUP = ("host-receiver", "evidence", "sink.h")
INPUT = ("host-receiver", "evidence", "input.h")


if __name__ == "__main__":
    sys.exit(main())
