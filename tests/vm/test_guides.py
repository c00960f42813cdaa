# SPDX-License-Identifier: MIT
"""What the guides say of a guest and of a host with systemd: the operator's commands as they are
written, the init in shell as it is, and the table of kernel options: what is left without a source."""

import os
import pathlib
import re
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("CELLOS_SOURCE", str(SOURCE))
sys.path.insert(1, str(SOURCE / "tests" / "integration"))

import guide  # noqa: E402
from runner import Skip, case, main, once, until  # noqa: E402
from test_unit import SERVICE, SYSTEMD, TARGETS, UNITS  # noqa: E402
from vm import (  # noqa: E402
    CGROUP2, VM_PATIENCE, Receiver, Vm, find, receiver_binary, split_runs)

ON_THE_HOST = ["docs/guide-operator.md", "docs/host-probes.md"]
PROFILE = "docs/workload-profile.md"
# bash, as a reader's: busybox's shell prefers its own ip to the real one.
PROGRAMS = ("/bin/bash", SYSTEMD, "/bin/systemctl", "/usr/sbin/nft", "/usr/sbin/ip")

HOST = CGROUP2 + f"""
mount --bind /run /run
# As systemd-tmpfiles does.
mkdir -p /var/lib/cellos/host-telemetry /var/lib/cellos/signer /var/log/cellos/evidence /run/cellos
mkdir -p /etc/cellos /srv /home /usr/lib
chown 999:999 /var/lib/cellos/host-telemetry /var/log/cellos/evidence /run/cellos
chown 998:998 /var/lib/cellos/signer
chmod 0700 /var/lib/cellos/signer
ip link set lo up
env -i PATH=/bin:/usr/bin container=vm unshare -p -m -f sh -c '
    mount -t proc proc /proc
    exec {SYSTEMD} --system --unit=multi-user.target --log-target=console --log-level=notice
' > /tmp/systemd 2>&1 &
tries=0
until [ -e /tmp/done ] || [ $tries -gt 3000 ]; do sleep 0.2; tries=$((tries + 1)); done
vm put /tmp/out out
vm put /tmp/systemd systemd
"""


def every_command_of_the_operator_with_systemd():
    for path in PROGRAMS:
        if not os.path.exists(path):
            raise Skip(f"no {path}: install systemd, nftables and iproute2")
    commands = guide.script(ON_THE_HOST, lambda word: word in ("vm", "both"))
    inside = f"exec > /tmp/out 2>&1\n({commands})\necho \"status $?\"\ntouch /tmp/done\n"
    unit = (SOURCE / "packaging/systemd/cellos-host-telemetry.service.in").read_text()
    files = {f"{UNITS}/{name}.target": pathlib.Path(f"{UNITS}/{name}.target") for name in TARGETS}
    files |= {
        f"{UNITS}/{SERVICE}": unit.replace("@bindir@", "/usr/bin"),
        f"{UNITS}/inside.service": "[Service]\nType=oneshot\nExecStart=/bin/bash /root/inside\n"
                                   "Environment=PATH=/bin:/usr/bin\n",
        "/root/inside": inside,
        "/etc/machine-id": "5" * 32 + "\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\n",
        "/usr/share/doc/cellos-telemetry/examples/host-telemetry.conf":
            (SOURCE / "packaging/systemd/host-telemetry.conf").read_text(),
    }
    vm = Vm(HOST, memory_mib=512, files=files, modules=["nf_tables", "tun"], programs=[
        (receiver_binary(), "/usr/bin/cellos-host-telemetry"), (SYSTEMD, SYSTEMD),
        "/bin/bash", ("/bin/systemctl", "/bin/systemctl"), ("/usr/sbin/nft", "/usr/bin/nft"),
        ("/usr/sbin/ip", "/bin/ip")])
    fs = vm.initramfs
    fs.symlink("/etc/systemd/system/multi-user.target.wants/inside.service",
               f"{UNITS}/inside.service")
    fs.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
            "cellos-telemetry:x:999:999::/:/bin/false\ncellos-signer:x:998:998::/:/bin/false\n")
    fs.file("/etc/group", "root:x:0:\ncellos-telemetry:x:999:\ncellos-signer:x:998:\n")
    vm = vm.run()
    output = vm.files.get("out", b"").decode()
    status = re.search(r"^status (\d+)$", output, re.MULTILINE)
    log = f"{vm.files.get('systemd', b'').decode()[-4000:]}\n{vm.console[-2000:]}"
    assert status, f"{output}\n{log}"
    if status[1] != "0":
        print(log)
    guide.judge(ON_THE_HOST, output[:status.start()], int(status[1]))


