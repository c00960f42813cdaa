#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Boots a real kernel in an emulated machine, runs a script in it beside a receiver on the host,
and returns what happened. docs/testing.md says how to write a test with it.

    with Receiver() as receiver:
        result = Vm(script="cellos-telemetry && true", receiver=receiver).run()
        events = receiver.finish()

Run as a program it boots a VM by hand: vm.py [options] 'shell commands'."""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from initramfs import Initramfs, Kernel  # noqa: E402
from mux import Mux  # noqa: E402
from runner import PATIENCE, Skip, until  # noqa: E402

VSOCK_PORT = 9001

# Seconds that a test waits for the whole of a VM's life.
VM_PATIENCE = 4 * PATIENCE
EVENT_PREFIX = "dev.cellos.events.cell.observability."

# How the guest's AF_VSOCK reaches the host. "device": a vsock device as a VMM has it
# (tests/vm/vsock_device). "loopback": no device; the guest's own loopback leads to a relay in the
# guest, and that to the host over virtio-serial: what a machine that is set back (savevm) can have.
TRANSPORT = os.environ.get("CELLOS_VM_TRANSPORT", "device")

# What every VM loads: the stream to the harness, and the vsock.
MODULES = ["virtio_pci", "virtio_console"]
VSOCK_MODULES = {"device": "vmw_vsock_virtio_transport", "loopback": "vsock_loopback"}

# Ready-made beginnings of scripts.
CGROUP2 = """
mount -t cgroup2 none /sys/fs/cgroup || exit 90
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo +$controller > /sys/fs/cgroup/cgroup.subtree_control
done
"""


# Where the programs are: the variables that the build sets for its tests, else ./build.
BUILD = os.path.join(HERE, "..", "..", "build")
BINARIES = {
    "CELLOS_VM_GUEST": "tests/vm/vm-guest",
    "CELLOS_VSOCK_DEVICE": "tests/vm/vsock_device",
    "CELLOS_VM_PROGRAMS": "tests/vm",
    "CELLOS_VM_GUEST_HALF": "tests/vm/guest-half",
    "CELLOS_HOST_TELEMETRY": "host-receiver/cellos-host-telemetry",
}


def built(variable, inside=""):
    """The path of something that the build makes; skips the test if it is not there."""
    path = os.environ.get(variable) or os.path.join(BUILD, BINARIES[variable])
    path = os.path.abspath(os.path.join(path, inside))
    if not os.path.exists(path):
        raise Skip(f"{path} does not exist: build it, or set {variable}")
    return path


def guest_program(path):
    """A program of the static build, by its path in the build directory."""
    return built("CELLOS_VM_GUEST_HALF", path)


def test_program(name):
    """A program of tests/vm/programs, as an entry of Vm's programs."""
    return built("CELLOS_VM_PROGRAMS", f"vm-{name}"), f"/bin/{name}"


def agent_binary():
    return guest_program("guest-agent/cellos-telemetry")


def receiver_binary():
    return built("CELLOS_HOST_TELEMETRY")


def start(command, **kwargs):
    """A child that ends with this process, however that ends."""
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command], stdin=subprocess.DEVNULL, **kwargs
    )


