# SPDX-License-Identifier: MIT
"""Nothing that an agent observed is lost between it and the log, unseen or at all; nothing is there
twice (delivery.md sections 1, 2, 3, 5 and 7). test_delivery_memory.py has what the receiver remembers
over its own end."""

import itertools
import os
import shutil
import signal
import socket
import struct
import threading
import time

import oracle
from daemon import BadDisk, Daemon, no_preload
from guest import Acks, Guest, Reference, hello
from oracle import named
from receiver import (Receiver, bye, frame, heartbeat, spawned,
                      wait_until_read, wait_until_loop_waits)
from runner import main, stand_still, until
from tree_oracle import is_entry

A, B, C = "00000000000000aa", "00000000000000bb", "00000000000000cc"


def gaps(events):
    return [(e["data"]["reason"], e["data"]["firstMissing"], e["data"]["lastMissing"])
            for e in named(events, "guest.v1.telemetry_gap")]


def seqs(events, cell=None):
    return [e["data"]["seq"] for e in named(events, "guest.v1.process_spawned")
            if cell is None or e["data"]["cellId"] == cell]


def violations(events):
    return [e["data"]["reason"] for e in named(events, "guest.v1.channel_violation")]


# ---- section 1: acknowledgements ----


def durable_frames_are_acknowledged():
    with Receiver() as r:
        sock = r.connect()
        acks = Acks(sock)
        sock.sendall(hello(A, 1))
        acks.wait(0)
        assert acks.numbers == [0], "nothing is settled yet"
        sock.sendall(b"".join(spawned(seq) for seq in range(1, 101)))
        acks.wait(100)
        sock.sendall(spawned(101) + bye(102))
        acks.wait(101)
        assert acks.liveness == 0 and not acks.buffer
        # Everything that was acknowledged is in the output already.
        assert seqs(r.wait_for("guest.v1.telemetry_bye")) == list(range(1, 102))
        end = r.stop()[-1]["data"]
        assert (end["session"], end["nextSeq"], end["repeated"]) == (A, 102, 0)


def nothing_is_acknowledged_before_it_is_durable():
    if no_preload():
        return
    with BadDisk() as disk, Daemon(env=disk.env) as d:
        d.add("a")
        sock = d.connect("a")
        acks = Acks(sock)
        sock.sendall(hello(A, 1))
        acks.wait(0)
        disk.set("fdatasync=600000")
        sock.sendall(spawned(1) + spawned(2))
        wait_until_read(sock)
        assert acks.read(1.5) and acks.numbers == [0], "acknowledged, and on no disk"
        disk.good()
        acks.wait(2)
        d.stop()
        assert seqs(d.events()) == [1, 2]


def what_is_written_is_acknowledged_where_the_configuration_says_so():
    """With sync = interval or off, no acknowledgement waits for the disk."""
    if no_preload():
        return
    for mode in ("interval", "off"):
        with BadDisk() as disk, Daemon(f"[evidence]\nsync = {mode}\n", env=disk.env) as d:
            d.add("a")
            disk.set("fdatasync=600000")
            sock = d.connect("a")
            acks = Acks(sock)
            sock.sendall(hello(A, 1) + spawned(1) + spawned(2))
            acks.wait(2)
            disk.good()
            d.stop()
            assert seqs(d.events()) == [1, 2]


def an_acknowledgement_is_sent_at_last_after_a_moment_or_for_an_eighth_of_the_queue():
    with Receiver() as r:
        sock = r.connect()
        acks = Acks(sock)
        sock.sendall(hello(A, 1, capacity=80))
        acks.wait(0)
        begin = time.monotonic()
        for seq in range(1, 201):
            sock.sendall(spawned(seq))
            acks.read()
        acks.wait(200)
        moments = int((time.monotonic() - begin) / 0.1)
        steps = [b - a for a, b in zip(acks.numbers, acks.numbers[1:])]
        assert len(steps) <= 21 + moments, (steps, moments)
        r.stop()


def agents_without_acknowledgements_get_none():
    with Receiver() as r:
        for first in (hello(A, 1, acks=False), b""):
            sock = r.connect()
            acks = Acks(sock)
            sock.sendall(first + frame(version=1) + (bye() if first else b""))
            wait_until_read(sock)
            assert acks.read(0.5) and not acks.numbers
            sock.close()
        r.stop()


