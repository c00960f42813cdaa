# SPDX-License-Identifier: MIT
"""The agent's channel when the host closes, resets, stalls, stays away and comes back."""

import os
import struct
import subprocess
import time
from contextlib import contextmanager
from types import SimpleNamespace

from agent import Agent, Host, of, source
from runner import PATIENCE, main, until

WALK = ("--process", "proc-walk", "--poll", "20", "--heartbeat", "200")


def files(host, *options):
    """An agent that sees nothing but what the test writes into a folder; the folder."""
    folder = host.file("watched")
    os.mkdir(folder)
    return folder, ("--process", "off", "--heartbeat", "200", "--fs", "inotify",
                    "--inotify", folder, *options)


@contextmanager
def connected():
    """An agent that has said hello to a host, which has settled nothing so far."""
    with Host(acks=False) as host:
        folder, options = files(host)
        with Agent(host, *options) as agent:
            conn = host.accept()
            hello = conn.frame()["detail"]
            conn.ack(0)
            yield SimpleNamespace(host=host, folder=folder, agent=agent, conn=conn, hello=hello)


def touch(folder, *names):
    for name in names:
        os.mkdir(os.path.join(folder, name))


def observations(frames):
    return [f for f in frames if f["probe_source"] == "fs.inotify_fired"]


def named(name):
    return lambda f: f.get("detail", {}).get("name") == name


def numbers(frames):
    return [f["seq"] for f in frames if "seq" in f]


def the_session_goes_on_after_a_close():
    with Host() as host:
        folder, options = files(host)
        with Agent(host, *options):
            conn = host.accept()
            first = conn.frame()["detail"]
            assert first["acks"] is True and first["next_seq"] == 1 and first["assigned"] == 1
            touch(folder, "a")
            assert conn.until(source("fs.inotify_fired"))[-1]["seq"] == 1
            conn.close()
            touch(folder, "b", "c")
            conn = host.accept()
            hello = conn.frame()
            assert hello["probe_source"] == "telemetry.hello", "first on every connection"
            assert hello["detail"]["session"] == first["session"]
            assert hello["detail"]["next_seq"] == 2, "the oldest that is not settled"
            touch(folder, "d")
            assert numbers(conn.until(named("d"))) == [2, 3, 4], "queued ones survive"


def frames_that_are_not_settled_are_sent_again():
    with connected() as c:
        host, conn, folder = c.host, c.conn, c.folder
        touch(folder, "a", "b", "c")
        conn.until(named("c"))
        conn.ack(1)
        conn.close()
        conn = host.accept()
        hello = conn.frame()["detail"]
        assert hello["next_seq"] == 2 and hello["assigned"] == 4, hello
        again = [conn.frame(), conn.frame()]
        assert numbers(again) == [2, 3], "directly after hello, ascending"
        assert [f["detail"]["name"] for f in again] == ["b", "c"]
        # What the host says late, or twice, or about less than before, changes nothing.
        for number in (3, 3, 1, 0, 2):
            conn.ack(number)
        touch(folder, "d")
        assert numbers(conn.until(named("d"))) == [4]
        conn.ack(4)
        conn.close()
        assert host.accept().frame()["detail"]["next_seq"] == 5


def an_acknowledgement_can_come_in_pieces():
    with Host(acks=False) as host:
        folder, options = files(host)
        with Agent(host, *options) as agent:
            conn = host.accept()
            conn.frame()
            touch(folder, "a", "b")
            conn.until(named("b"))
            for byte in b"\0" + b"\x01" + struct.pack("<Q", 1) + b"\0\0" + b"\x01" + struct.pack("<Q", 2):
                conn.sock.sendall(bytes([byte]))
                agent.wait_idle()
            conn.close()
            assert host.accept().frame()["detail"]["next_seq"] == 3


def another_byte_makes_it_deaf():
    with connected() as c:
        host, conn, folder = c.host, c.conn, c.folder
        touch(folder, "a", "b")
        conn.until(named("b"))
        conn.ack(1)
        conn.sock.sendall(b"\x02")
        conn.ack(2)
        conn.close()
        assert host.accept().frame()["detail"]["next_seq"] == 2


