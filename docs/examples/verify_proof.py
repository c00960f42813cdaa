#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One entry's proof, checked with nothing but the keyring: verify_proof.py KEYRING PROOF ENTRY"""
import base64, sys
from verify import read_keys, read_note, sha256

def holds(keys, proof, entry):  # C2SP tlog-proof; RFC 9162 section 2.1.3.2
    head, _, note = proof.partition("\n\n")
    lines = [x for x in head.split("\n") if not x.startswith("extra ")]
    index, hashes = int(lines[1].removeprefix("index ")), map(base64.b64decode, lines[2:])
    origin, size, root, signed = read_note(keys, note)
    node, last = sha256(b"\0", entry), size - 1
    if index > last or lines[0] != "c2sp.org/tlog-proof@v1":
        return False
    for other in hashes:
        if index & 1 or index == last:
            node = sha256(b"\1", other, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = sha256(b"\1", node, other)
        index, last = index >> 1, last >> 1
    return signed and last == 0 and node == root

if __name__ == "__main__":
    with open(sys.argv[2]) as proof, open(sys.argv[3], "rb") as entry:
        fine = holds(read_keys(sys.argv[1]), proof.read(), entry.read().removesuffix(b"\n"))
    print("the proof holds" if fine else "the proof does NOT hold")
    sys.exit(0 if fine else 1)
