# SPDX-License-Identifier: MIT
"""What happens in a real guest is evidence on the host, signed and complete; how the agent ends
is seen there too. The agent dials AF_VSOCK as it does in production."""


from types import SimpleNamespace

from runner import main, once, until
from vm import VM_PATIENCE, Receiver, Vm, find, sessions_of, test_program

WINDOW_MS = 2000

WORKLOAD = """
mkdir /tmp/one /tmp/two
cellos-telemetry --heartbeat 500 --fs inotify --inotify /tmp/one --inotify /tmp/two || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say agent $agent $(uname -r) $(cat /proc/sys/kernel/random/boot_id)

# Processes that live until they are known, also to a source that polls.
spawn 1 /bin/sleep 600 > /tmp/null & spawn=$!
vm say spawn $spawn $$
vm await known
sleep 1
kill $(pidof sleep)
wait $spawn
echo hello > /tmp/one/new
mv /tmp/one/new /tmp/two/moved
chmod 600 /tmp/two/moved
rm /tmp/two/moved
vm idle $agent

# Somebody else dials the agent's port while the agent is connected.
printf '\\1\\0\\0\\0\\240' | vsock-cat 9001
vm await contested

vm put /proc/$agent/status status
vm put /proc/$agent/smaps_rollup smaps
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
vm say bye
# Longer than the keep-alive window: a goodbye has an event of its own.
vm await quiet

cellos-telemetry --heartbeat 500 || exit 11
vm idle $(cat /run/cellos-telemetry/agent.pid)
kill -KILL $(cat /run/cellos-telemetry/agent.pid)
vm say killed
vm await silenced
"""


def last_silence(events):
    """The silence that lasts after the second agent's connection has ended; None if there is none
    yet. A machine that stands still is silent, too, but only for so long."""
    hellos = find(events, "telemetry.hello")
    ended = find(events, "guest.v1.agent_disconnected",
                 connection=hellos[-1]["data"]["connection"] if hellos else 0)
    ends = [e for e in events if e["type"].endswith(("agent_silenced", "agent_resumed"))]
    if ended and len(sessions_of(events)) == 2 and ends[-1]["data"].get("reason") == "no_frames":
        return ends[-1]["data"]
    return None


def boot(receiver, got):
    with Vm(WORKLOAD, receiver=receiver, programs=[test_program("spawn")]) as vm:
        vm.wait_mark("spawn")
        receiver.wait_event("process.executed", guestComm="sleep")
        vm.tell("known")
        receiver.wait_event("guest.v1.channel_contested")
        vm.tell("contested")
        vm.wait_mark("bye")
        # A goodbye ends the expectation of frames, not of evidence.
        receiver.wait_event("guest.v1.agent_silenced", reason="after_bye")
        got.after_bye = receiver.events()
        vm.tell("quiet")
        vm.wait_mark("killed")
        got.silenced = until(lambda: last_silence(receiver.events()),
                             "the silence of a killed agent", patience=VM_PATIENCE)
        vm.tell("silenced")
        got.result = vm.wait().check()
    got.events = receiver.finish()
    got.verdict = receiver.verify()


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    with Receiver("--keepalive", str(WINDOW_MS), signed=True) as receiver:
        boot(receiver, got)
    return got


def mark(name):
    return ran().result.mark(name).split()


def only(kind, **data):
    found = find(ran().events, kind, **data)
    assert len(found) == 1, f"{kind} {data}: {found}"
    return found[0]["data"]


def hello_comes_first_and_names_the_guest():
    agent, release, boot_id = mark("agent")
    kinds = [e["type"].rsplit(".", 1)[-1] for e in ran().events[:3]]
    assert kinds == ["opened", "agent_connected", "telemetry_hello"]
    hello = ran().events[2]["data"]
    assert hello["guestPid"] == int(agent)
    assert hello["guestComm"] == "cellos-telemetr"
    assert hello["detail"]["kernel"] == release
    assert hello["detail"]["bootId"] == boot_id
    assert hello["detail"]["arch"] == "x86_64"
    assert hello["detail"]["heartbeatMs"] == 500
    assert hello["detail"]["fsVia"] == "inotify"
    assert hello["detail"]["processVia"] != "none"


def check_program(executed, comm, exe):
    assert executed["guestComm"] == comm
    detail = executed["detail"]
    # Where the machine stood still within the fork, nobody knows the program.
    if detail["resolved"] or detail["why"] not in ("gone", "unsure"):
        assert detail["exe"] == exe, detail


