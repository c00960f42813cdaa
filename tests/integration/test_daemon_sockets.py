# SPDX-License-Identifier: MIT
"""The cells' sockets under `serve`: what may be at their paths, and whose they are; and the
service manager's socket."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

from daemon import Daemon
from oracle import named
from receiver import HASH, closed_by_host, cpu_seconds, no_more_descriptors, spawned
from runner import PATIENCE, main, until


def add(d, cell, base, *options, want=0):
    return d.run("cell", "add", "--cell-id", cell, "--run-id", "r", "--spec-hash", HASH,
                 "--uds", base, *options, want=want)


def connect(path):
    """As the VMM does inside its jail: whatever the length of the path."""
    fd = os.open(os.path.dirname(path), os.O_PATH)
    try:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(f"/proc/self/fd/{fd}/{os.path.basename(path)}")
        return sock
    finally:
        os.close(fd)


def its_own_stale_socket_is_replaced():
    with Daemon() as d:
        path = d.add("a")
        d.kill()
        stale = os.stat(path).st_ctime_ns
        d.start()
        d.connect("a").sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        assert os.stat(path).st_ctime_ns != stale, "another one: its inode's number may be the same"
        d.stop()
        assert not os.path.exists(path)


def what_took_its_place_is_left_alone():
    with Daemon() as d:
        taken = {}
        for cell in ("file", "listener", "folder", "link", "free"):
            path = d.add(cell)
            taken[cell] = path
        d.wait_for("stream.v1.opened", 5)
        first = {e["data"]["cellId"]: e["data"]["streamId"] for e in d.events()}
        d.kill()
        for cell in ("file", "listener", "folder", "link"):
            os.unlink(taken[cell])
        with open(taken["file"], "w") as f:
            f.write("precious")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(taken["listener"])
        listener.listen()
        os.mkdir(taken["folder"])
        victim = socket.socket(socket.AF_UNIX)
        victim.bind(d.file("victim"))
        os.symlink(d.file("victim"), taken["link"])
        d.start()
        assert d.log().count("a cell of the last run cannot be served") == 4
        assert [c["cellId"] for c in d.ask({"verb": "list"})["cells"]] == ["free"]
        with open(taken["file"]) as f:
            assert f.read() == "precious"
        assert os.path.isdir(taken["folder"]) and os.path.islink(taken["link"])
        assert os.path.exists(d.file("victim"))
        # It was asked whether it lives, but never by a connection.
        listener.setblocking(False)
        try:
            listener.accept()
            raise AssertionError("the daemon connected to a foreign listener")
        except BlockingIOError:
            pass
        socket.socket(socket.AF_UNIX).connect(taken["listener"])
        # Their places free again, they come back.
        d.kill()
        listener.close()
        for cell in ("file", "listener", "link"):
            os.unlink(taken[cell])
        os.rmdir(taken["folder"])
        d.start()
        assert len(d.ask({"verb": "list"})["cells"]) == 5
        d.stop()
        for e in named(d.events(), "stream.v1.opened"):
            cell, previous = e["data"]["cellId"], e["data"].get("previousStreamId")
            assert previous in (None, first[cell]) or cell == "free"


def unserved(d):
    return {c["cellId"]: c["unserved"] for c in d.ask({"verb": "list"})["unserved"]}


def what_cannot_be_served_is_listed_and_tried_again():
    with Daemon() as d:
        os.mkdir(d.file("vm"))
        path = add(d, "gone", d.file("vm/a")).strip()
        for cell in ("fifo", "folder", "long", "name", "fine", "removed"):
            d.add(cell)
        d.wait_for("stream.v1.opened", 7)
        streams = {e["data"]["cellId"]: e["data"]["streamId"]
                   for e in named(d.events(), "stream.v1.opened")}
        d.kill()
        states = {cell: d.file(f"state/cells/{cell}.json")
                  for cell in ("fifo", "folder", "long", "name", "removed")}
        kept = {cell: open(state).read() for cell, state in states.items()}
        for cell in states:
            os.unlink(states[cell])
        os.mkfifo(states["fifo"])
        os.mkdir(states["folder"])
        with open(states["long"], "w") as f:
            f.write(kept["long"] + " " * (16385 - len(kept["long"])))
        with open(states["name"], "w") as f:
            f.write(kept["long"])
        with open(states["removed"], "w") as f:
            f.write("{}")
        os.unlink(path)
        os.rmdir(d.file("vm"))
        d.start()
        assert [c["cellId"] for c in d.ask({"verb": "list"})["cells"]] == ["fine"]
        why = unserved(d)
        assert set(why) == {"gone", *states}, why
        for cell, part in (("gone", "cannot open the folder"), ("fifo", "not a regular file"),
                           ("folder", "not a regular file"), ("long", "longer than 16384"),
                           ("name", "not its file's name"), ("removed", "expected an object")):
            assert part in why[cell], why
        assert d.ask({"verb": "show", "cell": "gone"})["cell"]["unserved"] == why["gone"]
        assert "gone: UNSERVED" in d.run("cell", "list") and "UNSERVED" in d.run("status")
        status, body = d.http("/readyz")
        assert status == 503 and "unserved" in body and "fifo" in body, body
        assert "cellos_host_telemetry_cells_unserved 6\n" in d.http("/metrics")[1]
        # Mended, each is served again, and its new stream names the last one.
        os.mkdir(d.file("vm"))
        os.unlink(states["fifo"])
        os.rmdir(states["folder"])
        for cell in ("fifo", "folder", "long", "name"):
            with open(states[cell] + ".t", "w") as f:
                f.write(kept[cell])
            os.rename(states[cell] + ".t", states[cell])
        d.run("cell", "remove", "removed")
        assert not os.path.exists(states["removed"])
        until(lambda: not unserved(d))
        assert {c["cellId"] for c in d.ask({"verb": "list"})["cells"]} == {
            "gone", "fifo", "folder", "long", "name", "fine"}
        connect(path).sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        until(lambda: d.http("/readyz")[0] == 200)
        # The log's own stream says both.
        def of_log(kind):
            return {e["data"]["cellId"]: e["data"].get("why")
                    for e in named(d.log_events(), f"log.v1.cell_{kind}")}

        until(lambda: set(of_log("served")) == {"gone", "fifo", "folder", "long", "name"})
        assert of_log("unserved") == why
        # And after one more restart as well.
        d.kill()
        d.start()
        assert len(d.ask({"verb": "list"})["cells"]) == 6 and not unserved(d)
        d.stop()
        again = {}
        for e in named(d.events(), "stream.v1.opened"):
            again.setdefault(e["data"]["cellId"], []).append(e["data"])
        for cell, opened in again.items():
            if cell != "removed":
                assert opened[1]["previousStreamId"] == streams[cell], cell
                assert opened[2]["previousStreamId"] == opened[1]["streamId"], cell


def what_could_not_be_read_again_is_not_added():
    with Daemon() as d:
        assert "too long to be remembered" in add(d, "a", "/x" * 8200, want=64)
        assert "control characters" in add(d, "a", d.file('v\n<3>msg="forged"'), want=64)
        assert "forged" not in d.log()
        assert os.listdir(d.file("state/cells")) == []


def a_refused_add_is_no_connection_in_anybodys_evidence():
    with Daemon() as d:
        d.add("a")
        assert "somebody listens" in d.run(
            "cell", "add", "--cell-id", "b", "--run-id", "r", "--spec-hash", HASH, "--uds",
            d.file("a"), want=73)
        d.connect("a").sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        d.stop()
        assert [e["data"]["connection"] for e in named(d.events(), "guest.v1.agent_connected")] == [1]


def long_paths_and_bad_folders():
    with Daemon() as d:
        folder = d.file("/".join(["x" * 60] * 4))
        os.makedirs(folder)
        path = add(d, "long", f"{folder}/v.sock").strip()
        assert len(path) > 200 and path == f"{folder}/v.sock_9001"
        connect(path).sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        d.kill()
        d.start()
        connect(path).sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned", 2)
        os.mkdir(d.file("real"))
        os.symlink(d.file("real"), d.file("link"))
        assert "symbolic link" in add(d, "b", d.file("link/v"), want=73)
        assert d.file("none") in add(d, "b", d.file("none/v"), want=73)
        assert "name too long" in add(d, "b", d.file("n" * 250), want=73).lower()
        assert "absolute" in d.ask({"verb": "add", "options": {
            "cell-id": "b", "run-id": "r", "spec-hash": HASH, "uds": "v"}})["error"]
        assert os.listdir(d.file("real")) == []
        assert os.listdir(d.file("state/cells")) == ["long.json"], "what was refused left nothing"
        d.run("cell", "remove", "long")
        assert os.listdir(folder) == []


def who_asks_without_a_descriptor_left_is_closed():
    with Daemon(sign=False) as d:
        d.add("a")
        sock = d.connect("a")
        sock.sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        no_more_descriptors(d.process.pid)
        for _ in range(40):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(d.control)
                assert closed_by_host(client)
        with d.connect("a") as other:
            assert closed_by_host(other)
        before = cpu_seconds(d.process.pid)
        time.sleep(1)
        assert cpu_seconds(d.process.pid) - before < 0.5, "it waits for something it cannot take"
        assert d.log().count("no file descriptor is left") == 2, d.log()  # for each listener
        sock.close()
        d.wait_for("guest.v1.agent_disconnected")
        assert d.ask({"verb": "show", "cell": "a"})["ok"], "there is one again"
        d.wait_metrics("connections_no_descriptor_total 1\n")
        d.stop()
        d.verify()


def mode_and_owner_are_right_at_every_instant():
    if os.geteuid() != 0:
        print("skipped: needs root, to give sockets away", flush=True)
        return
    seen, done = set(), threading.Event()
    with Daemon() as d:
        jail = d.file("jail")
        os.mkdir(jail)
        assert "writable by --socket-owner" in add(d, "v", f"{jail}/v", "--socket-owner",
                                                   "1234:5678", want=77)
        os.chown(jail, 1234, 5678)
        os.chmod(d.dir, 0o755)

        def look():
            while not done.is_set():
                try:
                    st = os.lstat(f"{jail}/v_9001")
                    seen.add((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid))
                except FileNotFoundError:
                    pass

        thread = threading.Thread(target=look)
        thread.start()
        try:
            for i in range(60):
                add(d, "v", f"{jail}/v", "--socket-owner", "1234:5678", "--socket-mode", "0620")
                if i % 10 == 5:
                    d.kill()
                    d.start()
                d.run("cell", "remove", "v")
        finally:
            done.set()
            thread.join()
        # Whose the daemon's own files are has not changed by it.
        assert {os.stat(p).st_uid for p in d.segments()} == {0}
    assert seen == {(0o620, 1234, 5678)}, seen


ATTACK = """
import os, random, socket, sys
jail, victims = sys.argv[1:]
path, tmp = jail + "/v_9001", jail + "/tmp"
while True:
    try:
        what = random.randrange(5)
        if what == 0:
            os.symlink(victims + random.choice(["/file", "/socket", "/none", "/folder"]), tmp)
            os.rename(tmp, path)
        elif what == 1:
            os.unlink(path)
        elif what == 2:
            os.rename(path, tmp)
        elif what == 3:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
        else:
            socket.socket(socket.AF_UNIX).bind(path)
    except OSError:
        pass
    try:
        if random.randrange(4) == 0:
            os.unlink(tmp)
    except OSError:
        pass
