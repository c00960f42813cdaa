# SPDX-License-Identifier: MIT
"""Cells that are added and removed while disks are slow and daemons are killed."""

import concurrent.futures
import json
import os
import random
import signal
import socket
import time

import oracle
from daemon import BadDisk, Daemon, no_preload
from receiver import HASH, spawned
from runner import PATIENCE, main, until


def request(d, path, cell=None):
    return {"verb": "add", "options": {"cell-id": cell or path, "run-id": "r", "spec-hash": HASH,
                                       "uds": d.file(path)}}


def links(d):
    """Each stream but a cell's first names the one before it; how many do."""
    n, last = 0, {}
    for events in d.streams().values():
        data = events[0]["data"]
        assert data.get("previousStreamId") == last.get(data["cellId"]), data
        n += "previousStreamId" in data
        last[data["cellId"]] = data["streamId"]
    return n


def an_add_cut_short_can_be_tried_again():
    if no_preload():
        return
    with BadDisk() as disk, Daemon(env=disk.env) as d, \
            concurrent.futures.ThreadPoolExecutor(1) as pool:
        path = d.file("c") + "_9001"
        disk.set("fdatasync=600000")
        pool.submit(d.ask, request(d, "c"))
        until(lambda: os.path.exists(path))
        d.kill()
        disk.good()
        assert os.path.exists(path) and os.listdir(d.file("state/cells")) == ["c.json#new"]
        # One more, whose socket somebody else has taken over meanwhile: it is left alone.
        with open(d.file("state/cells/c.json#new")) as f:
            text = f.read().replace('"c"', '"f"').replace(d.file("c"), d.file("f"))
        with open(d.file("state/cells/f.json#new"), "w") as f:
            f.write(text)
        with open(d.file("state/cells/g.json#new"), "w") as f:
            f.write(text[:20])
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(d.file("f") + "_9001")
            sock.listen()
            d.start()
            assert os.path.exists(d.file("f") + "_9001")
        assert not os.path.exists(path) and os.listdir(d.file("state/cells")) == []
        assert "cut short" in d.log() and json.loads(d.run("cell", "list", "--json"))["cells"] == []
        assert d.add("c") == path
        d.connect("c").sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        d.stop()
        # Was the first try's record in the file, it stays.
        *first, second = d.streams().values()
        assert second[-1]["type"] == oracle.PREFIX + "stream.v1.sealed"
        d.verify(want=4 if first else 0)


def restarts_cut_short_lose_no_link():
    """Killed while the new streams begin: before their first record is in the file, and after."""
    if no_preload():
        return
    cells = 8
    with BadDisk() as disk, Daemon(env=disk.env) as d:
        for i in range(cells):
            d.add(f"c{i}")
        for call in ("pwritev", "fdatasync", "pwritev", "fdatasync", "syncfs"):
            d.kill()
            before = len(d.lines())
            # The first sync is that of what the last daemon wrote.
            disk.set(f"{call}=600000" + (":1" if call == "fdatasync" else ""))
            d.start(wait=call != "syncfs")
            staged = [f"c{i}.json#new" for i in range(cells)]
            until(lambda: set(staged) <= set(os.listdir(d.file("state/cells"))))
            if call == "fdatasync":
                until(lambda: len(d.lines()) >= before + cells)
            d.kill()
            disk.good()
            before = len(d.lines())
            d.start()
            # It is ready before the records of its new streams are written.
            until(lambda: len(d.lines()) >= before + cells)
        until(lambda: len(os.listdir(d.file("state/cells"))) == cells)
        assert len(d.ask({"verb": "list"})["cells"]) == cells
        d.stop()
        # 5 restarts that came through, and the 2 that were killed with their records written.
        assert links(d) == 7 * cells, links(d)
        d.verify()


def a_cell_that_cannot_be_served_again_can_be_forgotten():
    """Its folder is gone when the daemon starts, and comes back with the socket of the last run.
    Meanwhile the daemon may try to serve it again."""
    def ask(d, what):
        while "being added" in (answer := d.ask(what)).get("error", ""):
            time.sleep(0.01)
        return answer

    def left(d, folder):
        os.mkdir(d.file(folder))
        for cell in ("x", "y", "z"):
            assert d.ask(request(d, f"{folder}/{cell}", cell))["ok"]
        d.kill()
        os.rename(d.file(folder), d.file("away"))
        with open(d.file("state/cells/bad.json"), "w") as f:
            f.write("{")
        before = d.log().count("a cell of the last run cannot be served")
        d.start()
        assert d.log().count("a cell of the last run cannot be served") == before + 4
        assert d.ask({"verb": "list"})["cells"] == []
        # From now on the daemon may make sockets there.
        assert len(os.listdir(d.file("away"))) == 3
        os.rename(d.file("away"), d.file(folder))

    with Daemon() as d:
        left(d, "f")
        # z's path is another's by now, from one moment to the next.
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(d.file("f/other"))
            sock.listen()
            os.rename(d.file("f/other"), d.file("f/z") + "_9001")
            for cell in ("x", "y", "z", "bad"):
                assert ask(d, {"verb": "remove", "cell": cell})["ok"]
                assert "no such cell" in d.run("cell", "show", cell, want=1)
                assert "no such cell" in d.run("cell", "remove", cell, want=1)
            assert os.listdir(d.file("f")) == ["z_9001"] and os.listdir(d.file("state/cells")) == []
            os.unlink(d.file("f/z") + "_9001")
        with open(d.file("state/x.json"), "w"):
            pass
        for no_id in ("../x", "", "x" * 129, ".", 1, None):
            assert not d.ask({"verb": "remove", "cell": no_id})["ok"]
        assert os.path.exists(d.file("state/x.json"))
        os.rmdir(d.file("f"))
        # Or it is added again: at its own path, not at another's.
        left(d, "g")
        for cell in ("y", "other"):
            assert any(why in ask(d, request(d, "g/x", cell))["error"]
                       for why in ("did not make", "somebody listens", "exists already"))
        for cell in ("x", "y", "z"):
            answer = ask(d, request(d, f"g/{cell}", cell))
            assert answer["ok"] or "exists already" in answer["error"], answer
        d.connect("g/y").sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        d.stop()
        d.verify(4)


