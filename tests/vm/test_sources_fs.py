# SPDX-License-Identifier: MIT
"""The fs source on a real kernel: who changed what, also through a hard link, a mapping, or after a
folder above was renamed; what takes the place of a path; many changes at once; and what fanotify
cannot mark is inotify's."""

import collections
from types import SimpleNamespace

from runner import main, once, until
from vm import Receiver, Vm, find, split_runs, test_program

MANY = 1500
SHORT = 60
FORKS = 400  # more events than the agent reads in a turn
FLOOD = 34  # twice as many changes: more than wait for their program, and one read has room

SCRIPT = f"""
end() {{
    kill -TERM $1
    while [ -d /proc/$1 ]; do sleep 0.05; done
}}
mkdir -p /tmp/w/dir /tmp/w/many /tmp/other /tmp/up/per /tmp/ram
mount -t ramfs none /tmp/ram
mkdir -p /tmp/layers/lower /tmp/layers/upper /tmp/layers/work /tmp/overlay
echo 1 > /tmp/layers/lower/file
mount -t overlay overlay -o \
    lowerdir=/tmp/layers/lower,upperdir=/tmp/layers/upper,workdir=/tmp/layers/work /tmp/overlay || exit 9
echo 1 > /tmp/w/file
echo 1 > /tmp/w/dir/inside
echo 1 > /tmp/up/per/file
echo 1 > /tmp/ram/file
ln /tmp/w/file /tmp/other/link
ln /tmp/w/dir/inside /tmp/other/inside
cellos-telemetry --heartbeat 500 --poll 50 --inotify /tmp/w/file --inotify /tmp/w/dir \\
    --inotify /tmp/up/per/file --inotify /tmp/w/later --inotify /tmp/w/many \\
    --inotify /tmp/ram/file --inotify /tmp/overlay || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say write $(files write /tmp/w/file)
vm say hardlink $(files write /tmp/other/link)
vm say hardlink_inside $(files write /tmp/other/inside)
vm say mmap $(files mmap /tmp/w/file)
vm say inside $(files write /tmp/w/dir/inside)
chmod 600 /tmp/w/dir/inside
touch /tmp/w/dir/new
vm say renamed $(files rename /tmp/w/dir/new /tmp/w/dir/newer)
rm /tmp/w/dir/newer
vm say parent $(files rename /tmp/up /tmp/elsewhere)
vm await gone
mkdir -p /tmp/up/per
echo 2 > /tmp/up/per/file
vm await back
vm idle $agent
vm say again $(files write /tmp/up/per/file)
echo 2 > /tmp/w/next
vm say replaced $(files rename /tmp/w/next /tmp/w/file)
vm await replaced
vm idle $agent
vm say after $(files write /tmp/w/file)
echo 1 > /tmp/w/later
vm await later
vm idle $agent
vm say later $(files write /tmp/w/later)
vm say ram $(files write /tmp/ram/file)
vm say overlay $(files write /tmp/overlay/file)
vm say many $(files many /tmp/w/many {MANY})
vm idle $agent
end $agent

cellos-telemetry --heartbeat 500 --fs inotify --inotify /tmp/w/file || exit 11
agent=$(cat /run/cellos-telemetry/agent.pid)
files write /tmp/w/file
vm idle $agent
end $agent

cellos-telemetry --heartbeat 500 --queue 65536 --inotify /tmp/w/dir || exit 12
agent=$(cat /run/cellos-telemetry/agent.pid)
for i in $(seq {SHORT}); do (: > /tmp/w/dir/short$i); done
vm idle $agent
mkfifo /tmp/late
kill -STOP $agent
children fork {FORKS} /tmp/forks > /dev/null
files many /tmp/w/dir {FLOOD} > /dev/null
sh -c 'echo > /tmp/w/dir/last; exec children name 6c61746572 < /tmp/late' & late=$!
exec 4> /tmp/late
vm idle $late
kill -CONT $agent
vm say late $late
vm idle $agent
exec 4>&-
wait $late
end $agent
"""


# What the script waits for: a change of a path that is on the host.
AWAITED = {
    "gone": ("/tmp/up/per/file", "moved_from"),
    "back": ("/tmp/up/per/file", "create"),
    "replaced": ("/tmp/w/file", "moved_to"),
    "later": ("/tmp/w/later", "create"),
}


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    with Receiver("--keepalive", "0", "--rate", "1000000") as receiver:
        with Vm(SCRIPT, receiver=receiver, modules=["overlay"],
                programs=[test_program("files"), test_program("children")]) as vm:
            for name, (path, word) in AWAITED.items():
                vm.wait_awaiting(name)
                until(lambda path=path, word=word: vm.process.poll() is not None or
                      any(word in e["data"]["detail"]["event"].split(",")
                          for e in find(receiver.events(), "fs.changed", path=path)),
                      f"{word} of {path}")
                vm.tell(name)
            got.result = vm.wait().check()
        got.runs = split_runs(receiver.finish())
    return got


def changes(mark, path):
    """(events, name) of what the process of a mark did to a path, in order."""
    pid = int(ran().result.mark(mark))
    found = [e["data"] for e in find(ran().runs[0], "fs.changed", guestPid=pid)]
    for data in found:
        assert data["guestComm"] == "files"
        # Where the machine stood still within the fork, nobody knows the program.
        assert data["detail"].get("exe") in (None, "/bin/files")
    return [(d["detail"]["event"], d["detail"].get("name")) for d in found
            if d["detail"]["path"] == path]


