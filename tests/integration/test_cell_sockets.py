# SPDX-License-Identifier: MIT
"""The cells' sockets, whichever verb serves them: what may stand at their paths and whose they are.
The tests of both verbs have a parameter, the verb; after them stand those of restarts of `serve`."""

import ctypes
import itertools
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading

import oracle
from daemon import Daemon
from oracle import named
from receiver import HASH, RECEIVER, Receiver, frame, spawned
from runner import case, main, until


def cell_options(cell, base):
    return ["--cell-id", cell, "--run-id", "r", "--spec-hash", HASH, "--uds", base]


class Receive:
    """`receive`: a process for each cell."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.receiver = None

    def file(self, name):
        return os.path.join(self.folder.name, name)

    def refused(self, options, want):
        """What it prints when it ends with this exit code."""
        run = subprocess.run([RECEIVER, "receive", *options], capture_output=True, text=True)
        assert run.returncode == want and not run.stdout, run
        return run.stderr

    def serve(self, base, *options):
        self.receiver = Receiver(*options, base=base, sign=False)
        return self.receiver.path

    def declare(self, path):
        """A frame through the socket becomes an event."""
        connect(path).sendall(frame(version=1))
        self.receiver.wait_for("guest.v1.process_spawned")

    def end(self):
        self.receiver.stop()
        self.receiver.__exit__(None)

    def __enter__(self):
        os.chmod(self.folder.name, 0o755)
        return self

    def __exit__(self, failure, *exc):
        if self.receiver:
            self.receiver.__exit__(failure)
        self.folder.cleanup()


class Serve:
    """`serve`: one daemon, and `cell add` for each cell."""

    def __init__(self):
        self.daemon = Daemon(sign=False)

    def file(self, name):
        return self.daemon.file(name)

    def refused(self, options, want):
        text = self.daemon.run("cell", "add", *options, want=want)
        assert os.listdir(self.file("state/cells")) == [], "nothing of it is kept"
        return text

    def serve(self, base, *options):
        return add(self.daemon, "v", base, *options).strip()

    def declare(self, path):
        connect(path).sendall(spawned(1))
        self.daemon.wait_for("guest.v1.process_spawned")
        # A restart serves the same path.
        self.daemon.kill()
        self.daemon.start()
        connect(path).sendall(spawned(1))
        self.daemon.wait_for("guest.v1.process_spawned", 2)

    def end(self):
        self.daemon.run("cell", "remove", "v")

    def __enter__(self):
        os.chmod(self.daemon.dir, 0o755)
        return self

    def __exit__(self, failure, *exc):
        self.daemon.__exit__(failure)


def by_both_verbs(test):
    def run():
        for verb in (Receive, Serve):
            with case(verb.__name__), verb() as host:
                test(host)

    run.__name__ = test.__name__
    return run


def connect(path):
    """As the VMM does inside its jail: whatever the length of the path."""
    fd = os.open(os.path.dirname(path), os.O_PATH)
    try:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(f"/proc/self/fd/{fd}/{os.path.basename(path)}")
        return sock
    finally:
        os.close(fd)


def add(d, cell, base, *options, want=0):
    return d.run("cell", "add", "--cell-id", cell, "--run-id", "r", "--spec-hash", HASH,
                 "--uds", base, *options, want=want)


@by_both_verbs
def existing_files_are_left_alone(host):
    base, path = host.file("v"), host.file("v_9001")
    with open(path, "w") as f:
        f.write("precious")
    text = host.refused(cell_options("c", base), 73)
    assert "not a socket" in text and path in text
    with open(path) as f:
        assert f.read() == "precious"
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen(1)
        assert "listens there already" in host.refused(cell_options("c", base), 73)
    inode = os.stat(path).st_ino
    assert "did not make" in host.refused(cell_options("c", base), 73)
    assert os.stat(path).st_ino == inode, "a stale socket of somebody else stays"


@by_both_verbs
def bad_folders_are_named(host):
    os.mkdir(host.file("real"))
    os.symlink(host.file("real"), host.file("link"))
    for base, word in ((host.file("none/v"), host.file("none")),
                       (host.file("link/v"), "symbolic link"),
                       (host.file("n" * 250), "name too long")):
        assert word in host.refused(cell_options("c", base), 73).replace("Name", "name"), base
    assert os.listdir(host.file("real")) == []


@by_both_verbs
def long_paths_are_served(host):
    folder = host.file("/".join(["x" * 60] * 4))
    os.makedirs(folder)
    path = host.serve(f"{folder}/v.sock")
    assert len(path) > 200 and path == f"{folder}/v.sock_9001"
    host.declare(path)
    host.end()
    assert os.listdir(folder) == [], "its own socket is gone"


@by_both_verbs
def mode_and_owner_are_right_at_every_instant(host):
    if os.geteuid() != 0:
        print("skipped: needs root, to give sockets away", flush=True)
        return
    jail, seen, done = host.file("jail"), set(), threading.Event()
    os.mkdir(jail)
    owner = ["--socket-owner", "1234:5678"]
    assert "writable by --socket-owner" in host.refused(cell_options("v", f"{jail}/v") + owner, 77)
    os.chown(jail, 1234, 5678)  # as a jailed VMM's folder is

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
        for _ in range(20):
            host.serve(f"{jail}/v", *owner, "--socket-mode", "0620")
            host.end()
    finally:
        done.set()
        thread.join()
    assert seen == {(0o620, 1234, 5678)}, seen


@by_both_verbs
def a_swapped_name_is_not_unlinked(host):
    path = host.serve(host.file("v"))
    os.unlink(path)
    with open(path, "w") as f:
        f.write("somebody else's")
    host.end()
    assert os.path.exists(path)


@by_both_verbs
def usage_errors_name_the_option(host):
    good = cell_options("c", "/tmp/none/v")

    def without(name):
        at = good.index(name)
        return good[:at] + good[at + 2:]

    def with_value(name, value):
        at = good.index(name)
        return good[:at + 1] + [value] + good[at + 2:]

    rows = [(good + ["--checkpoint", "1"], ["--checkpoint", "100.."]),
            (good + ["--log-level", "x"], ["--log-level"]),
            (good + ["--rate"], ["--rate", "value"])] if isinstance(host, Receive) else []
    for options, words in (
            *rows,
            (without("--uds"), ["--uds is missing"]),
            (without("--cell-id"), ["--cell-id is missing"]),
            (without("--run-id"), ["--run-id is missing"]),
            (without("--spec-hash"), ["--spec-hash is missing"]),
            (with_value("--cell-id", ""), ["--cell-id", "1..128"]),
            (with_value("--cell-id", "a/b"), ["--cell-id a/b"]),
            (with_value("--cell-id", "x" * 129), ["--cell-id", "1..128"]),
            (with_value("--run-id", "ü"), ["--run-id"]),
            (with_value("--spec-hash", "sha256:" + "0" * 63), ["--spec-hash", "64"]),
            (with_value("--spec-hash", "sha256:" + "g" * 64), ["--spec-hash", "64"]),
            (with_value("--spec-hash", "md5:" + "0" * 64), ["--spec-hash", "sha256:"]),
            (good + ["--keepalive", "-1"], ["--keepalive -1", "0..86400000"]),
            (good + ["--rate", "0"], ["--rate 0", "1.."]),
            (good + ["--socket-mode", "999"], ["--socket-mode 999", "octal"]),
            (good + ["--socket-mode", "01777"], ["--socket-mode", "0777"]),
            (good + ["--socket-owner", "root"], ["--socket-owner root", "UID:GID"]),
            (good + ["--socket-owner", "1:x"], ["--socket-owner", "numbers"]),
            (good + ["--peer-uid", "me"], ["--peer-uid me"]),
            (good + ["--nonsense"], ["--nonsense"]),
            (good + ["stray"], ["stray"])):
        with case(*options):
            text = host.refused(options, 64)
            assert all(word in text for word in words), text


# Restarts of `serve`.


def a_stale_socket_of_the_daemon_is_replaced():
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


def a_file_that_took_the_place_is_left_alone():
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


def replace(new, old):
    """The new one stands in the place of the old one, a folder too, from one moment to the next: a
    cell without a state file would be forgotten."""
    libc, here, exchange = ctypes.CDLL(None, use_errno=True), -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    done = libc.renameat2(here, os.fsencode(new), here, os.fsencode(old), exchange)
    assert done == 0, os.strerror(ctypes.get_errno())
    (os.rmdir if os.path.isdir(new) else os.unlink)(new)


def cells_that_cannot_be_served_are_listed_and_tried_again():
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
        until(lambda: (answer := d.http("/readyz"))[0] == 503 and "unserved" in answer[1] and
              "fifo" in answer[1], lambda: d.http("/readyz"))
        assert "cellos_host_telemetry_cells_unserved 6\n" in d.http("/metrics")[1]
        # Mended, each is served again, and its new stream names the last one.
        os.mkdir(d.file("vm"))
        for cell in ("fifo", "folder", "long", "name"):
            with open(states[cell] + ".t", "w") as f:
                f.write(kept[cell])
            replace(states[cell] + ".t", states[cell])
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


def a_cell_that_a_restart_could_not_read_is_refused():
    with Daemon() as d:
        assert "too long to be remembered" in add(d, "a", "/x" * 8200, want=64)
        assert "control characters" in add(d, "a", d.file('v\n<3>msg="forged"'), want=64)
        assert "forged" not in d.log()
        assert os.listdir(d.file("state/cells")) == []


def a_refused_add_connects_to_no_cell():
    with Daemon() as d:
        d.add("a")
        assert "somebody listens" in d.run(
            "cell", "add", "--cell-id", "b", "--run-id", "r", "--spec-hash", HASH, "--uds",
            d.file("a"), want=73)
        d.connect("a").sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        d.stop()
        assert [e["data"]["connection"] for e in named(d.events(), "guest.v1.agent_connected")] == [1]


def a_refused_add_does_not_end_a_receiver_of_one_connection():
    with Daemon() as d, Receiver("--once", base=d.file("taken")) as other:
        for _ in range(5):
            assert "somebody listens there already" in d.add("taken", want=73)
        sock = other.connect()
        sock.sendall(spawned(1))
        sock.close()
        assert other.process.wait() == 0
        events = oracle.check(other.lines(), other.keys)
        assert len(named(events, "guest.v1.agent_connected")) == 1
        assert len(named(events, "guest.v1.process_spawned")) == 1
        d.stop()


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


def the_owner_of_the_folder_gains_nothing_by_swapping():
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
            # Both outcomes are tried, however seldom the attacker has its turn.
            for i in itertools.count():
                if i >= 150 and (0 < added < i or i == 5000):
                    break
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
        print(f"{added} of {i} adds came through the attack")
        assert 0 < added < i, "both outcomes were tried"
        # What root made is root's, and what it gave away is not more than was asked for.
        os.path.lexists(f"{jail}/v_9001") and os.unlink(f"{jail}/v_9001")
        add(d, "v", f"{jail}/v")


if __name__ == "__main__":
    main()
