# SPDX-License-Identifier: MIT
"""An independent judge of evidence: Python's json, PyNaCl and hmac instead of what the project
links. It knows the rules of the evidence, not the code that writes it."""

import base64
import hashlib
import hmac
import json
import re

import nacl.signing

import tree_oracle

ENVELOPE = "dev.cellos.events.signed_envelope.v1"
PREFIX = "dev.cellos.events.cell.observability."
SOURCES = {"guest": "declared", "receiver": "observed", "probes": "observed", "log": "observed"}


class Duplicate(ValueError):
    pass


def _no_duplicates(pairs):
    keys = [k for k, _ in pairs]
    if len(keys) != len(set(keys)):
        raise Duplicate(keys)
    return dict(pairs)


def _sorted(value):
    """Members by UTF-16 code units, as RFC 8785 wants."""
    if isinstance(value, dict):
        return {k: _sorted(value[k])
                for k in sorted(value, key=lambda k: k.encode("utf-16-be", "surrogatepass"))}
    if isinstance(value, list):
        return [_sorted(v) for v in value]
    return value


def canonical(value):
    return json.dumps(_sorted(value), separators=(",", ":"), ensure_ascii=False).encode()


def unbase64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def check_line(line, public_keys=None, hmac_keys=None, in_tree=False):
    """One stored line -> the event in it; AssertionError when anything is not as it must be.
    in_tree: a tree covers it, so it needs no signature of its own."""
    assert line.endswith(b"\n") and len(line) <= 65536, len(line)
    outer = json.loads(line, object_pairs_hook=_no_duplicates)
    assert canonical(outer) + b"\n" == line, f"not canonical: {line!r}"
    event = outer
    if outer["type"] == ENVELOPE:
        data = outer["data"]
        event = data["event"]
        assert set(outer) == {"data", "datacontenttype", "id", "source", "specversion", "time",
                              "type"}
        assert set(data) == {"algorithm", "event", "signature", "signerKid"}
        for name in ("id", "source", "time", "specversion", "datacontenttype"):
            assert outer[name] == event[name], name
        message, signature = canonical(event), unbase64(data["signature"])
        assert "=" not in data["signature"]
        if data["algorithm"] == "ed25519":
            nacl.signing.VerifyKey(unbase64(public_keys[data["signerKid"]])).verify(
                message, signature)
        else:
            assert data["algorithm"] == "hmac-sha256"
            want = hmac.new(hmac_keys[data["signerKid"]], message, hashlib.sha256).digest()
            assert hmac.compare_digest(want, signature)
    else:
        assert in_tree or (not public_keys and not hmac_keys), "a record without a signature"
    check_event(event)
    return event


def check_event(event):
    data = event["data"]
    assert event["specversion"] == "1.0" and event["datacontenttype"] == "application/json"
    assert re.fullmatch("urn:cellos:event:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}"
                        "-[0-9a-f]{12}", event["id"]), event["id"]
    assert event["type"].startswith(PREFIX)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
    assert event["time"] == data["hostReceivedAt"]
    side = event["source"].removeprefix("cellos-host-telemetry/")
    assert data["authority"] == SOURCES[side]
    assert isinstance(data["hostMonotonicNs"], int) and isinstance(data["sequence"], int)
    assert isinstance(data["streamId"], str)
    for name in ("cellId", "runId", "specSignatureHash"):
        assert isinstance(data[name], str) if side != "log" else True


def of_log(event):
    """Whether it is of the log's own stream."""
    return event["source"] == "cellos-host-telemetry/log"


def check_log_stream(events, closed):
    """The log's own stream of a log that is there from its birth."""
    assert [e["data"]["sequence"] for e in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == PREFIX + "log.v1.opened"
    assert not closed or events[-1]["type"] == PREFIX + "log.v1.closed"


def check(evidence, public_keys=None, hmac_keys=None, sealed=True):
    """All lines of one stream, whole -> its events. A tree over them is judged too."""
    lines = evidence.splitlines(keepends=True)
    in_tree = bool(lines) and not tree_oracle.is_entry(lines[0])
    if in_tree:
        (log,) = tree_oracle.check(lines, public_keys).values()
        lines = log.entries
        assert not sealed or not log.tail, "the last entries have no checkpoint"
    events = [check_line(line, public_keys, hmac_keys, in_tree) for line in lines]
    if in_tree and events:
        check_log_stream([e for e in events if of_log(e)], sealed)
        assert events[0]["data"]["origin"] == log.origin
        events = [e for e in events if not of_log(e)]
        assert not events or events[0]["data"]["origin"] == log.origin
    if in_tree and not events and not sealed:
        return []
    assert events, "no evidence"
    assert len({e["data"]["streamId"] for e in events}) == 1
    assert len({e["id"] for e in events}) == len(events)
    assert [e["data"]["sequence"] for e in events] == list(range(1, len(events) + 1))
    stamps = [e["data"]["hostMonotonicNs"] for e in events]
    assert stamps == sorted(stamps)
    assert events[0]["type"] == PREFIX + "stream.v1.opened"
    if sealed:
        assert events[-1]["type"] == PREFIX + "stream.v1.sealed"
        totals = events[-1]["data"]
        assert totals["events"] == len(events)
    return events


def named(events, name):
    """The events of a type, by the end of its name."""
    return [e for e in events if e["type"] == PREFIX + name]
