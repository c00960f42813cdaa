# SPDX-License-Identifier: MIT
"""What the receiver remembers of the guests' numbers over its own end, and what it finds when it starts
again (delivery.md section 2)."""

import os
import signal

import oracle
from daemon import Daemon
from guest import Acks, Guest, hello
from oracle import named
from receiver import frame, spawned
from runner import PATIENCE, case, main, stand_still
from test_delivery import A, gaps, seqs, violations


def the_numbers_survive_every_end_of_the_receiver():
    """What was durable and not acknowledged comes again, and is in the log once."""
    with Daemon() as d:
        d.add("a")
        guest = Guest(lambda: d.connect("a"), A)
        for ends in range(6):
            guest.observe(200)
            guest.settle()
            # Durable, but the agent never learns it.
            guest.observe(50)
            before = {**guest.ring}
            guest.turn()
            d.wait_for("guest.v1.process_spawned", 250 * (ends + 1))
            guest.hang_up()
            guest.ring = before
            if ends % 2:
                d.kill()
            else:
                d.stop()
            d.start()
        guest.settle()
        d.stop()
        events = d.events()
        assert seqs(events) == list(range(1, 1501))
        assert not gaps(events) and not violations(events), (gaps(events), violations(events))
        d.verify(None)


def the_memory_in_the_log_bounds_the_reading():
    """So much evidence that the hello is read no more when the daemon starts again."""
    with Daemon("[receiver]\nrate = 1000000\nrate_bytes = 2147483647\n[evidence]\n"
                "rotate_size = 8M\n", sign=False) as d:
        d.add("idle")
        d.add("busy")
        idle = Guest(lambda: d.connect("idle"), A)
        idle.observe(40)
        idle.settle()
        idle.observe(2)
        kept = {**idle.ring}
        idle.settle()
        idle.hang_up()
        busy = d.connect("busy")
        one = frame("capability.denied", version=1, comm="x" * 64) * 500
        while sum(os.path.getsize(s) for s in d.segments()) < 40 * 2**20:
            busy.sendall(one)
        busy.close()
        assert any(e["type"].endswith("log.v1.sessions") for e in d.log_events())
        d.kill()
        d.start()
        idle.ring = kept
        idle.observe(3)
        idle.settle()
        d.stop()
        # Only these are worth the oracle's time: there are 40 MiB of the others.
        mine = [oracle.check_line(line, None, in_tree=False) for line in d.lines()
                if b'"cellId":"idle"' in line]
        assert seqs(mine) == list(range(1, 46)) and not gaps(mine)


def what_was_not_read_at_the_end_comes_again():
    """An orderly end reads nothing more of an agent with acknowledgements, and says how much was left."""
    with Daemon() as d:
        d.add("a")
        sock = d.connect("a")
        acks = Acks(sock)
        sock.sendall(hello(A, 1) + spawned(1))
        acks.wait(1)
        data = b"".join(spawned(seq) for seq in range(2, 300))
        stand_still(d.process.pid)
        sock.sendall(data)
        os.kill(d.process.pid, signal.SIGTERM)
        os.kill(d.process.pid, signal.SIGCONT)
        acks.wait_end()
        assert d.process.wait(PATIENCE) == 0, d.log()
        end = named(d.events(), "guest.v1.agent_disconnected")[0]["data"]
        sealed = d.events()[-1]["data"]
        assert (end["reason"], sealed["reason"]) == ("shutdown", "shutdown")
        assert end["bytes"] + end["unreadBytes"] == len(hello(A, 1) + spawned(1) + data), end
        assert (sealed["unreadBytes"], sealed["nextSeq"]) == (end["unreadBytes"], end["nextSeq"])
        settled = acks.numbers[-1]
        assert settled == end["nextSeq"] - 1, (acks.numbers, end)
        d.start()
        with d.connect("a") as sock:
            sock.sendall(hello(A, settled + 1, 300) + b"".join(
                spawned(seq) for seq in range(settled + 1, 300)))
            Acks(sock).wait(299)
        d.stop()
        events = d.events()
        assert seqs(events) == list(range(1, 300)) and not gaps(events)
        d.verify()


def _change(path, old, new):
    """The bytes stand once in the file; the new ones take their place."""
    with open(path, "r+b") as f:
        data = f.read()
        assert len(old) == len(new) and data.count(old) == 1, (old, data.count(old))
        f.seek(data.index(old))
        f.write(new)


def damaged_entries_are_read_past():
    """A line that somebody changed costs nothing but itself: nothing is evidence twice, and what the
    guest did not lose is no gap."""
    for name, old, new in (("no JSON", b'"seq":20,', b'"seq"{\xff\xfe,'),
                           ("two lines", b'"seq":20,', b'"seq"\n20,'),
                           # A connection's end, if it is there, has this number too.
                           ("a hello", b'"nextSeq":51,"queue', b'"nextSeq":-1,"queue')):
        with case(name), Daemon() as d:
            d.add("a")
            guest = Guest(lambda d=d: d.connect("a"), A)
            guest.observe(50)
            guest.settle()
            guest.hang_up()
            d.kill()
            d.start()
            guest.observe(50)
            kept = {seq: guest.ring[seq] for seq in range(95, 101)}
            guest.settle()
            guest.hang_up()
            d.kill()
            path, = [p for p in d.segments() if old in open(p, "rb").read()]
            _change(path, old, new)
            d.start()
            assert "a new log begins" in d.log() and "damaged" in d.log(), d.log()
            guest.ring = kept
            guest.observe(5)
            guest.settle()
            d.wait_metrics("cellos_host_telemetry_frames_repeated_total 6\n")
            d.stop()
            lines = [line for path in d.segments()[-1:] for line in open(path, "rb")]
            assert not any(b"telemetry_gap" in line for line in lines)
            found = [n for n in range(1, 120) for line in lines if f'"seq":{n},'.encode() in line]
            assert sorted(found) == [101, 102, 103, 104, 105], found


def what_is_gone_from_the_log_is_a_gap():
    """The agent has freed what was acknowledged, and then somebody deletes the log."""
    with Daemon() as d:
        d.add("a")
        guest = Guest(lambda: d.connect("a"), A)
        guest.observe(50)
        guest.settle()
        guest.hang_up()
        d.kill()
        for path in d.segments():
            os.unlink(path)
        d.start()
        guest.observe(5)
        guest.settle()
        d.stop()
        events = d.events()
        assert gaps(events) == [("session_start", 1, 50)] and seqs(events) == [51, 52, 53, 54, 55]


def a_segment_that_is_no_file_stops_the_start():
    """A FIFO would hang whoever opens it for reading."""
    for name in ("the newest one", "the next one", "one of long ago"):
        with case(name), Daemon() as d:
            d.add("a")
            d.kill()
            path = d.segments()[-1]
            if name == "the newest one":
                os.unlink(path)
            else:
                path = path.replace("0001.jsonl", "0099.jsonl" if "next" in name else "0000.jsonl")
            os.mkfifo(path)
            d.start(wait=False)
            assert d.process.wait(PATIENCE) == 73, d.log()
            assert f"{path}: expected a regular file" in d.log(), d.log()
            os.unlink(path)


if __name__ == "__main__":
    main()
