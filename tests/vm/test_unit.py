# SPDX-License-Identifier: MIT
"""The daemon as its installed unit runs it: a real service manager with every restriction of the
unit, in a VM. The unit and its drop-in for the nftables probe come from the source as they are."""

import json
import os
import pathlib
import subprocess
import tempfile
from types import SimpleNamespace

from runner import Skip, main, once
from vm import CGROUP2, EVENT_PREFIX, Vm, receiver_binary

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SYSTEMD = "/lib/systemd/systemd"
UNITS = "/lib/systemd/system"
TARGETS = ["basic", "sysinit", "multi-user", "sockets", "timers", "paths", "slices", "shutdown",
           "local-fs", "local-fs-pre", "swap", "umount", "final", "network", "network-pre"]
SERVICE = "cellos-host-telemetry.service"
ADD = ("cellos-host-telemetry cell add --run-id r --spec-hash sha256:" + "5" * 64 +
       " --keepalive 0 --connect-within 0 --probe-interval 200")

INSIDE = f"""#!/bin/sh
exec > /tmp/out 2>&1
state() {{ systemctl show -p $1 --value {SERVICE}; }}
vm say active $(systemctl is-active {SERVICE})
vm say main $(tr '\\0' ' ' < /proc/$(state MainPID)/cmdline)
vm say status "$(state StatusText)"
pid=$(state MainPID)
vm say privileges $(sed -n 's/^Uid:[[:space:]]*\\([0-9]*\\).*/uid=\\1/p; s/^CapEff:[[:space:]]*/cap=/p; s/^Seccomp:[[:space:]]*/seccomp=/p; s/^NoNewPrivs:[[:space:]]*/nnp=/p' /proc/$pid/status)

vm say processes $(for p in $pid $(cat /proc/$pid/task/*/children); do for q in $p $(cat /proc/$p/task/*/children); do echo $(cat /proc/$q/comm)=$(sed -n 's/^Uid:[[:space:]]*\\([0-9]*\\).*/\\1/p' /proc/$q/status); done; done | sort -u)
vm say signing $(cellos-host-telemetry status --json)

# A jailed VMM's folder: of another user, who alone may write to it.
mkdir -p /srv/other /srv/jailer/a
vm say elsewhere $({ADD} --cell-id b --uds /srv/other/v 2>&1)
chown 1234:999 /srv/jailer/a
chmod 0710 /srv/jailer/a
nft -f /root/table
vm say add $({ADD} --cell-id a --uds /srv/jailer/a/v --socket-owner 1234:1234 --socket-mode 0666 --nft-table inet/cell --tap lo --cgroup /sys/fs/cgroup/cell --fc-metrics /srv/jailer/a/metrics) $?
vm say socket $(stat -c '%u:%g %a' /srv/jailer/a/v_9001)
vm say control $(stat -c '%U %a' /run/cellos/host-telemetry.sock)
mkfifo /srv/jailer/a/metrics
chown 1234:999 /srv/jailer/a/metrics
chmod 0640 /srv/jailer/a/metrics
echo '{{"utc_timestamp_ms":99999999999999,"vsock":{{"tx_bytes_count":5}}}}' > /root/document
exec 3<> /srv/jailer/a/metrics
cat /root/document >&3
# The agent stands for the VMM, and has given up the right to pass.
chmod 0711 /srv/jailer/a
cellos-telemetry --foreground --connect unix:/srv/jailer/a/v_9001 --net off --capability off &
agent=$!
# Until each of the four probes has read, and the agent has said something.
for i in $(seq 3000); do
    cellos-host-telemetry cell show a --json > /tmp/shown
    [ $(tr ',{{' '\\n\\n' < /tmp/shown | grep -c '"readings":[1-9]') = 4 ] &&
        grep -q '"frames":[1-9]' /tmp/shown && break
    sleep 0.2
done
vm say probes $(cat /tmp/shown)
vm say health $(wget -q -O - http://127.0.0.1:9464/readyz)

systemctl reload {SERVICE}
vm say reloaded $? $(systemctl is-active {SERVICE})
echo nonsense >> /etc/cellos/host-telemetry.conf
systemctl reload {SERVICE} 2> /tmp/null
vm say refused $? $(systemctl is-active {SERVICE}) $(state MainPID) $pid
sed -i '$d' /etc/cellos/host-telemetry.conf

kill -9 $pid
for i in $(seq 2400); do
    sleep 0.25
    [ "$(systemctl is-active {SERVICE})" = active ] && [ "$(state MainPID)" != $pid ] && break
done
vm say restarted $(systemctl is-active {SERVICE}) $(state NRestarts)
kill -TERM $agent
wait $agent
systemctl stop {SERVICE}
vm say stopped $(systemctl is-active {SERVICE}) $(state Result) $(state ExecMainStatus)
cellos-host-telemetry verify --keys /etc/cellos/keyring.json --require-signed /var/log/cellos/evidence > /tmp/verdict 2>&1
vm say verify $? $(cat /tmp/verdict)
vm say owner $(stat -c '%U %a' /var/log/cellos/evidence /var/lib/cellos/host-telemetry)
cat /var/log/cellos/evidence/*.jsonl > /tmp/evidence
vm put /tmp/evidence evidence
touch /tmp/done
"""