def a_host_that_was_set_back():
    """It has less than it said before: what the agent was told is settled is gone for good."""
    with connected() as c:
        host, conn, folder, session = c.host, c.conn, c.folder, c.hello["session"]
        touch(folder, "a", "b")
        conn.until(named("b"))
        conn.ack(2)
        conn.close()
        conn = host.accept()
        hello = conn.frame()["detail"]
        assert hello["session"] == session and hello["next_seq"] == 3
        conn.ack(1)
        touch(folder, "c")
        assert numbers(conn.until(named("c"))) == [3]


def a_guest_that_was_set_back():
    """The host has more than was ever sent: another session, and everything again."""
    for number in (3, 2**63 - 1, 2**64 - 1):
        with connected() as c:
            host, conn, folder, session = c.host, c.conn, c.folder, c.hello["session"]
            touch(folder, "a", "b")
            conn.until(named("b"))
            conn.ack(1)
            c.agent.wait_idle()
            conn.ack(number)
            conn = host.accept()
            hello = conn.frame()["detail"]
            assert hello["session"] != session
            assert hello["next_seq"] == 1 and hello["assigned"] == 2, hello
            again = conn.frame()
            assert again["seq"] == 1 and again["detail"]["name"] == "b"


def a_poisoned_frame_is_given_up():
    with connected() as c:
        host, conn, folder = c.host, c.conn, c.folder
        touch(folder, "poison", "after")
        for _ in range(5):
            conn.until(named("poison"))
            conn.close()
            conn = host.accept()
            hello = conn.frame()["detail"]
        assert hello["next_seq"] == 2, hello
        got = conn.until(source("telemetry.dropped"))
        assert named("after")(got[0]) and got[0]["seq"] == 2
        lost = got[-1]["detail"]
        assert lost["channel"] == 1 and lost["first_seq"] == lost["last_seq"] == 1, lost
        assert got[-1]["seq"] == 3, "a receipt has a number"


def a_unix_reset_is_an_ordinary_end():
    with Host() as host:
        folder, options = files(host)
        with Agent(host, *options):
            conn = host.accept()
            session = conn.frame()["detail"]["session"]
            touch(folder, "a")
            conn.until(named("a"))
            # Closed with bytes unread: the guest's side is reset.
            touch(folder, "unread")
            until(conn.waiting, "bytes that nobody has read")
            conn.reset()
            conn = host.accept()
            hello = conn.frame()
            assert hello["detail"]["session"] == session and hello["detail"]["next_seq"] == 2
            assert numbers(conn.until(named("unread"))) == [2]


def a_host_that_never_acknowledges():
    """As the reference's listener: after 30 s of taking what it is sent, sent means settled."""
    with Host(acks=False) as host:
        folder, options = files(host)
        with Agent(host, *options) as agent:
            conn = host.accept()
            session = conn.frame()["detail"]["session"]
            touch(folder, "a")
            hello = conn.until(source("telemetry.hello"))[-1]["detail"]
            assert hello["acks"] is False and hello["session"] == session
            conn.close()
            conn = host.accept()
            hello = conn.frame()["detail"]
            assert hello["acks"] is True and hello["next_seq"] == 2, "another host is asked again"
            touch(folder, "b")
            assert numbers(conn.until(named("b"))) == [2]
            agent.process.terminate()
            assert conn.until(source("telemetry.bye"))[-1]["detail"]["dropped"] == 0


def the_end_waits_for_its_acknowledgement():
    with Host(acks=False) as host:
        folder, options = files(host)
        with Agent(host, *options) as agent:
            conn = host.accept()
            conn.frame()
            conn.ack(0)
            touch(folder, "a")
            conn.until(named("a"))
            agent.process.terminate()
            conn.until(source("telemetry.bye"))
            conn.ack(1)
            assert agent.process.wait(PATIENCE) == 0
        with Agent(host, *options) as agent:
            conn = host.accept()
            conn.frame()
            conn.ack(0)
            touch(folder, "b")
            conn.until(named("b"))
            begin = time.monotonic()
            agent.process.terminate()
            conn.until(source("telemetry.bye"))
            assert agent.process.wait(PATIENCE) == 0, "but not for ever"
            assert time.monotonic() - begin >= 0.5