def events_of(mark, path, name=None):
    """All its events of one name, in one set."""
    return {word for words, n in changes(mark, path) if n == name
            for word in words.split(",")}


def _kernel():
    release = find(ran().runs[0], "telemetry.hello")[0]["data"]["detail"]["kernel"]
    return tuple(int(number) for number in release.split(".")[:2])


def hello_names_the_source():
    hello = find(ran().runs[0], "telemetry.hello")[-1]["data"]["detail"]
    # Linux 6.8 and later can mark a ramfs.
    assert hello["fsVia"] in ("fanotify+inotify", "fanotify")
    pid = int(ran().result.mark("ram"))
    if hello["fsVia"] == "fanotify":
        assert find(ran().runs[0], "fs.changed", guestPid=pid, path="/tmp/ram/file")
    else:
        assert find(ran().runs[0], "fs.inotify_fired", path="/tmp/ram/file")
    # An overlay too, from 6.6 on. Its file moved to the upper layer by the write.
    overlay = [e for source in ("fs.changed", "fs.inotify_fired") for e in
               find(ran().runs[0], source, path="/tmp/overlay", name="file")]
    assert {word for e in overlay for word in e["data"]["detail"]["event"].split(",")} >= {"modify"}
    if _kernel() >= (6, 6):
        assert {e["data"]["guestPid"] for e in overlay} == {int(ran().result.mark("overlay"))}
    hello = find(ran().runs[1], "telemetry.hello")[0]["data"]["detail"]
    assert hello["fsVia"] == "inotify"
    assert find(ran().runs[1], "fs.inotify_fired", path="/tmp/w/file")


def a_write_is_reported():
    assert events_of("write", "/tmp/w/file") == {"modify", "close_write"}
    assert events_of("inside", "/tmp/w/dir", "inside") == {"modify", "close_write"}


def a_hard_link_is_reported():
    assert events_of("hardlink", "/tmp/w/file", "/tmp/other/link") == {"modify", "close_write"}
    assert events_of("hardlink_inside", "/tmp/w/dir", "/tmp/other/inside") \
        == {"modify", "close_write"}


def a_mapped_write_is_reported():
    assert events_of("mmap", "/tmp/w/file") == {"close_write"}


def files_of_a_folder_are_reported():
    names = [(d["detail"]["event"], d["detail"].get("name"))
             for d in (e["data"] for e in find(ran().runs[0], "fs.changed", path="/tmp/w/dir"))]
    for event, name in (("create", "new"), ("attrib", "inside"), ("delete", "newer")):
        assert any(event in words.split(",") and n == name for words, n in names), \
            (event, name, names)
    assert events_of("renamed", "/tmp/w/dir", "new") == {"moved_from"}
    assert events_of("renamed", "/tmp/w/dir", "newer") == {"moved_to"}


def folder_above_is_renamed():
    path = "/tmp/up/per/file"
    assert events_of("parent", path) == {"moved_from"}
    # Its place is taken by another file, which is watched in its turn.
    created = find(ran().runs[0], "fs.changed", path=path)
    assert any("create" in e["data"]["detail"]["event"] for e in created)
    assert events_of("again", path) == {"modify", "close_write"}


def a_replaced_file_is_watched_again():
    # The old file has another link, whose count changed.
    assert events_of("replaced", "/tmp/w/file") - {"attrib"} == {"moved_to"}
    assert events_of("after", "/tmp/w/file") == {"modify", "close_write"}
    created = find(ran().runs[0], "fs.changed", path="/tmp/w/later")
    assert "create" in created[0]["data"]["detail"]["event"]
    assert events_of("later", "/tmp/w/later") == {"modify", "close_write"}


def the_program_is_named():
    assert find(ran().runs[0], "fs.changed", exe="/bin/files")


def short_processes_have_their_name():
    """A subshell has its parent's name, also when it has ended before its change is read."""
    found = [e["data"] for e in find(ran().runs[2], "fs.changed", path="/tmp/w/dir")
             if e["data"]["detail"].get("name", "").startswith("short")]
    assert len({d["detail"]["name"] for d in found}) == SHORT
    names = collections.Counter(d["guestComm"] for d in found)
    assert len(names) == 1 and "" not in names, names


def the_program_is_not_the_next_one():
    """It has executed something else between the change and its report."""
    pid = int(ran().result.mark("late"))
    found = [e["data"]["detail"] for e in find(ran().runs[2], "fs.changed", guestPid=pid)]
    assert found and {d["name"] for d in found} == {"last"}, found
    assert all("children" not in d.get("exe", "") for d in found), found


def a_flood_of_events_is_counted():
    pid = int(ran().result.mark("many"))
    seen = collections.defaultdict(set)
    for event in find(ran().runs[0], "fs.changed", guestPid=pid):
        seen[event["data"]["detail"]["name"]] |= set(
            event["data"]["detail"]["event"].split(","))
    lost = sum(e["data"]["detail"]["kernelOverrun"] + e["data"]["detail"]["queueFull"]
               for e in find(ran().runs[0], "telemetry.dropped"))
    print(f"{len(seen)} of {MANY} files, {lost} lost", flush=True)
    assert len(seen) + lost >= MANY
    if not lost:
        assert set(map(frozenset, seen.values())) \
            == {frozenset({"create", "modify", "close_write"})}


if __name__ == "__main__":
    main()