def a_reference_agent_is_served_as_before():
    """It never reads: no byte but a liveness byte may ever be sent to it."""
    with Receiver() as r:
        agent = Reference(r.connect)
        agent.send(50)
        agent.send(1, "telemetry.heartbeat")
        r.wait_for("guest.v1.process_spawned", 50)
        assert agent.unread() is None
        # Another connection asks whether it lives, and is refused.
        other = r.connect()
        Acks(other).wait_end()
        assert agent.unread() == b"\x00"
        agent.send(5)
        events = r.wait_for("guest.v1.process_spawned", 55)
        assert not named(events, "guest.v1.telemetry_gap") and not violations(events)
        r.stop()


def unread_acknowledgements_stop_nothing():
    with Receiver() as r:
        sock = r.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.sendall(hello(A, 1, capacity=8))
        for seq in range(1, 3001):
            sock.sendall(spawned(seq))
            if seq % 100 == 0:
                wait_until_read(sock)
        r.wait_for("guest.v1.process_spawned", 3000)
        # Then it reads: whole acknowledgements, also across the liveness byte, up to the newest.
        acks = Acks(sock)
        acks.wait(3000)
        r.stop()


def settled_and_gone(r, n):
    """An agent whose numbers up to n are settled, and whose connection has ended."""
    sock = r.connect()
    sock.sendall(hello(A, 1) + b"".join(spawned(seq) for seq in range(1, n + 1)))
    Acks(sock).wait(n)
    sock.close()
    r.wait_for("guest.v1.agent_disconnected")


def repeats_are_dropped_and_counted():
    with Receiver() as r:
        settled_and_gone(r, 20)
        # The agent lost the acknowledgements after 4.
        sock = r.connect()
        acks = Acks(sock)
        sock.sendall(hello(A, 5, 26) + b"".join(spawned(seq) for seq in range(5, 26)))
        assert acks.wait(20) >= 20
        acks.wait(25)
        events = r.stop()
        assert seqs(events) == list(range(1, 26))
        assert events[-1]["data"]["repeated"] == 16
        assert not gaps(events) and not violations(events)


def a_number_out_of_order_is_evidence_and_one_violation():
    with Receiver() as r:
        sock = r.connect()
        acks = Acks(sock)
        sock.sendall(hello(A, 1) + spawned(1) + spawned(2) + spawned(1) + spawned(2) + spawned(3))
        acks.wait(3)
        events = r.stop()
        assert seqs(events) == [1, 2, 1, 2, 3]
        assert violations(events) == ["sequence"]
        assert "offset" not in named(events, "guest.v1.channel_violation")[0]["data"]


def a_number_without_a_hello_is_evidence_and_one_violation():
    with Receiver() as r:
        sock = r.connect()
        sock.sendall(spawned(5) + spawned(9))
        events = r.wait_for("guest.v1.process_spawned", 2)
        assert violations(events) == ["no_hello"] and not gaps(events)
        assert events[-1]["data"].get("connection") == 1
        r.stop()


def a_refused_frame_does_not_poison_the_channel():
    """The frame that no host can take is a gap, and acknowledged; only then the connection ends."""
    with Receiver() as r:
        poison = frame("process.spawned", seq=3, detail={"ppid": "not a number"})
        sock = r.connect()
        acks = Acks(sock)
        sock.sendall(hello(A, 1) + spawned(1) + spawned(2) + poison + spawned(4))
        acks.wait_end()
        assert acks.numbers[-1] == 3, acks.numbers
        sock.close()
        sock = r.connect()
        sock.sendall(hello(A, 4, 5) + spawned(4))
        Acks(sock).wait(4)
        events = r.stop()
        assert gaps(events) == [("refused", 3, 3)] and violations(events) == ["bad_type"]
        assert seqs(events) == [1, 2, 4]


