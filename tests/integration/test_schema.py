# SPDX-License-Identifier: MIT
"""docs/reference: the schema of each event type is held against the programs' own tables and
against evidence that the real receiver wrote, of every type that can be had here."""

import json
import os
import socket
import subprocess
import sys

import jsonschema
import netns
from daemon import Daemon
from guest import hello
from receiver import frame, heartbeat, spawned
from runner import PATIENCE, main, until

SOURCE = os.environ["CELLOS_SOURCE"]
PREFIX = "dev.cellos.events.cell.observability."

netns.enter()
with open(os.path.join(SOURCE, "docs", "reference", "events.schema.json"), encoding="utf-8") as f:
    SCHEMA = json.load(f)
jsonschema.Draft202012Validator.check_schema(SCHEMA)
VALIDATORS = {s["properties"]["type"]["const"]: jsonschema.Draft202012Validator(s)
              for s in SCHEMA["$defs"].values()}
VOCABULARY = [json.loads(line) for line in subprocess.run(
    [os.environ["CELLOS_VOCABULARY"]], capture_output=True, text=True, check=True)
    .stdout.splitlines()]

SAMPLES = {}  # a valid event of each type

TABLE = """table inet cell {
    chain c {
        type filter hook input priority 0; policy accept;
        counter
    }
}
"""


def valid(event):
    VALIDATORS[event["type"]].validate(event)
    return event["type"].removeprefix(PREFIX)


def the_schema_has_what_the_programs_have():
    names = {}
    for row in VOCABULARY:
        if row["name"] == "telemetry.heartbeat":
            continue  # it makes no event
        schema = SCHEMA["$defs"][row["name"]]
        names[row["name"]] = True
        assert schema["properties"]["type"]["const"] == row["type"]
        assert schema["properties"]["source"]["const"] == row["source"]
        if "allowed" not in row:
            continue
        detail = schema["properties"]["data"]["properties"]["detail"]
        camel = row["camel"]
        assert set(detail["properties"]) == set(camel.values()), row["name"]
        assert set(detail["required"]) == {camel[k] for k in row["required"]}, row["name"]
        for key, kind in row["allowed"].items():
            types = {"uint": "integer", "text": "string", "bool": "boolean"}
            of = detail["properties"][camel[key]]
            assert of.get("type", "string") == types[kind], (row["name"], key)
    assert set(SCHEMA["$defs"]) == set(names), set(SCHEMA["$defs"]) ^ set(names)


def the_documents_are_made_from_the_same_table():
    subprocess.run([sys.executable, os.path.join(SOURCE, "tools", "event-reference"), "--check"],
                   check=True, timeout=PATIENCE)


# The values that wire.md section 4 restricts.
WORDS = {"family": "inet", "error": "EPERM", "result": "ok", "event": "modify",
         "session": "00112233445566aa", "process_via": "proc-walk", "net_via": "proc-net",
         "capability_via": "audit", "fs_via": "inotify"}


def _details(row, keys):
    kinds = {"uint": 7, "text": "\u0007\"x\u202e", "bool": True}
    return {k: WORDS.get(k, kinds[row["allowed"][k]]) for k in keys}


def _declare_everything(daemon):
    """Each source with all its details and with none but those that must be there; version 1."""
    rows = [r for r in VOCABULARY if "allowed" in r]
    seq = 0
    for row in rows:
        sock = daemon.connect("all")
        for keys in (row["required"], [k for k in row["allowed"] if k in row["required"]] +
                     [k for k in row["allowed"] if k not in row["required"]]):
            numbered = row["name"] not in ("telemetry.hello", "telemetry.heartbeat",
                                           "telemetry.bye")
            seq += 1
            more = {"seq": seq} if numbered else {}
            sock.sendall(frame(row["name"], detail=_details(row, keys), **more))
        sock.sendall(frame(row["name"], version=1) if row["name"] not in (
            "process.executed", "telemetry.hello") else b"")
        sock.shutdown(socket.SHUT_WR)
        until(lambda: sock.recv(4096) == b"", "the end of the connection")
        sock.close()


def _misbehave(daemon):
    sock = daemon.connect("bad")
    sock.sendall(hello("00112233445566aa", 5, 9) + frame(seq=9, detail={"ppid": 1}) +
                 frame("x.y", seq=10) + frame(version=0x0100))
    daemon.wait_for("guest.v1.version_rejected")
    second = daemon.connect("bad")
    daemon.wait_for("guest.v1.channel_contested")
    second.close()
    sock.sendall(hello("00112233445566ab", 1, 1))
    daemon.wait_for("guest.v1.agent_disconnected")
    sock.close()
    storm = [daemon.connect("storm") for _ in range(60)]
    daemon.wait_for("guest.v1.rate_limited")
    for each in storm:
        each.close()


def _be_silent(daemon):
    sock = daemon.connect("silent")
    sock.sendall(spawned(1))
    daemon.wait_for("guest.v1.agent_silenced")
    sock.sendall(heartbeat(2))
    daemon.wait_for("guest.v1.agent_resumed")
    sock.close()


def _connect_unseen(daemon):
    sock = daemon.connect("probed")
    sock.sendall(frame("net.connect_attempted", seq=1, detail={
        "family": "inet", "address": "10.9.0.1", "port": 80}))
    daemon.wait_for("guest.v1.declaration_unwitnessed")
    sock.close()


