# SPDX-License-Identifier: MIT
"""A guest under load behind a real vsock, while the host's daemon is restarted three times, twice
in order and once by kill -9: what the agent observed is in the log once, or declared lost."""

import collections
import glob
import json
import os
import signal
import socket
import subprocess
import tempfile

from runner import PATIENCE, main, until
from vm import Vm, find, receiver_binary, start

# Files with names of their own, as fast as the shell is, with a breath in between: more than the
# agent can send while the daemon is away, less than its queue holds.
SCRIPT = """
mkdir /tmp/watched
cellos-telemetry --heartbeat 300 --queue 65536 --process off --net off --capability off \
    --fs inotify --inotify /tmp/watched || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
(n=0
while [ ! -e /tmp/end ]; do
    last=$((n + 100))
    while [ $n -lt $last ]; do : > /tmp/watched/$n; n=$((n + 1)); done
    usleep 20000
done
vm say made $n) &
load=$!
vm await restarted
: > /tmp/end
wait $load
kill $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
"""


class Daemon:
    """`serve` with one cell, signed, in a folder of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.base = self.file("v.sock")
        self.control = self.file("control")
        self.process = None
        for name in ("evidence", "state"):
            os.mkdir(self.file(name))
        subprocess.run([receiver_binary(), "keygen", "--kid", "vm", "--out", directory],
                       check=True, stdout=subprocess.DEVNULL)
        with open(self.file("conf"), "w", encoding="utf-8") as f:
            f.write(f"[receiver]\ncontrol_socket = {self.control}\n"
                    f"state_dir = {self.file('state')}\nconnect_within = 0\n"
                    f"stop_timeout = {PATIENCE / 2:.0f}s\n"
                    f"[evidence]\ndir = {self.file('evidence')}\n"
                    f"[metrics]\nlisten = off\n"
                    f"[signing]\nalgorithm = ed25519-log\nkid = vm\n"
                    f"key_file = {self.file('vm.seed')}\n")

    def file(self, name):
        return os.path.join(self.directory, name)

    def ask(self, verb):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.control)
            sock.sendall(json.dumps({"verb": verb}).encode() + b"\n")
            return json.loads(sock.makefile().read())

    def is_ready(self):
        try:
            return self.ask("status")["ok"]
        except OSError:
            return False

    def start(self):
        with open(self.file("log"), "ab") as log:
            self.process = start([receiver_binary(), "serve", "--config", self.file("conf")],
                                 stderr=log)
        until(self.is_ready, "a daemon that answers")

    def add(self):
        subprocess.run([receiver_binary(), "cell", "add", "--cell-id", "vm-cell", "--run-id", "run",
                        "--spec-hash", "sha256:" + "5e" * 32, "--uds", self.base, "--control",
                        self.control], check=True, stdout=subprocess.DEVNULL)

    def wait_frames(self, n):
        """So many frames of this run are read."""
        until(lambda: self.ask("list")["cells"][0]["frames"] > n, f"{n} frames")

    def end(self, number):
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        assert code == (0 if number == signal.SIGTERM else -number), code

    def events(self):
        """The cell's."""
        events = []
        for path in sorted(glob.glob(self.file("evidence/evidence-*.jsonl"))):
            with open(path, "rb") as f:
                events += [json.loads(line) for line in f.read().split(b"\n")[:-1]]
        return [e for e in events if "cellId" in e["data"]]

    def verify(self):
        return subprocess.run([receiver_binary(), "verify", "--keys", self.file("keyring.json"),
                               self.file("evidence")], capture_output=True, text=True, check=False)


def numbers_of(events):
    """session -> how often each of its numbers is there, as itself or in a gap."""
    sessions, named = collections.defaultdict(collections.Counter), {}
    for event in events:
        data = event["data"]
        connection = data["streamId"], data.get("connection")
        if "session" in data.get("detail", {}):
            named[connection] = data["detail"]["session"]
        if "seq" in data:
            sessions[named[connection]][data["seq"]] += 1
        if event["type"].endswith("telemetry_gap"):
            sessions[data["session"]].update(range(data["firstMissing"], data["lastMissing"] + 1))
    return sessions


def three_restarts_under_load_lose_nothing():
    with tempfile.TemporaryDirectory(prefix="cellos-vm-") as directory:
        d = Daemon(directory)
        try:
            made = _run_restarts(d)
        finally:
            if d.process and d.process.poll() is None:
                d.process.kill()
                d.process.wait()
        events, verdict = d.events(), d.verify()
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    sessions = numbers_of(events)
    for session, numbers in sessions.items():
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), session
        assert set(numbers.values()) == {1}, session
    seen = [e["data"]["detail"]["name"] for e in find(events, "fs.inotify_fired")
            if "create" in e["data"]["detail"]["event"]]
    assert len(seen) == len(set(seen)), "an observation is there twice"
    bye, = find(events, "telemetry.bye")
    totals = bye["data"]["detail"]
    observed = len(find(events, "fs.inotify_fired"))
    print(f"{made} files; {totals['observed']} observed = {observed} in the log + "
          f"{totals['dropped']} declared lost; {len(sessions)} sessions", flush=True)
    assert totals["observed"] == observed + totals["dropped"], totals
    if totals["dropped"] == 0:
        assert sorted(map(int, seen)) == list(range(made)), len(seen)


def _run_restarts(d):
    """Returns how many files the guest made."""
    d.start()
    d.add()
    with Vm(SCRIPT, base=d.base, transport="device") as vm:
        d.wait_frames(500)
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            d.end(number)
            d.start()
            d.wait_frames(500)
        vm.tell("restarted")
        made = int(vm.wait_mark("made"))
        vm.wait().check()
    until(lambda: find(d.events(), "telemetry.bye"), "the end of the agent")
    d.end(signal.SIGTERM)
    return made


if __name__ == "__main__":
    main()