def killed_at_random_while_adding_and_removing():
    with Daemon() as d:
        for _ in range(int(os.environ.get("CELLOS_KILLS", 8))):
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                for cell in random.sample(range(8), 4):
                    pool.submit(d.ask, random.choice([request(d, f"c{cell}"),
                                                      {"verb": "remove", "cell": f"c{cell}"}]))
                time.sleep(random.uniform(0, 0.02))
                d.kill()
            d.start()
        listed = {c["cellId"] for c in d.ask({"verb": "list"})["cells"]}
        for i in range(8):
            if f"c{i}" in listed:
                d.run("cell", "remove", f"c{i}")
            assert not os.path.exists(d.file(f"c{i}") + "_9001")
            d.add(f"c{i}")
        d.stop()
        for events in d.streams().values():
            previous = events[0]["data"].get("previousStreamId")
            assert previous is None or previous in d.streams(), "a link to nothing"


def a_slow_disk_of_the_state_delays_no_cell():
    if no_preload():
        return
    with BadDisk() as disk, Daemon(env=disk.env) as d, \
            concurrent.futures.ThreadPoolExecutor(16) as pool:
        d.add("a")
        sock = d.connect("a")
        disk.set("fsync=600000")
        adds = [pool.submit(d.ask, request(d, "b")) for _ in range(16)]
        until(lambda: os.path.exists(d.file("b") + "_9001"))
        sock.sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        assert d.ask({"verb": "list"})["cells"][0]["cellId"] == "a"
        until(lambda: d.http("/healthz")[0] == 200, "a loop that turns")
        until(lambda: sum(a.done() for a in adds) == 15, "all but one to be refused")
        disk.good()
        answers = [a.result() for a in adds]
        assert sorted(a["ok"] for a in answers) == [False] * 15 + [True]
        assert all(a["ok"] or a["status"] == 73 for a in answers)
        d.stop()
        d.verify()


def a_client_that_leaves_does_not_undo_its_add():
    """An add goes on when its client has gone, and stopping waits for those under way."""
    if no_preload():
        return
    with BadDisk() as disk, Daemon(env=disk.env) as d:
        for cell in "ab":
            disk.set("fsync=600000")
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(d.control)
                sock.sendall(json.dumps(request(d, cell)).encode() + b"\n")
                until(lambda: os.path.exists(d.file(cell) + "_9001"))
            if cell == "a":
                disk.good()
                d.wait_log("cell added")
        d.process.send_signal(signal.SIGTERM)
        d.wait_log('msg="stopping"')
        disk.good()
        assert d.process.wait(PATIENCE) == 0, d.log()
        d.verify()
        assert not os.path.exists(d.file("b") + "_9001")
        assert os.listdir(d.file("state/cells")) == ["a.json"], os.listdir(d.file("state/cells"))


def size(path):
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0  # deleted since it was listed


def a_cursor_holds_what_it_needs():
    with Daemon("[evidence]\nrotate_size = 64K\nretain_size = 128K\n", start=False) as d:
        cursor = d.file("state/cursors/nats")
        os.mkdir(os.path.dirname(cursor))

        def point_at(segment):
            with open(cursor + "#new", "w") as f:
                f.write(f"cellos-evidence-cursor 1 {segment:020} {0:020}\n")
            os.rename(cursor + "#new", cursor)

        def numbers():
            return [int(os.path.basename(p)[9:29]) for p in d.segments()]

        point_at(1)
        d.start()
        d.add("a")
        sock = d.connect("a")
        seq = 0

        def write_some():
            nonlocal seq
            for _ in range(20):
                seq += 50
                sock.sendall(b"".join(spawned(seq - 50 + i) for i in range(1, 51)))
                until(lambda: json.loads(d.run("cell", "show", "a", "--json"))["cell"]["frames"]
                      == seq)
            until(lambda: d.ask({"verb": "status"})["log"]["inflightBytes"] == 0, "a log on disk")
            return numbers()[0]

        write_some()
        assert numbers()[0] == 1 and len(numbers()) > 4, numbers()
        point_at(3)
        until(lambda: write_some() == 3, numbers)
        with open(cursor, "w") as f:
            f.write("nonsense")
        d.wait_log("a cursor cannot be understood")
        write_some()
        assert numbers()[0] == 3, "nothing is deleted while a cursor may be anywhere"
        d.kill()
        d.start()
        sock = d.connect("a")
        write_some_again = b"".join(spawned(i) for i in range(1, 1001))
        sock.sendall(write_some_again)
        d.wait_log("a cursor cannot be understood", 2)
        assert numbers()[0] == 3, "nor after a restart"
        os.unlink(cursor)
        d.wait_log("can be read again")

        def is_small():
            sock.sendall(b"".join(spawned(i) for i in range(1, 51)))
            time.sleep(0.02)
            return numbers()[0] > 3 and sum(map(size, d.segments())) < 400 * 1024

        until(is_small)
        d.stop()


if __name__ == "__main__":
    main()
