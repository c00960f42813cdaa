# SPDX-License-Identifier: MIT
"""The evidence log as an operator meets it: crashes in each mode, files that somebody else changes,
retention, logs that were cut back. The oracle recomputes every tree by itself."""

import base64
import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time

import guest
import oracle
from daemon import BadDisk, Daemon, no_preload
from oracle import named
from receiver import RECEIVER, hello, spawned
from runner import PATIENCE, case, main, until


class LogDaemon(Daemon):
    """A daemon that signs in one of the modes."""

    def __init__(self, algorithm="ed25519-log", config="", **more):
        super().__init__(config, start=False, **more)
        self.base_config = self.base_config.replace("algorithm = ed25519", f"algorithm = {algorithm}")
        if algorithm == "hmac-sha256":
            with open(self.file("k1.hmac"), "w", opener=lambda p, f: os.open(p, f, 0o600)) as f:
                f.write(base64.urlsafe_b64encode(b"h" * 32).decode())
            self.base_config = self.base_config.replace("k1.seed", "k1.hmac")
        if algorithm == "off":
            self.base_config = self.base_config.split("[signing]")[0] + "[signing]\nalgorithm = off\n"
        self.algorithm, self.has_tree = algorithm, algorithm.startswith("ed25519")
        if not self.has_tree:
            self.keys = None
        self.configure(config)
        self.start()

    def verdict(self, *want):
        args = ["--keys", self.file("keyring.json")] if self.keys else ["--allow-unsigned"]
        if self.algorithm == "hmac-sha256":
            with open(self.file("hmac.json"), "w", opener=lambda p, f: os.open(p, f, 0o600)) as f:
                json.dump({"k1": base64.urlsafe_b64encode(b"h" * 32).decode()}, f)
            args = ["--hmac-keys", self.file("hmac.json")]
        run = subprocess.run([RECEIVER, "verify", *args, self.evidence], capture_output=True, text=True)
        assert run.returncode in want, (run.returncode, run.stdout + run.stderr, self.log()[-2000:])
        return run.stdout

    def send(self, cell, numbers):
        """Events of a cell; returns once they and the connection's end are on disk: then the daemon
        has nothing more to write."""
        with self.connect(cell) as sock:
            sock.sendall(hello(next_seq=numbers[0]) + b"".join(map(spawned, numbers)))
            until(lambda: self.count(cell, numbers[-1]), f"number {numbers[-1]} of {cell}")
        until(lambda: self.has_ended(cell, numbers[-1]), f"the end of {cell}'s connection")

    def has_ended(self, cell, number):
        """A connection's end is the newest of the cell, or stands behind this number."""
        mine = [line for line in self.entries() if f'"cellId":"{cell}"'.encode() in line]
        ends = [i for i, line in enumerate(mine) if b".guest.v1.agent_disconnected" in line]
        last = [i for i, line in enumerate(mine) if f'"seq":{number},'.encode() in line]
        return ends and (not last or ends[-1] > last[-1])

    def count(self, cell, number):
        return sum(1 for line in self.entries()
                   if f'"cellId":"{cell}"'.encode() in line and f'"seq":{number},'.encode() in line)


def the_tree_is_what_the_oracle_says():
    for algorithm in ("ed25519-log", "ed25519"):
        with LogDaemon(algorithm, "[evidence]\nrotate_size = 64K\norigin = example.org/a\n") as d:
            d.add("a")
            d.add("b")
            for first in (1, 101, 201):
                d.send("a", range(first, first + 100))
            d.stop()
            (log,) = d.logs().values()
            assert log.origin.startswith("example.org/a/") and not log.tail
            assert log.size == len(d.entries()) and len(d.segments()) > 1
            events = d.log_events()
            assert [e["data"]["sequence"] for e in events] == list(range(1, len(events) + 1))
            assert events[0]["data"]["streamId"] == log.origin.rsplit("/", 1)[1]
            assert events[-1]["type"].endswith("log.v1.closed")
            for stream in d.streams().values():
                assert stream[0]["data"]["origin"] == log.origin
            d.verdict(0)
            # It goes on after a restart, in the same log and the same stream of its own. The log's
            # name is fixed at its birth.
            d.configure("[evidence]\nrotate_size = 64K\norigin = example.org/b\n")
            d.start()
            d.stop()
            (again,) = d.logs().values()
            assert again.size > log.size
            resumed = d.log_events()[len(events)]
            assert resumed["type"].endswith("log.v1.resumed")
            assert resumed["data"]["unclean"] is False and resumed["data"]["abandoned"] is None
            assert resumed["data"]["lastIndex"] == log.size - 1
            d.verdict(0)


