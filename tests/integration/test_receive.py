# SPDX-License-Identifier: MIT
"""The real receiver: what guests say becomes evidence, what they do wrong becomes evidence too."""

import itertools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time

import oracle
from guest import Acks
from guest import hello as agent_hello
from oracle import named
from receiver import (HASH, RECEIVER, Receiver, body, bye, closed_by_host, cpu_seconds, frame,
                      heartbeat, hello, no_more_descriptors, say, send_until_nobody_reads, spawned,
                      wait_until_read)
from runner import PATIENCE, main, stand_still, until


def frames_become_events():
    with Receiver() as r:
        sock = r.connect()
        sock.sendall(hello() + spawned(1) + heartbeat(2, observed=1) + bye(2))
        sock.close()
        r.wait_for("guest.v1.agent_disconnected")
        events = r.stop()
        assert [e["type"].removeprefix(oracle.PREFIX) for e in events] == [
            "stream.v1.opened", "guest.v1.agent_connected", "guest.v1.telemetry_hello",
            "guest.v1.process_spawned", "guest.v1.telemetry_bye", "guest.v1.agent_disconnected",
            "stream.v1.sealed"], "no event for a heartbeat"
        data = events[3]["data"]
        assert data["cellId"] == "cell-1" and data["runId"] == "run-1"
        assert data["specSignatureHash"] == HASH
        assert data["probeSource"] == "process.spawned" and data["guestPid"] == 7
        assert data["guestComm"] == "w" and data["guestMonotonicNs"] == 42 and data["seq"] == 1
        assert data["detail"] == {"ppid": 1} and data["connection"] == 1
        assert data["contentVersion"] == 2
        assert events[1]["data"]["peerPid"] == os.getpid()
        assert events[5]["data"]["reason"] == "eof" and events[5]["data"]["frames"] == 4
        sealed = events[6]["data"]
        assert sealed["reason"] == "shutdown" and sealed["frames"] == 4
        assert sealed["guestObserved"] == 1 and sealed["framesRejected"] == 0
        with open("/proc/sys/kernel/random/boot_id") as f:
            assert events[0]["data"]["hostBootId"] == f.read().strip()


def unsigned_is_the_event_itself():
    with Receiver(sign=False) as r:
        r.connect().sendall(spawned(1))
        r.wait_for("guest.v1.process_spawned")
        r.stop()
        assert "not everything is signed" in r.verify()


def once_ends_with_the_first_connection():
    with Receiver("--once") as r:
        r.connect().close()
        assert r.process.wait(PATIENCE) == 0
        events = oracle.check(r.lines(), r.keys)
        assert events[-1]["data"]["reason"] == "once"
        assert not os.path.exists(r.path), "the socket is gone"


def golden_frames():
    """Every entry of the vectors, on a connection of its own, after a good frame."""
    with open(os.path.join(os.environ["CELLOS_VECTORS"], "frames.json")) as f:
        entries = json.load(f)
    with Receiver() as r:
        for entry in entries:
            sock = r.connect()
            sock.sendall(frame(version=1) + bytes.fromhex(entry["frame"]))
            if entry["result"] == "truncated":
                sock.close()
            elif entry["result"] not in ("accepted", "unsupported_version", "unknown_source"):
                assert closed_by_host(sock), f"{entry['name']}: the connection stays"
            sock.close()
            # Its end is told before the next one connects.
            r.wait_for("guest.v1.agent_disconnected", entries.index(entry) + 1)
        events = r.stop()
        by_connection = {}
        for e in events:
            if "connection" in e["data"]:
                by_connection.setdefault(e["data"]["connection"], []).append(e)
        for number, entry in enumerate(entries, 1):
            mine = by_connection[number]
            assert named(mine, "guest.v1.process_spawned"), f"{entry['name']}: the good frame"
            if entry["result"] == "accepted":
                got = mine[-2]["data"]
                for key, want in entry["want"].items():
                    assert got[key] == want, (entry["name"], key, got[key], want)
                assert got.get("detail", {}) == entry["want"].get("detail", {}), entry["name"]
                assert set(got) <= set(entry["want"]) | {
                    "authority", "cellId", "runId", "specSignatureHash", "hostReceivedAt",
                    "hostMonotonicNs", "streamId", "sequence", "connection"}, entry["name"]
            elif entry["result"] in ("unsupported_version", "unknown_source"):
                assert mine[-1]["data"]["reason"] == "eof", entry["name"]
            else:
                bad = named(mine, "guest.v1.channel_violation")
                assert len(bad) == 1 and bad[0]["data"]["reason"] == entry["result"], entry["name"]
                if "field" in entry:
                    assert bad[0]["data"]["field"] == entry["field"], entry["name"]
                assert isinstance(bad[0]["data"]["offset"], int)
                assert mine[-1]["data"]["reason"] == "wire_error"
        assert named(events, "guest.v1.version_rejected")
        assert named(events, "guest.v1.unknown_source")