"""


def the_folders_owner_gains_nothing_by_swapping():
    if os.geteuid() != 0:
        print("skipped: needs root, to attack as another user", flush=True)
        return

    def state(folder):
        found = {}
        for root, folders, files in os.walk(folder):
            for name in [""] + folders + files:
                st = os.lstat(os.path.join(root, name))
                found[os.path.join(root, name)] = (st.st_ino, st.st_mode, st.st_uid, st.st_gid,
                                                   st.st_size, st.st_mtime_ns)
        return found

    with Daemon() as d, tempfile.TemporaryDirectory() as victims:
        os.chmod(d.dir, 0o755)
        jail = d.file("jail")
        os.mkdir(jail)
        os.chown(jail, 1234, 5678)
        os.chmod(jail, 0o777)  # the receiver has no right to pass over its mode
        os.mkdir(f"{victims}/folder")
        with open(f"{victims}/file", "w") as f:
            f.write("precious")
        socket.socket(socket.AF_UNIX).bind(f"{victims}/socket")
        for name in ("file", "socket"):
            os.chmod(f"{victims}/{name}", 0o600)
        before = state(victims)
        attack = subprocess.Popen(["setpriv", "--reuid", "1234", "--regid", "5678",
                                   "--clear-groups", sys.executable, "-c", ATTACK, jail, victims])
        added = 0
        try:
            for i in range(150):
                answer = d.ask({"verb": "add", "options": {
                    "cell-id": "v", "run-id": "r", "spec-hash": HASH, "uds": f"{jail}/v",
                    **({"socket-owner": "1234:5678"} if i % 2 else {})}})
                assert answer["ok"] or answer["status"] in (73, 77), answer
                added += answer["ok"]
                if i % 25 == 24:
                    d.kill()
                    d.start()
                d.ask({"verb": "remove", "cell": "v"})
            assert attack.poll() is None
        finally:
            attack.kill()
            attack.wait()
        assert state(victims) == before
        print(f"{added} of 150 adds came through the attack")
        assert 0 < added < 150, "both outcomes were tried"
        # What root made is root's, and what it gave away is not more than was asked for.
        os.path.lexists(f"{jail}/v_9001") and os.unlink(f"{jail}/v_9001")
        add(d, "v", f"{jail}/v")


class Manager:
    """The service manager's end of $NOTIFY_SOCKET."""

    def __init__(self, abstract=False):
        self.dir = tempfile.TemporaryDirectory()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"\0cellos-test-{os.getpid()}" if abstract else f"{self.dir.name}/notify"
        self.sock.bind(name)
        self.sock.settimeout(PATIENCE)
        self.env = {"NOTIFY_SOCKET": name.replace("\0", "@")}

    def wait(self, *wanted):
        """Until such a message comes; those before it."""
        before = []
        while True:
            message = self.sock.recv(4096).decode()
            if all(w in message.splitlines() or any(line.startswith(w) for line in
                                                    message.splitlines()) for w in wanted):
                return before
            before.append(message)


