# SPDX-License-Identifier: MIT
"""The cgroup probe on a real cgroup v2 tree with all controllers: an OOM kill, CPU throttling and a
pids.max that is hit, read by a receiver that runs inside the VM."""

import json
import pathlib
from types import SimpleNamespace

import jsonschema
from runner import main, once
from vm import CGROUP2, EVENT_PREFIX, Vm, receiver_binary

SCHEMA = pathlib.Path(__file__).resolve().parents[2] / "docs/reference/events.schema.json"
LEAF = "/sys/fs/cgroup/cell"
GONE = f"{LEAF}: the control group: No such file or directory"
RECEIVE = ("cellos-host-telemetry receive --uds /tmp/v --cell-id c --run-id r "
           "--spec-hash sha256:" + "5" * 64)

SCRIPT = CGROUP2 + f"""
mkdir {LEAF}
in_leaf() {{
    sh -c 'echo $$ > {LEAF}/cgroup.procs; exec "$@"' sh "$@"
}}
{RECEIVE} --cgroup {LEAF} --probe-interval 200 > /tmp/evidence 2> /tmp/log &
receiver=$!
readings() {{
    grep -c host.v1.cgroup /tmp/evidence
}}
more() {{
    local all=$(($(readings) + $1))
    while [ $(readings) -lt $all ]; do sleep 0.05; done
}}
more 4
vm say before $(wc -l < /tmp/evidence)

echo 12M > {LEAF}/memory.max
in_leaf sh -c 'head -c 80000000 /dev/zero | tail -c 70000000 > /dev/null'
vm say oom $?
echo max > {LEAF}/memory.max

echo "10000 100000" > {LEAF}/cpu.max
in_leaf sh -c 'while :; do :; done' &
# The kernel adds the time when it lets the group go on.
until [ $(sed -n 's/^nr_throttled //p' {LEAF}/cpu.stat) -gt 2 ] &&
      [ $(sed -n 's/^throttled_usec //p' {LEAF}/cpu.stat) -gt 0 ]; do sleep 0.1; done
echo 1 > {LEAF}/cgroup.kill
wait $!
echo max > {LEAF}/cpu.max

echo 3 > {LEAF}/pids.max
in_leaf sh -c 'for i in 1 2 3 4 5 6; do sleep 0.3 & done; wait' 2> /tmp/null
echo max > {LEAF}/pids.max
# The shell that cannot fork ends before what it has started.
until grep -q 'populated 0' {LEAF}/cgroup.events; do sleep 0.05; done
more 2

# A leaf that goes and comes back counts from 0 again.
vm put {LEAF}/memory.events memory.events
vm put {LEAF}/pids.events pids.events
vm put {LEAF}/cpu.stat cpu.stat
more 2
# On a busy machine a reading may also hang, or the leaf may go within one: then it goes once more.
until grep -q '{GONE}' /tmp/log; do
    rmdir {LEAF} || exit 10
    until [ $(grep -c 'a probe cannot read' /tmp/log) -gt \
            $(grep -c 'the probe reads again' /tmp/log) ]; do sleep 0.05; done
    mkdir {LEAF}
    more 2
done

# A controller that is off.
echo -memory > /sys/fs/cgroup/cgroup.subtree_control
more 2
kill -TERM $receiver
wait $receiver
vm say status $?
vm put /tmp/evidence evidence
vm put /tmp/log log

ln -s {LEAF} /tmp/link
{RECEIVE} --cgroup /tmp/link > /tmp/out 2> /tmp/err
vm say link $? $(cat /tmp/err)
mkdir /sys/fs/cgroup/upper
ln -s / /tmp/root
{RECEIVE} --cgroup /tmp/root/sys/fs/cgroup/upper > /tmp/out 2> /tmp/err
vm say linked_folder $? $(cat /tmp/err)
{RECEIVE} --cgroup {LEAF}/cgroup.procs > /tmp/out 2> /tmp/err
vm say file $? $(cat /tmp/err)
"""


def flat(data):
    return {key: int(value) for key, value in
            (line.split() for line in data.decode().splitlines())}


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    got.vm = Vm(script=SCRIPT, programs=[receiver_binary()], agent=False).run()
    got.vm.check()
    events = [json.loads(line) for line in got.vm.files["evidence"].splitlines()]
    got.events = events
    got.readings = [e["data"]["output"] for e in events
                    if e["type"] == EVENT_PREFIX + "host.v1.cgroup"]
    return got


def first(condition):
    return next(r for r in ran().readings if condition(r))


def nothing_has_happened_yet():
    first = ran().readings[0]
    assert first["memory_events"]["oom_kill"] == 0
    assert first["pids_events"]["max"] == 0
    assert first["cpu_stat"]["nr_throttled"] == 0
    assert int(ran().vm.mark("before")) > 3


def an_oom_kill_is_counted():
    first(lambda r: r["memory_events"] and
          all(r["memory_events"][name] > 0 for name in ("oom_kill", "oom", "max")))


def throttling_is_counted():
    first(lambda r: r["cpu_stat"]["nr_throttled"] > 2 and r["cpu_stat"]["throttled_usec"] > 0)


def pids_at_their_limit_are_counted():
    first(lambda r: r["pids_events"] and r["pids_events"]["max"] > 0)


def every_number_is_the_one_of_the_kernel():
    want = {name.replace(".", "_"): flat(ran().vm.files[name])
            for name in ("memory.events", "pids.events", "cpu.stat")}
    assert want in ran().readings


def the_leaf_goes_and_comes_back():
    log = ran().vm.files["log"].decode()
    assert log.count(GONE) == 1, log
    assert log.index(GONE) < log.rindex("the probe reads again"), log
    assert ran().readings[-1]["pids_events"]["max"] == 0


def a_controller_that_is_off_is_null():
    assert ran().readings[-1]["memory_events"] is None
    assert "usage_usec" in ran().readings[-1]["cpu_stat"]


def the_stream_is_whole():
    assert ran().vm.mark("status") == "0"
    assert [e["data"]["sequence"] for e in ran().events] == list(range(1, len(ran().events) + 1))
    assert ran().events[-1]["type"] == EVENT_PREFIX + "stream.v1.sealed"
    for event in ran().events:
        if event["type"] == EVENT_PREFIX + "host.v1.cgroup":
            assert event["data"]["inputs"] \
                == {"cgroupLeaf": LEAF, "files": ["memory.events", "cpu.stat", "pids.events"]}


def every_reading_is_as_the_reference_says():
    """With each controller on, and with one off; test_schema.py has no control group."""
    kind = EVENT_PREFIX + "host.v1.cgroup"
    with open(SCHEMA, encoding="utf-8") as f:
        schema = next(one for one in json.load(f)["$defs"].values()
                      if one["properties"]["type"]["const"] == kind)
    validator = jsonschema.Draft202012Validator(schema)
    for event in ran().events:
        if event["type"] == kind:
            validator.validate(event)
    event = next(e for e in ran().events if e["type"] == kind)
    event["data"]["output"]["cpu_stat"]["usage_usec"] = "text"
    assert not validator.is_valid(event)


def links_and_files_are_refused():
    for name, why in (("link", "symbolic link"), ("linked_folder", "symbolic link"),
                      ("file", "Not a directory")):
        said = ran().vm.mark(name)
        assert said.startswith("64 "), said
        assert "--cgroup" in said
        assert why in said


if __name__ == "__main__":
    main()