class Receiver:
    """`cellos-host-telemetry receive` for one cell. Its evidence is a file; events() reads it.

    options     more of receive's
    signed      with a key made for it; verify() then checks the evidence
    directory   where socket, evidence and log are; else one that goes with it"""

    def __init__(self, *options, signed=False, directory=None, cell_id="vm-cell",
                 run_id="vm-run", spec_hash="sha256:" + "5e" * 32, environment=None):
        # Removed with this object at the latest, also when a test ends before it is entered.
        self.own_directory = None if directory else tempfile.TemporaryDirectory(prefix="cellos-vm-")
        self.directory = directory or self.own_directory.name
        self.base = os.path.join(self.directory, "v.sock")
        self.evidence = os.path.join(self.directory, "evidence.jsonl")
        self.log = os.path.join(self.directory, "receiver.log")
        self.process = None
        self.command = [
            receiver_binary(), "receive", "--uds", self.base, "--cell-id", cell_id,
            "--run-id", run_id, "--spec-hash", spec_hash,
            # A machine that is busy takes its time to boot another.
            *([] if "--connect-within" in options else ["--connect-within", "0"]), *options,
        ]
        self.signed = signed
        self.environment = {**os.environ, **(environment or {})}

    def _make_key(self):
        subprocess.run([receiver_binary(), "keygen", "--kid", "vm", "--out", self.directory],
                       check=True, stdout=subprocess.DEVNULL)
        self.command += ["--sign-alg", "ed25519", "--sign-kid", "vm",
                         "--sign-key-file", os.path.join(self.directory, "vm.seed")]

    def verify(self, *options):
        """The verdict over the evidence so far: returncode, stdout, stderr."""
        return subprocess.run(
            [receiver_binary(), "verify", "--keys", os.path.join(self.directory, "keyring.json"),
             "--require-signed", *options, self.evidence],
            capture_output=True, text=True, check=False)

    def start(self):
        if self.signed and "--sign-alg" not in self.command:
            self._make_key()
        with open(self.evidence, "ab") as out, open(self.log, "ab") as log:
            self.process = start(self.command, stdout=out, stderr=log, env=self.environment)
        until(lambda: os.path.exists(f"{self.base}_{VSOCK_PORT}") or
              self.process.poll() is not None, "the receiver's socket")
        if self.process.poll() is not None:
            raise AssertionError(f"the receiver ended with {self.process.returncode}:\n"
                                 f"{self.log_text()}")
        return self

    def stop(self, sig=signal.SIGTERM):
        """Ends it and returns its exit code."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the receiver did not end on {sig!r}") from None

    def events(self):
        """The cell's events so far, not those of the log; a line that is not whole yet is left
        out."""
        with open(self.evidence, "rb") as f:
            lines = f.read().split(b"\n")[:-1]
        events = [json.loads(line) for line in lines]
        events = [e["data"]["event"] if e["type"].startswith("dev.cellos.events.signed_envelope")
                  else e for e in events]
        return [e for e in events if "cellId" in e["data"]]

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_event(self, kind, seconds=VM_PATIENCE, **data):
        """The first such event, as soon as it is there."""
        try:
            return until(lambda: find(self.events(), kind, **data), f"event {kind} {data or ''}",
                         patience=seconds)[0]
        except AssertionError as e:
            raise AssertionError(f"{e}\n--- receiver\n{self.log_text()}") from None

    def finish(self):
        """Ends it as an operator would and returns all events."""
        code = self.stop()
        if code != 0:
            raise AssertionError(f"the receiver ended with {code}:\n{self.log_text()}")
        return self.events()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.own_directory:
            self.own_directory.cleanup()


def find(events, kind, **data):
    """The events of a type (without the common prefix; also "process.spawned" for what the guest
    declared) whose data, or detail, has these values."""
    found = []
    for event in events:
        name = event["type"].removeprefix(EVENT_PREFIX)
        if kind not in (name, event["data"].get("probeSource")):
            continue
        detail = event["data"].get("detail", {})
        if all(event["data"].get(key, detail.get(key)) == value for key, value in data.items()):
            found.append(event)
    return found


def sessions_of(events):
    """The agents' sessions, in the order of their first hello."""
    return list(dict.fromkeys(e["data"]["detail"]["session"]
                              for e in find(events, "telemetry.hello")))


def split_runs(events):
    """The events of each run of an agent: of its session. On a busy host a connection can fail
    before its hello, or take the place of another."""
    runs, waiting, session = [], [], None
    for event in events:
        if event["type"].endswith("agent_connected"):
            waiting.append([])
        if not waiting and not runs:
            continue
        if event["data"].get("probeSource") == "telemetry.hello" and waiting:
            if event["data"]["detail"]["session"] != session:
                runs.append([])
            session = event["data"]["detail"]["session"]
            for connection in waiting:
                runs[-1] += connection
            waiting = []
        (waiting or runs)[-1].append(event)
    return runs


def patient(script):
    """The script whose agents and launchers wait for as long as a busy machine takes, where it does
    not say how long itself: an option that comes again has its last value."""
    return re.sub(r"(?<![\w/.-])(?<!pidof )(cellos-telemetry|cellos-workload-exec)(?= (?!--probe))",
                  rf"\1 --ready-timeout {1000 * PATIENCE:.0f}", script)