def a_frame_cut_at_each_byte():
    whole = frame(seq=1, detail={"ppid": 1})
    with Receiver() as r:
        for cut in range(1, len(whole)):
            sock = r.connect()
            sock.sendall(frame(version=1) + whole[:cut])
            sock.close()
            r_count = cut
        r.wait_for("guest.v1.agent_disconnected", r_count)
        events = r.stop()
        bad = named(events, "guest.v1.channel_violation")
        assert len(bad) == len(whole) - 1
        assert {e["data"]["reason"] for e in bad} == {"truncated"}
        assert len(named(events, "guest.v1.process_spawned")) == len(whole) - 1


def a_frame_cut_after_each_byte_and_its_rest_later():
    with Receiver() as r:
        sock = r.connect()
        sock.sendall(hello())
        cut, seq = 1, 1
        while cut < len(spawned(seq)):
            sock.sendall(spawned(seq)[:cut])
            wait_until_read(sock)
            # The rest comes with the next frame in one read.
            sock.sendall(spawned(seq)[cut:] + spawned(seq + 1))
            wait_until_read(sock)
            cut, seq = cut + 1, seq + 2
        sock.close()
        r.wait_for("guest.v1.agent_disconnected")
        events = r.stop()
        seqs = [e["data"]["seq"] for e in named(events, "guest.v1.process_spawned")]
        assert seqs == list(range(1, seq)), seqs
        assert not named(events, "guest.v1.channel_violation")


def a_frame_in_single_bytes():
    with Receiver() as r:
        sock = r.connect()
        for byte in hello() + spawned(1):
            sock.sendall(bytes([byte]))
        r.wait_for("guest.v1.process_spawned")
        r.stop()


def the_largest_frame():
    for size, fine in ((65536, True), (65537, False)):
        with Receiver() as r:
            sock = r.connect()
            data = body("process.spawned", version=1, x=b"")
            data = body("process.spawned", version=1, x=b"x" * (size - len(data) - 2))
            assert len(data) == size, len(data)
            say(sock, struct.pack("<I", size) + data)
            if fine:
                r.wait_for("guest.v1.process_spawned")
            else:
                assert closed_by_host(sock)
            sock.close()
            bad = named(r.stop(), "guest.v1.channel_violation")
            assert [e["data"]["reason"] for e in bad] == ([] if fine else ["frame_length"])


def assert_one_a_second(events):
    """By the clock of the events, but for the last, which comes early with the seal."""
    stamps = [e["data"]["hostMonotonicNs"] for e in events]
    for before, after in zip(stamps, stamps[1:-1]):
        assert after - before >= 900_000_000, (before, after)


def a_second_connection_is_contested():
    with Receiver() as r:
        first = r.connect()
        first.sendall(hello())
        r.wait_for("guest.v1.agent_connected")
        second = r.connect()
        say(second, frame(comm="impostor", version=1))
        assert closed_by_host(second)
        first.settimeout(PATIENCE)
        assert first.recv(1) == b"\0", "the first was asked whether it lives"
        first.sendall(spawned(1))
        r.wait_for("guest.v1.process_spawned")
        for _ in range(20):
            r.connect().close()

        def counted():
            return sum(e["data"]["count"] for e in named(r.wait_for("guest.v1.channel_contested"),
                                                         "guest.v1.channel_contested"))

        until(lambda: counted() == 21, counted)
        events = r.stop()
        contested = named(events, "guest.v1.channel_contested")
        assert contested[0]["data"]["reason"] == "second_connection"
        assert contested[0]["data"]["peerPid"] == os.getpid()
        assert_one_a_second(contested)
        assert sum(e["data"]["count"] for e in contested) == 21
        assert not [e for e in events if e["data"].get("guestComm") == "impostor"]