def processes_have_their_pids_and_comms():
    spawn, shell = map(int, mark("spawn"))
    spawned = only("process.spawned", guestPid=spawn)
    assert spawned["detail"]["ppid"] == shell
    executed = only("process.executed", guestPid=spawn)
    check_program(executed, "spawn", "/bin/spawn")

    # Its child, which only the evidence knows the pid of.
    child = only("process.spawned", ppid=spawn)
    pid = child["guestPid"]
    executed = only("process.executed", guestPid=pid)
    check_program(executed, "sleep", "/bin/busybox")
    exited = only("process.exited", guestPid=pid)
    assert (exited["guestComm"], exited["detail"]["ppid"]) == ("sleep", spawn)
    lived = exited["guestMonotonicNs"] - child["guestMonotonicNs"]
    assert lived >= 900_000_000
    assert only("process.exited", guestPid=spawn)["guestComm"] == "spawn"


def the_agent_does_not_report_itself():
    agent = int(mark("agent")[0])
    found = [e for e in ran().events if e["data"].get("guestPid") == agent and
             not e["data"]["probeSource"].startswith("telemetry.")]
    assert found == []


def inotify_on_two_paths():
    seen = [(e["data"]["detail"]["path"], e["data"]["detail"].get("name"), part)
            for e in find(ran().events, "fs.inotify_fired")
            for part in e["data"]["detail"]["event"].split(",")]
    expected = [
        ("/tmp/one", "new", "create"), ("/tmp/one", "new", "modify"),
        ("/tmp/one", "new", "moved_from"), ("/tmp/two", "moved", "moved_to"),
        ("/tmp/two", "moved", "attrib"), ("/tmp/two", "moved", "delete"),
    ]
    assert [e for e in seen if e in expected] == expected


def orderly_end_is_not_silence():
    bye = find(ran().after_bye, "telemetry.bye")
    assert len(bye) == 1
    # A machine that stands still for seconds makes its guest silent, but only for so long.
    silenced = find(ran().after_bye, "guest.v1.agent_silenced")
    assert not [e for e in silenced if e["data"]["sequence"] > bye[0]["data"]["sequence"] and
                e["data"]["reason"] != "after_bye"]
    ended = find(ran().after_bye, "guest.v1.agent_disconnected")[-1]
    assert ended["data"]["reason"] == "eof"
    assert ended["data"]["sequence"] > bye[0]["data"]["sequence"]
    detail = bye[0]["data"]["detail"]
    assert (detail["dropped"], detail["observed"]) == (0, detail["sent"])
    assert find(ran().after_bye, "guest.v1.telemetry_gap") == []


def killed_agent_is_silence_within_the_window():
    silenced = ran().silenced
    assert silenced["windowMs"] == WINDOW_MS
    # Heartbeats are no events: the last frame is at most one of them after the last event.
    last = [e["data"]["hostMonotonicNs"] for e in ran().events
            if e["data"]["sequence"] < silenced["sequence"] and
            e["data"]["authority"] == "declared"][-1]
    waited = (silenced["hostMonotonicNs"] - last) / 1e6
    assert waited >= WINDOW_MS
    assert silenced["lastFrameAgeMs"] >= WINDOW_MS


def evidence_verifies():
    assert ran().verdict.returncode == 0, ran().verdict.stdout + ran().verdict.stderr
    sequence = [e["data"]["sequence"] for e in ran().events]
    assert sequence == list(range(1, len(sequence) + 1))
    assert ran().events[-1]["type"].endswith("stream.v1.sealed")


def an_impostor_is_turned_away():
    contested = only("guest.v1.channel_contested")
    assert contested["reason"] == "second_connection"
    assert find(ran().events, "guest.v1.channel_violation") == []
    assert find(ran().events, "guest.v1.agent_disconnected", reason="superseded") == []
    # The first session is the agent's, to its goodbye; the second is the next agent's.
    bye = only("telemetry.bye")
    assert bye["sequence"] > contested["sequence"]
    begun = {hello["data"]["detail"]["session"]: hello["data"]["sequence"]
             for hello in reversed(find(ran().events, "telemetry.hello"))}
    assert [sequence > bye["sequence"] for sequence in sorted(begun.values())] == [False, True]


def memory():
    def kib(file, *names):
        lines = ran().result.files[file].decode().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in names)

    private = kib("smaps", "Private_Clean", "Private_Dirty")
    print(f"agent in the VM: VmRSS {kib('status', 'VmRSS')} KiB, resident by its mappings "
          f"{kib('smaps', 'Rss')} KiB, private {private} KiB", flush=True)
    assert private > 0
    assert private <= 1024


if __name__ == "__main__":
    main()