def evidence_of_every_type_is_valid():
    netns.nft(TABLE)
    config = ("[evidence]\nrotate_size = 64K\nretain_size = 512K\n"
              "[receiver]\ncheckpoint_interval = 500ms\nrate_connections = 20\n")
    with Daemon(config) as d:
        d.add("all")
        d.add("bad", "--keepalive", "0")
        d.add("storm", "--rate-connections", "1")
        d.add("silent", "--keepalive", "300")
        with open(d.file("fc"), "w") as metrics:
            metrics.write('{"vsock":{"conns_added":1},"utc_timestamp_ms":1}\n')
        probes = ["--tap", "lo", "--nft-table", "inet/cell", "--fc-metrics", d.file("fc"),
                  "--probe-interval", "200"]
        d.add("probed", *probes)
        with open(d.file("fc"), "a") as metrics:
            metrics.write('{"vsock":{"conns_added":2},"utc_timestamp_ms":99999999999999}\n')
        seen = {}
        # Collected at once: on a slow machine the probes' readings fill the log, and retention begins.
        for step in (_declare_everything, _misbehave, _be_silent, _connect_unseen):
            step(d)
            _collect(d, seen)
        for name in ("host.v1.tap_link", "host.v1.nftables", "host.v1.fc_metrics",
                     "stream.v1.checkpoint"):
            d.wait_for(name)
        _collect(d, seen)
        # Enough for retention, and for the memory of sessions.
        sock = d.connect("all")
        sock.sendall(b"".join(frame(seq=5000 + i, comm="x" * 60, detail={"ppid": i})
                              for i in range(1500)))
        until(lambda: any(b'log.v1.pruned"' in line for line in d.raw_lines()), "retention")
        sock.close()
        # Another key, another mode; a cell whose folder goes; an alarm.
        os.mkdir(d.file("gone"))
        d.run("cell", "add", "--cell-id", "gone", "--run-id", "r", "--spec-hash",
              "sha256:" + "5" * 64, "--uds", d.file("gone/v"))
        _collect(d, seen)
        d.kill()
        subprocess.run(["rm", "-r", d.file("gone")], check=True)
        d.start()
        os.mkdir(d.file("gone"))
        until(lambda: any(b'log.v1.cell_served"' in line for line in d.raw_lines()), "cell_served")
        _another_key(d)
        _collect(d, seen)
        # Without its readings the newest segment stays the newest one.
        d.run("cell", "remove", "probed")
        newest = d.segments()[-1]
        os.rename(newest, d.file("taken"))
        d.connect("all").sendall(spawned(9000))
        d.wait_log("segment")
        until(lambda: d.ask({"verb": "status"})["alarm"], "the alarm")
        d.run("log", "acknowledge")
        d.stop()
        _collect(d, seen)
    wanted = {r["type"].removeprefix(PREFIX) for r in VOCABULARY
              if r["name"] != "telemetry.heartbeat"}
    # The control group needs a leaf of its own, which the VM has: vm-probes holds its readings
    # against the same schema.
    unseen = wanted - set(seen) - {"host.v1.cgroup"}
    assert not unseen, sorted(unseen)
    print(f"{sum(seen.values())} events of {len(seen)} types")


def _another_key(d):
    subprocess.run([os.environ["CELLOS_RECEIVER"], "keygen", "--kid", "k2", "--out", d.dir],
                   check=True, stdout=subprocess.DEVNULL)
    with open(d.file("conf")) as f:
        text = f.read()
    text = text.replace("kid = k1", "kid = k2").replace("k1.seed", "k2.seed")
    with open(d.file("conf"), "w") as f:
        f.write(text.replace("algorithm = ed25519\n", "algorithm = ed25519-log\n"))
    d.process.send_signal(1)
    until(lambda: any(b'log.v1.key_retired"' in line for line in d.raw_lines()), "the other key")


def _collect(d, seen):
    """Of each type and shape a few: a validator in Python takes its time."""
    shapes = {}
    for line in d.entries():
        event = json.loads(line)
        if event["type"].startswith("dev.cellos.events.signed_envelope"):
            event = event["data"]["event"]
        shape = (event["type"], tuple(sorted(event["data"])),
                 tuple(sorted(event["data"].get("detail", {}))))
        shapes[shape] = shapes.get(shape, 0) + 1
        if shapes[shape] <= 3:
            kind = valid(event)
            SAMPLES.setdefault(kind, event)
            seen[kind] = seen.get(kind, 0) + 1


def other_members_are_refused():
    """The schemas say something: what must be there, and nothing else may."""
    assert SAMPLES
    for event in SAMPLES.values():
        validator = VALIDATORS[event["type"]]
        must = {"event": validator.schema["required"],
                "data": validator.schema["properties"]["data"]["required"]}
        for place, required in ((event, must["event"]), (event["data"], must["data"])):
            for key in required:
                kept = place.pop(key)
                assert not validator.is_valid(event), (event["type"], key)
                place[key] = kept
        for place in (event["data"], *_closed_places(event["data"])):
            place["more"] = "1"
            assert not validator.is_valid(event), (event["type"], place)
            del place["more"]


def _closed_places(data):
    """The objects inside of what a probe read, but those whose members are others' names."""
    if "output" not in data:
        return []
    output = data["output"]
    return [data["inputs"], output, *output.get("rows", []),
            *([output["totals"]] if "totals" in output else [])]


if __name__ == "__main__":
    sys.exit(main())