def a_dead_connection_is_superseded():
    with Receiver() as r:
        first = r.connect()
        first.sendall(hello())
        r.wait_for("guest.v1.agent_connected")
        first.shutdown(socket.SHUT_RD)  # what is written to it now fails, and no end is read
        second = r.connect()
        second.sendall(hello("fedcba9876543210") + spawned(1))
        events = r.wait_for("guest.v1.process_spawned")
        assert named(events, "guest.v1.agent_disconnected")[0]["data"]["reason"] == "superseded"
        assert named(events, "guest.v1.process_spawned")[0]["data"]["connection"] == 2
        first.close()
        r.stop()


def connections_without_a_free_descriptor_are_closed():
    # Without a signer, whose start leaves numbers free below those in use.
    with Receiver(sign=False) as r:
        # It has all that it needs once it has served somebody.
        r.connect().close()
        r.wait_for("guest.v1.agent_disconnected")
        no_more_descriptors(r.process.pid, but=1)
        first = r.connect()
        first.sendall(hello())
        r.wait_for("guest.v1.telemetry_hello")
        assert "no file descriptor" not in r.log(), "the last one was enough"
        for _ in range(20):
            assert closed_by_host(r.connect())
        before = cpu_seconds(r.process.pid)
        time.sleep(1)
        # Turning all the time would be a whole second of it.
        assert cpu_seconds(r.process.pid) - before < 0.5, "it waits for something it cannot take"
        assert r.log().count("no file descriptor is left") == 1, r.log()
        first.sendall(spawned(1))
        r.wait_for("guest.v1.process_spawned")
        first.close()
        r.wait_for("guest.v1.agent_disconnected", 2)
        r.connect().sendall(spawned(2))
        r.wait_for("guest.v1.process_spawned", 2)
        r.stop()


def the_wrong_peer_is_refused():
    with Receiver("--peer-uid", "12345") as r:
        sock = r.connect()
        assert closed_by_host(sock)
        events = r.wait_for("guest.v1.channel_contested")
        data = named(events, "guest.v1.channel_contested")[0]["data"]
        assert data["reason"] == "peer_credentials" and data["peerUid"] == os.getuid()
        assert not named(r.stop(), "guest.v1.agent_connected")


def silences(events):
    """What was said of silence, in its order: (name, data)."""
    return [(e["type"].rsplit(".", 1)[1], e["data"]) for e in events
            if e["type"].rsplit(".", 1)[1] in ("agent_silenced", "agent_resumed")]


def assert_each_once(events):
    """Silence and its end in turn. How often depends on the machine: it may stand still between a
    connect and its hello."""
    names = [name for name, _ in silences(events)]
    assert names == (["agent_silenced", "agent_resumed"] * len(names))[:len(names)], names


def silence_is_reported_once_and_so_is_its_end():
    with Receiver("--keepalive", "300") as r:
        sock = r.connect()
        sock.sendall(hello())

        def first():
            """The silence after the hello; a slow machine may have been silent before it too."""
            name, data = silences(r.wait_for("guest.v1.agent_silenced"))[-1]
            return name == "agent_silenced" and data["lastFrameAgeMs"] and data

        silenced = until(first, "silence")
        assert silenced["reason"] == "no_frames" and silenced["windowMs"] == 300
        assert silenced["connected"] is True
        assert silenced["lastFrameAgeMs"] >= 300
        time.sleep(0.7)
        sock.sendall(heartbeat(1))
        sock.close()
        r.wait_for("guest.v1.agent_disconnected")
        r.wait_for("guest.v1.agent_resumed")
        until(lambda: silences(r.wait_for("guest.v1.agent_silenced"))[-1][1]["sequence"] >
              silenced["sequence"] + 1 and first(), "silence after its end")
        events = r.stop()
        assert_each_once(events)
        (_, resumed), (_, silenced) = silences(events)[-2:]
        assert resumed["silentMs"] >= 900
        ended = named(events, "guest.v1.agent_disconnected")[0]["data"]["sequence"]
        # On a machine that is slow to close the socket the second silence comes before its end.
        assert silenced["connected"] is (silenced["sequence"] < ended)