SCRIPT = CGROUP2 + f"""
mkdir /sys/fs/cgroup/cell
# The service manager mounts its own where there is none, and hides the harness's socket.
mount --bind /run /run
# What ReadWritePaths names is there before the daemon.
mkdir -p /var/lib/cellos/signer /var/log /etc/cellos /srv/jailer /home /usr/lib
# As tmpfiles.d does.
chown 998:998 /var/lib/cellos/signer
chmod 0700 /var/lib/cellos/signer
ip link set lo up
cellos-host-telemetry keygen --kid k1 --out /etc/cellos > /tmp/null
env -i PATH=/bin:/usr/bin container=vm unshare -p -m -f sh -c '
    mount -t proc proc /proc
    exec {SYSTEMD} --system --unit=multi-user.target --log-target=console --log-level=notice
' > /tmp/systemd 2>&1 &
for i in $(seq 5000); do
    [ -e /tmp/done ] && break
    sleep 0.2
done
vm put /tmp/out out
vm put /tmp/systemd systemd
[ -e /tmp/done ]
"""

TABLE = """table inet cell {
    chain c {
        type filter hook input priority 0; policy accept;
        iifname "lo" counter
    }
}
"""


def _unit():
    text = (SOURCE / "packaging/systemd/cellos-host-telemetry.service.in").read_text()
    return text.replace("@bindir@", "/usr/bin")


def _drop_in():
    """As the documentation says it."""
    text = (SOURCE / "docs/host-probes.md").read_text()
    return text.split("```\n[Service]\n")[1].split("```")[0]


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    for path in (SYSTEMD, "/bin/systemctl", "/usr/sbin/nft"):
        if not os.path.exists(path):
            raise Skip(f"no {path}: install systemd and nftables")
    files = {f"{UNITS}/{name}.target": pathlib.Path(f"{UNITS}/{name}.target")
             for name in TARGETS}
    files |= {
        f"{UNITS}/{SERVICE}": _unit(),
        f"/etc/systemd/system/{SERVICE}.d/nftables.conf": "[Service]\n" + _drop_in(),
        f"{UNITS}/inside.service":
            f"[Unit]\nAfter={SERVICE}\n[Service]\nType=oneshot\n"
            "ExecStart=/bin/sh /root/inside\nEnvironment=PATH=/bin:/usr/bin\n",
        "/root/inside": INSIDE,
        "/root/table": TABLE,
        "/etc/machine-id": "5" * 32 + "\n",
        "/etc/cellos/host-telemetry.conf":
            "[signing]\nalgorithm = ed25519\nkid = k1\nkey_file = /etc/cellos/k1.seed\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\n",
    }
    vm = Vm(script=SCRIPT, memory_mib=512, modules=["nf_tables"], files=files,
            programs=[(receiver_binary(), "/usr/bin/cellos-host-telemetry"),
                      (SYSTEMD, SYSTEMD), ("/bin/systemctl", "/bin/systemctl"),
                      ("/usr/sbin/nft", "/usr/bin/nft")])
    fs = vm.initramfs
    fs.symlink(f"/etc/systemd/system/multi-user.target.wants/{SERVICE}", f"{UNITS}/{SERVICE}")
    fs.symlink("/etc/systemd/system/multi-user.target.wants/inside.service",
               f"{UNITS}/inside.service")
    user = ("cellos-telemetry:x:999:999::/:/bin/false\n"
            "cellos-signer:x:998:998::/:/bin/false\n")
    fs.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n" + user)
    fs.file("/etc/group", "root:x:0:\ncellos-telemetry:x:999:\ncellos-signer:x:998:\n")
    got.vm = vm.run()
    got.said = got.vm.files.get("systemd", b"").decode() + got.vm.files.get("out", b"").decode()
    if got.vm.status != 0:
        raise AssertionError(f"{got.vm.marks}\n{got.said}\n{got.vm.console[-3000:]}")
    data = [json.loads(line)["data"] for line in got.vm.files["evidence"].splitlines()]
    # The log's own entries are no envelopes.
    got.events = [d["event"] for d in data if "event" in d]
    return got