class Result:
    """How a VM ended. status: the script's exit status, negative the signal that ended it, None
    if the VM ended before the script did."""

    def __init__(self, status, output, console, marks, files, seconds):
        self.status = status
        self.output = output
        self.console = console
        self.marks = marks
        self.files = files
        self.seconds = seconds

    def check(self):
        """Itself, if the script ended with 0."""
        if self.status != 0:
            raise AssertionError(f"the script ended with {self.status}\n--- output\n"
                                 f"{self.output}\n--- console\n{self.console[-4000:]}")
        return self

    def mark(self, name):
        return self.marks[name][-1]


class Vm:
    """One boot. run() does all of it; start(), wait_mark(), tell(), wait() are its parts, for
    tests that act in the middle.

    script      shell commands (or a program's bytes) run as root in /root of the guest
    receiver    a Receiver, whose socket the guest's vsock port 9001 leads to
    base        the same by path: port P leads to <base>_P; neither: every connect is refused
    agent       whether the agent under test is there, and cellos-workload-exec
    programs    paths of executables to put into /bin, with their libraries; a pair (path, name)
                puts it elsewhere
    files       {path in the guest: text, bytes, or a host path as os.PathLike}
    modules     more modules of the kernel to load
    append      more kernel command line
    transport   how AF_VSOCK reaches the host: see TRANSPORT
    counted_time
                the guest's clock counts its instructions, 4 ns each, so that what takes time in
                it takes the same on a busy machine; its processors take turns
    cpus, memory_mib, qemu_args, ports, kernel: what they say (ports: of the loopback transport)"""

    def __init__(self, script, receiver=None, base=None, agent=True, programs=(), files=None,
                 modules=(), append="", cpus=1, memory_mib=256, qemu_args=(),
                 ports=(VSOCK_PORT,), kernel=None, transport=TRANSPORT, counted_time=False):
        self.transport = transport
        self.counted_time = counted_time
        self.device = None
        self.kernel = kernel or Kernel.find()
        if not shutil.which("qemu-system-x86_64"):
            raise Skip("no qemu-system-x86_64: install qemu-system-x86")
        self.base = receiver.base if receiver else base
        self.append = append
        self.cpus = cpus
        self.memory_mib = memory_mib
        self.qemu_args = list(qemu_args)
        self.ports = ports
        self.directory = None
        self.process = None
        self.mux = None
        self.started = None

        self.changed = threading.Condition()
        self.marks = {}
        self.told, self.awaited = set(), set()
        self.files = {}
        self.status = None
        self.output = bytearray()

        self.initramfs = self._initramfs(script, agent, programs, files or {}, modules)

    def _initramfs(self, script, agent, programs, files, modules):
        fs = Initramfs()
        for directory in ("dev", "proc", "sys", "run", "root", "vm", "etc", "mnt", "var"):
            fs.directory(directory)
        fs.directory("tmp", 0o1777)
        fs.character_device("dev/console", 5, 1)
        fs.busybox()
        guest = built("CELLOS_VM_GUEST")
        fs.copy(guest, "/bin/vm", 0o755)
        fs.symlink("/init", "/bin/vm")
        fs.symlink("/bin/vsock-cat", "vm")
        fs.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
                "nobody:x:65534:65534:nobody:/tmp:/bin/sh\n")
        fs.file("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
        fs.file("/etc/hosts", "127.0.0.1 localhost guest\n")
        order = self.kernel.load_order([*MODULES, VSOCK_MODULES[self.transport], *modules])
        for path in order:
            fs.file(f"/vm/{self.kernel.name(path)}.ko", self.kernel.read_module(path))
        fs.file("/vm/modules", "".join(f"/vm/{self.kernel.name(p)}.ko\n" for p in order))
        if agent:
            fs.program(agent_binary(), "/bin/cellos-telemetry")
            with contextlib.suppress(Skip):
                fs.program(guest_program("seccomp/cellos-workload-exec"),
                           "/bin/cellos-workload-exec")
        for program in programs:
            fs.program(*([program] if isinstance(program, (str, os.PathLike)) else program))
        for path, content in files.items():
            if isinstance(content, os.PathLike):
                fs.copy(content, path)
            else:
                fs.file(path, content)
        if isinstance(script, str) and not script.startswith("#!"):
            script = "#!/bin/sh\n" + patient(script)
        fs.file("/vm/script", script, 0o755)
        return fs

    def _control(self, sock):
        """One request of the guest (tests/vm/guest/ctl.c)."""
        with sock, sock.makefile("rb") as f:
            line = f.readline().decode(errors="replace").rstrip("\n")
            request, _, rest = line.partition(" ")
            name, _, text = rest.partition(" ")
            answer = "ok"
            if request == "output":
                while data := f.read1(65536):
                    with self.changed:
                        self.output += data
                        self.changed.notify_all()
                return
            if request == "say":
                with self.changed:
                    self.marks.setdefault(name, []).append(text)
                    self.changed.notify_all()
            elif request == "await":
                with self.changed:
                    self.awaited.add(name)
                    self.changed.notify_all()
                    if not self.changed.wait_for(lambda: name in self.told, VM_PATIENCE):
                        answer = f"{name} was not told in time"
            elif request == "put":
                data = f.read()
                with self.changed:
                    self.files[name] = data
                    self.changed.notify_all()
            elif request == "exit":
                with self.changed:
                    self.status = int(name)
                    self.changed.notify_all()
            else:
                answer = f"unknown request {request}"
            with contextlib.suppress(OSError):
                sock.sendall(answer.encode() + b"\n")

    def start(self):
        self.directory = tempfile.mkdtemp(prefix="cellos-vm-")
        image = os.path.join(self.directory, "initramfs")
        stream = os.path.join(self.directory, "stream")
        self.initramfs.write(image)
        self.started = time.monotonic()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(stream)
            listener.listen(1)
            listener.settimeout(PATIENCE)
            with open(os.path.join(self.directory, "qemu.log"), "wb") as log:
                self.process = start([
                    "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
                    "-no-reboot", *self._clock_args(),
                    # As on a VMM's processor, random numbers are there from the start.
                    "-cpu", "qemu64,+rdrand,+rdseed",
                    "-m", str(self.memory_mib), "-smp", str(self.cpus), "-kernel", self.kernel.image, "-initrd", image,
                    # The kernel's test of its timer fails where the host is busy just then.
                    "-append", "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check "
                               f"{self.append}",
                    "-chardev", f"file,id=console,path={self.directory}/console",
                    "-serial", "chardev:console",
                    "-device", "virtio-serial-pci,max_ports=2",
                    "-chardev", f"socket,id=stream,path={stream}",
                    "-device", "virtserialport,chardev=stream,name=cellos.vm",
                    *self._device_args(log),
                    *self.qemu_args,
                ], stdout=log, stderr=log)
            try:
                accepted, _ = listener.accept()
            except TimeoutError:
                raise AssertionError(f"the emulator did not start:\n{self._text('qemu.log')}"
                                     ) from None
        base = self.base if self.transport == "loopback" else None
        self.mux = Mux(accepted, base, self.ports, self._control)
        self.mux.start()
        return self

    def _clock_args(self):
        if self.counted_time:
            return ["-accel", "tcg,thread=single", "-icount", "shift=2,sleep=on"]
        return ["-accel", "tcg,thread=multi"]

    def _device_args(self, log):
        """Starts the vsock device; the emulator's arguments for it."""
        if self.transport == "loopback":
            return []
        path = os.path.join(self.directory, "device")
        self.device = start(
            [built("CELLOS_VSOCK_DEVICE"), path, self.base or f"{self.directory}/nobody"],
            stdout=subprocess.PIPE, stderr=log)
        if self.device.stdout.readline() != b"ready\n":
            raise AssertionError(f"the vsock device did not start:\n{self._text('qemu.log')}")
        return ["-object",
                f"memory-backend-memfd,id=memory,size={self.memory_mib}M,share=on",
                "-numa", "node,memdev=memory", "-chardev", f"socket,id=vsock,path={path}",
                "-device", "vhost-user-vsock-pci,chardev=vsock"]

    def _end_device(self):
        """It ends with the emulator."""
        if not self.device:
            return
        code = self.device.wait(PATIENCE)
        self.device.stdout.close()
        self.device = None
        if code != 0:
            raise AssertionError(f"the vsock device ended with {code}:\n{self._text('qemu.log')}")

    def _text(self, name):
        try:
            with open(os.path.join(self.directory, name), encoding="utf-8",
                      errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def _failed(self, what):
        return AssertionError(f"{what}\n--- output\n{self.output.decode(errors='replace')}\n"
                              f"--- console\n{self._text('console')[-4000:]}")

    def wait_mark(self, name, seconds=VM_PATIENCE):
        """The text of mark NAME as soon as the guest says it."""
        seconds = max(seconds, VM_PATIENCE)
        deadline = time.monotonic() + seconds
        with self.changed:
            while name not in self.marks:
                if self.process.poll() is not None or self.status is not None:
                    raise self._failed(f"the guest ended (script: {self.status}) and did not "
                                       f"say {name}")
                if time.monotonic() > deadline:
                    raise self._failed(f"the guest did not say {name} within {seconds} s")
                self.changed.wait(0.2)
            return self.marks[name][-1]

    def wait_awaiting(self, name):
        """Until the guest waits in `vm await NAME`."""
        until(lambda: name in self.awaited or self.process.poll() is not None,
              f"a guest that waits for {name}", patience=VM_PATIENCE)

    def tell(self, name):
        """Lets `vm await NAME` in the guest go on."""
        with self.changed:
            self.told.add(name)
            self.changed.notify_all()

    def kill(self):
        """The end that a VMM's SIGKILL is."""
        self.process.kill()
        self.process.wait()

    def wait(self, seconds=VM_PATIENCE):
        """Until the VM is off."""
        seconds = max(seconds, VM_PATIENCE)
        try:
            self.process.wait(max(0.1, seconds - (time.monotonic() - self.started)))
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failed(f"the VM was not off after {seconds} s") from None
        elapsed = time.monotonic() - self.started
        self.mux.stop()
        if self.mux.error:
            raise self.mux.error
        self._end_device()
        if self.process.returncode not in (0, -signal.SIGKILL):
            raise AssertionError(f"the emulator ended with {self.process.returncode}:\n"
                                 f"{self._text('qemu.log')}")
        with self.changed:
            return Result(self.status, self.output.decode(errors="replace"),
                          self._text("console"), self.marks, self.files, elapsed)

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill()
        if self.mux and self.mux.is_alive():
            self.mux.stop()
        if self.device:
            self.device.kill()
            self.device.wait()
            self.device.stdout.close()
            self.device = None
        if self.directory:
            shutil.rmtree(self.directory)
            self.directory = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    def run(self, seconds=VM_PATIENCE):
        try:
            return self.start().wait(seconds)
        finally:
            self.close()


def by_hand():
    """A VM from the command line, for demonstrations and for looking around."""
    parser = argparse.ArgumentParser(description="boot a VM and run shell commands in it")
    parser.add_argument("script", help="shell commands, or - to read them from standard input")
    parser.add_argument("--no-agent", action="store_true")
    parser.add_argument("--console", action="store_true", help="print the kernel's console too")
    parser.add_argument("--program", action="append", default=[])
    parser.add_argument("--module", action="append", default=[])
    parser.add_argument("--append", default="")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", type=int, default=256, metavar="MIB")
    parser.add_argument("--base", help="vsock port P leads to the UNIX socket BASE_P")
    parser.add_argument("--timeout", type=float, default=VM_PATIENCE)
    args = parser.parse_args()
    script = sys.stdin.read() if args.script == "-" else args.script
    result = Vm(script, base=args.base, agent=not args.no_agent, programs=args.program,
                modules=args.module, append=args.append, cpus=args.cpus,
                memory_mib=args.memory).run(args.timeout)
    sys.stdout.write(result.output)
    if args.console or result.status is None:
        sys.stderr.write(result.console)
    print(f"the VM ran {result.seconds:.1f} s, its script ended with {result.status}",
          file=sys.stderr)
    sys.exit(result.status if result.status is not None and result.status >= 0 else 1)


if __name__ == "__main__":
    by_hand()
