# SPDX-License-Identifier: MIT
"""An independent verifier of evidence logs: verify.py KEYRING SEGMENT.jsonl... [KEPT.checkpoint]...
Exit: 0 intact, 1 bad, 2 unverifiable or uncovered, 3 missing or rolled back, 4 a stream is open."""
import base64, functools, hashlib, json, sys
import nacl.signing
EVENT = "dev.cellos.events.cell.observability."
SEGMENT, CHECKPOINT = "dev.cellos.events.log_segment.v1", "dev.cellos.events.log_checkpoint.v1"
found, logs, streams, pruned, roots = set(), {}, {}, {}, {}

def finding(code, *words):
    print(*words)
    found.add(code)
def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()
def append(frontier, size, leaf):  # frontier: the hashes of the complete subtrees, largest first
    while size & 1:
        leaf, size = sha256(b"\1", frontier.pop(), leaf), size >> 1
    frontier.append(leaf)
def root_of(frontier):
    return functools.reduce(lambda root, left: sha256(b"\1", left, root), reversed(frontier)) \
        if frontier else sha256()
def read_keys(keyring):
    keys = [k if isinstance(k, str) else k["key"] for k in json.load(open(keyring)).values()]
    return [base64.urlsafe_b64decode(k + "=" * (-len(k) % 4)) for k in keys]

def read_note(keys, text):  # origin, size, root, and whether a known key signed it
    body, signatures = text.split("\n\n")
    origin, size, root = body.split("\n")
    signed = False
    for dash, name, blob in (line.split(" ") for line in signatures.splitlines()):
        blob = base64.b64decode(blob, validate=True)
        for key in keys:
            if name == origin and sha256(origin.encode(), b"\n\1", key)[:4] == blob[:4]:
                nacl.signing.VerifyKey(key).verify(body.encode() + b"\n", blob[4:])  # or raises
                signed = True
    return origin, int(size), base64.b64decode(root, validate=True), signed

def count(log, event):  # an entry that a signed root covers
    event = event["data"].get("event", event)  # bare, or in its signed envelope
    kind, data, number = event["type"].removeprefix(EVENT), event["data"], event["data"]["sequence"]
    s = streams.setdefault(data["streamId"], {"log": log, "first": number, "next": number})
    if number != s["next"]:
        finding(3, "a hole in stream", data["streamId"], "before", number)
    s["next"], s["sealed"] = number + 1, kind in ("stream.v1.sealed", "log.v1.closed")
    s.setdefault("previous", (data.get("previousStreamId"), data.get("previousSequence", 0)))
    if kind == "log.v1.pruned":
        pruned[data["origin"]] = data["firstIndex"]

def segment(keys, lines):
    first, waiting = json.loads(lines[0]), []
    if first["type"] != SEGMENT:
        return finding(2, "no segment line: this stands in no log")
    origin, size = first["data"]["origin"], first["data"]["firstIndex"]
    frontier = [base64.b64decode(h) for h in first["data"]["frontier"]]
    log = logs.setdefault(origin, {"first": size, "size": size})
    if size != log["size"]:
        finding(3, "entries", log["size"], "to", size - 1, "are missing")
    for line in lines:
        kind, data = json.loads(line)["type"], json.loads(line)["data"]
        assert (kind == SEGMENT) == (line is lines[0]), "a segment line that is not the first"
        if kind not in (SEGMENT, CHECKPOINT):  # an entry: its bytes are hashed as they stand
            append(frontier, size, sha256(b"\0", line))
            size, roots[origin, size + 1] = size + 1, root_of(frontier)
            waiting.append(json.loads(line))
        elif data["checkpoint"] or size > 0:
            *note, signed = read_note(keys, data["checkpoint"])
            assert note == [origin, size, root_of(frontier)] and data.get("size", size) == size, note
            if signed:
                log["size"], roots[origin, size] = size, note[2]
                waiting = [count(log, event) for event in waiting][:0]
    if waiting:
        finding(2, len(waiting), "entries that no verified checkpoint covers")

def kept(origin, size, root, signed):
    if not signed or size < logs.get(origin, {"first": 0})["first"]:
        finding(2, "the kept checkpoint of", size, "entries cannot be compared")
    elif roots.get((origin, size)) != root:
        finding(3, "the log does not extend the kept checkpoint of", size, "entries")

def finish():
    for origin in [o for o in logs if logs[o]["first"] > pruned.get(o, 0)]:
        finding(3, "log", origin, "begins with index", logs[origin]["first"])
    followed = dict(s["previous"] for s in streams.values() if s["previous"][0])
    for name, s in streams.items():
        if s["first"] > 1 and not s["log"]["first"] or followed.get(name, 0) >= s["next"]:
            finding(3, "stream", name, "is not whole")
        elif not s["sealed"] and name not in followed:
            finding(4, "stream", name, "is open")
    if followed.keys() - streams.keys() and not pruned:
        finding(3, "streams are not there:", followed.keys() - streams.keys())

if __name__ == "__main__":
    keys = read_keys(sys.argv[1])
    for path in sys.argv[2:]:  # what is bad raises an exception: Python ends with exit status 1
        if path.endswith(".jsonl"):
            segment(keys, open(path, "rb").read().removesuffix(b"\n").split(b"\n"))
        else:
            kept(*read_note(keys, open(path).read()))
    finish()
    sys.exit(min(found, default=0))