def an_unknown_source_settles_its_number_alone():
    with Receiver() as r:
        sock = r.connect()
        acks = Acks(sock)
        sock.sendall(hello(A, 1) + spawned(1) + frame("kernel.magic", seq=2) + bye(3))
        acks.wait(2)
        sock.sendall(frame("kernel\x00magic\x00", seq=3) + spawned(4))
        acks.wait(4)
        events = r.stop()
        assert not gaps(events) and seqs(events) == [1, 4]
        assert [e["data"]["source"] for e in named(events, "guest.v1.unknown_source")] == [
            "kernel.magic", "kernel\x00magic\x00"]


# ---- sections 2 and 3: sessions ----


def a_new_session_above_one_is_a_gap_and_its_end_is_reported():
    with Receiver() as r:
        sock = r.connect()
        acks = Acks(sock)
        sock.sendall(hello(A, 8) + spawned(8))
        acks.wait(8)
        sock.sendall(heartbeat(12) + struct.pack("<I", 70000))
        acks.wait_end()
        sock.close()
        events = r.stop()
        assert gaps(events) == [("session_start", 1, 7), ("jump", 9, 11)]
        end = named(events, "guest.v1.agent_disconnected")[0]["data"]
        assert (end["session"], end["nextSeq"], end["reason"]) == (A, 12, "wire_error")


def what_a_connection_still_held_at_its_end_is_counted():
    """More than one read takes arrives while the receiver stands still; its first frame is refused."""
    with Receiver() as r:
        stand_still(r.process.pid)
        with r.connect() as sock:
            data = struct.pack("<I", 70000) + bytes(50000)
            sock.sendall(data)
            os.kill(r.process.pid, signal.SIGCONT)
            Acks(sock).wait_end()
        events = r.stop()
        end = named(events, "guest.v1.agent_disconnected")[0]["data"]
        assert end["reason"] == "wire_error"
        assert end["unreadBytes"] > 0 and end["bytes"] + end["unreadBytes"] == len(data), end
        assert events[-1]["data"]["unreadBytes"] == end["unreadBytes"], events[-1]


def two_sessions_are_remembered():
    """As after a reset: the old session is finished, then a new one begins."""
    with Receiver() as r:
        for session, first, last in ((A, 1, 10), (B, 1, 5), (A, 9, 12), (B, 4, 8), (C, 1, 2),
                                     (A, 13, 13)):
            sock = r.connect()
            sock.sendall(hello(session, first, last + 1) + b"".join(
                spawned(seq) for seq in range(first, last + 1)))
            Acks(sock).wait(last)
            sock.close()
        events = r.stop()
        # A was the oldest when C came, and forgotten.
        assert gaps(events) == [("session_start", 1, 12)]
        assert seqs(events) == [*range(1, 11), *range(1, 6), 11, 12, 6, 7, 8, 1, 2, 13]
        assert events[-1]["data"]["repeated"] == 4


def a_session_that_is_forgotten_is_counted():
    """A cell keeps the numbers of two sessions; each further one takes the oldest one's place."""
    with Daemon() as d:
        d.add("a")
        for session, evicted in ((A, 0), (A, 0), (B, 0), (C, 1), (A, 2)):
            with d.connect("a") as sock:
                sock.sendall(hello(session, 1))
                Acks(sock).wait(0)
            d.wait_for_totals(sessionsEvicted=evicted, connected=0)
        d.wait_metrics("cellos_host_telemetry_sessions_evicted_total 2\n")
        d.stop()
        d.verify()


def another_session_on_the_same_connection_ends_it():
    with Receiver() as r:
        sock = r.connect()
        acks = Acks(sock)
        sock.sendall(hello(A, 1) + spawned(1) + hello(A, 1, 2) + spawned(2) + hello(B, 1) +
                     spawned(3))
        acks.wait_end()
        assert acks.numbers[-1] == 2
        events = r.stop()
        assert violations(events) == ["second_session"] and seqs(events) == [1, 2]


def a_guest_that_was_set_back_loses_no_evidence():
    with Receiver() as r:
        settled_and_gone(r, 30)
        sock = r.connect()
        acks = Acks(sock)
        sock.sendall(hello(A, 18, 21) + b"".join(spawned(seq) for seq in range(18, 25)))
        # Above what it ever sent: so it learns that it was set back.
        acks.wait(30)
        events = r.wait_for("guest.v1.process_spawned", 37)
        assert gaps(events) == [("host_ahead", 21, 30)]
        assert seqs(events) == [*range(1, 31), *range(18, 25)]
        r.stop()