def silence_after_a_bye_is_reported_once():
    with Receiver("--keepalive", "200") as r:
        sock = r.connect()
        sock.sendall(hello() + bye())
        sock.close()

        def last(reason):
            name, data = silences(r.wait_for("guest.v1.agent_silenced"))[-1]
            return name == "agent_silenced" and data["reason"] == reason and data

        r.wait_for("guest.v1.agent_disconnected")
        assert until(lambda: last("after_bye"), "silence after the bye")["connected"] is False
        time.sleep(0.7)
        # One more frame, and the guest is back; silence after it is no longer after a bye.
        sock = r.connect()
        sock.sendall(frame(version=1))
        r.wait_for("guest.v1.process_spawned")
        until(lambda: last("no_frames"), "silence after the frame")
        events = r.stop()
        assert_each_once(events)
        reasons = [data.get("reason") for _, data in silences(events)]
        assert reasons[-3:] == ["after_bye", None, "no_frames"], reasons


def a_guest_that_never_connects_is_reported():
    with Receiver("--connect-within", "200") as r:
        told = named(r.wait_for("guest.v1.agent_silenced"), "guest.v1.agent_silenced")[0]["data"]
        assert told["reason"] == "never_connected" and told["windowMs"] == 200
        assert told["connected"] is False and told["lastFrameAgeMs"] is None
        r.connect().sendall(hello())
        r.wait_for("guest.v1.agent_resumed")
        r.stop()
    with Receiver("--connect-within", "0", "--keepalive", "0") as r:
        time.sleep(0.4)
        r.connect().sendall(hello())
        time.sleep(0.3)
        assert not named(r.stop(), "guest.v1.agent_silenced")


def gaps_are_reported():
    with Receiver() as r:
        sock = r.connect()
        sock.sendall(hello() + spawned(1) + spawned(4) + heartbeat(7) + spawned(7))
        sock.close()
        r.wait_for("guest.v1.agent_disconnected")
        sock = r.connect()  # the same session goes on
        sock.sendall(hello(next_seq=10) + spawned(10))
        sock.close()
        r.wait_for("guest.v1.agent_disconnected", 2)
        sock = r.connect()  # a new one begins from 1
        sock.sendall(hello("aaaaaaaaaaaaaaaa") + spawned(1) + bye(2))
        r.wait_for("guest.v1.telemetry_bye")
        events = r.stop()
        gaps = [(e["data"]["firstMissing"], e["data"]["lastMissing"])
                for e in named(events, "guest.v1.telemetry_gap")]
        assert gaps == [(2, 3), (5, 6), (8, 9)], gaps
        assert events[-1]["data"]["gaps"] == 3


def refusals_are_reported_once_a_second():
    with Receiver() as r:
        sock = r.connect()
        for _ in range(500):
            sock.sendall(frame(version=0x100) + frame("kernel.magic", version=1))
        sock.sendall(spawned(1))
        r.wait_for("guest.v1.version_rejected", 2)
        events = r.stop()
        for name in ("guest.v1.version_rejected", "guest.v1.unknown_source"):
            told = named(events, name)
            assert sum(e["data"]["count"] for e in told) == 500, name
            assert_one_a_second(told)
        assert named(events, "guest.v1.version_rejected")[0]["data"]["contentVersion"] == 0x100
        assert named(events, "guest.v1.unknown_source")[0]["data"]["source"] == "kernel.magic"
        assert named(events, "guest.v1.process_spawned"), "the connection stays"
        assert events[-1]["data"]["framesRejected"] == 1000


def floods_are_slowed_and_nothing_is_refused():
    until(_a_flood_is_paused, "a machine that does not pause the flood itself", 0)


