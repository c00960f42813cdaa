# SPDX-License-Identifier: MIT
"""Half an hour in the life of a host (tools/soak): hundreds of cells, guests that come and go, real
agents among them, restarts and kills of the daemon, rotation and retention, a broker that is away, a
disk that is full for a while. In the last part no process is restarted, and their memory, descriptors
and threads must stay flat.

At the end each guest's numbers are in the evidence exactly once or in a declared gap; what the real
agents observed is evidence or declared loss; the log verifies, against every checkpoint that was kept
on the way too; and the stream of the broker holds all of it."""

import collections
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import nats
from daemon import Daemon
from guest import Guest
from receiver import HASH, RECEIVER, heartbeat
from runner import until
from test_forward_daemon import wait_forwarded
from test_daemon_restarts import Guest as RealAgent

SECONDS = float(os.environ.get("CELLOS_SOAK_SECONDS", 1800))
CELLS = int(os.environ.get("CELLOS_CELLS", 500))
REAL = 4
# Of the time: until then the daemon is restarted; a little later its memory is watched.
ROUGH, CALM = 0.6, 0.65
CONFIG = """[receiver]
rate = 100000
max_cells = 2000
stop_timeout = 100s
[evidence]
rotate_size = 2M
retain_size = 24M
retain_size_hard = 64M
[nats]
url = {}
create_stream = yes
"""
DISK_BYTES = 128 * 1024 * 1024
# How often, and for how long broker and disk are away, in seconds; in a short run all of it is
# quicker.
PACE = min(SECONDS / 600, 1)
EVERY = {what: PACE * seconds for what, seconds in {
    "restart": 45, "broker": 150, "disk": 200, "checkpoint": 60, "visit": 2}.items()}
AWAY = 12 * PACE
# What may be added between the first and the last quarter of the calm part. A full disk makes the
# receiver hold some MiB for a while, and glibc keeps them: malloc_trim(3) gave 3.5 of 4.5 MiB back.
GROWTH_KIB, GROWTH_PART, MORE_FDS, MORE_THREADS = 8192, 0.10, 24, 2


class Soaked(Guest):
    """A guest of a cell of its own. With a capacity it keeps no more than so many that are not
    settled: the rest is lost, and the receiver says so."""

    def __init__(self, d, cell, capacity):
        super().__init__(lambda: d.connect(cell))
        self.cell, self.capacity, self.leaving = cell, capacity, False
        self.lock = threading.RLock()

    def live(self):
        with self.lock:
            if not self.leaving:
                if self.capacity and len(self.ring) >= self.capacity:
                    self.assigned += 1
                else:
                    self.observe()
            self.turn()

    def hang_up(self):
        with self.lock:
            super().hang_up()

    def announce(self):
        """What was lost last has no frame after it: a heartbeat says how far the numbers go."""
        with self.lock:
            self.turn()
            if self.ring or not self.sock:
                return False
            try:
                self.sock.sendall(heartbeat(self.assigned))
            except OSError:
                return False
            return True


class Archive(threading.Thread):
    """Every segment that the daemon has finished, before retention deletes it."""

    def __init__(self, evidence, folder):
        super().__init__()
        self.evidence, self.folder = evidence, folder
        self.over = threading.Event()

    def copy(self, but=1):
        for path in sorted(glob.glob(self.evidence + "/evidence-*.jsonl"))[:-but or None]:
            target = os.path.join(self.folder, os.path.basename(path))
            if not os.path.exists(target):
                shutil.copyfile(path, target + "#")
                os.rename(target + "#", target)

    def run(self):
        while not self.over.wait(0.3):
            self.copy()

    def end(self):
        self.over.set()
        self.join()
        self.copy(but=0)


