# SPDX-License-Identifier: MIT
"""export --format ocsf: every type of event, against what OCSF 1.8.0 defines of its class."""

import hashlib
import ipaddress
import json
import os
import re
import subprocess
import tempfile

import logmaker
import oracle
from receiver import RECEIVER
from runner import PATIENCE, main

KEY = logmaker.new_key()
SOURCE = os.environ["CELLOS_SOURCE"]

# Facts of the published schema of OCSF 1.8.0 (compiled, with its platform extensions). A set of
# numbers is what an enumeration allows.
OTHER = {99}


def ids(last):
    """0 (Unknown) to last, and 99 (Other)."""
    return set(range(last + 1)) | OTHER


def is_ip(value):
    return len(value) <= 40 and bool(ipaddress.ip_address(value))


KINDS = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: type(v) is int,
    "boolean": lambda v: isinstance(v, bool),
    "strings": lambda v: isinstance(v, list) and all(isinstance(one, str) for one in v),
    "any": lambda v: isinstance(v, dict),
    "ip": is_ip,
    "port": lambda v: type(v) is int and 0 <= v <= 65535,
}
SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"}

# Of every class: what is required (other profiles than host require more), and the types of the
# attributes that export uses.
BASE = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
BASE_TYPES = {
    "activity_id": "integer", "activity_name": "string", "actor": "actor",
    "category_uid": "integer", "class_name": "string", "class_uid": "integer", "device": "device",
    "message": "string", "metadata": "metadata", "raw_data": "string",
    "raw_data_hash": "fingerprint", "raw_data_size": "integer", "severity": "string",
    "severity_id": ids(6), "status_code": "string", "status_detail": "string",
    "status_id": ids(2), "time": "integer", "type_uid": "integer", "unmapped": "any",
}
# Of each class: its name, what it requires besides, at least one of what, the types of its own
# attributes, and the names of its activities besides 0 (Unknown) and 99 (Other).
CLASSES = {
    0: ("Base Event", set(), set(), {}, []),
    1001: ("File System Activity", {"actor", "device", "file"}, set(), {"file": "file"},
           ["Create", "Read", "Update", "Delete", "Rename", "Set Attributes", "Set Security",
            "Get Attributes", "Get Security", "Encrypt", "Decrypt", "Mount", "Unmount", "Open"]),
    1003: ("Kernel Activity", {"actor", "device", "kernel"}, set(), {"kernel": "kernel"},
           ["Create", "Read", "Delete", "Invoke"]),
    1007: ("Process Activity", {"actor", "device", "process"}, set(),
           {"exit_code": "integer", "process": "process"},
           ["Launch", "Terminate", "Open", "Inject", "Set User ID"]),
    1008: ("Event Log Activity", set(),
           {"log_file", "log_name", "log_provider", "log_type", "log_type_id"},
           {"log_name": "string", "log_provider": "string"},
           ["Clear", "Delete", "Export", "Archive", "Rotate", "Start", "Stop", "Restart", "Enable",
            "Disable"]),
    2004: ("Detection Finding", {"finding_info"}, set(),
           {"finding_info": "finding_info", "is_alert": "boolean", "status_id": ids(6)},
           ["Create", "Update", "Close"]),
    4001: ("Network Activity", set(), {"dst_endpoint", "src_endpoint"},
           {"connection_info": "network_connection_info", "dst_endpoint": "network_endpoint",
            "src_endpoint": "network_endpoint"},
           ["Open", "Close", "Reset", "Fail", "Refuse", "Traffic", "Listen"]),
}
# Of objects: what is required, at least one of what, and the types of the attributes in use.
OBJECTS = {
    "actor": (set(), {"app_name", "app_uid", "invoked_by", "process", "session", "user"},
              {"process": "process"}),
    "device": ({"type_id"}, {"hostname", "instance_uid", "interface_name", "interface_uid", "ip",
                             "name", "uid"},
               {"hostname": "string", "type_id": ids(15), "uid": "string"}),
    "file": ({"name", "type_id"}, set(),
             {"name": "string", "path": "string", "type_id": ids(8)}),
    "finding_info": ({"uid"}, set(), {"title": "string", "uid": "string"}),
    "fingerprint": ({"algorithm_id", "value"}, set(),
                    {"algorithm": "string", "algorithm_id": ids(20), "value": "string"}),
    "kernel": ({"name", "type_id"}, set(),
               {"name": "string", "system_call": "string", "type": "string", "type_id": ids(2)}),
    "metadata": ({"product", "version"}, set(),
                 {"correlation_uid": "string", "event_code": "string", "log_name": "string",
                  "log_provider": "string", "original_event_uid": "string",
                  "original_time": "string", "product": "product", "profiles": "strings",
                  "sequence": "integer", "version": "string"}),
    "network_connection_info": ({"direction_id"}, set(),
                                {"direction_id": ids(4), "protocol_name": "string"}),
    "network_endpoint": (set(), {"domain", "hostname", "instance_uid", "interface_name",
                                 "interface_uid", "ip", "name", "svc_name", "uid"},
                         {"ip": "ip", "name": "string", "port": "port", "uid": "string"}),
    "process": (set(), {"cpid", "pid", "uid"},
                {"cmd_line": "string", "file": "file", "name": "string", "pid": "integer",
                 "user": "user", "working_directory": "string"}),
    "product": (set(), {"name", "uid"},
                {"name": "string", "vendor_name": "string", "version": "string"}),
    "user": (set(), {"account", "name", "uid"}, {"uid": "string"}),
}