def the_service_manager_is_told():
    manager = Manager()
    with Daemon(env={**manager.env, "WATCHDOG_USEC": "300000"}) as d:
        assert not any("WATCHDOG" in m for m in manager.wait("READY=1")), "nothing before it"
        begin = time.monotonic()
        for _ in range(5):
            manager.wait("WATCHDOG=1")
        print(f"5 watchdog messages of 300 ms each in {time.monotonic() - begin:.2f} s")
        d.add("a")
        manager.wait("STATUS=1 cells, 0 connected")
        sock = d.connect("a")
        manager.wait("STATUS=1 cells, 1 connected")
        d.process.send_signal(signal.SIGHUP)
        manager.wait("RELOADING=1", "MONOTONIC_USEC=")
        assert manager.wait("READY=1") == []
        d.configure("[nonsense]\n")
        d.process.send_signal(signal.SIGHUP)
        manager.wait("RELOADING=1")
        assert manager.wait("READY=1") == [], "refused, and it runs on"
        # A loop that does not turn says nothing.
        d.process.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        manager.sock.setblocking(False)
        try:
            while True:
                manager.sock.recv(4096)
        except BlockingIOError:
            pass
        time.sleep(0.5)
        try:
            assert not manager.sock.recv(4096)
        except BlockingIOError:
            pass
        manager.sock.settimeout(PATIENCE)
        d.process.send_signal(signal.SIGCONT)
        manager.wait("WATCHDOG=1")
        d.process.send_signal(signal.SIGTERM)
        manager.wait("STOPPING=1")
        assert d.process.wait(PATIENCE) == 0
        sock.close()


def without_a_watchdog_none_is_fed():
    manager = Manager(abstract=True)
    with Daemon(env={**manager.env, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}) as d:
        manager.wait("READY=1")
        time.sleep(0.7)
        d.process.send_signal(signal.SIGTERM)
        assert not any("WATCHDOG" in m for m in manager.wait("STOPPING=1")), "that is another's"


if __name__ == "__main__":
    main([its_own_stale_socket_is_replaced, what_took_its_place_is_left_alone,
          what_cannot_be_served_is_listed_and_tried_again,
          what_could_not_be_read_again_is_not_added,
          a_refused_add_is_no_connection_in_anybodys_evidence,
          long_paths_and_bad_folders, who_asks_without_a_descriptor_left_is_closed,
          mode_and_owner_are_right_at_every_instant,
          the_folders_owner_gains_nothing_by_swapping, the_service_manager_is_told,
          without_a_watchdog_none_is_fed])
