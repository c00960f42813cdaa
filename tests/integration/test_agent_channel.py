# SPDX-License-Identifier: MIT
"""The agent's channel when the host closes, resets, stalls, stays away and comes back."""

import os
import subprocess
import sys
import time

from agent import Agent, Host, of, source
from runner import PATIENCE, main, until

WALK = ("--process", "proc-walk", "--poll", "20", "--heartbeat", "200")


def files(host, *options):
    """An agent that sees nothing but what the test writes into a folder; the folder."""
    folder = host.file("watched")
    os.mkdir(folder)
    return folder, ("--process", "off", "--heartbeat", "200", "--inotify", folder, *options)


def touch(folder, *names):
    for name in names:
        os.mkdir(os.path.join(folder, name))


def observations(frames):
    return [f for f in frames if f["probe_source"] == "fs.inotify_fired"]


def the_session_goes_on_after_a_close():
    with Host() as host:
        folder, options = files(host)
        with Agent(host, *options):
            conn = host.accept()
            session = conn.frame()["detail"]["session"]
            touch(folder, "a")
            assert conn.until(source("fs.inotify_fired"))[-1]["seq"] == 1
            conn.close()
            touch(folder, "b", "c")
            conn = host.accept()
            hello = conn.frame()
            assert hello["probe_source"] == "telemetry.hello", "first on every connection"
            assert hello["detail"]["session"] == session
            assert hello["detail"]["next_seq"] == 2, "the oldest that is still to come"
            touch(folder, "d")
            got = conn.until(lambda f: f.get("detail", {}).get("name") == "d")
            assert [f["seq"] for f in observations(got)] == [2, 3, 4], "queued ones survive"


def a_reset_begins_a_new_session():
    with Host() as host:
        folder, options = files(host)
        with Agent(host, *options):
            conn = host.accept()
            session = conn.frame()["detail"]["session"]
            touch(folder, "a", "b")
            conn.until(lambda f: f.get("seq") == 2)
            # Closed with bytes unread: the guest's side is reset, as by a VM snapshot.
            touch(folder, "unread")
            until(conn.waiting, "bytes that nobody has read")
            conn.reset()
            touch(folder, "c")
            conn = host.accept()
            hello = conn.frame()
            assert hello["detail"]["session"] != session and hello["detail"]["next_seq"] == 1
            touch(folder, "d")
            got = observations(conn.until(lambda f: f.get("detail", {}).get("name") == "d"))
            assert [f["seq"] for f in got] == list(range(1, len(got) + 1)), got


def it_comes_back_for_ever():
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


def it_backs_off():
    with Host() as host, Agent(host, *WALK):
        times = []
        for _ in range(7):
            host.accept().close()
            times.append(time.monotonic())
        # 50 ms doubling, with jitter; a busy machine makes it longer, never shorter.
        assert times[-1] - times[0] > 0.5 * sum(0.05 * 2**i for i in range(6)), times


def a_stalled_host_costs_events_and_each_is_told():
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
            while conn.read(PATIENCE):
                pass
            frames = []
            while (f := conn.frame(0)) is not None:
                frames.append(f)
            bye = frames[-1]
            assert bye["probe_source"] == "telemetry.bye"
            seen = [f["seq"] for f in observations(frames)]
            assert seen == sorted(set(seen))
            missing = bye["detail"]["next_seq"] - 1 - len(seen)
            receipts = [f["detail"] for f in of(frames, "telemetry.dropped")]
            told = sum(d["queue_full"] + d["too_large"] + d["channel"] for d in receipts)
            assert missing > 0 and told == missing, (missing, told)
            assert bye["detail"]["dropped"] == missing
            numbers = set(range(1, bye["detail"]["next_seq"])) - set(seen)
            assert min(d["first_seq"] for d in receipts) == min(numbers)
            assert max(d["last_seq"] for d in receipts) == max(numbers)


def what_the_host_sends_is_thrown_away():
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
    sys.exit(main([the_session_goes_on_after_a_close, a_reset_begins_a_new_session,
                   it_comes_back_for_ever, it_backs_off,
                   a_stalled_host_costs_events_and_each_is_told, receipts_are_the_gap,
                   what_the_host_sends_is_thrown_away, a_full_log_does_not_stop_it,
                   children_are_not_slowed]))