def named(name):
    return [e["data"] for e in ran().events if e["type"] == EVENT_PREFIX + name]


def it_runs():
    assert ran().vm.mark("active") == "active", ran().said
    assert ran().vm.mark("main").startswith("/usr/bin/cellos-host-telemetry serve")
    assert ran().vm.mark("health") == "ok"


def with_few_privileges():
    said = dict(word.split("=") for word in ran().vm.mark("privileges").split())
    assert said["uid"] == "999"
    assert said["seccomp"] == "2"
    assert said["nnp"] == "1"
    # NET_ADMIN by the drop-in.
    assert int(said["cap"], 16) == 1 << 12


def three_processes_of_three_users():
    uids = dict(word.rsplit("=", 1) for word in ran().vm.mark("processes").split())
    assert (uids["cellos-keeper"], uids["cellos-signer"]) == ("0", "998"), uids
    signing = json.loads(ran().vm.mark("signing"))["signing"]
    assert signing["separateUsers"]
    assert signing["landlock"]


def its_exposure():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, SERVICE)
        with open(path, "w") as f:
            f.write(_unit())
        got = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager",
                              "--threshold=15", path], capture_output=True, text=True)
    assert got.returncode == 0, got.stdout[-2000:] + got.stderr


def a_jailed_cell():
    assert ran().vm.mark("add") == "/srv/jailer/a/v_9001 0", ran().said
    assert ran().vm.mark("socket") == "1234:1234 666"
    assert ran().vm.mark("control") == "cellos-telemetry 660"
    assert named("guest.v1.telemetry_hello"), ran().said


def other_folders_are_read_only():
    assert "ReadWritePaths" in ran().vm.mark("elsewhere")


def every_probe_reads():
    probes = json.loads(ran().vm.mark("probes"))["cell"]["probes"]
    for name in ("cgroup", "tap_link", "nftables", "fc_metrics"):
        assert probes[name]["readings"] > 0, probes
        assert not probes[name]["failing"], probes
        assert named(f"host.v1.{name}")


def reload():
    assert ran().vm.mark("reloaded") == "0 active"
    words = ran().vm.mark("refused").split()
    assert words[0] != "0"
    assert words[1] == "active"
    assert words[2] == words[3], "the same process still"


def killed_and_stopped():
    assert ran().vm.mark("restarted") == "active 1"
    assert ran().vm.mark("stopped") == "inactive success 0"
    opened = named("stream.v1.opened")
    assert len(opened) == 2
    assert opened[1]["previousStreamId"] == opened[0]["streamId"]
    assert [e["reason"] for e in named("stream.v1.sealed")] == ["shutdown"]
    # The first stream has no seal; the one that goes on after it says so, and that is no
    # finding.
    code, verdict = ran().vm.mark("verify").split(" ", 1)
    assert code == "0", verdict
    assert "1 interrupted, 0 unsealed; 0 findings" in verdict
    assert "every stream is complete, or a later one continues it" in verdict
    assert "cellos-telemetry 750" in ran().vm.mark("owner")


if __name__ == "__main__":
    main()
