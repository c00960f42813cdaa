# SPDX-License-Identifier: MIT
"""An independent judge of the log's tree (RFC 6962 section 2.1, C2SP checkpoints): hashlib and
PyNaCl instead of what the project links. AssertionError if anything is not as it must be."""

import base64
import hashlib
import json

import nacl.exceptions
import nacl.signing

SEGMENT = "dev.cellos.events.log_segment.v1"
CHECKPOINT = "dev.cellos.events.log_checkpoint.v1"
GROUP_ENTRIES, GROUP_BYTES = 65536, 64 << 20


def sha(data):
    return hashlib.sha256(data).digest()


class Tree:
    """A frontier: (size of the subtree, its hash), largest first."""

    def __init__(self, size=0, hashes=()):
        self.size = size
        sizes = [1 << bit for bit in reversed(range(63)) if size >> bit & 1]
        assert len(sizes) == len(hashes), (size, hashes)
        self.parts = list(zip(sizes, hashes))

    def append(self, entry):
        self.parts.append((1, sha(b"\0" + entry)))
        self.size += 1
        while len(self.parts) > 1 and self.parts[-1][0] == self.parts[-2][0]:
            (size, left), (_, right) = self.parts[-2:]
            self.parts[-2:] = [(2 * size, sha(b"\1" + left + right))]

    def root(self):
        if not self.parts:
            return sha(b"")
        root = self.parts[-1][1]
        for _, left in reversed(self.parts[:-1]):
            root = sha(b"\1" + left + root)
        return root


def check_note(text, origin, size, root, keys):
    """The names of the keys that signed the note."""
    body, _, signatures = text.partition("\n\n")
    assert body == f"{origin}\n{size}\n{base64.b64encode(root).decode()}", (body, size)
    body = (body + "\n").encode()
    kids = []
    for line in signatures.splitlines():
        dash, name, blob = line.split(" ")
        assert (dash, name) == ("\u2014", origin)
        blob = base64.b64decode(blob, validate=True)
        for kid, key in keys.items():
            key = base64.urlsafe_b64decode(key + "=" * (-len(key) % 4))
            if sha(origin.encode() + b"\n\1" + key)[:4] == blob[:4]:
                nacl.signing.VerifyKey(key).verify(body, blob[4:])
                kids.append(kid)
    assert kids and len(kids) == len(signatures.splitlines()), "a note that no known key signed"
    return kids


class Log:
    """One origin's lines, in their order."""

    def __init__(self, origin):
        self.origin = origin
        self.tree = None
        self.size = 0  # of the newest checkpoint
        self.checkpoints = []  # (size, root, kids)
        self.entries = []  # that a checkpoint covers
        self.tail = []  # that none covers
        self.first = None


def check(lines, keys):
    """Whole lines of one or more segments, in order -> the logs in them by origin."""
    logs, log, tail = {}, None, 0
    for line in lines:
        assert line.endswith(b"\n"), line
        outer = json.loads(line)
        data = outer["data"]
        if outer["type"] == SEGMENT:
            assert set(data) == {"checkpoint", "firstIndex", "frontier", "origin"}
            log = logs.setdefault(data["origin"], Log(data["origin"]))
            assert not log.tail, "a segment begins, and entries before it have no checkpoint"
            tree = Tree(data["firstIndex"], [base64.b64decode(h) for h in data["frontier"]])
            if log.tree is None:
                log.first = tree.size
            else:
                assert (tree.size, tree.root()) == (log.tree.size, log.tree.root())
            log.tree = tree
            if data["checkpoint"] is None:
                assert tree.size == 0
            else:
                check_note(data["checkpoint"], log.origin, tree.size, tree.root(), keys)
            log.size = tree.size
        elif outer["type"] == CHECKPOINT:
            assert set(data) == {"checkpoint", "origin", "signerKid", "size"}
            assert (data["origin"], data["size"]) == (log.origin, log.tree.size)
            root = log.tree.root()
            kids = check_note(data["checkpoint"], log.origin, log.tree.size, root, keys)
            assert data["signerKid"] in kids
            assert len(log.tail) <= GROUP_ENTRIES and tail <= GROUP_BYTES
            log.checkpoints.append((log.tree.size, root, kids))
            log.size = log.tree.size
            log.entries += log.tail
            log.tail, tail = [], 0
        else:
            log.tree.append(line[:-1])
            log.tail.append(line)
            tail += len(line)
    return logs


def is_entry(line):
    """Whether a line is an entry; only the top-level type says so."""
    return json.loads(line)["type"] not in (SEGMENT, CHECKPOINT)