def a_clone_in_another_cell_lost_nothing():
    with Daemon() as d:
        d.add("mother")
        d.add("clone")
        first = d.connect("mother")
        first.sendall(hello(A, 1, boot="one-boot") + spawned(1) + spawned(2))
        Acks(first).wait(2)
        second = d.connect("clone")
        second.sendall(hello(B, 3, boot="one-boot") + spawned(3))
        Acks(second).wait(3)
        second.close()
        d.wait_for("guest.v1.agent_disconnected")
        third = d.connect("clone")
        third.sendall(hello(C, 6, boot="another-boot") + spawned(6))
        Acks(third).wait(6)
        d.stop()
        assert gaps(d.events()) == [("inherited", 1, 2), ("session_start", 1, 5)]


def huge_numbers_are_numbers():
    top = 2**63 - 1
    with Receiver() as r:
        sock = r.connect()
        acks = Acks(sock)
        sock.sendall(hello(A, top, top) + spawned(top))
        acks.wait(top)
        sock.sendall(spawned(1))
        r.wait_for("guest.v1.process_spawned", 2)
        sock.close()
        events = r.stop()
        assert gaps(events) == [("session_start", 1, top - 1)]
        assert violations(events) == ["sequence"]
        assert events[-1]["data"]["nextSeq"] == top + 1


# ---- sections 4 and 5: restarts and floods ----


SHORT = frame(version=1, comm="\x01" * 60) * 500
# Lines of 18 KiB and more.
LONG = frame("process.executed", detail={
    "exe": "\x01" * 1024, "cwd": "\x01" * 1024, "args": "\x01" * 1024}) * 30


def _flood(sock, stop, data=SHORT):
    """Frames without end, as fast as they are taken."""
    sock.setblocking(False)
    rest = b""
    while not stop.is_set():
        rest = rest or data
        try:
            rest = rest[sock.send(rest):]
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:
            return


def an_orderly_restart_beside_a_flood_on_a_hung_disk_loses_nothing():
    """939 observations; the first version of this receiver lost 247 of them here."""
    if no_preload():
        return
    with BadDisk() as disk, Daemon(env=disk.env) as d:
        d.add("honest")
        d.add("flooder")
        guest = Guest(lambda: d.connect("honest"), A)
        guest.observe(100)
        guest.settle()
        stop = threading.Event()
        flood = threading.Thread(target=_flood, args=(d.connect("flooder"), stop))
        flood.start()
        disk.set("fdatasync=4500")
        for _ in range(839):
            guest.observe()
            guest.turn()
        d.process.send_signal(signal.SIGTERM)
        until(lambda: guest.turn() or d.process.poll() is not None, "the end")
        assert d.process.returncode == 0, d.log()
        stop.set()
        flood.join()
        disk.good()
        d.start()
        guest.settle()
        d.stop()
        events = d.events()
        assert seqs(events, "honest") == list(range(1, 940))
        assert not [g for g in gaps(events)]
        d.verify()


def a_power_cut_beside_a_flood_on_a_hung_disk_loses_nothing():
    """The same 939, but the power goes while the disk hangs: of the log only what was synced is
    there again. Of the signer's state, which is synced by itself, it may be the newest or one of
    before the disk hung; neither is an alarm."""
    if no_preload():
        return
    for newest in (True, False):
        with BadDisk() as disk, Daemon(env=disk.env, start=False) as d:
            synced, state = d.file("synced"), d.file("state/signer")
            disk.set(f"SYNCED={synced}")
            d.start()
            d.add("honest")
            d.add("flooder")
            guest = Guest(lambda: d.connect("honest"), A)
            guest.observe(100)
            guest.settle()
            stop = threading.Event()
            flood = threading.Thread(target=_flood, args=(d.connect("flooder"), stop))
            disk.set(f"SYNCED={synced} fdatasync=600000")
            shutil.copytree(state, d.file("older"))
            flood.start()
            for _ in range(839):
                guest.observe()
                guest.turn()
            # A group was signed, and is written, and is on no disk.
            with open(synced) as f:
                durable = max(int(line.split()[0]) for line in f if "/evidence-" in line)
            until(lambda: os.path.getsize(d.segments()[-1]) > durable, "a group that is written")
            d.cut_power(synced)
            stop.set()
            flood.join()
            disk.good()
            if not newest:
                shutil.rmtree(state)
                shutil.copytree(d.file("older"), state)
            guest.turn()
            d.start()
            guest.settle()
            d.stop()
            events = d.events()
            assert seqs(events, "honest") == list(range(1, 940))
            assert not gaps([e for e in events if e["data"]["cellId"] == "honest"])
            assert "alarm" not in d.log() and len(d.logs()) == 1, d.log()
            d.verify()