def _a_flood_is_paused():
    """False where the machine stood still for most of the time that is the flood's to wait."""
    with Receiver("--rate", "500") as r:
        sock = r.connect()
        begin = time.monotonic()
        for _ in range(30):
            sock.sendall(b"".join(frame(version=1) for _ in range(100)))
        sock.close()
        r.wait_for("guest.v1.agent_disconnected")
        seconds = time.monotonic() - begin
        events = r.stop()
        limited = named(events, "guest.v1.rate_limited")
        assert len(named(events, "guest.v1.process_spawned")) == 3000
        assert events[-1]["data"]["framesRejected"] == 0
        if not limited:
            return False
        assert {e["data"]["limit"] for e in limited} == {"events"}
        # Twice the rate at once, the rest in its time, most of which was a pause. What was read
        # before the bucket was empty came on top: one read.
        assert seconds > 2.5, seconds
        paused = sum(e["data"]["pausedMs"] for e in limited)
        assert paused < 1000 * (seconds + 1), (paused, seconds)
        return paused > 1000


def long_lines_are_slowed_by_their_bytes():
    """What JSON escapes is six times as long in the evidence: that is what counts."""
    until(_long_lines_are_paused, "a machine that does not pause the lines itself", 0)


def _long_lines_are_paused():
    """False where the machine stood still for most of the time that is theirs to wait."""
    with Receiver("--rate-bytes", "65536") as r:
        sock = r.connect()
        one = frame("capability.denied", version=2, detail={
            "syscall": "\x01" * 1024, "error": "EPERM", "exe": "\x01" * 1024})
        sock.sendall(one * 60)  # 13 KiB of evidence each
        sock.close()
        r.wait_for("guest.v1.agent_disconnected")
        events = r.stop()
        limited = named(events, "guest.v1.rate_limited")
        assert len(named(events, "guest.v1.capability_denied")) == 60
        assert {e["data"]["limit"] for e in limited} <= {"bytes"}
        # 780 KiB, of which 512 at once.
        return sum(e["data"]["pausedMs"] for e in limited) > 1500


def checkpoints_come_while_something_happens():
    with Receiver("--checkpoint", "200") as r:
        r.connect().sendall(hello() + spawned(1) + heartbeat(2, observed=5, dropped=3))

        def checkpoints():
            return [e["data"] for e in named(r.wait_for("stream.v1.checkpoint"),
                                             "stream.v1.checkpoint")]

        # A slow machine may have made one before the frames came.
        totals = until(lambda: (last := checkpoints()[-1])["frames"] == 3 and last, checkpoints)
        assert totals["lastHeartbeatAgeMs"] >= 0
        assert totals["guestDropped"] == 3 and totals["guestSent"] == 2
        count = len(checkpoints())
        time.sleep(0.8)
        r.stop()
        # One more may follow what it counted itself.
        assert len(checkpoints()) <= count + 1, "checkpoints, and nothing happened"


def hostile_texts_stay_texts():
    evil = 'a"b\\c\n\t\x00\x01/\u20ac\U0001f512\u2028</script>'
    with Receiver() as r:
        r.connect().sendall(frame("fs.inotify_fired", comm=evil[:20], seq=1, detail={
            "path": evil, "event": "modify", "cellId": "forged", "name": "\x00" * 1024}))
        got = named(r.wait_for("guest.v1.fs_inotify_fired"), "guest.v1.fs_inotify_fired")[0]
        assert got["data"]["guestComm"] == evil[:20]
        assert got["data"]["detail"] == {"path": evil, "event": "modify", "name": "\x00" * 1024}
        assert got["data"]["cellId"] == "cell-1"
        r.stop()


def the_largest_event_fits_a_line():
    with Receiver() as r:
        texts = {k: "\x01" * 1024 for k in ("syscall", "capability", "exe", "via")}
        r.connect().sendall(frame("capability.denied", comm="\x01" * 64, pid=2**32 - 1,
                                  at=2**63 - 1, detail={**texts, "error": "E" * 1024,
                                                        "repeat": 2**64 - 1,
                                                        "last_ns": 2**64 - 1}))
        r.wait_for("guest.v1.capability_denied")
        r.stop()


