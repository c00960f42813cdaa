# SPDX-License-Identifier: MIT
"""Short processes, connects, datagrams and file changes at once: each is an event, part of a folded
one, or counted as lost, to the last of them. CELLOS_COUNT: of the processes; half as many connects
and datagrams, and a quarter as many files."""

import collections
import os
from types import SimpleNamespace

from runner import main, need, once
from vm import Receiver, Vm, find, test_program

CHILDREN = int(os.environ.get("CELLOS_COUNT", 600))
CONNECTS = DATAGRAMS = CHILDREN // 2
FILES = CHILDREN // 4
# What `connects` does beside its COUNT: it fills a backlog.
FILL = 2
DROPPED = ("queueFull", "tooLarge", "channel")

SCRIPT = f"""
mkdir /tmp/w
ip route add unreachable 192.0.2.0/24
cellos-telemetry --heartbeat 500 --inotify /tmp/w || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
children {CHILDREN} /tmp/children > /tmp/children.out &
connects {CONNECTS} /tmp/connects > /tmp/connects.out &
sockets datagrams {DATAGRAMS} > /tmp/datagrams.out &
files many /tmp/w {FILES} > /tmp/files.out &
wait || exit 11
for name in children connects datagrams files; do
    vm say $name $(cat /tmp/$name.out)
done
vm put /tmp/children children
vm put /tmp/connects connects
vm idle $agent
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
"""


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    with Receiver("--keepalive", "0", "--rate", "1000000") as receiver:
        got.result = Vm(SCRIPT, receiver=receiver, memory_mib=512, programs=[
            test_program(name) for name in ("children", "connects", "sockets", "files")
        ]).run(1200).check()
        got.events = receiver.finish()
    got.receipts = [e["data"]["detail"] for e in find(got.events, "telemetry.dropped")]
    got.bye = find(got.events, "telemetry.bye")[-1]["data"]["detail"]
    return got


def pid_of(name):
    return int(ran().result.mark(name).split()[0])


def lost(family):
    return sum(r[family] for r in ran().receipts)


def reported(kind, **data):
    """How many observations the events stand for: a folded one says how many it repeats."""
    return sum(e["data"]["detail"].get("repeat", 1) for e in find(ran().events, kind, **data))


def say(what, count, events, missing):
    print(f"{what}: {count} done, {events} reported, {missing} counted as lost", flush=True)


def all_of_it_was_done():
    assert int(ran().result.mark("children").split()[1]) == CHILDREN
    assert int(ran().result.mark("connects").split()[1]) == CONNECTS + FILL
    assert len(ran().result.files["children"].splitlines()) == CHILDREN


def the_agents_sums_agree():
    """What it observed was sent or dropped, and the host has what was sent."""
    bye = ran().bye
    assert bye["observed"] == bye["sent"] + bye["dropped"], bye
    assert bye["dropped"] == sum(r[why] for r in ran().receipts for why in DROPPED)
    # A folded event stands for as many observations as it repeats.
    arrived = [e["data"]["detail"].get("repeat", 1) for e in ran().events if e["data"].get("seq") and
               not e["data"]["probeSource"].startswith("telemetry.")]
    print(f"observed {bye['observed']}: {len(arrived)} events, "
          f"{sum(arrived) - len(arrived)} folded into them, {bye['dropped']} dropped", flush=True)
    assert sum(arrived) == bye["sent"]
    families = sum(r[f] for r in ran().receipts for f in ("process", "net", "capability", "fs"))
    assert families == bye["dropped"] + sum(r["kernelOverrun"] for r in ran().receipts)


def processes():
    parent = pid_of("children")
    born = reported("process.spawned", ppid=parent)
    ended = reported("process.exited", ppid=parent)
    executed = reported("process.executed", ppid=parent)
    say("processes", 3 * CHILDREN, born + ended + executed, lost("process"))
    assert max(born, ended, executed) <= CHILDREN
    assert born + ended + executed + lost("process") >= 3 * CHILDREN
    if not lost("process"):
        assert (born, ended, executed) == (CHILDREN, CHILDREN, CHILDREN)


def connects():
    done = collections.Counter()
    for line in ran().result.files["connects"].decode().splitlines():
        _, address, port, _ = line.split()
        done[address, int(port)] += 1
    seen = collections.Counter()
    for e in find(ran().events, "net.connect_attempted", guestPid=pid_of("connects")):
        detail = e["data"]["detail"]
        seen[detail["address"], detail["port"]] += detail.get("repeat", 1)
    say("connects", done.total(), seen.total(), lost("net"))
    # Nothing was reported that was not done, and nothing twice.
    assert seen - done == collections.Counter()
    if not lost("net"):
        assert seen == done


def datagrams():
    # Each goes to another address, twice from one socket: that is reported once.
    events = reported("net.datagram_sent", guestPid=pid_of("datagrams"))
    say("datagrams", DATAGRAMS, events, lost("net"))
    assert events <= DATAGRAMS
    attempted = reported("net.connect_attempted", guestPid=pid_of("connects"))
    assert events + attempted + lost("net") >= DATAGRAMS + CONNECTS + FILL
    if not lost("net"):
        assert events == DATAGRAMS


def files():
    names = {e["data"]["detail"].get("name")
             for e in find(ran().events, "fs.changed", guestPid=pid_of("files"))}
    made = {f"f{i}" for i in range(FILES)}
    say("files", FILES, len(names & made), lost("fs"))
    assert len(made - names) <= lost("fs")


if __name__ == "__main__":
    need("CELLOS_COUNT" in os.environ, "a minute long: tools/soak --tests, or CELLOS_COUNT=600")
    main()