def killed_beside_a_flood_loses_nothing():
    with Daemon() as d:
        d.add("honest")
        d.add("flooder")
        guest = Guest(lambda: d.connect("honest"), A)
        stop = threading.Event()
        for _ in range(4):
            flood = threading.Thread(target=_flood, args=(d.connect("flooder"), stop))
            flood.start()
            for _ in range(100):
                guest.observe(3)
                guest.turn()
            d.kill()
            stop.set()
            flood.join()
            stop.clear()
            guest.turn()
            d.start()
        guest.settle()
        d.stop()
        events = [e for e in d.events() if e["data"]["cellId"] == "honest"]
        assert seqs(events) == list(range(1, 1201))
        assert not gaps(events) and not violations(events)


def _storm(d, cell, stop):
    while not stop.is_set():
        try:
            d.connect(cell).close()
        except OSError:
            time.sleep(0.001)


def _refused(sock, stop):
    data = frame("kernel.magic", version=1) * 500
    while not stop.is_set():
        try:
            sock.sendall(data)
        except OSError:
            return


def _loris(sock, stop):
    data = frame(version=1)
    while not stop.is_set():
        for byte in data:
            try:
                sock.sendall(bytes([byte]))
            except OSError:
                return


def pieces_of_a_frame_are_read_together():
    """Single bytes cost a read each after 2, 4, .. 64 ms; whole frames wait for nothing."""
    with Receiver() as r:
        with r.connect() as sock:
            sock.sendall(hello(A, 1))
            for seq in (1, 4):
                data = spawned(seq)
                wait_until_loop_waits(r, sock)
                sent, read = [], []
                for byte in data[:7]:
                    sent.append(time.monotonic())
                    sock.sendall(bytes([byte]))
                    wait_until_loop_waits(r, sock)
                    read.append(time.monotonic())
                # The first byte waits for nothing. Each other one is read so long after the last one.
                for i in range(6):
                    assert read[i + 1] - sent[i] >= 0.002 * 2**i, (i, sent, read)
                # The rest, with other frames: then it begins anew.
                sock.sendall(data[7:] + spawned(seq + 1) + spawned(seq + 2))
                r.wait_for("guest.v1.process_spawned", seq + 2)
        r.stop()


def group_sizes(d):
    """The bytes of each group commit: what stands between two checkpoint lines."""
    sizes, size = [], 0
    for line in d.raw_lines():
        if is_entry(line):
            size += len(line)
        else:
            sizes.append(size)
            size = 0
    return sorted(sizes)


