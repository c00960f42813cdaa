# SPDX-License-Identifier: MIT
"""Real agents under load while the daemon is restarted, in order and by kill -9: what they observed
is in the log exactly once, or declared lost, to the unit. CELLOS_RESTART_AGENTS, CELLOS_RESTARTS and
CELLOS_RESTART_RATE make it larger."""

import collections
import itertools
import json
import os
import signal
import subprocess
import time

from daemon import BadDisk, Daemon, no_preload
from oracle import named
from runner import PATIENCE, main, until

AGENT = os.environ["CELLOS_AGENT"]
AGENTS = int(os.environ.get("CELLOS_RESTART_AGENTS", 4))
RESTARTS = int(os.environ.get("CELLOS_RESTARTS", 10))
RATE = int(os.environ.get("CELLOS_RESTART_RATE", 500))  # events a second of each agent


class Guest:
    """A real agent that observes one folder."""

    def __init__(self, d, cell, queue):
        self.cell = cell
        self.folder = d.file(f"watched-{cell}")
        os.mkdir(self.folder)
        self.names = itertools.count()
        d.add(cell)
        self.log_path = d.file(f"{cell}.stderr")
        with open(self.log_path, "wb") as log:
            self.process = self._start(d, queue, log)

    def _start(self, d, queue, log):
        cell = self.cell
        return subprocess.Popen(
            [AGENT, "--foreground", "--uid", "0", "--keep-sysctls", "--ready-timeout", "60000", "--connect",
             f"unix:{d.file(cell)}_9001", "--process", "off",
             "--net", "off", "--capability", "off", "--fs", "inotify", "--inotify", self.folder, "--queue", str(queue),
             "--pid-file", d.file(f"{cell}.pid"), "--listener-socket", d.file(f"{cell}.listener")],
            stdin=subprocess.DEVNULL, stderr=log)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()[-2000:]

    def act(self):
        """Two events: names differ, so that the kernel merges nothing."""
        path = os.path.join(self.folder, str(next(self.names)))
        os.mkdir(path)
        os.rmdir(path)

    def end(self):
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0, self.log()


class Load:
    """Makes each guest observe RATE events a second."""

    def __init__(self, guests):
        self.process = subprocess.Popen([os.environ["CELLOS_MAKE_EVENTS"], str(RATE),
                                         *(guest.folder for guest in guests)])

    def end(self):
        assert self.process.poll() is None, "it made no more events"
        self.process.kill()
        self.process.wait()


def frames(d):
    return {c["cellId"]: c["frames"] for c in d.ask({"verb": "list"})["cells"]}


def last_names(d):
    """cell -> the names that its agent saw, of the last events."""
    names = collections.defaultdict(set)
    for line in d.lines()[-20 * AGENTS:]:
        event = json.loads(line)
        data = event.get("data", {}).get("event", event)["data"]
        names[data.get("cellId")].add(data.get("detail", {}).get("name"))
    return names


def wait_until_all_is_sent(d, guests):
    """Each agent's queue is empty once something that it observed last is in the log."""
    for guest in guests:
        last = []

        def seen():
            last.append(str(next(guest.names)))
            os.mkdir(os.path.join(guest.folder, last[-1]))
            return last_names(d)[guest.cell] & set(last)

        until(seen, lambda: f"the last events of {guest.cell}\n{d.log()}", 0.2)


def balance(d, guests, restarts):
    """What each agent observed against what the log says."""
    events = d.events()
    for guest in guests:
        own = [e for e in events if e["data"]["cellId"] == guest.cell]
        seqs = collections.Counter(e["data"]["seq"] for e in own if "seq" in e["data"])
        assert not [n for n, count in seqs.items() if count > 1], "duplicates"
        bye, = named(own, "guest.v1.telemetry_bye")
        totals = bye["data"]["detail"]
        # Loss receipts are numbered too.
        observed = len([e for e in own if "seq" in e["data"] and ".telemetry_" not in e["type"]])
        lost = totals["dropped"]
        print(f"{guest.cell}: {totals['observed']} observed = {observed} in the log + {lost} "
              f"declared lost; {restarts} restarts", flush=True)
        assert totals["observed"] == observed + lost, totals
        missing = sum(e["data"]["lastMissing"] - e["data"]["firstMissing"] + 1
                      for e in named(own, "guest.v1.telemetry_gap"))
        assert missing == 0 or missing <= lost, (missing, lost)
        assert max(seqs) == len(seqs) + missing, "each number is in the log or in a gap"


def restarts_under_load_lose_nothing():
    with Daemon() as d:
        # Some have room for what they observe while the daemon is away, some have not.
        guests = [Guest(d, f"c{i}", 64 if i % 3 == 2 else 65536) for i in range(AGENTS)]
        load = Load(guests)
        try:
            until(lambda: all(frames(d).values()), "the first frames")
            for i in range(RESTARTS):
                if i % 2:
                    d.kill()
                else:
                    d.stop()
                d.start()
                until(lambda: len(now := frames(d)) == AGENTS and min(now.values()) > 50,
                      lambda: f"{frames(d)}\n{d.log()}", 0.05)
        finally:
            load.end()
        wait_until_all_is_sent(d, guests)
        for guest in guests:
            guest.end()
        d.wait_for("guest.v1.telemetry_bye", AGENTS)
        d.stop()
        d.streams()
        balance(d, guests, RESTARTS)
        d.verify()


def a_hung_disk_a_flood_and_a_restart_lose_nothing():
    """The case that lost 247 of 939 observations: the disk hangs, a neighbour floods, SIGTERM."""
    if no_preload():
        return
    with BadDisk() as disk, Daemon("[receiver]\nmax_inflight = 4M\nstop_timeout = 2s\n",
                                   env=disk.env) as d:
        guests = [Guest(d, "quiet", 65536), Guest(d, "neighbour", 64)]
        until(lambda: len(f := frames(d)) == 2 and min(f.values()) > 0, "the first frames")
        disk.set("fdatasync=4500")
        flood = Load([guests[1]] * 8)
        for _ in range(450):
            guests[0].act()
            time.sleep(0.002)
        d.process.send_signal(signal.SIGTERM)
        assert d.process.wait(PATIENCE) in (0, 1), d.log()
        flood.end()
        disk.good()
        d.configure("[receiver]\nmax_inflight = 4M\n")
        d.start()
        wait_until_all_is_sent(d, guests)
        for guest in guests:
            guest.end()
        d.wait_for("guest.v1.telemetry_bye", 2)
        d.stop()
        balance(d, guests, 1)
        d.verify()


if __name__ == "__main__":
    main()
