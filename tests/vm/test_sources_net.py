# SPDX-License-Identifier: MIT
"""The net sources on a real kernel: each connect with its address and port, whichever way it was
made; by BPF, by audit (which tells the result too) and by polling."""

import collections
import errno
import os
from types import SimpleNamespace

from runner import case, main, once
from vm import Receiver, Vm, find, split_runs, test_program

COUNT = int(os.environ.get("CELLOS_CONNECTS", 2500))
GONE_COUNT = 3 * 13  # each way three times
AUDIT_COUNT = 1000
STOPPED = 9000
DATAGRAMS = 2000

COMMON = """
ip route add unreachable 192.0.2.0/24
end() {
    kill -TERM $1 || exit 30
    while [ -d /proc/$1 ]; do sleep 0.05; done
}
"""

SCRIPT = COMMON + f"""
cellos-telemetry --heartbeat 500 || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say bpf $(connects {COUNT} /tmp/bpf)
vm put /tmp/bpf bpf
mkfifo /tmp/late
connects held {GONE_COUNT} /tmp/gone < /tmp/late > /tmp/gone.said & late=$!
exec 4> /tmp/late
vm idle $late
vm idle $agent
kill -STOP $agent
exec 4>&-
wait $late || exit 34
kill -CONT $agent
vm say gone $(cat /tmp/gone.said)
vm put /tmp/gone gone
vm say all $(sockets all /tmp/all)
vm put /tmp/all all
vm say datagrams $(sockets datagrams {DATAGRAMS})
vm say low $(sockets low 81)
vm say busy $(sockets busy 82)
mkfifo /tmp/gives-up
sockets gives-up 83 < /tmp/gives-up > /tmp/null & gives_up=$!
kill -STOP $agent
exec 4> /tmp/gives-up
vm idle $gives_up
kill -CONT $agent
vm idle $agent
exec 4>&-
wait $gives_up
vm say gives_up $gives_up
ip link set lo up
cellos-workload-exec --init -- ping -c 1 127.0.0.1 > /tmp/null || exit 31
vm idle $agent
end $agent

cellos-telemetry --heartbeat 500 --process off || exit 11
agent=$(cat /run/cellos-telemetry/agent.pid)
kill -STOP $agent
vm say full $(connects {STOPPED} /tmp/full)
kill -CONT $agent
vm idle $agent
end $agent

cellos-telemetry --heartbeat 500 --process off --net audit || exit 12
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say audit $(connects {AUDIT_COUNT} /tmp/audit)
vm put /tmp/audit audit
vm idle $agent
end $agent

cellos-telemetry --heartbeat 500 --process off --net proc-net --poll 50 || exit 13
agent=$(cat /run/cellos-telemetry/agent.pid)
nc -ll -p 7777 -e /bin/cat & nc=$!
vm idle $nc
vm idle $agent
mkfifo /tmp/hold
connects hold 7777 < /tmp/hold & hold=$!
exec 3> /tmp/hold
vm idle $hold
kill -0 $hold || exit 33
vm say held
vm await polled
exec 3>&-
wait $hold
vm say polled $hold
sockets hide 5555 < /tmp/hold > /tmp/null & hidden=$!
exec 3> /tmp/hold
vm say hidden $hidden
vm await hidden
exec 3>&-
wait $hidden || exit 35
cellos-workload-exec --init -- ping -c 1 127.0.0.1 > /tmp/null || exit 32
kill $nc
end $agent
"""


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    with Receiver("--keepalive", "0", "--rate", "1000000") as receiver:
        with Vm(SCRIPT, receiver=receiver,
                programs=[test_program("connects"), test_program("sockets")]) as vm:
            vm.wait_mark("held")
            for address in ("127.0.0.1", "::1"):
                receiver.wait_event("net.connect_attempted", guestComm="connects", port=7777,
                                    address=address)
            vm.tell("polled")
            receiver.wait_event("net.connect_attempted", guestPid=int(vm.wait_mark("hidden")))
            vm.tell("hidden")
            got.result = vm.wait().check()
        events = receiver.finish()
    got.runs = split_runs(events)
    return got


def check_all(name, events, may_miss=()):
    """Each line that `connects` wrote is an event, in the order of the calls; the repeats of
    a second are one event with their number, after it. Returns pairs."""
    pid = int(ran().result.mark(name).split()[0])
    seen = [e["data"] for e in find(events, "net.connect_attempted", guestPid=pid)]
    lines = [line.split() for line in ran().result.files[name].decode().split("\n")[:-1]]
    print(f"{name}: {len(seen)} events of {len(lines)} connects, "
          f"in {ran().result.mark(name).split()[2]} ms", flush=True)
    repeats = collections.defaultdict(list)
    for data in seen:
        detail = data["detail"]
        repeats[detail["address"], detail["port"]] += [data] * detail.get("repeat", 0)
        assert detail["family"] == ("inet6" if ":" in detail["address"] else "inet")
        assert data["guestComm"] == "connects"
        # Where the machine stood still within the fork, nobody knows the program.
        assert detail.get("exe") in (None, "/bin/connects")
    pairs, rest = [], (data for data in seen if "repeat" not in data["detail"])
    data = next(rest, None)
    for line in lines:
        detail = data["detail"] if data else {}
        target = line[1], int(line[2])
        if (detail.get("address"), detail.get("port")) == target:
            pairs.append((data, line))
            data = next(rest, None)
        elif repeats[target]:
            pairs.append((repeats[target].pop(), line))
        else:
            assert line[0] in may_miss, (line, data)
    assert data is None
    assert [left for left in repeats.values() if left] == []
    return pairs