def attacks_cost_others_nothing():
    """Every attack of section 5 at once, beside twenty honest guests: nothing of them is lost, and
    what is in flight stays within its bound. Nobody waits for a group that is larger than the
    window of those with a backlog and what quiet cells add; some may be, where the machine stood
    still."""
    bound = 64 * 2**20
    with Daemon() as d:
        for cell in ("flood1", "flood2", "storm", "refused", "loris"):
            d.add(cell)
        guests = []
        for i in range(20):
            d.add(f"honest{i}")
            guests.append(Guest(lambda i=i: d.connect(f"honest{i}"), boot=f"boot-{i}"))
        stop = threading.Event()
        idle = [d.connect("storm") for _ in range(200)]
        attacks = [threading.Thread(target=target, args=args) for target, args in (
            (_flood, (d.connect("flood1"), stop)), (_flood, (d.connect("flood2"), stop)),
            (_storm, (d, "storm", stop)), (_refused, (d.connect("refused"), stop)),
            (_loris, (d.connect("loris"), stop)))]
        for thread in attacks:
            thread.start()
        worst = 0
        for _ in range(50):
            for guest in guests:
                guest.observe(2)
                guest.turn()
            worst = max(worst, d.ask({"verb": "status"})["log"]["inflightBytes"])
        for guest in guests:
            guest.settle()
        stop.set()
        for thread in attacks:
            thread.join()
        for sock in idle:
            sock.close()
        d.stop()
        events = d.events()
        for i in range(20):
            assert seqs(events, f"honest{i}") == list(range(1, 101)), i
        assert not gaps(events)
        assert worst <= bound * 1.1, worst
        sizes = group_sizes(d)
        assert sizes[len(sizes) * 9 // 10] < 3 * 2**20 / 2, sizes[-20:]
        d.verify()


def resident(d, name):
    """Bytes of the receiver's memory, as /proc/PID/status names them."""
    with open(f"/proc/{d.process.pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(name + ":"))


def memory_in_flight_is_bounded_with_long_lines():
    """Bytes that JSON escapes to six, and a disk that takes nothing."""
    if no_preload():
        return
    bound = 32 * 2**20
    with BadDisk() as disk, Daemon(f"[receiver]\nmax_inflight = {bound}\n"
                                   "rate_bytes = 2147483647\n", env=disk.env, sign=False) as d:
        socks = []
        for i in range(12):
            d.add(f"c{i}")
            socks.append(d.connect(f"c{i}"))
        d.wait_for("guest.v1.agent_connected", 12)
        before = resident(d, "VmRSS")
        disk.set("fdatasync=600000")
        stop = threading.Event()
        threads = [threading.Thread(target=_flood, args=(s, stop, LONG)) for s in socks]
        for thread in threads:
            thread.start()

        def inflight():
            return d.ask({"verb": "status"})["log"]["inflightBytes"]

        until(lambda: inflight() > bound * 0.7, lambda: f"it to fill: {inflight()}", 0.1)
        last, now = 0, inflight()
        while last != now:  # until nothing more is read
            time.sleep(0.5)
            last, now = now, inflight()
        assert now <= bound * 1.1, now
        # What is counted is what is there: a sanitizer's own memory aside.
        if os.environ["CELLOS_SANITIZE"] == "none":
            assert resident(d, "VmHWM") <= before + 3 * bound, (before, resident(d, "VmHWM"))
        stop.set()
        for thread in threads:
            thread.join()
        disk.good()
        d.stop()


class Talker(threading.Thread):
    """A guest that sends a frame every 50 ms, as far as its socket takes them; and when it did."""

    def __init__(self, sock):
        super().__init__()
        self.sock = sock
        self.sent = []
        self.over = threading.Event()

    def run(self):
        for number in itertools.count(1):
            if self.over.is_set():
                return
            self.sock.sendall(spawned(number))
            self.sent.append(time.monotonic_ns())
            time.sleep(0.05)

    def end(self):
        """How many frames it sent."""
        self.over.set()
        self.join()
        return len(self.sent)


def silence_stands_still_while_the_host_does_not_read():
    if no_preload():
        return
    with BadDisk() as disk, Daemon("[receiver]\nkeepalive = 3s\nmax_inflight = 4194304\n",
                                   env=disk.env, sign=False) as d:
        d.add("a")
        d.add("flooder")
        sock = d.connect("a")
        acks = Acks(sock)
        sock.sendall(hello(A, 1))
        acks.wait(0)
        disk.set("fdatasync=600000")
        stop = threading.Event()
        flood = threading.Thread(target=_flood, args=(d.connect("flooder"), stop))
        flood.start()
        talker = Talker(sock)
        talker.start()
        until(lambda: d.ask({"verb": "show", "cell": "flooder"})["cell"]["rateLimited"], "a pause",
              0.05)
        time.sleep(4)
        stop.set()
        flood.join()
        disk.good()
        until(lambda: d.ask({"verb": "show", "cell": "a"})["cell"]["frames"] > len(talker.sent) // 2,
              "a daemon that reads again", 0.05)
        acks.wait(talker.end())
        d.stop()
        for e in named(d.events(), "guest.v1.agent_silenced"):
            at = e["data"]["hostMonotonicNs"]
            # Where this machine stands still, the guest may be silent indeed.
            assert e["data"]["cellId"] != "a" or not [
                sent for sent in talker.sent if at - 2.9e9 < sent < at - 1e9], "it spoke"


def what_arrived_while_the_receiver_stood_still_is_no_silence():
    """Its timers are the first that it looks at afterwards."""
    with Daemon("[receiver]\nkeepalive = 1s\nconnect_within = 1s\n", sign=False) as d:
        d.add("connected")
        d.add("new")
        sock = d.connect("connected")
        sock.sendall(hello(A, 1) + spawned(1))
        d.wait_for("guest.v1.process_spawned")
        stand_still(d.process.pid)
        stopped = time.monotonic_ns()
        sock.sendall(spawned(2))
        newcomer = d.connect("new")
        newcomer.sendall(hello(B, 1) + spawned(1))
        time.sleep(1.5)
        os.kill(d.process.pid, signal.SIGCONT)
        said = d.wait_for("guest.v1.process_spawned", 3)
        d.stop()
        read = {e["data"]["cellId"]: e["data"]["hostMonotonicNs"] for e in said}
        for e in named(d.events(), "guest.v1.agent_silenced"):
            data = e["data"]
            assert not stopped < data["hostMonotonicNs"] < read[data["cellId"]], e


# ---- the guest's own counters ----


def a_false_total_is_reported_once_and_changes_nothing():
    with Daemon() as d:
        d.add("a")
        sock = d.connect("a")
        sock.sendall(hello(A, 1) + heartbeat(1, observed=9000, dropped=5000))
        d.wait_metrics("cellos_host_telemetry_guest_dropped_total 5000\n")
        sock.sendall(heartbeat(1, observed=9000, dropped=0) * 3 +
                     heartbeat(1, observed=9001, dropped=5001))
        page = d.wait_metrics("cellos_host_telemetry_guest_dropped_total 5001\n")
        assert "cellos_host_telemetry_frames_repeated_total 0\n" in page
        d.stop()
        events = d.events()
        lies = named(events, "guest.v1.channel_violation")
        assert [(e["data"]["reason"], e["data"]["field"]) for e in lies] == [
            ("out_of_range", "dropped")]
        assert named(events, "stream.v1.sealed")[0]["data"]["guestDropped"] == 5001



def totals_go_on_in_the_next_stream_and_are_counted_once():
    """An agent counts since it started. The receiver is started again, and then changes its mode: each
    stream says the whole total, and the counters grow by what the agent dropped in the meantime."""
    config = "[metrics]\nper_cell = yes\n"
    with Daemon(config) as d:
        d.add("a")
        with d.connect("a") as sock:
            sock.sendall(hello(A, 1) + heartbeat(1, observed=9000, dropped=5000))
            d.wait_metrics("cellos_host_telemetry_guest_dropped_total 5000\n")
        d.stop()
        d.start()
        sock = d.connect("a")
        sock.sendall(hello(A, 1) + heartbeat(1, observed=9001, dropped=5001))
        sock.sendall(heartbeat(1, observed=9003, dropped=5003))
        page = d.wait_metrics("cellos_host_telemetry_guest_dropped_total 2\n")
        assert 'cell_guest_dropped_total{cell="a"} 2\n' in page, page
        d.base_config = d.base_config.replace("algorithm = ed25519\n", "algorithm = ed25519-log\n")
        d.configure(config)
        d.process.send_signal(signal.SIGHUP)
        d.wait_log("configuration applied")
        sock.sendall(heartbeat(1, observed=9004, dropped=5004))
        d.wait_metrics("cellos_host_telemetry_guest_dropped_total 3\n")
        d.stop()
        said = [e["data"]["guestDropped"] for e in named(d.events(), "stream.v1.sealed")]
        assert said == [5000, 5003, 5004], said
        d.verify()


if __name__ == "__main__":
    main()