class HonestAgent(threading.Thread):
    """Sends numbers, and after a cut everything again that was not acknowledged."""

    def __init__(self, d, cell, stop, pause):
        super().__init__()
        self.pause = pause
        self.d, self.cell, self.stop, self.acked, self.assigned = d, cell, stop, 0, 1
        self.session = os.urandom(8).hex()

    def run(self):
        while not self.stop.is_set():
            try:
                with self.d.connect(self.cell) as sock:
                    self.talk(sock)
            except OSError:
                time.sleep(0.01)

    def talk(self, sock):
        first = self.acked + 1
        sock.sendall(guest.hello(self.session, first, assigned=self.assigned))
        sock.sendall(b"".join(map(spawned, range(first, self.assigned))))
        received = b""
        while not self.stop.is_set():
            sock.sendall(b"".join(spawned(self.assigned + i) for i in range(4)))
            self.assigned += 4
            sock.settimeout(self.pause)
            try:
                chunk = sock.recv(4096)
                if not chunk:
                    return
                received += chunk
            except TimeoutError:
                pass
            while received and (received[0] == 0 or len(received) >= 9):
                if received[0] == 1:
                    self.acked = max(self.acked, int.from_bytes(received[1:9], "little"))
                received = received[9 if received[0] == 1 else 1:]


def sent_numbers(d):
    """cell -> the numbers of its agent that are on disk."""
    found = {}
    pattern = re.compile(rb'"cellId":"([^"]*)".*?"seq":(\d+),')
    for line in d.entries():
        match = pattern.search(line)
        if match:
            found.setdefault(match[1].decode(), set()).add(int(match[2]))
    return found


def killed_in_each_mode():
    """kill -9 under load: evidence verifies or is open, nothing that a checkpoint covered is gone,
    and neither is anything that an agent was told is durable."""
    kills, cells = int(os.environ.get("CELLOS_KILLS", 2)), int(os.environ.get("CELLOS_KILL_CELLS", 8))
    for algorithm, sync in (("ed25519-log", "batch"), ("ed25519", "batch"), ("hmac-sha256", "batch"),
                            ("off", "batch"), ("ed25519-log", "interval"), ("ed25519-log", "off")):
        stop = threading.Event()
        with LogDaemon(algorithm, f"[evidence]\nrotate_size = 256K\nsync = {sync}\n") as d:
            for i in range(cells):
                d.add(f"c{i}")
            # As many events a second, however many cells there are: the oracle reads them all.
            agents = [HonestAgent(d, f"c{i}", stop, 0.0025 * cells) for i in range(cells)]
            for agent in agents:
                agent.start()
            covered = set()
            try:
                for i in range(kills):
                    time.sleep(random.uniform(0.02, 0.3))
                    d.kill()
                    if d.has_tree and i < 3:
                        (log,) = d.logs().values()
                        covered |= set(log.entries)
                    d.start()
                until(lambda: all(agent.acked for agent in agents), "an acknowledgement for each")
            finally:
                stop.set()
                for agent in agents:
                    agent.join()
            d.stop()
            d.verdict(0, 4)
            found = sent_numbers(d)
            for agent in agents:
                lost = set(range(1, agent.acked + 1)) - found[agent.cell]
                assert not lost, (agent.cell, "acknowledged, and not there", sorted(lost)[:5])
            if d.has_tree:
                (log,) = d.logs().values()
                assert covered <= set(log.entries), "what a checkpoint covered is gone"
                assert not log.tail
                resumed = named(d.log_events(), "log.v1.resumed")
                # A kill before the entry of the last start is on disk leaves none of that start.
                assert 1 <= len(resumed) <= kills, len(resumed)
                assert all(e["data"]["unclean"] for e in resumed)
            assert "alarm" not in d.log(), d.log()
            print(f"{algorithm}, sync {sync}: {kills} kills, {cells} cells, {len(d.entries())} entries, "
                  f"{sum(agent.acked for agent in agents)} acknowledged, "
                  f"{len(glob.glob(d.evidence + '/*.torn'))} torn ends", flush=True)


