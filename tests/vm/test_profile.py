# SPDX-License-Identifier: MIT
"""A root workload under the profile tries every route to the agent; the agent lives, keeps its
heartbeat and its sources, and what was refused is signed evidence. Without the profile the same
routes are open."""

import os
import re
from types import SimpleNamespace

from runner import main, once
from vm import CGROUP2, Receiver, Vm, find, guest_program, test_program

# A host that is busy makes its guest stand still for seconds.
WINDOW_MS = 20000
POLICY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "seccomp",
                      "workload.policy")
MODES = ["default", "share-pidns", "none"]

SCRIPT = CGROUP2 + """
mkdir /sys/fs/cgroup/agent
# A pid that no process of the workload's own namespace will have.
echo 6000 > /proc/sys/kernel/ns_last_pid
cellos-telemetry --heartbeat 500 || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
echo $agent > /sys/fs/cgroup/agent/cgroup.procs
started=$(cut -d ' ' -f 22 /proc/$agent/stat)
vm say agent $agent

# What ordinary work says, without and with.
cat > /tmp/ordinary <<'END'
echo one two | sed s/one/three/
for i in 1 2 3; do (exit $i); echo $?; done
# When the shell says "Terminated" is a matter of timing.
{ sleep 5 & kill $!; wait $!; echo $?; } 2> /dev/null
find /etc | sort | md5sum
dd if=/dev/zero bs=1k count=64 2> /dev/null | gzip | zcat | md5sum
kill -TERM $$
END
sh /tmp/ordinary > /tmp/plain 2>&1; echo $? >> /tmp/plain
cellos-workload-exec --init sh /tmp/ordinary > /tmp/profiled 2>&1; echo $? >> /tmp/profiled
cellos-workload-exec --share-pidns sh /tmp/ordinary > /tmp/shared 2>&1; echo $? >> /tmp/shared
for f in plain profiled shared; do vm put /tmp/$f; done

cellos-workload-exec -- attack default $agent > /tmp/default 2> /tmp/errors 9<> /dev/vsock
vm say default $?
vm put /tmp/default
cellos-workload-exec --share-pidns -- attack share-pidns $agent > /tmp/share-pidns \\
    2>> /tmp/errors 9<> /dev/vsock
vm say share-pidns $?
vm put /tmp/share-pidns
vm put /tmp/errors
[ "$(cut -d ' ' -f 22 /proc/$agent/stat)" = $started ] || exit 20

# Without the network's capabilities it can neither change the network nor read packets.
cellos-workload-exec --drop-net-admin -- sh -c 'ip link set lo down; echo $?
    arping -c 1 -w 1 -I lo 127.0.0.1; echo $?
    ip link add sniff type vsockmon; echo $?' > /tmp/net 2>&1
cellos-workload-exec -- ip link add sniff type vsockmon >> /tmp/errors 2>&1; vm say sniff $?
vm put /tmp/net

# The sources still see: here what lives until the agent has looked.
spawn 1 /bin/sleep 600 > /tmp/null & spawn=$!
vm idle $spawn
vm idle $agent
kill $(pidof sleep)
wait $spawn
nc 127.0.0.1 4242 < /dev/null
sleep 1.5
vm say alive $(cat /proc/$agent/oom_score_adj) $(cat /proc/sys/kernel/core_pattern)

attack none $agent > /tmp/none 9<> /dev/vsock
vm say none $?
vm put /tmp/none
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
"""


def layer(name, expected, happened):
    """What stopped a route, by how it failed."""
    if happened == "done" or happened.startswith("let in"):
        return "own processes only" if expected == "own only" else "open"
    if happened.startswith("killed") or expected == "any" or expected == "open":
        return f"kernel: {happened}"
    if name.startswith(("sethostname", "setdomainname", "mknod")):
        return "capability, reported"
    reasons = {
        "No such process": "pid namespace", "No such file or directory": "not there",
        "Read-only file system": "read-only mount", "No such device": "masked",
        "Connection refused": "masked", "Device or resource busy": "mount over it",
        "Bad file descriptor": "closed", "Function not implemented": "filter: ENOSYS",
        "Operation not permitted": "capability" if name.startswith("/") else "filter: EPERM",
        "Permission denied": "capability",
    }
    return reasons.get(happened, happened)


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    with Receiver("--keepalive", str(WINDOW_MS), signed=True) as receiver:
        # evdev: so that there is an input device.
        vm = Vm(SCRIPT, receiver=receiver, modules=["evdev", "vsockmon"], programs=[
            test_program("attack"), test_program("spawn"),
            guest_program("seccomp/cellos-workload-exec")])
        got.result = vm.run()
        got.events = receiver.finish()
        got.verdict = receiver.verify()
    for mode in MODES:
        print(f"--- {mode}\n{text(mode, got.result)}", flush=True)
    got.result.check()
    return got