# Name, options of the agent, and what the table of kernel options says is left.
WITHOUT = {
    "nothing": ("", {"processVia": "proc-connector", "netVia": "cgroup-bpf", "fsVia": "fanotify"}),
    "connector": ("--process proc-walk", {"processVia": "proc-walk"}),
    "bpf": ("--net proc-net", {"netVia": "proc-net"}),
    "seccomp": ("--capability off", {"capabilityVia": "none"}),
    "fanotify": ("--fs inotify", {"fsVia": "inotify"}),
    "inotify": ("--fs off", {"fsVia": "none"}),
}
# What the runs after those are for. CONFIG_AUDIT is forced off in all of them (audit=0).
RUNS = [*WITHOUT, "namespaces", "profile", "init"]
# It lives until its arguments were read.
APP = """#!/bin/sh
echo "the application ran with $*"
until [ -e /tmp/reported ]; do sleep 0.1; done
"""

GUEST = """
ip link set lo up
mount -t tmpfs none /mnt
mkdir /mnt/watched
""" + "\n".join(f"""
rm -rf /run/cellos-telemetry
cellos-telemetry --inotify /mnt/watched --heartbeat 300 {options} || exit 20
agent=$(cat /run/cellos-telemetry/agent.pid)
setsid sh -c 'nc -l -p 7777 & nc=$!; vm idle $nc; kill $nc'
touch /mnt/watched/{name}
cellos-workload-exec --ready-timeout {500 if name == "seccomp" else 60000} -- true 2> /tmp/err
vm say launched_{name} $? $(cat /tmp/err)
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
""" for name, (options, _) in WITHOUT.items()) + """
mkdir /ramfs /over /mnt/upper /mnt/work
mount -t ramfs none /ramfs
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work none /over || exit 22
rm -rf /run/cellos-telemetry
cellos-telemetry --inotify /ramfs --inotify /over || exit 21
agent=$(cat /run/cellos-telemetry/agent.pid)
most=$(cat /proc/sys/user/max_pid_namespaces)
echo 0 > /proc/sys/user/max_pid_namespaces
cellos-workload-exec -- true 2> /tmp/err
vm say pid_ns $? $(cat /tmp/err)
cellos-workload-exec --share-pidns -- true 2> /tmp/err
vm say share_pidns $? $(cat /tmp/err)
echo $most > /proc/sys/user/max_pid_namespaces
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done

rm -rf /run/cellos-telemetry
(vm await reported; touch /tmp/reported) &
(sh /root/profile; echo "status $?") > /tmp/out 2>&1
vm put /tmp/out profile
agent=$(cat /run/cellos-telemetry/agent.pid)
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done

cellos-telemetry --require net=audit 2> /tmp/err
vm say audit $? $(cat /tmp/err)
unshare -m sh -c 'umount -l /proc; exec cellos-telemetry --ready-timeout 5000' 2> /tmp/err
vm say proc_fs $? $(cat /tmp/err)
cellos-telemetry --connect unix:/tmp/nobody --ready-timeout 300 2> /tmp/err
vm say channel $? $(cat /tmp/err)
rm -rf /run/cellos-telemetry
guest-init.sh sh -c 'mount -t tmpfs none /mnt; exit 42'
vm say init $?
cellos-telemetry --probe > /tmp/probe
vm put /tmp/probe probe
rm /bin/cellos-telemetry
guest-init.sh touch /tmp/ran
vm say no_agent $?
[ ! -e /tmp/ran ]
"""


def app_executed(events):
    return [e for e in find(events, "process.executed")
            if "/usr/bin/app --its arguments" in e["data"]["detail"].get("args", "")]