def numbers_keep_every_digit():
    with Receiver() as r:
        r.connect().sendall(frame("process.exited", seq=2**63 - 1,
                                  detail={"exit_code": 2**64 - 1, "ppid": 2**53 + 1}))
        got = named(r.wait_for("guest.v1.process_exited"), "guest.v1.process_exited")[0]["data"]
        assert got["seq"] == 2**63 - 1
        assert got["detail"] == {"exitCode": 2**64 - 1, "ppid": 2**53 + 1}
        r.stop()


def a_flood_is_sealed_whole():
    with Receiver("--rate", "1000000000") as r:
        sock = r.connect()
        chunk = b"".join(frame(version=1) for _ in range(1000))
        for _ in range(6):
            sock.sendall(chunk)
        sock.close()
        r.wait_for("guest.v1.agent_disconnected")
        assert len(named(r.stop(), "guest.v1.process_spawned")) == 6000


def bytes_sent_before_the_end_are_evidence():
    """No next run serves this cell: so the end reads what an agent that could send it again has
    sent, and acknowledges it."""
    with Receiver() as r:
        sock = r.connect()
        acks = Acks(sock)
        sock.sendall(agent_hello("00000000000000aa", 1))
        acks.wait(0)
        stand_still(r.process.pid)
        sock.sendall(b"".join(spawned(seq) for seq in range(1, 501)))
        r.process.terminate()
        os.kill(r.process.pid, signal.SIGCONT)
        events = r.stop()
        assert [e["data"]["seq"] for e in named(events, "guest.v1.process_spawned")] == list(
            range(1, 501))
        end = named(events, "guest.v1.agent_disconnected")[0]["data"]
        assert (end["reason"], end["nextSeq"], end["unreadBytes"]) == ("shutdown", 501, 0)
        acks.wait(500)


def an_end_without_a_reader_is_an_end():
    """Standard output takes nothing: after five seconds it says so, and is gone."""
    read_end, write_end = os.pipe()
    with Receiver("--rate", "1000000000", sign=False, stdout=write_end) as r:
        os.close(write_end)
        sock = r.connect()
        sock.sendall(frame(version=1) * 400)
        wait_until_read(sock)
        r.process.terminate()
        assert r.process.wait(PATIENCE) == 1
        assert "standard output does not take the rest" in r.log(), r.log()
        os.close(read_end)


def a_slow_reader_of_evidence_loses_nothing():
    read_end, write_end = os.pipe()
    with Receiver("--rate", "1000000000", sign=False, stdout=write_end) as r:
        os.close(write_end)
        sock = r.connect()
        chunk = b"".join(frame(version=1) for _ in range(1000))
        for _ in range(10):
            sock.sendall(chunk)
        time.sleep(0.5)
        sock.close()
        r.process.terminate()
        with os.fdopen(read_end, "rb") as f:
            evidence = f.read()
        assert r.process.wait(PATIENCE) == 0
        assert len(named(oracle.check(evidence), "guest.v1.process_spawned")) == 10000


def heartbeats_wait_for_a_slow_reader_too():
    """Each with a gap before it is an event: nobody takes them, so no more of them are read."""
    read_end, write_end = os.pipe()
    with Receiver("--rate", "1000000000", sign=False, stdout=write_end) as r:
        os.close(write_end)
        sock = r.connect()
        sock.sendall(hello())
        step = itertools.count(1)
        for _ in range(100):
            chunk = b"".join(heartbeat(2 * next(step)) for _ in range(1000))
            if send_until_nobody_reads(r, sock, chunk, 1) == 0:
                break
        else:
            raise AssertionError("all of it is read, and kept in memory")
        sock.close()
        gaps = named(r.stop_and_read(read_end), "guest.v1.telemetry_gap")
        assert len(gaps) > 1000


def short_connections_wait_while_the_output_is_not_read():
    """Connections that come, break the protocol and go: three events each."""
    read_end, write_end = os.pipe()
    with Receiver("--rate", "1000000000", "--rate-bytes", "2147483648", sign=False, stdout=write_end) as r:
        os.close(write_end)
        for _ in range(40000):
            r.visit(bytes(4))
        events = r.stop_and_read(read_end)
        # An eighth of 64 MiB of them at most, and what was in the backlog at the end.
        assert 100 < len(named(events, "guest.v1.agent_connected")) < 20000
        assert len(events) < 60000, len(events)