def text(name, result=None):
    return (result or ran().result).files.get(f"/tmp/{name}", b"").decode(errors="replace")


def rows(mode):
    return [[field.strip() for field in line.split("|")]
            for line in re.findall(r".* \| (?:ok|WRONG)$", text(mode), re.M)]


def write_table(path):
    """docs/workload-profile-routes.md, from what happened here."""
    columns = [{row[0]: row for row in rows(mode)} for mode in MODES]
    with open(path, "w", encoding="utf-8") as f:
        f.write("| route | default | `--share-pidns` | without the profile |\n|---|---|---|---|\n")
        for name in columns[0]:
            cells = [layer(name, *column[name][1:3]) for column in columns]
            f.write(f"| `{name}` | {' | '.join(cells)} |\n".replace("{}", "AGENT"))


def every_route_is_as_expected():
    if "CELLOS_ROUTES_TABLE" in os.environ:
        write_table(os.environ["CELLOS_ROUTES_TABLE"])
    for mode in MODES:
        wrong = [line for line in text(mode).splitlines() if line.endswith("WRONG")]
        assert wrong == [], mode
        assert ran().result.mark(mode) == "0", mode
        assert len(rows(mode)) > 140


def without_the_profile_the_routes_are_open():
    opened = [row[0] for row in rows("none")
              if row[2] == "done" or row[2].startswith("let in")]
    stopped = [row[0] for row in rows("default") if row[1] in ("stopped", "killed") and
               row[0] in opened]
    assert len(stopped) > 80


def every_rule_has_an_attack():
    tried = {re.split(r"\W", row[0].replace("#", "N"))[0] for row in rows("none")}
    with open(POLICY, encoding="utf-8") as f:
        for line in f:
            if re.match("(refuse|watch|kill) ", line):
                calls = re.sub(r"^(refuse \w+( quietly)?|watch|kill) ", "", line).split()[0]
                for call in calls.split(","):
                    assert call.replace("#", "N") in tried, line


def refusals_are_evidence():
    refused = find(ran().events, "capability.denied", via="profile")
    assert len(refused) >= 120
    calls = {e["data"]["detail"]["syscall"] for e in refused}
    for call in ("socket", "reboot", "mount", "kill", "ptrace", "bpf", "unshare", "pidfd_open",
                 "io_uring_setup", "prlimit64", "setns"):
        assert call in calls
    watched = find(ran().events, "capability.denied", via="seccomp-notify")
    assert "sethostname" in {e["data"]["detail"]["syscall"] for e in watched}
    assert {e["data"]["guestComm"] for e in refused} == {"attack"}


def foreign_calls_say_their_abi():
    foreign = {e["data"]["detail"]["syscall"]
               for e in find(ran().events, "capability.denied", error="ENOSYS")}
    for call in ("i386:socket", "i386:kill", "i386:getpid", "x32:socket", "x32:getpid"):
        assert call in foreign


def rare_sockets_are_reported():
    created = {(e["data"]["detail"]["family"], e["data"]["detail"]["protocol"])
               for e in find(ran().events, "net.socket_created", guestComm="attack")}
    for wanted in (("packet", "0x0000"), ("netlink", "netfilter"), ("netlink", "xfrm")):
        assert wanted in created


def the_network_can_be_left_out():
    assert text("net").count("Operation not permitted") == 3, text("net")
    # With CAP_NET_ADMIN a workload can copy the agent's frames: docs/workload-profile.md says so.
    assert ran().result.mark("sniff") == "0", text("errors")
    denied = find(ran().events, "capability.denied", capability="CAP_NET_RAW",
                  via="seccomp-notify", guestComm="arping")
    assert [e["data"]["detail"]["syscall"] for e in denied] == ["socket"]


def the_agent_lives():
    assert find(ran().events, "guest.v1.agent_silenced") == []
    assert len(find(ran().events, "telemetry.bye")) == 1
    first = find(ran().events, "guest.v1.agent_disconnected", connection=1)
    assert len(first) == 1
    bye = find(ran().events, "telemetry.bye")[0]["data"]
    assert bye["sequence"] < first[0]["data"]["sequence"]
    assert "|" not in ran().result.mark("alive")


def the_sources_still_report():
    assert find(ran().events, "net.connect_attempted", port=4242)
    assert find(ran().events, "process.executed", guestComm="spawn")
    assert ran().verdict.returncode == 0, ran().verdict.stdout + ran().verdict.stderr


def ordinary_work_sees_no_difference():
    assert "three two" in text("plain")
    assert text("plain") == text("profiled")
    assert text("plain") == text("shared")


if __name__ == "__main__":
    main()