DETAILS = {
    "process.spawned": {"ppid": 1},
    "process.executed": {"exe": "/bin/sh", "args": "sh -c id", "uid": 0, "euid": 0, "ppid": 1,
                         "cwd": "/"},
    "process.traced": {"tracerPid": 9, "tracerComm": "gdb"},
    "process.exited": {"exitCode": 3, "ppid": 1},
    "net.connect_attempted": {"family": "inet", "address": "203.0.113.7", "port": 443},
    "net.datagram_sent": {"family": "inet6", "address": "2001:db8::1", "port": 53, "protocol": "udp"},
    "net.bound": {"family": "inet", "address": "0.0.0.0", "port": 80},
    "net.socket_created": {"family": "inet", "type": "raw", "protocol": "icmp"},
    "capability.denied": {"syscall": "mount", "error": "EPERM", "capability": "CAP_SYS_ADMIN"},
    "fs.changed": {"path": "/etc", "name": "passwd", "event": "modify,close_write"},
    "fs.inotify_fired": {"path": "/etc/shadow", "event": "delete"},
}


def _sources():
    """The guest's sources, from the table that decodes them; heartbeats become no event."""
    with open(os.path.join(SOURCE, "common", "wire.c"), encoding="utf-8") as f:
        found = re.findall(r'\[WIRE_\w+\] = \{T\("([a-z_]+[.][a-z_]+)"\)', f.read())
    assert len(found) > 15, found
    return [name for name in found if name != "telemetry.heartbeat"]


def _other_types():
    """Types of the receiver, the probes and the log, from the table that writes them."""
    with open(os.path.join(SOURCE, "host-receiver", "event", "event.c"), encoding="utf-8") as f:
        text = f.read()
    found = [f"{area}.v1.{name}" for area, name in
             re.findall(r'(?:RECEIVER|OF)\(EVENT_\w+, (?:SOURCE_\w+, )?"(\w+)", "(\w+)"\)', text)]
    found += [f"log.v1.{name}" for name in re.findall(r'LOG\(EVENT_\w+, "(\w+)"\)', text)]
    assert len(found) > 25, found
    return found