def connections_above_their_rate_are_closed_and_counted():
    with Receiver("--rate-connections", "10") as r:
        for _ in range(2000):
            r.visit(bytes(4))
        told = refused = 0

        def all_of_them():
            nonlocal told, refused
            events = r.wait_for("guest.v1.rate_limited")
            told = len(named(events, "guest.v1.agent_connected"))
            refused = sum(e["data"]["count"] for name in ("rate_limited", "channel_contested")
                          for e in named(events, f"guest.v1.{name}"))
            return told + refused >= 2000

        until(all_of_them, lambda: (told, refused), 0.1)
        events = r.stop()
        limited = named(events, "guest.v1.rate_limited")
        assert told >= 20 and told + refused == 2000
        assert {e["data"]["limit"] for e in limited} == {"connections"}
        assert events[-1]["data"]["framesRejected"] == len(
            named(events, "guest.v1.channel_violation"))


def a_newcomer_waits_while_nothing_is_read():
    """The first has gone, but its end cannot be read yet: the second is no contest."""
    read_end, write_end = os.pipe()
    with Receiver("--rate", "1000000000", sign=False, stdout=write_end) as r:
        os.close(write_end)
        first = r.connect()
        send_until_nobody_reads(r, first, b"".join(frame(version=1) for _ in range(1000)), 10000)
        first.close()
        second = r.connect()
        second.sendall(frame(version=1, comm="second"))
        time.sleep(0.8)
        evidence = b""
        while b'"second"' not in evidence:
            assert select.select([read_end], [], [], PATIENCE)[0], "the second is not heard"
            evidence = evidence[-1000:] + os.read(read_end, 1 << 20)
        assert not closed_by_host(second, 0.3)
        r.process.kill()
        os.close(read_end)


def evidence_without_a_reader_ends_the_receiver():
    read_end, write_end = os.pipe()
    with Receiver(sign=False, stdout=write_end) as r:
        os.close(write_end)
        # The stream is opened: it is the connection that finds nobody.
        assert b"stream.v1.opened" in os.read(read_end, 65536)
        os.close(read_end)
        r.visit(spawned(1))
        assert r.process.wait(PATIENCE) == 1
        assert "nobody reads the evidence" in r.log()


def a_full_disk_is_waited_for():
    """On a small tmpfs in a mount namespace of its own."""
    script = """
set -e
mount -t tmpfs -o size=256k tmpfs "$1"
head -c 200000 /dev/zero > "$1/filler"
exec "$2" receive --uds "$1/v.sock" --cell-id c --run-id r --spec-hash "$3" --rate 1000000 \
    > "$1/evidence.jsonl" 2> "$4"
"""
    with Receiver(sign=False) as other:  # for its folder only
        mnt, err = other.file("mnt"), other.file("err")
        os.mkdir(mnt)

        open(err, "w").close()

        def said():
            with open(err) as f:
                return f.read()

        run = subprocess.Popen(["unshare", "-m", "sh", "-c", script, "sh", mnt, RECEIVER, HASH,
                                err])
        try:
            root = f"/proc/{run.pid}/root{mnt}"
            until(lambda: 'msg="listening"' in said(), said)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            fd = os.open(root, os.O_PATH)
            sock.connect(f"/proc/self/fd/{fd}/v.sock_9001")
            os.close(fd)
            sock.sendall(b"".join(frame(version=1) for _ in range(250)))
            until(lambda: "No space left" in said(), said)
            os.unlink(f"{root}/filler")
            # Its evidence goes with its namespace: the file is open before the end.
            with open(f"{root}/evidence.jsonl", "rb") as f:
                evidence = b""

                def all_written():
                    nonlocal evidence
                    evidence += f.read()
                    return evidence.count(b"guest.v1.process_spawned") == 250

                until(all_written, said)
                run.terminate()
                assert run.wait(PATIENCE) == 0
                evidence += f.read()
        finally:
            run.kill()
            run.wait()
        assert len(named(oracle.check(evidence), "guest.v1.process_spawned")) == 250
        assert said().count("cannot write evidence") == 1, said()


if __name__ == "__main__":
    main()
