# SPDX-License-Identifier: MIT
"""Makes evidence logs by other means than the project: hashlib for the tree, PyNaCl for the
checkpoints, Python's json for the lines. Tests tamper with what it makes; the benchmark makes logs
of any size with it."""

import base64
import hashlib
import os
import uuid

import nacl.signing

import oracle

SOURCE = "cellos-host-telemetry/log"
SPEC = "sha256:" + "ab" * 32


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf_hash(entry):
    return sha256(b"\0", entry)


class Frontier:
    """The hashes of the complete subtrees, largest first."""

    def __init__(self):
        self.size, self.hashes = 0, []

    def append(self, leaf):
        size, node = self.size, leaf
        while size & 1:
            node, size = sha256(b"\1", self.hashes.pop(), node), size >> 1
        self.hashes.append(node)
        self.size += 1

    def root(self):
        if not self.hashes:
            return sha256()
        node = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            node = sha256(b"\1", left, node)
        return node


def base64_of(data):
    return base64.b64encode(data).decode()


def key_id(origin, public):
    return sha256(origin.encode(), b"\n\1", public)[:4]


def note(origin, size, root, *keys):
    body = f"{origin}\n{size}\n{base64_of(root)}\n"
    lines = [f"\u2014 {origin} " + base64_of(key_id(origin, bytes(k.verify_key)) +
                                             k.sign(body.encode()).signature) + "\n" for k in keys]
    return body + "\n" + "".join(lines)


def stamp(n):
    """Milliseconds from a fixed day on: an event's time."""
    return (f"2026-11-21T{n // 3600000 % 24:02}:{n // 60000 % 60:02}:{n // 1000 % 60:02}"
            f".{n % 1000:03}Z")


class Log:
    """A log and its cells. What is appended waits for commit()."""

    def __init__(self, key, kid="k1", prefix="example.org/host", envelope=None, host="host-1",
                 name=None, **fields):
        self.key, self.kid, self.envelope, self.host = key, kid, envelope, host
        self.uuid = name or str(uuid.uuid4())
        self.origin = f"{prefix}/{self.uuid}"
        self.frontier, self.note, self.first = Frontier(), None, 0
        self.segments, self.waiting, self.entries = [], [], []
        self.sequence, self.clock, self.sign_with = {}, 0, [key]
        self.rotate()
        self.own("opened", origin=self.origin, hostname=host,
                 **{"previousOrigin": None, "previousSize": None, "reason": "new", **fields})
        self.commit()

    # ---- lines ----
    def line(self, kind, ident, data):
        return oracle.canonical({
            "data": data, "datacontenttype": "application/json",
            "id": f"urn:cellos:{kind}:{self.uuid}:{ident}", "source": SOURCE,
            "specversion": "1.0", "time": stamp(self.clock),
            "type": f"dev.cellos.events.log_{kind}.v1"}) + b"\n"

    def rotate(self):
        self.segments.append([self.line("segment", self.frontier.size, {
            "checkpoint": self.note, "firstIndex": self.frontier.size,
            "frontier": [base64_of(h) for h in self.frontier.hashes], "origin": self.origin})])

    def entry(self, event):
        line = oracle.canonical(event)
        if self.envelope:
            line = oracle.canonical({
                "data": {"algorithm": "ed25519", "event": event, "signerKid": self.kid,
                         "signature": base64.urlsafe_b64encode(self.envelope.sign(line).signature)
                         .decode().rstrip("=")},
                "datacontenttype": "application/json", "id": event["id"],
                "source": event["source"], "specversion": "1.0", "time": event["time"],
                "type": oracle.ENVELOPE})
        self.raw(line)

    def raw(self, line):
        self.waiting.append(line)
        self.entries.append(line)
        self.frontier.append(leaf_hash(line))

    def commit(self, *, keys=None, kid=None):
        """Entries and their checkpoint, as one group."""
        keys = keys or self.sign_with
        self.note = note(self.origin, self.frontier.size, self.frontier.root(), *keys)
        self.segments[-1] += [e + b"\n" for e in self.waiting]
        self.segments[-1].append(self.line("checkpoint", self.frontier.size, {
            "checkpoint": self.note, "origin": self.origin, "signerKid": kid or self.kid,
            "size": self.frontier.size}))
        self.waiting = []

    # ---- events ----
    def event(self, stream, source, kind, data):
        self.clock += 1
        self.sequence[stream] = self.sequence.get(stream, 0) + 1
        self.entry({"data": {"authority": "observed", "hostMonotonicNs": self.clock,
                             "hostReceivedAt": stamp(self.clock), "streamId": stream,
                             "sequence": self.sequence[stream], **data},
                    "datacontenttype": "application/json",
                    "id": f"urn:cellos:event:{uuid.uuid4()}", "source": source,
                    "specversion": "1.0", "time": stamp(self.clock),
                    "type": oracle.PREFIX + kind})

    def own(self, kind, **data):
        self.event(self.uuid, SOURCE, "log.v1." + kind, data)

    def cell(self, cell, kind, stream, **data):
        self.event(stream, "cellos-host-telemetry/receiver", kind,
                   {"cellId": cell, "runId": "r", "specSignatureHash": SPEC, **data})

    def open(self, cell, **data):
        stream = str(uuid.uuid4())
        self.cell(cell, "stream.v1.opened", stream, origin=self.origin, hostname=self.host,
                  keepaliveMs=10000, receiverVersion="0", hostBootId="0", **data)
        return stream

    def seal(self, cell, stream, **data):
        self.cell(cell, "stream.v1.sealed", stream, reason="removed",
                  **{"guestDropped": 0, "guestKernelLost": 0, **data})

    def spawn(self, cell, stream, n=1):
        for i in range(n):
            self.cell(cell, "guest.v1.process_spawned", stream, probeSource="process.spawned",
                      guestPid=i, guestComm="web \u00e9", detail={"ppid": 1}, connection=1)

    def close(self):
        self.own("closed", cells=0)
        self.commit()

    # ---- files ----
    def write(self, folder, first=1):
        os.makedirs(folder, exist_ok=True)
        for i, lines in enumerate(self.segments):
            with open(f"{folder}/evidence-{first + i:020}.jsonl", "wb") as f:
                f.writelines(lines)
        return folder


def ordinary(key, cells=3, events=4, segments=3, **options):
    """A whole log: cells come and go in each segment; all is sealed and closed."""
    log = Log(key, **options)
    for s in range(segments):
        if s > 0:
            log.rotate()
        for c in range(cells):
            stream = log.open(f"cell-{s}-{c}")
            log.commit()
            log.spawn(f"cell-{s}-{c}", stream, events)
            log.commit()
            log.seal(f"cell-{s}-{c}", stream)
            log.commit()
    log.close()
    return log


def keyring(*pairs):
    """JSON of kid, signing key pairs."""
    return oracle.canonical({kid: base64.urlsafe_b64encode(bytes(k.verify_key)).decode()
                             .rstrip("=") for kid, k in pairs})


def new_key():
    return nacl.signing.SigningKey.generate()