def the_program_is_named():
    """Of at least one of the processes that connect."""
    named = {e["data"]["detail"].get("exe") for e in find(ran().runs[0], "net.connect_attempted")}
    assert named & {"/bin/connects", "/bin/sockets"}, named
    assert find(ran().runs[2], "net.connect_attempted", exe="/bin/connects")


def via(events):
    return find(events, "telemetry.hello")[0]["data"]["detail"]["netVia"]


def bpf():
    assert via(ran().runs[0]) == "cgroup-bpf"
    pairs = check_all("bpf", ran().runs[0])
    ways = collections.Counter(line[0] for _, line in pairs)
    assert len(ways) == 14
    assert find(ran().runs[0], "telemetry.dropped") == []


def a_process_that_has_gone():
    """What it did keeps its name, also what a thread of the kernel's did for it by io_uring."""
    ways = collections.Counter(line[0] for _, line in check_all("gone", ran().runs[0]))
    assert ways["uring-async"] == 3


def of(mark, *sources, run=0):
    """(source, detail) of what the process of a mark did."""
    pid = int(ran().result.mark(mark).split()[0])
    return [(e["data"]["probeSource"], e["data"]["detail"])
            for source in sources for e in find(ran().runs[run], source, guestPid=pid)]


NET = ("net.connect_attempted", "net.datagram_sent", "net.bound", "net.socket_created")


def every_protocol():
    seen = collections.Counter(
        (source, d["family"], d.get("address", "-"), d.get("port", 0), d.get("protocol"))
        for source, d in of("all", *NET))
    lines = [line.split() for line in ran().result.files["all"].decode().split("\n")[:-1]]
    assert len(lines) >= 11, lines
    for source, family, address, port, protocol in lines:
        if source == "net.connect_attempted":
            protocol = None
        assert (source, family, address, int(port), protocol) in seen
    for _, detail in of("all", "net.socket_created"):
        assert detail["type"] in ("dgram", "stream", "raw", "dccp")


def datagrams():
    seen = collections.Counter((d["address"], d["port"])
                               for _, d in of("datagrams", "net.datagram_sent"))
    assert len(seen) == DATAGRAMS
    # Each was sent twice from one socket, and is reported once.
    assert set(seen.values()) == {1}


def refused_low_port():
    denied = [d for _, d in of("low", "capability.denied")]
    assert [(d["syscall"], d["error"], d["capability"], d["via"]) for d in denied] \
        == [("bind", "EACCES", "CAP_NET_BIND_SERVICE", "derived")]
    assert of("low", "net.bound") == []
    # A port in use is no question of privilege.
    assert of("busy", "capability.denied") == []
    assert [d["port"] for _, d in of("busy", "net.bound")] == [82]
    # Nor is it when the privilege was given up after that, and before the agent looks.
    assert of("gives_up", "capability.denied") == []
    assert [d["port"] for _, d in of("gives_up", "net.bound")] == [83]
    assert [d["real"] for _, d in of("gives_up", "process.identity_changed")] == [1000]


def bpf_overrun():
    events = ran().runs[1]
    seen = sum(e["data"]["detail"].get("repeat", 1)
               for e in find(events, "net.connect_attempted"))
    receipts = [e["data"]["detail"] for e in find(events, "telemetry.dropped")]
    lost = sum(r["kernelOverrun"] for r in receipts)
    dropped = sum(r["queueFull"] for r in receipts)
    print(f"full ring: {seen} told, {lost} lost in the kernel, {dropped} dropped", flush=True)
    assert lost > 0
    assert seen + lost + dropped == STOPPED + 2


def audit():
    # What io_uring does in a thread of the kernel's has a record without its address.
    assert via(ran().runs[2]) == "audit"
    for data, line in check_all("audit", ran().runs[2], may_miss=["uring-async"]):
        if line[3] == "-":
            continue
        # Nor has what it does within the call that submits it a record of its result.
        if line[0].startswith("uring"):
            assert "result" not in data["detail"]
            continue
        result = "ok" if line[3] == "0" else errno.errorcode[int(line[3])]
        assert data["detail"]["result"] == result, line


def a_raw_socket_is_reported_once():
    """By its hook, or by the profile's filter where the net source has none."""
    for run in (0, 3):
        with case(via(ran().runs[run])):
            found = find(ran().runs[run], "net.socket_created", guestComm="ping")
            assert [(e["data"]["detail"]["family"], e["data"]["detail"]["type"],
                     e["data"]["detail"]["protocol"]) for e in found] == [("inet", "raw", "icmp")]


def polled():
    assert via(ran().runs[3]) == "proc-net"
    pid = int(ran().result.mark("polled"))
    found = find(ran().runs[3], "net.connect_attempted", guestPid=pid, port=7777)
    # A poll may see the handshake: then there is no result yet.
    assert {e["data"]["detail"].get("result", "ok") for e in found} == {"ok"}
    assert sorted(e["data"]["detail"]["address"] for e in found) == ["127.0.0.1", "::1"]
    assert {e["data"]["guestComm"] for e in found} == {"connects"}


def polled_from_a_listeners_port():
    """A connect is one, also from the port of a listener at another address."""
    found = [d for _, d in of("hidden", "net.connect_attempted", run=3)]
    assert [(d["address"], d["port"]) for d in found] == [("127.0.0.1", 7777)]


if __name__ == "__main__":
    main()
