# SPDX-License-Identifier: MIT
"""Which program it was: exe is the truth or is not told, with the reason; what else a process does
that the connector shows; an exit is an exit, also of a process that the table had no room for; and
an excluded pid is excluded with its process, not for ever."""

import collections
import re
from types import SimpleNamespace

from runner import main, once, until
from vm import VM_PATIENCE, Receiver, Vm, find, split_runs, test_program

COUNT = 40
SLEEPERS = 4300

SCRIPT = f"""
end() {{
    kill -TERM $1
    while [ -d /proc/$1 ]; do sleep 0.05; done
}}
sleep 1000 & excluded=$!
cellos-telemetry --heartbeat 500 --exclude-pid $excluded || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say agent $agent
vm idle $agent
execs all {COUNT} > /tmp/all || vm say failed $?
vm put /tmp/all all
(vm await reported; touch /tmp/reported) & waiting=$!
until [ -e /tmp/reported ]; do execs args >> /tmp/args; done
wait $waiting
vm put /tmp/args args
# Its two readers: of stat and status, and of executed programs. Either can have been replaced; the
# number of the one descriptor that each has stays the same, and the first one's is the lower.
readers() {{
    for stat in /proc/[0-9]*/stat; do
        read pid comm state ppid rest < $stat 2> /tmp/null && [ "$ppid" = $agent ] &&
            [ $state != Z ] && set -- $(ls /proc/$pid/fd 2> /tmp/null) && [ $# = 1 ] &&
            echo $1 $pid
    done | sort -n | cut -d ' ' -f 2
}}
reader() {{
    set -- $(readers)
    echo $2
}}
# Both are there, and this one is not among them.
wait_for_readers() {{
    while set -- $gone $(readers); [ $# != 3 ] || [ $1 = $2 ] || [ $1 = $3 ]; do sleep 0.05; done
}}
# The reader of executed programs hangs: it is killed, another takes its place. It is stopped when
# no question is left that something else would be killed for.
gone=0; wait_for_readers
until hung=$(reader); vm idle $agent; read pid comm state rest < /proc/$hung/stat &&
    [ $state != Z ] && kill -STOP $hung; do :; done
/bin/sleep 1000 first & first=$!
gone=$hung; wait_for_readers
vm idle $agent
kill $first
wait $first
until now=$(reader); [ -n "$now" ] && [ $now != $hung ]; do :; done
vm say readers $hung $now
vm say hung $first
(vm await answered; touch /tmp/answered) & waiting=$!
until [ -e /tmp/answered ]; do
    /bin/sleep 1000 0 & second=$!
    vm idle $second
    vm idle $agent
    kill $second
    wait $second
done
wait $waiting
# And so do both: the other one is asked when the first is late.
until set -- $(readers); vm idle $agent; kill -STOP $1 $2; do :; done
other=$1
/bin/sleep 1000 2 & third=$!
gone=$other; wait_for_readers
vm idle $third
vm idle $agent
kill $third
wait $third
vm say late $third
until set -- $(readers); [ $# = 2 ]; do :; done
vm say both $1 $2
# Of one that waits for a question: one may be replaced just now, and one that has just begun is not
# confined yet.
for file in oom_score_adj status; do
    until now=$(reader); read pid comm state rest < /proc/$now/stat && [ $state = S ] &&
        said=$(cat /proc/$now/$file); do :; done 2> /tmp/null
    vm say $file $said
done
# It opens a file for each of these programs.
until fds=$(ls /proc/$(reader)/fd 2> /tmp/null | wc -l); [ $fds = 1 ]; do :; done
vm say fds $fds
kill $excluded
wait $excluded
# Its number goes round to another process: to this one, unless the agent forks just then.
until echo $((excluded - 1)) > /proc/sys/kernel/ns_last_pid
    /bin/sleep 0.1 & again=$!
    wait $again; [ $again = $excluded ]; do :; done
vm say again $excluded $again
vm idle $agent
end $agent

cellos-telemetry --heartbeat 500 --net off || exit 11
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say full $(execs full {SLEEPERS})
vm idle $agent
end $agent
"""


def had(events, *beginnings):
    """Arguments that begin with each of these. The reader can be late on a busy machine."""
    texts = [e["data"]["detail"].get("args", "") for e in find(events, "process.executed")]
    return all(any(t.startswith(beginning) for t in texts) for beginning in beginnings)


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    with Receiver("--keepalive", "0", "--rate", "1000000") as receiver:
        vm = Vm(SCRIPT, receiver=receiver, memory_mib=768, programs=[test_program("execs")])
        with vm:
            until(lambda: had(receiver.events(), "evil sleep 500 a", "evil sleep 500 x"),
                  "the arguments", pause=0.5, patience=VM_PATIENCE)
            vm.tell("reported")
            until(lambda: had(receiver.events(), "/bin/sleep 1000 0"),
                  "the arguments that the second reader had", pause=0.5, patience=VM_PATIENCE)
            vm.tell("answered")
            got.result = vm.wait().check()
        got.runs = split_runs(receiver.finish())
    got.pids = collections.defaultdict(list)
    for line in (got.result.files["all"] + got.result.files["args"]).decode().split("\n")[:-1]:
        what, pid, *_ = line.split()
        got.pids[what].append(int(pid))
    return got


def executed(pid):
    return [e["data"] for e in find(ran().runs[0], "process.executed", guestPid=pid)]


def is_known(detail):
    """False, and says so, where the machine stood still within the fork: then nobody knows the
    program."""
    known = detail["resolved"] or detail["why"] not in ("gone", "unsure")
    if not known:
        print("not known:", detail, flush=True)
    return known


