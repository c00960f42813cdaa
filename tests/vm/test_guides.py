# SPDX-License-Identifier: MIT
"""What the guides say of a guest and of a host with systemd: the operator's commands as they are
written, the init in shell as it is, and the table of kernel options: what is left without a source."""

import os
import pathlib
import re
import sys
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("CELLOS_SOURCE", str(SOURCE))
sys.path.insert(1, str(SOURCE / "tests" / "integration"))

import guide  # noqa: E402
from test_unit import SERVICE, SYSTEMD, TARGETS, UNITS, the_unit  # noqa: E402
from vm import CGROUP2, Missing, Receiver, Vm, find, main, receiver_binary, split_runs  # noqa: E402

OPERATOR = "docs/guide-operator.md"

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


class Operator(unittest.TestCase):
    def test_every_command_with_systemd(self):
        for path in (SYSTEMD, "/bin/systemctl"):
            if not os.path.exists(path):
                raise Missing(f"no {path}: install systemd")
        commands = guide.script([OPERATOR], lambda word: word in ("vm", "both"))
        inside = f"exec > /tmp/out 2>&1\n({commands})\necho \"status $?\"\ntouch /tmp/done\n"
        user = ("cellos-telemetry:x:999:999::/:/bin/false\n"
                "cellos-signer:x:998:998::/:/bin/false\n")
        files = {f"{UNITS}/{name}.target": pathlib.Path(f"{UNITS}/{name}.target")
                 for name in TARGETS}
        files |= {
            f"{UNITS}/{SERVICE}": the_unit(),
            f"{UNITS}/inside.service": "[Service]\nType=oneshot\nExecStart=/bin/sh /root/inside\n"
                                       "Environment=PATH=/bin:/usr/bin\n",
            "/root/inside": inside,
            "/etc/machine-id": "5" * 32 + "\n",
            "/etc/nsswitch.conf": "passwd: files\ngroup: files\n",
            "/usr/share/doc/cellos-telemetry/examples/host-telemetry.conf":
                (SOURCE / "packaging/systemd/host-telemetry.conf").read_text(),
            "/usr/lib/tmpfiles.d/empty.conf": "",
        }
        vm = Vm(HOST, memory_mib=512, files=files, programs=[
            (receiver_binary(), "/usr/bin/cellos-host-telemetry"), (SYSTEMD, SYSTEMD),
            ("/bin/systemctl", "/bin/systemctl")])
        fs = vm.initramfs
        fs.symlink("/etc/systemd/system/multi-user.target.wants/inside.service",
                   f"{UNITS}/inside.service")
        fs.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n" + user)
        fs.file("/etc/group", "root:x:0:\ncellos-telemetry:x:999:\ncellos-signer:x:998:\n")
        vm = vm.start().wait()
        output = vm.files.get("out", b"").decode()
        status = re.search(r"^status (\d+)$", output, re.MULTILINE)
        log = f"{vm.files.get('systemd', b'').decode()[-4000:]}\n{vm.console[-2000:]}"
        self.assertTrue(status, f"{output}\n{log}")
        if status[1] != "0":
            print(log)
        guide.judge([OPERATOR], output[:status.start()], int(status[1]))


# Name, options of the agent, and what the table of kernel options says is left.
WITHOUT = {
    "nothing": ("", {"processVia": "proc-connector", "netVia": "cgroup-bpf", "fsVia": "fanotify"}),
    "connector": ("--process proc-walk", {"processVia": "proc-walk"}),
    "bpf": ("--net proc-net", {"netVia": "proc-net"}),
    "seccomp": ("--capability off", {"capabilityVia": "none"}),
    "fanotify": ("--fs inotify", {"fsVia": "inotify"}),
}

GUEST = """
ip link set lo up
mount -t tmpfs none /mnt
mkdir /mnt/watched
""" + "\n".join(f"""
rm -rf /run/cellos-telemetry
cellos-telemetry --inotify /mnt/watched --heartbeat 300 {options} || exit 20
agent=$(cat /run/cellos-telemetry/agent.pid)
setsid sh -c 'nc -l -p 7777 & nc=$!; sleep 0.5; kill $nc'
touch /mnt/watched/{name}
cellos-workload-exec --ready-timeout 500 -- true 2> /tmp/err
vm say launched_{name} $? $(cat /tmp/err)
kill -TERM $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
""" for name, (options, _) in WITHOUT.items()) + """
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


class ImageBuilder(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Receiver("--keepalive", "0") as receiver:
            vm = Vm(GUEST, receiver=receiver)
            vm.initramfs.file("/bin/guest-init.sh",
                              (SOURCE / "docs/examples/guest-init.sh").read_text(), 0o755)
            cls.vm = vm.run().check()
            cls.runs = dict(zip([*WITHOUT, "init"], split_runs(receiver.finish()), strict=True))

    def test_what_is_left_without_each_source(self):
        for name, (_, left) in WITHOUT.items():
            with self.subTest(name):
                hello = find(self.runs[name], "telemetry.hello")[0]["data"]["detail"]
                self.assertEqual({key: hello[key] for key in left}, left)

    def test_what_is_lost(self):
        def seen(name, kind):
            return bool(find(self.runs[name], kind))

        for kind, without in (("process.session_started", "connector"), ("net.bound", "bpf"),
                              ("fs.changed", "fanotify")):
            for name in WITHOUT:
                self.assertEqual(seen(name, kind), name != without, (kind, name))
        # inotify does not say who did it.
        fired = find(self.runs["fanotify"], "fs.inotify_fired")
        self.assertTrue(fired)
        self.assertEqual({e["data"]["guestPid"] for e in fired}, {0})

    def test_without_seccomp_no_workload(self):
        self.assertTrue(self.vm.mark("launched_seccomp").startswith("125 "))
        self.assertEqual(self.vm.mark("launched_nothing"), "0")

    def test_without_a_channel_no_agent(self):
        self.assertTrue(self.vm.mark("channel").startswith("3 "))

    def test_the_table_has_the_options_of_the_probe(self):
        table = (SOURCE / "docs/guide-image-builder.md").read_text()
        for family, via in re.findall(r"^(\w+) +([\w-]+) ", self.vm.files["probe"].decode(),
                                      re.MULTILINE):
            if family in ("process", "net", "capability", "fs"):
                self.assertIn(f"`{via}`", table, family)

    def test_the_init_in_shell(self):
        self.assertEqual(self.vm.mark("init"), "42")
        self.assertEqual(self.vm.mark("no_agent"), "124")
        self.assertTrue(find(self.runs["init"], "capability.denied", syscall="mount"))
        self.assertEqual(len(find(self.runs["init"], "telemetry.bye")), 1)


if __name__ == "__main__":
    main()