class Folder:
    """A log with an event of each type. Without details: declarations of wire version 1."""

    def __init__(self, details=DETAILS, **options):
        log = self.log = logmaker.Log(KEY, **options)
        stream = log.open("web-1")
        common = {"cellId": "web-1", "runId": "run-7", "specSignatureHash": logmaker.SPEC}
        for name in _sources():
            log.event(stream, "cellos-host-telemetry/guest", "guest.v1." + name.replace(".", "_"),
                      {**common, "authority": "declared", "probeSource": name,
                       "guestPid": 0 if name == "fs.inotify_fired" else 77, "guestComm": "w\u202e<b>",
                       "guestMonotonicNs": 2**64 - 1, "connection": 1, "contentVersion": 2,
                       **({"detail": details.get(name, {})} if details else {})})
        for name in _other_types():
            if name.startswith("log.v1."):
                if name not in ("log.v1.opened", "log.v1.closed"):
                    log.own(name[7:])
            elif not name.startswith("stream.v1."):
                log.event(stream, "cellos-host-telemetry/receiver", name, dict(common))
        log.seal("web-1", stream)
        log.close()
        self.tmp = tempfile.TemporaryDirectory(prefix="cellos-export-")
        self.path = log.write(f"{self.tmp.name}/log")

    def export(self, *args, want=0):
        got = subprocess.run([RECEIVER, "export", *args, self.path], capture_output=True,
                             timeout=PATIENCE, check=False)
        assert got.returncode == want, got
        self.said = got.stderr.decode()
        return [json.loads(line) for line in got.stdout.splitlines()]

    def connect(self):
        """The event of the connect, and its entry."""
        events = zip(self.export(), self.log.entries)
        return next((e, entry) for e, entry in events
                    if e["metadata"]["event_code"].endswith("net_connect_attempted"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tmp.cleanup()


def check_attributes(where, held, required, one_of, types):
    assert required <= set(held), (where, required - set(held), held)
    assert not one_of or one_of & set(held), (where, held)
    for name, value in held.items():
        assert name in types, f"{where} has no attribute {name}"
        kind = types[name]
        if isinstance(kind, set):
            assert type(value) is int and value in kind, (where, name, value)
        elif kind in OBJECTS:
            check_attributes(kind, value, *OBJECTS[kind])
        else:
            assert KINDS[kind](value), (where, name, value)


def check_event(event, entry):
    uid, activity = event["class_uid"], event["activity_id"]
    class_name, required, one_of, types, activities = CLASSES[uid]
    check_attributes(class_name, event, BASE | required, one_of, {**BASE_TYPES, **types})
    assert (event["class_name"], event["category_uid"]) == (class_name, uid // 1000)
    assert event["type_uid"] == uid * 100 + activity
    if activity == 99:
        assert event["activity_name"] not in ("", "Other"), "the source's own name"
    else:
        assert event["activity_name"] == activities[activity - 1], event
    assert event["severity"] == SEVERITIES[event["severity_id"]]
    assert event["metadata"]["version"] == "1.8.0"
    assert event["raw_data"].encode() == entry
    assert event["raw_data_hash"] == {"algorithm": "SHA-256", "algorithm_id": 3,
                                      "value": hashlib.sha256(entry).hexdigest()}
    signed = json.loads(entry)
    signed = signed["data"].get("event", signed)
    metadata = event["metadata"]
    assert metadata["profiles"] == ["host"], "whose attributes device and actor are"
    assert (metadata["original_event_uid"], metadata["sequence"], metadata["event_code"]) == \
        (signed["id"], signed["data"]["sequence"], signed["type"])
    assert event["unmapped"]["data"] == signed["data"]


def every_type_is_a_valid_event():
    for options in ({}, {"envelope": KEY}, {"details": None}):
        with Folder(**options) as f:
            events = f.export("--format", "ocsf")
            assert len(events) == len(f.log.entries)
            for index, (event, entry) in enumerate(zip(events, f.log.entries)):
                check_event(event, entry)
                assert event["metadata"]["log_name"] == f.log.origin
                assert event["unmapped"]["index"] == index
            base = {e["metadata"]["event_code"].removeprefix(oracle.PREFIX)
                    for e in events if e["class_uid"] == 0}
            assert all(name.startswith("host.v1.") for name in base), f"without a class: {base}"


def fields_that_a_siem_searches_for_are_there():
    with Folder() as f:
        by_name = {e["metadata"]["event_code"].rpartition(".")[2]: e for e in f.export()}
        ran = by_name["process_executed"]
        assert (ran["class_uid"], ran["activity_id"]) == (1007, 1)
        assert ran["process"] == {"pid": 77, "name": "w\u202e<b>", "cmd_line": "sh -c id",
                                  "working_directory": "/", "user": {"uid": "0"},
                                  "file": {"name": "sh", "path": "/bin/sh", "type_id": 8}}
        assert ran["actor"] == {"process": {"pid": 1}}
        assert ran["device"] == {"type_id": 6, "uid": "web-1"}
        assert ran["metadata"]["correlation_uid"] == "run-7"
        assert by_name["process_exited"]["exit_code"] == 3
        assert by_name["process_traced"]["actor"]["process"] == {"pid": 9, "name": "gdb"}
        denied = by_name["capability_denied"]
        assert (denied["kernel"]["name"], denied["status_id"], denied["status_code"]) == \
            ("mount", 2, "EPERM")
        assert by_name["net_connect_attempted"]["dst_endpoint"] == {"ip": "203.0.113.7", "port": 443}
        assert by_name["net_bound"]["src_endpoint"] == {"ip": "0.0.0.0", "port": 80,
                                                            "uid": "web-1"}
        changed = by_name["fs_changed"]
        assert (changed["activity_id"], changed["file"]["path"], changed["file"]["name"]) == \
            (3, "/etc/passwd", "passwd")
        assert by_name["fs_inotify_fired"]["activity_id"] == 4
        silenced, resumed = by_name["agent_silenced"], by_name["agent_resumed"]
        assert silenced["severity_id"] == 4 and silenced["is_alert"]
        assert resumed["activity_id"] == 3
        assert silenced["finding_info"]["uid"] == resumed["finding_info"]["uid"], "one finding"


def every_end_of_a_connection_has_a_form_of_ocsf():
    for address, port, end, direction in (
            ("203.0.113.7", 65535, {"ip": "203.0.113.7", "port": 65535}, 2),
            ("203.0.113.7", 65536, {"ip": "203.0.113.7"}, 2),
            ("2001:DB8:0::1", 443, {"ip": "2001:db8::1", "port": 443}, 2),
            ("0:0:0:0:0:0:0:1", 22, {"ip": "::1", "port": 22}, 4),
            ("127.9.9.9", 22, {"ip": "127.9.9.9", "port": 22}, 4),
            ("::ffff:127.0.0.1", 22, {"ip": "::ffff:127.0.0.1", "port": 22}, 4),
            ("0.0.0.0", 22, {"ip": "0.0.0.0", "port": 22}, 4),
            ("203.0.113.7\0", 1, {"name": "f:203.0.113.7\0:1"}, 2),
            ("203.0.113.7 ", 1, {"name": "f:203.0.113.7 :1"}, 2),
            ("2", 4294967295, {"name": "f:2:4294967295"}, 2),
            ("x" * 1024, 1, {"name": "f:" + "x" * 1024 + ":1"}, 2),
            ("", 1, {"name": "f::1"}, 2)):
        detail = {"family": "f", "address": address, "port": port}
        with Folder(details={"net.connect_attempted": detail}) as f:
            event, entry = f.connect()
            check_event(event, entry)
            assert event["dst_endpoint"] == end, (address, event["dst_endpoint"])
            assert event["connection_info"]["direction_id"] == direction, (address, event)


def a_connect_has_the_status_of_its_result():
    for result, status in (("ok", 1), ("ECONNREFUSED", 2), ("#4095", 2), ("EINPROGRESS", 0),
                           (None, 0)):
        detail = {"family": "inet", "address": "203.0.113.7", "port": 443,
                  **({"result": result} if result else {})}
        with Folder(details={"net.connect_attempted": detail}) as f:
            event, entry = f.connect()
            check_event(event, entry)
            assert (event["status_id"], event.get("status_code")) == (status, result), event


def entries_outside_of_any_log_are_valid_events_too():
    with Folder() as f:
        got = subprocess.run([RECEIVER, "export", "-"], input=b"\n".join(f.log.entries) + b"\n",
                             capture_output=True, timeout=PATIENCE, check=True)
        events = [json.loads(line) for line in got.stdout.splitlines()]
        assert len(events) == len(f.log.entries)
        for event, entry in zip(events, f.log.entries):
            check_event(event, entry)
            assert "log_name" not in event and "log_name" not in event["metadata"], event
            assert event["device"]["uid"] in ("web-1", "unknown"), event
            assert "index" not in event["unmapped"]


def a_part_and_a_damaged_line():
    with Folder() as f:
        own = [e for e in f.log.entries if b'"cellId"' not in e]
        assert len(f.export("--cell", "other")) == len(own)
        assert f.export("--since", "2030-01-01") == [] and f.export("--until", "2001-01-01") == []
        f.export("--format", "cef", want=64)
        name = os.path.join(f.path, os.listdir(f.path)[0])
        with open(name, "ab") as out:
            out.write(b'{"data":1}\n' + b"x" * 70000 + b"\nnot json\n")
        assert len(f.export(want=1)) == len(f.log.entries)
        assert "skipped 3 lines that are no event" in f.said, f.said


if __name__ == "__main__":
    main()