def chain():
    """evil executes true at once: never is true named for evil, nor the other way round."""
    assert "failed" not in ran().result.marks
    verdicts = collections.Counter()
    for pid in ran().pids["chain"]:
        execs = executed(pid)
        assert len(execs) == 2, execs
        for data, exe in zip(execs, ("/tmp/evil", "/bin/busybox"), strict=True):
            detail = data["detail"]
            if detail["resolved"]:
                assert detail["exe"] == exe
                assert "why" not in detail
            else:
                assert detail["exe"] == ""
                assert detail["why"] in ("replaced", "gone", "unsure")
            verdicts[exe, detail.get("why")] += 1
    print(dict(verdicts), flush=True)
    assert verdicts["/tmp/evil", "replaced"] > 0


def connect_then_exec():
    named = 0
    for pid in ran().pids["connexec"]:
        connects = find(ran().runs[0], "net.connect_attempted", guestPid=pid)
        assert len(connects) == 1
        exe = connects[0]["data"]["detail"].get("exe")
        assert exe in (None, "/tmp/evil")
        named += exe is not None
    print(f"{named} of {COUNT} connects with their exe", flush=True)


def traced():
    detail = executed(ran().pids["traced"][0])[0]["detail"]
    if is_known(detail):
        assert (detail["resolved"], detail["why"], detail["exe"]) == (False, "traced", "")


def attached():
    line = [line.split() for line in ran().result.files["all"].decode().split("\n")
            if line.startswith("attached")][0]
    found = find(ran().runs[0], "process.traced", guestPid=int(line[1]))
    assert [(e["data"]["detail"]["tracerPid"], e["data"]["detail"]["tracerComm"]) for e in found] \
        == [(int(line[2]), "execs")]


def deep_path():
    detail = executed(ran().pids["deep"][0])[0]["detail"]
    if is_known(detail):
        assert (detail["resolved"], detail["why"], detail["exe"]) == (False, "too_long", "")


def details():
    detail = executed(ran().pids["identity"][0])[0]["detail"]
    changes = [e["data"]["detail"] for e in find(ran().runs[0], "process.identity_changed",
                                                 guestPid=ran().pids["identity"][0])]
    if is_known(detail):
        assert {k: detail[k] for k in ("exe", "uid", "euid", "cwd", "resolved")} \
            == {"exe": "/tmp/evil", "uid": 0, "euid": 0, "cwd": "/", "resolved": True}
        assert {c["exe"] for c in changes} == {"/tmp/evil"}
    assert [(c["kind"], c["real"], c["effective"]) for c in changes] \
        == [("gid", 1001, 1002), ("uid", 1001, 1002)]
    assert len(find(ran().runs[0], "process.session_started", guestPid=ran().pids["identity"][0])) \
        == 1
    core = ran().pids["core"][0]
    assert len(find(ran().runs[0], "process.core_dumped", guestPid=core)) == 1
    exited = find(ran().runs[0], "process.exited", guestPid=core)
    assert [e["data"]["detail"]["signal"] for e in exited] == [6]


def arguments():
    """They are missing where the reader was late, and are never wrong."""
    for what, text in (("args", "a b new?line  end"), ("args_cut", 2999 * "x")):
        whole = f"evil sleep 500 {text}"
        details = [executed(pid)[0]["detail"] for pid in ran().pids[what]]
        had = [d for d in details if "args" in d]
        assert had, details
        for d in had:
            assert (d["args"], d["argsCut"], d["resolved"]) \
                == (whole[:1024], len(whole) > 1024, True)


def reader_that_hangs():
    detail = executed(int(ran().result.mark("hung")))[-1]["detail"]
    assert "args" not in detail
    # A machine that stops the guest for 100 ms within the fork makes its start look like another's.
    assert detail["resolved"] or not is_known(detail), detail
    assert had(ran().runs[0], "/bin/sleep 1000 0")
    hung, now = ran().result.mark("readers").split()
    assert hung != now
    # It has its end of the socket and nothing else, and may be killed for memory.
    assert ran().result.mark("fds") == "1"
    assert ran().result.mark("oom_score_adj") == "0"
    assert re.search(r"CapPrm: 0000000000080000 ", ran().result.mark("status"))
    assert re.search(r"Seccomp: 2 ", ran().result.mark("status"))


def facts_reader_that_hangs():
    """Its answer comes from the reader that takes its place, so nothing is missing."""
    detail = executed(int(ran().result.mark("late")))[-1]["detail"]
    assert detail["resolved"] or detail["why"] in ("gone", "unsure"), detail
    if detail["resolved"]:
        assert detail["exe"].endswith("busybox") or detail["exe"] == "/bin/sleep", detail
        assert detail["uid"] == detail["euid"] == 0
    assert len(ran().result.mark("both").split()) == 2


def excluded_pid_is_free_again():
    excluded, again = map(int, ran().result.mark("again").split())
    assert again == excluded
    lives = [e["data"]["probeSource"] for e in ran().runs[0]
             if e["data"].get("guestPid") == excluded]
    assert lives == ["process.spawned", "process.executed", "process.exited"]


def full_table():
    """The end of a process without a place in the table is its last thread's."""
    pid = int(ran().result.mark("full"))
    exited = [e["data"]["detail"] for e in find(ran().runs[1], "process.exited", guestPid=pid)]
    assert [d.get("exitCode") for d in exited] == [42]
    # Who had no place is a loss.
    lost = sum(e["data"]["detail"]["kernelOverrun"]
               for e in find(ran().runs[1], "telemetry.dropped"))
    assert lost > 0


if __name__ == "__main__":
    main()