def lines_after_the_last_checkpoint_are_moved_aside():
    with LogDaemon() as d:
        d.add("a")
        d.send("a", range(1, 10))
        d.kill()
        last = d.segments()[-1]
        size = os.path.getsize(last)
        lines = d.entries()
        with open(last, "ab") as f:
            f.write(lines[0] + lines[1] + b'{"torn')
        d.start()
        d.stop()
        (torn,) = glob.glob(d.evidence + "/*.torn")
        assert torn.endswith(f".{size}.torn")
        with open(torn, "rb") as f:
            assert f.read() == lines[0] + lines[1] + b'{"torn'
        (resumed,) = named(d.log_events(), "log.v1.resumed")
        assert resumed["data"]["unclean"] is True and resumed["data"]["cutLines"] == 3
        assert resumed["data"]["cutBytes"] == os.path.getsize(torn)
        d.logs()
        d.verdict(0, 4)


def checkpoint_lines(lines):
    """Where they stand."""
    return [i for i, line in enumerate(lines) if b'"dev.cellos.events.log_checkpoint.v1"' in line]


def cut_at(d, offset):
    with open(d.segments()[-1], "rb+") as f:
        f.truncate(offset)


def a_signature_that_was_never_written_is_abandoned():
    def not_written(d, begin, end):
        cut_at(d, begin)

    def partly_written(d, begin, end):
        """All entries, and the checkpoint line without its end."""
        cut_at(d, end - 10)

    def zeros(d, begin, end):
        """A power cut: the file has its size, and not all of its bytes."""
        with open(d.segments()[-1], "rb+") as f:
            f.seek(begin)
            f.write(bytes((end - begin) // 2))

    for tear in (not_written, partly_written, zeros):
        with case(tear), LogDaemon() as d:
            d.add("a")
            d.send("a", range(1, 5))
            d.kill()
            lines = d.raw_lines()
            before, last = checkpoint_lines(lines)[-2:]
            assert last == len(lines) - 1
            tear(d, sum(map(len, lines[:before + 1])), sum(map(len, lines)))
            cut = json.loads(lines[-1])["data"]
            d.start()
            d.stop()
            (resumed,) = named(d.log_events(), "log.v1.resumed")
            assert resumed["data"]["abandoned"]["size"] == cut["size"]
            assert resumed["data"]["abandoned"]["root"] == cut["checkpoint"].split("\n")[2]
            assert len(d.logs()) == 1 and "alarm" not in d.log()
            d.verdict(0, 4)


def a_log_that_was_never_signed_has_not_begun():
    """A power cut between a log's first line and its first signature."""
    def again(d, state):
        shutil.rmtree(d.file("state/signer"))
        if state:
            shutil.copytree(state, d.file("state/signer"))
        d.start()
        d.stop()
        assert "alarm" not in d.log() and "state_lost" not in d.log()
        assert len(glob.glob(d.evidence + "/*.torn")) == 1
        d.verdict(0)

    def signed(d):
        until(lambda: d.segments() and open(d.segments()[-1], "rb").read().count(b"\n") > 1,
              "the first group")

    with LogDaemon() as d:
        signed(d)
        d.kill()
        cut_at(d, len(d.raw_lines()[0]))
        again(d, None)
        (log,) = d.logs().values()
        assert named(d.log_events(), "log.v1.opened")[0]["data"]["reason"] == "new"
    with LogDaemon() as d:
        d.stop()
        shutil.copytree(d.file("state/signer"), d.file("copy"))
        with open(d.file("state/new-log"), "w", encoding="ascii") as f:
            f.write("planned")
        segments = len(d.segments())
        d.start()
        until(lambda: len(d.segments()) > segments, "the new log")
        signed(d)
        d.kill()
        with open(d.segments()[-1], "rb") as f:
            cut_at(d, len(f.readline()))
        again(d, d.file("copy"))
        (log,) = d.logs().values()
        assert len(named(d.log_events(), "log.v1.resumed")) == 1


def a_power_cut_with_sync_interval():
    """What was written after the last sync may be gone, in whole groups: the log goes on, and says
    what was signed and is lost. No alarm."""
    if no_preload():
        return
    with BadDisk() as disk, LogDaemon(config="[evidence]\nsync = interval\n", env=disk.env) as d:
        d.add("a")
        d.send("a", range(1, 5))
        disk.set("fdatasync=600000")
        for first in (5, 9, 13):
            d.send("a", range(first, first + 4))
        d.kill()
        disk.good()
        lines = d.raw_lines()
        keep, _, last = checkpoint_lines(lines)[-3:]
        cut_at(d, sum(map(len, lines[:keep + 1])))
        d.start()
        d.stop()
        (resumed,) = named(d.log_events(), "log.v1.resumed")
        assert resumed["data"]["abandoned"]["size"] == json.loads(lines[last])["data"]["size"]
        assert resumed["data"]["lastIndex"] == json.loads(lines[keep])["data"]["size"] - 1
        assert len(d.logs()) == 1 and "alarm" not in d.log()
        d.verdict(0, 4)


def a_power_cut_with_sync_off():
    """A log that lost what was durable by its own terms: a new one, without an alarm. The verdict
    still says what is missing."""
    with LogDaemon(config="[evidence]\nsync = off\n") as d:
        d.add("a")
        for first in (1, 5, 9):
            d.send("a", range(first, first + 4))
        d.kill()
        old, lines = list(d.logs().values())[-1], d.raw_lines()
        cut_at(d, sum(map(len, lines[:checkpoint_lines(lines)[-3] + 1])))
        d.start()
        d.stop()
        opened = [e for e in d.log_events() if e["data"].get("reason") == "unsynced"]
        assert len(opened) == 1 and opened[0]["type"].endswith("log.v1.opened")
        assert opened[0]["data"]["previousOrigin"] == old.origin
        assert opened[0]["data"]["previousSize"] == old.size
        assert "alarm" not in d.log()
        d.verdict(3)


def a_log_that_was_set_back_is_a_new_log():
    """Rolled back, emptied, changed, or without the signer's state: a new log, an alarm."""
    def roll_back(d, copy):
        shutil.rmtree(d.evidence)
        shutil.copytree(copy, d.evidence)

    def empty(d, copy):
        for path in d.segments():
            os.unlink(path)

    def change(d, copy):
        with open(d.segments()[-1], "r+b") as f:
            at = f.read().rfind(b'"guestPid":7')
            f.seek(at + 11)
            f.write(b"8")

    def forget(d, copy):
        shutil.rmtree(d.file("state/signer"))

    for attack, reason in ((roll_back, "log_shorter_than_signed"), (empty, "log_shorter_than_signed"),
                           (change, "damaged"), (forget, "state_lost")):
        with case(attack), LogDaemon() as d:
            required = attack in (roll_back, change)
            if required:
                d.base_config += "required = yes\n"
                d.configure("")
            d.add("a")
            d.stop()
            copy = d.file("copy")
            shutil.copytree(d.evidence, copy)
            d.start()
            # More than one group: a log without its last group is one whose writer was killed.
            d.send("a", range(1, 15))
            d.send("a", range(15, 30))
            d.kill()
            old = None if attack is change else list(d.logs().values())[-1]
            attack(d, copy)
            before = {path: open(path, "rb").read() for path in d.segments()}
            d.start()
            assert 'msg="a new log begins"' in d.log() and reason in d.log(), d.log()
            opened = until(lambda: [e for e in d.log_events() if e["data"].get("reason") == reason],
                           "the new log's first entry")[0]
            assert opened["type"].endswith("log.v1.opened"), opened
            if old:
                assert opened["data"]["previousOrigin"] == old.origin
                assert opened["data"]["previousSize"] == old.size
            # The alarm stands over a restart, until somebody says that he has seen it.
            d.stop()
            d.start()
            assert d.log().count("an alarm stands") == 1
            assert reason in d.ask({"verb": "status"})["alarm"]
            until(lambda: "cellos_host_telemetry_alarm 1\n" in d.http("/metrics")[1], "its metric")
            if required:
                status, _ = until(lambda: "an alarm stands" in (got := d.http("/readyz"))[1] and got,
                                  "/readyz that names it")
                assert status == 503
            else:
                until(lambda: d.http("/readyz")[0] == 200, "/readyz that is fine")
            d.run("log", "acknowledge")
            assert d.ask({"verb": "status"})["alarm"] is None
            until(lambda: "cellos_host_telemetry_alarm 0\n" in d.http("/metrics")[1], "its end")
            until(lambda: d.http("/readyz")[0] == 200, "/readyz that is fine again")
            d.stop()
            (acknowledged,) = named(d.log_events(), "log.v1.acknowledged")
            assert reason in acknowledged["data"]["what"]
            assert acknowledged["data"]["byUid"] == os.getuid()
            d.start()
            d.stop()
            assert d.log().count("an alarm stands") == 1
            assert len(d.segments()) > len(before)
            # The old segments are as they were found.
            assert all(open(path, "rb").read() == was for path, was in before.items())


def files_that_somebody_changes():
    """Under the running daemon: noticed at the next commit, and evidence goes on in a new
    segment."""
    def unlink(path):
        os.unlink(path)
        return "unlinked"

    def truncate(path):
        os.truncate(path, 100)
        return "truncated"

    def copytruncate(path):
        shutil.copyfile(path, path + ".copy")
        os.truncate(path, 0)
        return "truncated"

    def replace(path):
        shutil.copyfile(path, path + ".new")
        os.rename(path + ".new", path)
        return ("unlinked", "replaced")

    def rename(path):
        os.rename(path, path + ".old")
        return "renamed"

    def grow(path):
        with open(path, "rb") as f:
            line = f.readlines()[1]
        with open(path, "ab") as f:
            f.write(line)
        return "grown"

    def chmod(path):
        os.chmod(path, 0o666)
        return "mode changed"

    def chown(path):
        os.chown(path, 1, -1)
        return "owner changed"

    for change in (unlink, truncate, copytruncate, replace, rename, grow, chmod, chown):
        with LogDaemon() as d:
            d.add("a")
            d.send("a", range(1, 5))
            path = d.segments()[-1]
            want = change(path)
            d.send("a", range(5, 9))
            until(lambda: named(d.log_events(), "log.v1.segment_lost"), "the lost segment's entry")
            (lost,) = named(d.log_events(), "log.v1.segment_lost")
            assert lost["data"]["reason"] in want, (lost, want)
            assert f"{lost['data']['segment']:020}" in path
            until(lambda: "cellos_host_telemetry_log_segments_lost_total 1\n" in d.http("/metrics")[1],
                  "its metric")
            until(lambda: "1 segment of the evidence log was lost" in d.http("/readyz")[1], "/readyz")
            until(lambda: lost["data"]["reason"] in (d.ask({"verb": "status"})["alarm"] or ""),
                  "the alarm")
            d.stop()
            assert 'msg="evidence was changed by somebody else' in d.log()
            assert "while it was written" in open(d.file("state/alarm"), encoding="utf-8").read()
            # What was written later verifies by itself.
            logs = oracle.tree_oracle.check(
                [line for p in d.segments() if p > path for line in open(p, "rb")], d.keys)
            (log,) = logs.values()
            assert log.size > 0 and not log.tail
    # A hard link is somebody's backup: no loss.
    with LogDaemon() as d:
        d.add("a")
        os.link(d.segments()[-1], d.file("backup"))
        d.send("a", range(1, 5))
        d.stop()
        assert not named(d.log_events(), "log.v1.segment_lost")
        d.verdict(0)


def retention_says_what_it_deletes():
    with LogDaemon(config="[evidence]\nrotate_size = 64K\nretain_size = 256K\n") as d:
        d.add("a")
        for first in range(1, 1601, 100):
            d.send("a", range(first, first + 100))
        d.stop()
        (log,) = d.logs().values()
        assert log.first > 0
        pruned = named(d.log_events(), "log.v1.pruned")
        assert pruned and log.first in [e["data"]["firstIndex"] for e in pruned]
        assert all(e["data"]["origin"] == log.origin for e in pruned)
        assert sum(map(os.path.getsize, d.segments())) < 512 << 10
        d.verdict(0)


def a_key_that_changes_while_it_is_stopped():
    with LogDaemon() as d:
        d.add("a")
        d.send("a", range(1, 5))
        d.stop()
        subprocess.run([RECEIVER, "keygen", "--kid", "k2", "--out", d.dir], check=True,
                       stdout=subprocess.DEVNULL)
        with open(d.file("keyring.json")) as f:
            d.keys = json.load(f)
        # A kid is one key for ever. Nothing is written then.
        shutil.copy(d.file("k1.seed"), d.file("first"))
        shutil.copy(d.file("k2.seed"), d.file("k1.seed"))
        lines = d.raw_lines()
        got = subprocess.run([RECEIVER, "serve", "--config", d.file("conf")], capture_output=True,
                             text=True, timeout=PATIENCE)
        assert got.returncode == 78 and "give the new key a kid of its own" in got.stderr, got
        assert d.raw_lines() == lines
        os.replace(d.file("first"), d.file("k1.seed"))
        d.base_config = d.base_config.replace("kid = k1", "kid = k2").replace("k1.seed", "k2.seed")
        d.configure("")
        d.start()
        d.stop()
        (log,) = d.logs().values()
        assert [c[2] for c in log.checkpoints][0] == ["k1"] and log.checkpoints[-1][2] == ["k2"]
        for name, kid in (("added", "k2"), ("retired", "k1")):
            (event,) = named(d.log_events(), f"log.v1.key_{name}")
            assert (event["data"]["kid"], event["data"]["publicKey"]) == (kid, d.keys[kid])
        d.verdict(0)


def a_new_log_that_was_planned():
    with LogDaemon() as d:
        d.add("a")
        d.stop()
        for text in ("a move to rack 7", "\udcff\x07"):
            got = subprocess.run([RECEIVER, "log", "new", "--reason", text, "--config",
                                  d.file("conf")], capture_output=True)
            assert got.returncode == 0, got
            # Whoever wrote it, the receiver's user reads it.
            assert os.stat(d.file("state/new-log")).st_mode & 0o777 == 0o644
            d.start()
            d.stop()
        opened = named([json.loads(line) for line in d.raw_lines()], "log.v1.opened")
        assert [e["data"]["reason"] for e in opened] == ["new", "planned", "planned"]
        assert opened[1]["data"]["why"] == "a move to rack 7" and "why" not in opened[0]["data"]
        assert opened[2]["data"]["previousOrigin"] == opened[1]["data"]["origin"]
        # A start that fails leaves the plan to the next one: here the kid has another key.
        subprocess.run([RECEIVER, "log", "new", "--reason", "a restore", "--config", d.file("conf")],
                       check=True, capture_output=True)
        subprocess.run([RECEIVER, "keygen", "--kid", "k2", "--out", d.dir], check=True,
                       stdout=subprocess.DEVNULL)
        shutil.copy(d.file("k1.seed"), d.file("first"))
        shutil.copy(d.file("k2.seed"), d.file("k1.seed"))
        got = subprocess.run([RECEIVER, "serve", "--config", d.file("conf")], capture_output=True,
                             text=True, timeout=PATIENCE)
        assert got.returncode == 78, got
        os.replace(d.file("first"), d.file("k1.seed"))
        for _ in range(2):
            d.start()
            d.stop()
        opened = named([json.loads(line) for line in d.raw_lines()], "log.v1.opened")
        assert [e["data"].get("why") for e in opened[3:]] == ["a restore"]
        assert "alarm" not in d.log()
        d.verdict(0)


def reload(d, count):
    d.process.send_signal(signal.SIGHUP)
    until(lambda: d.log().count("configuration applied") >= count, "an applied configuration")


def set_mode(d, algorithm):
    """In the configuration; the next reload applies it."""
    signing = "algorithm = off\n" if algorithm == "off" else \
        f"algorithm = {algorithm}\nkid = k1\nkey_file = {d.file('k1.seed')}\n"
    d.base_config = d.base_config.split("[signing]\n")[0] + "[signing]\n" + signing
    d.configure("")


def a_reload_waits_for_the_files_of_cells():
    """The streams of the last change are not on disk yet: one SIGHUP is enough all the same."""
    if no_preload():
        return
    with BadDisk() as disk, LogDaemon("ed25519", env=disk.env) as d:
        d.add("a")
        d.send("a", range(1, 5))
        disk.set("fdatasync=600000")
        set_mode(d, "ed25519-log")
        reload(d, 1)
        set_mode(d, "off")
        d.process.send_signal(signal.SIGHUP)
        until(lambda: 'msg="the reload waits"' in d.log(), "a reload that waits")
        assert d.log().count("configuration applied") == 1
        disk.good()
        until(lambda: d.log().count("configuration applied") == 2, "the reload that waited")
        assert d.ask({"verb": "status"})["signing"]["algorithm"] == "off"
        d.stop()
        events = [json.loads(line) for line in d.raw_lines()]
        events = [e["data"].get("event", e) if e["type"] == oracle.ENVELOPE else e for e in events]
        changed = [(e["data"]["from"], e["data"]["to"]) for e in named(events, "log.v1.signing_changed")]
        assert changed == [("ed25519", "ed25519-log"), ("ed25519-log", "off")]


def a_mode_that_changes():
    """Between modes with a tree the log goes on; without a tree it is closed and a new one
    begins."""
    with LogDaemon("ed25519") as d:
        d.add("a")
        d.send("a", range(1, 5))
        first = 5
        for algorithm, logs in (("ed25519-log", 1), ("off", 1), ("ed25519-log", 2)):
            before = d.log().count("configuration applied")
            set_mode(d, algorithm)
            reload(d, before + 1)
            cell = f"{algorithm}-{logs}"
            d.add(cell)
            d.send("a", range(first, first + 4))
            first += 4
        # The files of the cells name their newest streams.
        d.kill()
        d.start()
        d.stop()
        assert "alarm" not in d.log()
        events = [json.loads(line) for line in d.raw_lines()]
        events = [e["data"].get("event", e) if e["type"] == oracle.ENVELOPE else e for e in events]
        changed = [(e["data"]["from"], e["data"]["to"]) for e in named(events, "log.v1.signing_changed")]
        assert changed == [("ed25519", "ed25519-log"), ("ed25519-log", "off"), ("off", "ed25519-log")]
        opened = named(events, "log.v1.opened")
        assert [e["data"]["reason"] for e in opened] == ["new", "signing_changed", "signing_changed"]
        assert len(named(events, "log.v1.closed")) == 3
        # A stream has one mode: each is sealed and succeeded, and the restart adds one more.
        mine = [e for e in events if e["data"].get("cellId") == "a"]
        opened = named(mine, "stream.v1.opened")
        assert len(opened) == 5, opened
        for last, this in zip(opened, opened[1:]):
            of_last = [e for e in mine if e["data"]["streamId"] == last["data"]["streamId"]]
            assert this["data"]["previousStreamId"] == last["data"]["streamId"]
            assert this["data"]["previousSequence"] == len(of_last) == of_last[-1]["data"]["sequence"]
        sealed = named(mine, "stream.v1.sealed")
        assert [e["data"]["reason"] for e in sealed] == ["signing_changed"] * 3 + ["shutdown"]
        assert [e["data"]["frames"] for e in sealed][:3] == [5, 5, 5]
        assert [e["data"]["seq"] for e in named(mine, "guest.v1.process_spawned")] == list(range(1, 17))
        # Nothing is missing; what was not signed is said, and is no more than that.
        d.verdict(2)
        keys = ["--keys", d.file("keyring.json"), "--allow-unsigned"]
        got = subprocess.run([RECEIVER, "verify", *keys, d.evidence], capture_output=True, text=True)
        assert got.returncode == 0 and "0 findings" in got.stdout, got


if __name__ == "__main__":
    main()