class Soak:
    def __init__(self, d, server, folder):
        self.d, self.server, self.folder = d, server, folder
        self.lock = threading.Lock()
        self.guests, self.gone = {}, {}
        self.names = (f"cell-{i}" for i in range(10**9))
        self.checkpoints, self.samples = [], []
        self.counts = collections.Counter()
        self.begin = time.monotonic()
        self.over = threading.Event()

    def elapsed(self):
        return time.monotonic() - self.begin

    def join_one(self):
        cell = next(self.names)
        answer = self.d.ask({"verb": "add", "options": {
            "cell-id": cell, "run-id": "r", "spec-hash": HASH, "uds": self.d.file(cell),
            "rate-connections": "100000"}})
        assert answer["ok"], answer
        with self.lock:
            self.guests[cell] = Soaked(self.d, cell, 8 if len(self.guests) % 10 == 0 else 0)

    # ---- the guests' thread ----
    def drive(self):
        while not self.over.is_set():
            begin = time.monotonic()
            with self.lock:
                guests = list(self.guests.values())
            for i, guest in enumerate(guests):
                guest.live()
                if i % 25 == 0:
                    time.sleep(0.001)
            time.sleep(max(begin + 1 - time.monotonic(), 0))

    # ---- what happens to the host ----
    def visit(self):
        """Some hang up, some leave for ever and others take their place."""
        with self.lock:
            some = random.sample(list(self.guests.values()), 6)
        for guest in some[:3]:
            guest.hang_up()
        for guest in some[3:]:
            guest.leaving = True
        with self.lock:
            ready = [g for g in self.guests.values() if g.leaving and not g.ring and g.sock]
        for guest in ready:
            self.leave(guest)
            self.join_one()

    def leave(self, guest):
        with self.lock:
            del self.guests[guest.cell]
        until(lambda: self.has_said_all(guest), f"the last word of {guest.cell}", 0.05)
        self.d.run("cell", "remove", guest.cell)
        guest.hang_up()
        self.gone[guest.cell] = guest
        self.counts["cells removed"] += 1

    def has_said_all(self, guest):
        """Its last word has been read, and not only sent."""
        before, begin = self.frames(guest), time.monotonic()
        if not guest.announce():
            return False
        while time.monotonic() < begin + 10:
            if self.frames(guest) > before:
                return True
            time.sleep(0.02)
        return False

    def frames(self, guest):
        return self.d.ask({"verb": "show", "cell": guest.cell})["cell"]["frames"]

    def restart(self):
        if self.counts["restarts"] % 2:
            self.d.kill()
        else:
            self.d.stop()
        self.d.start()
        self.counts["restarts"] += 1

    def broker(self):
        self.server.kill()
        time.sleep(AWAY)
        self.server.start()
        self.counts["outages of the broker"] += 1

    def disk(self):
        path = os.path.join(self.d.evidence, ".full")
        with open(path, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(65536))
            except OSError:
                pass
            time.sleep(AWAY)
        os.unlink(path)
        self.counts["full disks"] += 1

    def checkpoint(self):
        run = subprocess.run([RECEIVER, "checkpoint", self.d.evidence], capture_output=True,
                             text=True, check=False)
        assert run.returncode == 0, run.stderr
        self.checkpoints.append(os.path.join(self.folder, f"checkpoint-{len(self.checkpoints)}"))
        with open(self.checkpoints[-1], "w", encoding="utf-8") as f:
            f.write(run.stdout)

    def sample(self):
        """(name, KiB of its own, descriptors, threads) of each process of the daemon."""
        pids, found = [self.d.process.pid], {}
        for pid in pids:
            pids += [int(p) for p in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True,
                                                   text=True, check=False).stdout.split()]
            try:
                with open(f"/proc/{pid}/status", encoding="utf-8") as f:
                    status = dict(line.split(":", 1) for line in f)
                found[f"{status['Name'].strip()}/{len(found)}"] = (
                    int(status["RssAnon"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")),
                    int(status["Threads"]))
            except (FileNotFoundError, ProcessLookupError, KeyError):
                pass
        self.samples.append((self.elapsed(), found))

    def run(self):
        due = dict(EVERY)
        while self.elapsed() < SECONDS:
            for what in sorted(due, key=due.get):
                if self.elapsed() < due[what]:
                    continue
                if what != "restart" or self.elapsed() < ROUGH * SECONDS:
                    getattr(self, what)()
                due[what] = self.elapsed() + EVERY[what]
            if self.elapsed() > CALM * SECONDS:
                self.sample()
            time.sleep(0.5)

    # ---- the end ----
    def settle(self):
        def all_settled():
            with self.lock:
                guests = list(self.guests.values())
            for guest in guests:
                guest.leaving = True
            return not any(guest.ring for guest in guests)

        until(all_settled, lambda: f"{sum(len(g.ring) for g in self.guests.values())} numbers", 0.5)
        self.over.set()

    def flat(self):
        """What the processes have more at the end of the calm part than at its beginning."""
        quarter = max(len(self.samples) // 4, 1)
        # Those that live from the start of the calm part to its end.
        names = set(self.samples[0][1]) & set(self.samples[-1][1])
        grown = []
        for name in sorted(names):
            def mean(part, field):
                values = [s[1][name][field] for s in part if name in s[1]]
                return sum(values) / max(len(values), 1)

            first, last = self.samples[:quarter], self.samples[-quarter:]
            was, now = ([mean(part, i) for i in range(3)] for part in (first, last))
            print(f"{name}: memory {was[0]:.0f} -> {now[0]:.0f} KiB, descriptors {was[1]:.0f} -> "
                  f"{now[1]:.0f}, threads {was[2]:.0f} -> {now[2]:.0f}", flush=True)
            if now[0] > was[0] + max(GROWTH_KIB, GROWTH_PART * was[0]) or \
                    now[1] > was[1] + MORE_FDS or now[2] > was[2] + MORE_THREADS:
                grown.append(name)
        return grown


def read_evidence(folder):
    """cell -> counter of numbers, missing ranges, events without numbers, its goodbye."""
    cells = collections.defaultdict(lambda: {"seqs": collections.Counter(), "missing": set(),
                                             "observed": 0, "bye": None})
    entries = 0
    for path in sorted(glob.glob(folder + "/evidence-*.jsonl")):
        with open(path, "rb") as f:
            for line in f:
                if b'"source":"cellos-host-telemetry/log"' in line:
                    continue
                entries += 1
                if b'"seq":' not in line and b"telemetry_gap" not in line and \
                        b"telemetry_bye" not in line:
                    continue
                event = json.loads(line)
                data = event["data"]
                cell = cells[data["cellId"]]
                if event["type"].endswith("telemetry_gap"):
                    cell["missing"].update(range(data["firstMissing"], data["lastMissing"] + 1))
                elif event["type"].endswith("telemetry_bye"):
                    cell["bye"] = data["detail"]
                elif "seq" in data:
                    cell["seqs"][data["seq"]] += 1
                    cell["observed"] += ".telemetry_" not in event["type"]
    return cells, entries


def balance(guests, agents, folder):
    cells, entries = read_evidence(folder)
    observed = lost = 0
    for guest in guests:
        cell = cells[guest.cell]
        twice = [n for n, count in cell["seqs"].items() if count > 1]
        assert not twice, f"{guest.cell}: in the evidence twice: {twice[:5]}"
        assert not cell["missing"] & set(cell["seqs"]), f"{guest.cell}: missing and there"
        want = set(range(1, guest.assigned))
        have = set(cell["seqs"]) | cell["missing"]
        assert want == have, (guest.cell, guest.assigned, sorted(want ^ have)[:10])
        observed += guest.assigned - 1
        lost += len(cell["missing"])
    print(f"{len(guests)} guests: {observed} observed = {observed - lost} in the log + {lost} "
          f"declared missing; {entries} entries", flush=True)
    for agent in agents:
        cell, totals = cells[agent.cell], cells[agent.cell]["bye"]
        print(f"{agent.cell}: {totals['observed']} observed = {cell['observed']} in the log + "
              f"{totals['dropped']} declared lost", flush=True)
        assert totals["observed"] == cell["observed"] + totals["dropped"], totals


def verify(d, *args, pruned=False):
    """Nothing bad and nothing missing. A stream that a kill cut short may have no seal: that is 4.
    What retention has deleted of the checkpoint's log proves nothing: that is 2, and said."""
    run = subprocess.run([RECEIVER, "verify", "--require-signed", "--keys", d.file("keyring.json"),
                          *args], capture_output=True, text=True, check=False)
    if pruned and run.returncode == 2:
        assert "after the kept checkpoint" in run.stdout and \
            " 0 bad, 0 unverifiable, 0 unsigned\n1 finding about checkpoints" in run.stdout, run.stdout
        return None
    assert run.returncode in (0, 4), (args, run.returncode, run.stdout[-2000:], run.stderr[-500:])
    return "\n".join(run.stdout.splitlines()[:2])


def judge(s, d, agents, archive, server):
    balance([*s.gone.values(), *s.guests.values()], agents, archive)
    print(verify(d, archive), flush=True)
    in_folder = 0
    for path in s.checkpoints:
        verify(d, "--checkpoint", path, archive)
        in_folder += verify(d, "--checkpoint", path, d.evidence, pruned=True) is not None
    assert in_folder, "the newest is within the retention"
    print(f"verified against each of {len(s.checkpoints)} checkpoints that were kept; {in_folder} of "
          f"them are within what retention left", flush=True)
    # What the daemon's own end added stays in the log until the next run forwards it.
    print("from the broker:", verify(d, "--live", "--nats", server.url), flush=True)


def begin_agents(d):
    agents = [RealAgent(d, f"real-{i}", 64 if i % 2 else 65536) for i in range(REAL)]
    over = threading.Event()

    def act():
        while not over.wait(0.05):
            for agent in agents:
                agent.act()
                if agent.process.poll() is not None:
                    print(f"{agent.cell}: its agent ended with {agent.process.returncode}: "
                          f"{agent.log()}", flush=True)
                    return

    thread = threading.Thread(target=act)
    thread.start()
    return agents, over, thread


def soak(work):
    evidence, archived = os.path.join(work, "evidence"), os.path.join(work, "archive")
    os.mkdir(evidence)
    os.mkdir(archived)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "soak", evidence], check=True)
    with nats.Server() as server, Daemon(start=False, evidence=evidence) as d:
        d.base_config = d.base_config.replace("algorithm = ed25519\n", "algorithm = ed25519-log\n")
        d.configure(CONFIG.format(server.url))
        d.start()
        archive, s = Archive(evidence, archived), Soak(d, server, work)
        archive.start()
        agents, agents_over, agents_thread = begin_agents(d)
        for _ in range(CELLS):
            s.join_one()
        driver = threading.Thread(target=s.drive)
        driver.start()
        try:
            s.run()
            print(f"{s.elapsed():.0f} s, {CELLS} cells: {dict(s.counts)}", flush=True)
            agents_over.set()
            agents_thread.join()
            s.settle()
            driver.join()
            grown = s.flat()
            for guest in s.guests.values():
                until(lambda: s.has_said_all(guest), f"the last word of {guest.cell}", 0.05)
            for agent in agents:
                agent.process.terminate()
                status = agent.process.wait(300)
                assert status == 0, f"{agent.cell}: its agent ended with {status}: {agent.log()}"
            wait_forwarded(d)
            d.stop()
            # What the last moments said is forwarded by the next run.
            d.start()
            wait_forwarded(d)
            d.stop()
        finally:
            s.over.set()
            agents_over.set()
            for agent in agents:
                agent.process.kill()
            archive.end()
        judge(s, d, agents, archived, server)
        # A start takes minutes until its buffers are as large as they become.
        assert not grown or SECONDS < 1200, f"not flat: {grown}"


def main():
    if "CELLOS_IN_NAMESPACE" not in os.environ:
        os.environ["CELLOS_IN_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable] + sys.argv)
    nats.need_server()
    with tempfile.TemporaryDirectory(prefix="cellos-soak-") as work:
        try:
            soak(work)
        finally:
            subprocess.run(["umount", "-l", os.path.join(work, "evidence")], check=False)
    print("flat, balanced and verified")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    sys.exit(main())