@once
def ran():
    """One boot for all tests: the VM, and the events of each run of the agent by its name."""
    with Receiver("--keepalive", "0") as receiver:
        files = {"/root/profile": guide.script([PROFILE], lambda word: word == "guest")}
        vm = Vm(GUEST, receiver=receiver, files=files, append="audit=0", modules=["overlay"])
        vm.initramfs.file("/usr/bin/app", APP, 0o755)
        vm.initramfs.file("/bin/guest-init.sh",
                          (SOURCE / "docs/examples/guest-init.sh").read_text(), 0o755)
        with vm:
            until(lambda: app_executed(receiver.events()), "the application's arguments",
                  pause=0.5, patience=VM_PATIENCE)
            vm.tell("reported")
            vm = vm.wait().check()
        return vm, dict(zip(RUNS, split_runs(receiver.finish()), strict=True))


def what_is_left_without_each_source():
    _, runs = ran()
    for name, (_, left) in WITHOUT.items():
        with case(name):
            hello = find(runs[name], "telemetry.hello")[0]["data"]["detail"]
            assert {key: hello[key] for key in left} == left


def what_is_lost_without_it():
    _, runs = ran()
    for kind, without in (("process.session_started", "connector"), ("net.bound", "bpf"),
                          ("fs.changed", "fanotify")):
        for name in WITHOUT:
            with case(kind, name):
                lost = (without, "inotify") if kind == "fs.changed" else (without,)
                assert bool(find(runs[name], kind)) == (name not in lost)
    # inotify does not say who did it.
    fired = find(runs["fanotify"], "fs.inotify_fired")
    assert fired and {e["data"]["guestPid"] for e in fired} == {0}


def without_seccomp_no_workload():
    vm, _ = ran()
    assert vm.mark("launched_seccomp").startswith("125 ")
    assert vm.mark("launched_nothing") == "0", vm.mark("launched_nothing")


def without_pid_namespaces_the_weaker_mode():
    vm, _ = ran()
    assert vm.mark("pid_ns").startswith("125 "), vm.mark("pid_ns")
    assert vm.mark("share_pidns").split()[0] == "0", vm.mark("share_pidns")


def without_audit_nothing_but_what_asks_for_it():
    vm, runs = ran()
    assert vm.mark("audit").startswith("3 "), vm.mark("audit")
    hello = find(runs["nothing"], "telemetry.hello")[0]["data"]["detail"]
    assert "audit" not in (hello["netVia"], hello["capabilityVia"])


def without_proc_no_agent():
    vm, _ = ran()
    assert vm.mark("proc_fs").split()[0] not in ("0", "139"), vm.mark("proc_fs")
    assert "/proc" in vm.mark("proc_fs"), vm.mark("proc_fs")


def what_fanotify_watches_by_the_kernels_version():
    """The table of 6.1 and 6.12."""
    _, runs = ran()
    hello = find(runs["namespaces"], "telemetry.hello")[-1]["data"]["detail"]
    version = tuple(int(n) for n in re.match(r"(\d+)\.(\d+)", hello["kernel"]).groups())
    assert hello["fsVia"] == ("fanotify" if version >= (6, 6) else "inotify"), hello


def the_commands_of_the_profiles_page():
    vm, runs = ran()
    output = vm.files["profile"].decode()
    status = re.search(r"^status (\d+)$", output, re.MULTILINE)
    guide.judge([PROFILE], output[:status.start()], int(status[1]))
    assert "the application ran with --its arguments" in output
    assert app_executed(runs["profile"])


def without_a_channel_no_agent():
    vm, _ = ran()
    assert vm.mark("channel").startswith("3 ")


def the_table_has_what_the_probe_prints():
    vm, _ = ran()
    table = (SOURCE / "docs/guide-image-builder.md").read_text()
    sources = re.findall(r"^(process|net|capability|fs) +([\w-]+) ", vm.files["probe"].decode(),
                         re.MULTILINE)
    assert len(sources) > 6
    for _, via in sources:
        assert f"`{via}`" in table, via


def the_init_in_shell():
    vm, runs = ran()
    assert vm.mark("init") == "42"
    assert vm.mark("no_agent") == "124"
    assert find(runs["init"], "capability.denied", syscall="mount")
    assert len(find(runs["init"], "telemetry.bye")) == 1


if __name__ == "__main__":
    sys.exit(main())
