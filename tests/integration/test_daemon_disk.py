# SPDX-License-Identifier: MIT
"""The daemon and a disk that is full or fails: nothing that was read is lost, and it says so."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import threading
import time

from daemon import BadDisk, Daemon, no_preload
from oracle import named
from receiver import frame, hello, spawned
from runner import PATIENCE, main, need, until


def wait_ready(d, want, words=""):
    """Until /readyz has this status and these words: on a machine that stands still it may say
    something else first."""
    until(lambda: (answer := d.http("/readyz"))[0] == want and words in answer[1],
          lambda: d.http("/readyz"), 0.05)


def ends_with_a_line(path):
    with open(path, "rb") as f:
        data = f.read()
    return not data or data.endswith(b"\n")


def a_full_disk():
    with Daemon(start=False) as d:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", d.evidence],
                       check=True)
        try:
            d.start()
            d.add("a")
            sock = d.connect("a")
            ballast = os.path.join(d.evidence, "ballast")
            with open(ballast, "wb", buffering=0) as f:
                try:
                    while True:
                        f.write(b"x" * 4096)
                except OSError:
                    pass
            n = 200
            for i in range(1, n + 1):
                sock.sendall(spawned(i))
                time.sleep(0.001)
            wait_ready(d, 503, "No space left")
            assert "CANNOT WRITE" in d.run("status")
            time.sleep(2.2)
            assert d.log().count("cannot write evidence") == 1, "told once, not at each retry"
            # At most whole lines, even now. A try that fails cuts off at once what it has written.
            until(lambda: ends_with_a_line(d.segments()[-1]), "a file of whole lines")
            os.unlink(ballast)
            wait_ready(d, 200)
            d.wait_for("guest.v1.process_spawned", n)
            assert "written again" in d.log()
            d.stop()
            d.verify()
        finally:
            if d.process.poll() is None:
                d.kill()
            subprocess.run(["umount", d.evidence], check=True)


def syncs_that_fail():
    if no_preload():
        return
    with BadDisk() as disk, Daemon(env=disk.env) as d:
        d.add("a")
        sock = d.connect("a")
        sock.sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        disk.set("fdatasync=fail")
        sock.sendall(spawned(2))
        wait_ready(d, 503, "Input/output error")
        # Each try writes it, and cuts it off when it is not synced.
        until(lambda: not [e for e in d.events() if e["data"].get("seq") == 2],
              "evidence without what is not synced", 0)
        assert "cannot be written: Input/output error" in d.add("b", want=1)
        disk.good()
        wait_ready(d, 200)
        d.wait_for("guest.v1.process_spawned", 2)
        d.add("b")
        d.stop()
        d.verify()


def syncs_of_the_interval_that_fail():
    if no_preload():
        return
    with BadDisk() as disk, Daemon("[evidence]\nsync = interval\n", env=disk.env) as d:
        d.add("a")
        sock = d.connect("a")
        disk.set("fdatasync=fail")
        sock.sendall(spawned(1))
        wait_ready(d, 503, "Input/output error")
        sock.sendall(spawned(2))
        d.wait_for("guest.v1.process_spawned", 2)
        disk.good()
        wait_ready(d, 200)
        d.stop()
        d.verify()


def stopping_with_a_disk_that_fails():
    """It ends within stop_timeout all the same, and says what is missing."""
    if no_preload():
        return
    with BadDisk() as disk, Daemon("[receiver]\nstop_timeout = 1s\n", env=disk.env) as d:
        for cell in ("a", "b", "c"):
            d.add(cell)
        d.wait_for("stream.v1.opened", 3)
        d.run("cell", "remove", "c")
        disk.set("fdatasync=fail")
        d.stop(want=1)
        disk.good()
        unsealed = [line.split("cell=")[1] for line in d.log().splitlines()
                    if 'msg="not sealed"' in line]
        assert sorted(unsealed) == ["a", "b"] and "within stop_timeout" in d.log(), d.log()
        d.configure("")
        d.start()
        d.stop()
        d.streams()


def an_orderly_end_closes_the_sockets_first_and_seals_what_was_read():
    """The disk hangs and a neighbour floods when SIGTERM comes."""
    if no_preload():
        return
    with BadDisk() as disk, Daemon("[receiver]\nmax_inflight = 1M\nstop_timeout = 2min\n",
                                   env=disk.env) as d:
        for cell in ("quiet", "flood"):
            d.add(cell)
        quiet, flood = d.connect("quiet"), d.connect("flood")
        disk.set("fdatasync=600000")
        quiet.sendall(spawned(1) + spawned(2))
        d.wait_for_totals(frames=2)
        flood.settimeout(0.2)
        try:
            while True:
                flood.sendall(spawned(1) * 1000)
        except TimeoutError:
            pass
        until(lambda: d.ask({"verb": "status"})["frames"] > 2, "a frame of the flood that was read")
        d.process.send_signal(signal.SIGTERM)
        until(lambda: not (os.path.exists(d.file("quiet") + "_9001") or
                           os.path.exists(d.file("flood") + "_9001")), "the sockets to go")
        assert d.process.poll() is None, "it ended first"
        for cell in ("quiet", "flood"):
            try:
                d.connect(cell)
                raise AssertionError("a listener that nobody accepts from")
            except FileNotFoundError:
                pass
        disk.good()
        assert d.process.wait(PATIENCE) == 0, d.log()
        streams = {events[0]["data"]["cellId"]: events for events in d.streams().values()}
        for cell, events in streams.items():
            assert events[-1]["type"].endswith("stream.v1.sealed"), cell
            assert events[-1]["data"]["reason"] == "shutdown"
        assert len(named(streams["quiet"], "guest.v1.process_spawned")) == 2
        assert named(streams["flood"], "guest.v1.process_spawned")
        d.verify()


def waiting_connections_are_read_before_the_seal():
    """Its predecessor has ended, which nobody could hear while the disk took nothing."""
    if no_preload():
        return
    with BadDisk() as disk, Daemon("[receiver]\nmax_inflight = 1M\n", env=disk.env) as d, \
            concurrent.futures.ThreadPoolExecutor(1) as pool:
        d.add("a", "--rate", "1000000")
        first = d.connect("a")
        first.sendall(hello())
        d.wait_for("guest.v1.telemetry_hello")
        disk.set("pwritev=fail")
        first.settimeout(1)
        try:
            while True:
                first.sendall(spawned(1) * 100)
        except TimeoutError:
            first.close()
        second = d.connect("a")
        second.sendall(hello("fedcba9876543210") + frame(seq=1, comm="second", detail={"ppid": 1}))
        removed = pool.submit(d.ask, {"verb": "remove", "cell": "a"})
        until(lambda: "being added or removed" in d.add("a", want=73), "a removal")
        disk.good()
        # The seal may come later than the answer, where the machine stands still.
        answer = removed.result()
        assert answer["ok"] or "seal is not in the log yet" in answer["error"], answer
        d.wait_for("stream.v1.sealed")
        comms = [e["data"].get("guestComm") for e in d.events()]
        assert comms.count("second") == 1, comms[-5:]
        second.close()
        d.stop()
        d.verify()


def the_last_sync_that_fails():
    """With sync = interval all is written when the daemon ends, and may not be on disk: it says so."""
    if no_preload():
        return
    with BadDisk() as disk, Daemon("[evidence]\nsync = interval\n", env=disk.env) as d:
        d.add("a")
        disk.set("fdatasync=fail")
        d.connect("a").sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        d.stop(want=1)
        assert "the last of the evidence may not be on disk" in d.log()


def a_slow_disk():
    """Reading pauses when so much waits for the disk; nothing is lost, and all else is answered."""
    if no_preload():
        return
    with BadDisk() as disk, Daemon("[receiver]\nmax_inflight = 1M\n", env=disk.env) as d:
        for cell in "abc":
            d.add(cell)
        socks = {cell: d.connect(cell) for cell in "abc"}
        disk.set("fdatasync=1500")
        n = 2000
        senders = [threading.Thread(target=sock.sendall,
                                    args=(b"".join(spawned(i) for i in range(1, n + 1)),))
                   for sock in socks.values()]
        for thread in senders:
            thread.start()
        until(lambda: "reads_paused_total 0\n" not in d.http("/metrics")[1], "a pause", 0.1)
        # 503 where this machine let it stand still for five seconds.
        until(lambda: d.http("/healthz") == (200, "ok\n"), "a loop that turns all the same", 0.1)
        inflight = json.loads(d.run("status", "--json"))["log"]["inflightBytes"]
        # What one turn may read beyond the bound: 64 KiB of frames.
        assert inflight < 5 * 1024 * 1024, inflight
        disk.good()
        for thread in senders:
            thread.join()
        d.wait_for("guest.v1.process_spawned", 3 * n)
        d.stop()
        for events in d.streams().values():
            seqs = [e["data"]["seq"] for e in named(events, "guest.v1.process_spawned")]
            assert seqs == list(range(1, n + 1))
        d.verify()


def a_disk_that_takes_too_long():
    """Who adds or removes a cell is told in time what it waits for."""
    if no_preload():
        return
    with BadDisk() as disk, Daemon(env=disk.env) as d, \
            concurrent.futures.ThreadPoolExecutor(2) as pool:
        d.add("a")
        disk.set("fdatasync=600000")
        d.connect("a").sendall(spawned(1))
        until(lambda: json.loads(d.run("status", "--json"))["log"]["inflightBytes"], "a write")
        added, removed = pool.submit(d.add, "b", want=1), \
            pool.submit(d.run, "cell", "remove", "a", want=1)
        until(lambda: "is being added or removed" in d.add("a", want=73), "a removal")
        # A disk that hangs gives no error; the age of what waits for it shows it.
        wait_ready(d, 503, "oldest event in flight")
        assert d.ask({"verb": "status"})["log"]["oldestInflightMs"] > 4000
        assert "the disk is slow" in added.result()
        assert not os.path.exists(d.file("b") + "_9001"), "it is as if it was never asked for"
        assert "seal is not in the log yet" in removed.result()
        disk.good()
        until(lambda: not os.listdir(d.file("state/cells")),
              lambda: os.listdir(d.file("state/cells")), 0.1)
        wait_ready(d, 200)
        d.add("a")
        d.add("b")
        d.stop()
        d.verify()


if __name__ == "__main__":
    need(os.geteuid() == 0, "needs root: a tmpfs in a mount namespace of its own")
    if "CELLOS_IN_NAMESPACE" not in os.environ:
        os.environ["CELLOS_IN_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable] + sys.argv)
    main()