def a_loop_of_one_process_is_folded():
    with Host() as host:
        folder, options = files(host)
        path = os.path.join(folder, "again")
        with Agent(host, *options) as agent:
            conn = host.accept()
            conn.frame()
            changes = 200
            for _ in range(changes // 2):  # two kinds in turn: inotify itself merges equal ones
                os.mkdir(path)
                os.rmdir(path)
            agent.process.terminate()
            frames = conn.until(source("telemetry.bye"))
            got = observations(frames)
            assert len(got) < changes / 2, got
            assert sum(f["detail"].get("repeat", 1) for f in got) == changes, got
            assert frames[-1]["detail"]["observed"] == frames[-1]["detail"]["sent"] == changes


def the_agent_reconnects_without_end():
    with Host() as host:
        folder, options = files(host)
        with Agent(host, *options) as agent:
            conn = host.accept()
            conn.frame()
            host.stop_listening()
            conn.close()
            touch(folder, "while-away")
            time.sleep(1.5)
            assert agent.process.poll() is None
            host.listen()
            conn = host.accept()
            assert conn.frame()["probe_source"] == "telemetry.hello"
            conn.until(lambda f: f.get("detail", {}).get("name") == "while-away")


def reconnects_back_off():
    """50 ms doubling, of which up to half is left out at random. They count from the agent's last
    look at its clock, so one pause can look shorter here, but not their sum."""
    begin = time.monotonic()
    with Host() as host, Agent(host, *WALK):
        for _ in range(7):
            host.accept().close()
        seconds = time.monotonic() - begin
        # After a connection of a second, where this machine stood still, it begins anew. So the least
        # is three pauses, that second, and three pauses.
        assert seconds >= 0.5 * sum(0.05 * 2**i for i in range(3)) * 2 + 1, seconds


def a_stalled_host_costs_events_and_each_is_counted():
    with Host() as host:
        folder, options = files(host, "--queue", "16")
        with Agent(host, *options) as agent:
            conn = host.accept()
            conn.frame()
            # The host reads nothing: sockets and queue fill up.
            for i in range(6000):
                touch(folder, f"n{i}-{'x' * 60}")
            agent.wait_idle()
            conn.until(source("telemetry.dropped"))
            touch(folder, "last")
            conn.until(lambda f: f["probe_source"] == "telemetry.heartbeat" and
                       f["detail"]["dropped"] > 0 and f["detail"]["observed"] ==
                       f["detail"]["sent"] + f["detail"]["dropped"])


def receipts_are_the_gap():
    with Host() as host:
        folder, options = files(host, "--queue", "16")
        with Agent(host, *options) as agent:
            conn = host.accept()
            for burst in range(3):
                for i in range(3000):
                    touch(folder, f"b{burst}-{i}-{'x' * 60}")
                agent.wait_idle()
                while conn.waiting():
                    conn.read(0)
            agent.process.terminate()
            frames = conn.until(source("telemetry.bye"))
            bye = frames[-1]
            assert bye["probe_source"] == "telemetry.bye"
            seen = numbers(frames)
            assert seen == sorted(set(seen))
            missing = bye["detail"]["next_seq"] - 1 - len(seen)
            receipts = [f["detail"] for f in of(frames, "telemetry.dropped")]
            told = sum(d["queue_full"] + d["too_large"] + d["channel"] for d in receipts)
            assert missing > 0 and told == missing, (missing, told)
            assert bye["detail"]["dropped"] == missing
            lost = set(range(1, bye["detail"]["next_seq"])) - set(seen)
            assert min(d["first_seq"] for d in receipts) == min(lost)
            assert max(d["last_seq"] for d in receipts) == max(lost)
            assert sum(d["fs"] for d in receipts) == missing


def other_bytes_of_the_host_are_ignored():
    with Host() as host, Agent(host, *WALK):
        conn = host.accept()
        conn.frame()
        for _ in range(50):
            conn.sock.sendall(b"\0" * 4096)
        for _ in range(4):
            conn.until(source("telemetry.heartbeat"))


def a_full_log_does_not_stop_it():
    read_end, write_end = os.pipe()
    with Host() as host, Agent(host, *WALK, "--log-level", "debug", stderr=write_end):
        os.set_blocking(write_end, False)
        try:
            while True:
                os.write(write_end, b"x" * 4096)
        except BlockingIOError:
            pass
        os.set_blocking(write_end, True)
        for _ in range(3):
            conn = host.accept()
            conn.until(source("telemetry.heartbeat"))
            conn.close()  # is logged, but nobody reads the log
    os.close(read_end)
    os.close(write_end)


def children_are_not_slowed():
    """A host that never reads: the workload's own calls go on."""
    with Host() as host, Agent(host, *WALK, "--queue", "16"):
        host.accept()
        for _ in range(100):
            subprocess.run(["true"], check=True, timeout=PATIENCE)


if __name__ == "__main__":
    main()
