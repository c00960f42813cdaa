# SPDX-License-Identifier: MIT
"""Evidence logs of any size for tests, by hashlib and PyNaCl: an independent writer of the format
(evidence-log.md sections 1 and 3)."""

import base64
import hashlib
import json
import os
import uuid

import nacl.signing


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def leaf_hash(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """The frontier: (size of the subtree, hash), largest first."""

    def __init__(self):
        self.size, self.frontier = 0, []

    def add(self, entry):
        self.frontier.append((1, leaf_hash(entry)))
        self.size += 1
        while len(self.frontier) > 1 and self.frontier[-1][0] == self.frontier[-2][0]:
            n, right = self.frontier.pop()
            _, left = self.frontier.pop()
            self.frontier.append((2 * n, node_hash(left, right)))

    def root(self):
        if not self.frontier:
            return hashlib.sha256(b"").digest()
        root = self.frontier[-1][1]
        for _, left in reversed(self.frontier[:-1]):
            root = node_hash(left, root)
        return root


class Log:
    """A log in a folder: add entries, commit groups, begin segments."""

    def __init__(self, folder, host="host-1", seed=b"\1" * 32, first=1, kid="k1"):
        self.folder, self.number, self.kid = folder, first - 1, kid
        os.makedirs(folder, exist_ok=True)
        self.key = nacl.signing.SigningKey(seed)
        self.uuid = str(uuid.uuid4())
        self.origin = f"cellos/{host}/{self.uuid}"
        public = bytes(self.key.verify_key)
        self.key_id = hashlib.sha256(self.origin.encode() + b"\n\1" + public).digest()[:4]
        self.tree, self.note, self.group, self.sequences = Tree(), None, [], {}
        self.lines, self.time = [], 0
        self.segment()

    def keyring(self):
        public = base64.urlsafe_b64encode(bytes(self.key.verify_key)).rstrip(b"=").decode()
        return {self.kid: public}

    def path(self):
        return os.path.join(self.folder, f"evidence-{self.number:020}.jsonl")

    def event(self, kind, data, ident=None):
        return canonical({"specversion": "1.0", "datacontenttype": "application/json",
                          "id": ident, "source": "cellos-host-telemetry/log",
                          "time": self.now(), "type": kind, "data": data})

    def now(self):
        return f"2026-11-21T10:{self.time // 60 % 60:02}:{self.time % 60:02}.000Z"

    def write(self, lines):
        with open(self.path(), "ab") as f:
            f.write(b"".join(line + b"\n" for line in lines))

    def segment(self):
        self.number += 1
        frontier = [base64.b64encode(h).decode() for _, h in self.tree.frontier]
        self.write([self.event("dev.cellos.events.log_segment.v1",
                               {"checkpoint": self.note, "firstIndex": self.tree.size,
                                "frontier": frontier, "origin": self.origin},
                               f"urn:cellos:segment:{self.uuid}:{self.tree.size}")])

    def add(self, cell, name="guest.v1.process_spawned", **more):
        """An entry of a cell's stream; cell None: of the log's own."""
        sequence = self.sequences[cell] = self.sequences.get(cell, 0) + 1
        stream = self.uuid if cell is None else str(uuid.uuid5(uuid.UUID(self.uuid), cell))
        data = {"authority": "observed", "hostMonotonicNs": 1, "hostReceivedAt": self.now(),
                "sequence": sequence, "streamId": stream, **more}
        if cell is not None:
            data |= {"cellId": cell, "runId": "run", "specSignatureHash": "sha256:" + "0" * 64}
        self.group.append(self.event("dev.cellos.events.cell.observability." + name, data,
                                     f"urn:cellos:event:{uuid.uuid4()}"))

    def commit(self):
        for entry in self.group:
            self.tree.add(entry)
        body = f"{self.origin}\n{self.tree.size}\n{base64.b64encode(self.tree.root()).decode()}\n"
        signature = base64.b64encode(self.key_id + self.key.sign(body.encode()).signature).decode()
        self.note = f"{body}\n— {self.origin} {signature}\n"
        line = self.event("dev.cellos.events.log_checkpoint.v1",
                          {"checkpoint": self.note, "origin": self.origin, "signerKid": self.kid,
                           "size": self.tree.size},
                          f"urn:cellos:checkpoint:{self.uuid}:{self.tree.size}")
        self.write([*self.group, line])
        self.lines += self.group
        self.group = []
        self.time += 1

    def open(self):
        self.add(None, "log.v1.opened", hostBootId="0", hostname="h", origin=self.origin,
                 previousOrigin=None, previousSize=None, reason="new", receiverVersion="0")
        self.commit()

    def fill(self, n, per_commit=16, cells=4, pad=0):
        """n entries of some cells, which are opened first."""
        for i in range(n):
            cell = f"cell-{i % cells}"
            if cell not in self.sequences:
                self.add(cell, "stream.v1.opened", hostBootId="0", hostname="h", keepaliveMs=1,
                         origin=self.origin, receiverVersion="0")
            else:
                self.add(cell, guestPid=i, pad="x" * pad)
            if len(self.group) == per_commit:
                self.commit()
        if self.group:
            self.commit()

    def close(self):
        """Seal every stream, then the log."""
        for cell in [c for c in self.sequences if c is not None]:
            self.add(cell, "stream.v1.sealed", reason="shutdown")
        self.add(None, "log.v1.closed", cells=len(self.sequences) - 1)
        self.commit()

    def end(self):
        """(segment, offset, entries): what the daemon says is durable."""
        return self.number, os.path.getsize(self.path()), self.tree.size
