# SPDX-License-Identifier: MIT
"""The real daemon: cells come and go, the log survives, and who asks is answered."""

import base64
import concurrent.futures
import hashlib
import http.client
import json
import os
import pathlib
import pty
import random
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

import oracle
from daemon import Daemon
from oracle import named
from receiver import HASH, RECEIVER, frame, heartbeat, hello, is_idle, open_files, spawned, waits
from runner import PATIENCE, free_port, main, stand_still, until


PLAIN = os.environ.get("CELLOS_SANITIZE", "none") == "none"


def a_cell_is_added_read_and_removed():
    with Daemon() as d:
        path = d.add("cell:1.a", "--keepalive", "5000")
        assert path == d.file("cell:1.a") + "_9001"
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        d.connect("cell:1.a").sendall(hello() + spawned(1))
        d.wait_for("guest.v1.process_spawned")
        cells = json.loads(d.run("cell", "list", "--json"))["cells"]
        assert [c["cellId"] for c in cells] == ["cell:1.a"] and cells[0]["frames"] == 2
        assert "cell:1.a" in d.run("cell", "list") and "cell:1.a" in d.run("status")
        shown = json.loads(d.run("cell", "show", "cell:1.a", "--json"))["cell"]
        assert shown["keepaliveMs"] == 5000 and shown["sequence"] >= 4
        assert json.loads(d.run("status", "--json"))["cellCount"] == 1
        assert "exists already" in d.add("cell:1.a", want=73)
        d.run("cell", "remove", "cell:1.a")
        d.wait_for("stream.v1.sealed")
        assert not os.path.exists(path) and os.listdir(d.file("state/cells")) == []
        assert "no such cell" in d.run("cell", "show", "cell:1.a", want=1)
        d.run("cell", "remove", "cell:1.a", want=1)
        d.stop()
        assert named(d.events(), "stream.v1.sealed")[0]["data"]["reason"] == "removed"
        d.verify()
        assert stat.S_IMODE(os.stat(d.segments()[0]).st_mode) == 0o640


def a_client_that_is_stopped_goes_on():
    """As by ^Z and fg, while the daemon works on its request."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/control")
        server.listen()
        client = subprocess.Popen([RECEIVER, "cell", "list", "--control", f"{folder}/control"],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with server.accept()[0] as sock:
            assert sock.recv(4096).endswith(b"\n")
            # After its request it sleeps for nothing else.
            until(lambda: waits(client.pid, client.pid), "a client that waits for its answer", 0)
            stand_still(client.pid)
            client.send_signal(signal.SIGCONT)
            until(lambda: waits(client.pid, client.pid) or client.poll() is not None,
                  "a client that waits", 0)
            sock.sendall(b'{"cells":[],"ok":true,"unserved":[]}\n')
        out, err = client.communicate(timeout=PATIENCE)
        assert client.returncode == 0 and err == "", (client.returncode, out, err)


def without_a_daemon():
    with Daemon(start=False) as d:
        assert "is it running" in d.run("cell", "list", want=69)
        run = subprocess.run([RECEIVER, "cell", "list", "--config", d.file("none")],
                             capture_output=True, text=True)
        assert run.returncode == 78 and d.file("none") in run.stderr, run


def the_configuration_names_the_socket():
    with Daemon() as d:
        d.add("a")
        for verb in (["cell", "list"], ["cell", "show", "a"], ["status"], ["tail"]):
            run = subprocess.run([RECEIVER, *verb, "--config", d.file("conf"), "--json"],
                                 capture_output=True, text=True)
            assert run.returncode == 0 and '"a"' in run.stdout, run
        run = subprocess.run([RECEIVER, "status", "--config", d.file("conf"), "--control",
                              d.file("nobody")], capture_output=True, text=True)
        assert run.returncode == 69, "--control is stronger"


def add_refuses_bad_options():
    with Daemon() as d:
        d.add("a", "--keepalive", "x", want=64)
        d.add("a/b", want=64)
        d.add("../x", want=64)
        with open(d.file("f_9001"), "w") as f:
            f.write("mine")
        assert "is not a socket" in d.add("f", want=73)
        with open(d.file("f_9001")) as f:
            assert f.read() == "mine"
        foreign = socket.socket(socket.AF_UNIX)
        foreign.bind(d.file("g_9001"))
        foreign.close()
        assert "did not make" in d.add("g", want=73)
        os.unlink(d.file("g_9001"))
        foreign = socket.socket(socket.AF_UNIX)
        foreign.bind(d.file("g_9001"))
        foreign.listen()
        # With the answer all is as before: each try is the first.
        request = {"verb": "add", "options": {"cell-id": "g", "run-id": "r", "spec-hash": HASH,
                                              "uds": d.file("g")}}
        for _ in range(100):
            assert "somebody listens" in d.ask(request)["error"]
        for dots in (".", ".."):
            d.add(dots)
        assert sorted(os.listdir(d.file("state/cells"))) == ["...json", "..json"]


def concurrent_adds_of_one_cell():
    with Daemon() as d, concurrent.futures.ThreadPoolExecutor(16) as pool:
        request = {"verb": "add", "options": {"cell-id": "c", "run-id": "r", "spec-hash": HASH,
                                              "uds": d.file("c")}}
        answers = list(pool.map(lambda _: d.ask(request), range(16)))
        assert sorted(a["ok"] for a in answers) == [False] * 15 + [True]
        assert all(a["ok"] or a["status"] == 73 for a in answers)


def closed_early(d, n):
    """How many of n clients that send nothing are closed before their time; all are in the end."""
    begin, early, stalled = time.monotonic(), 0, []
    for _ in range(n):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(d.control)
        stalled.append(sock)
    while stalled:
        for sock in select.select(stalled, [], [], PATIENCE)[0]:
            assert sock.recv(1) == b""
            early += time.monotonic() - begin < 4.5
            stalled.remove(sock)
            sock.close()
    return early


def control_socket_abuse():
    with Daemon() as d:
        assert stat.S_IMODE(os.stat(d.control).st_mode) == 0o660
        for request in (b"{\n", b"[]\n", b"nonsense\n", b'{"verb":1}\n', b'{"verb":"x"}\n',
                        b'{"verb":"add"}\n', b'{"verb":"show","verb":"list"}\n',
                        b'{"verb":"add","options":{"nope":"1"}}\n',
                        b'{"verb":"add","options":{"rate":1}}\n'):
            answer = d.ask(request)
            assert answer["ok"] is False and answer["status"] == 64, (request, answer)
        for size, error in ((65535, "not JSON"), (65536, "not JSON"), (65537, "longer")):
            answer = d.ask(b"x" * (size - 1) + b"\n")
            assert error in answer["error"], (size, answer)
        with socket.socket(socket.AF_UNIX) as half:
            half.connect(d.control)
            half.sendall(b'{"verb":')
            half.shutdown(socket.SHUT_WR)
            assert b"ends before" in half.recv(4096)
        # Those that stall are cut, and hold nobody up meanwhile; too many are closed at once. A
        # machine that stands still for seconds may miss the difference: then once more.
        until(lambda: closed_early(d, 70) == 6, "6 of 70 clients to be closed at once")
        assert d.ask({"verb": "list"})["ok"]


def a_stranger_is_refused():
    if os.getuid() != 0:
        print("skipped: needs root, to ask as another user", flush=True)
        return
    with Daemon() as d:
        os.chmod(d.dir, 0o755)
        os.chmod(d.control, 0o666)
        run = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                              RECEIVER, "cell", "list", "--control", d.control],
                             capture_output=True, text=True)
        assert run.returncode == 77 and "not permitted" in run.stderr, run


def a_refused_reload_changes_nothing():
    with Daemon("[receiver]\nrate = 100\n") as d:
        d.add("a")
        sock = d.connect("a")
        sock.sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        for config, why in (("[receiver]\nrate = none\n", "conf:"),
                            ("[evidence]\nsync = off\n", "restart"),
                            ("[nonsense]\n", "no such section")):
            d.configure(config)
            before = d.log().count(why)
            d.process.send_signal(signal.SIGHUP)
            d.wait_log(why, before + 1)
        d.add("b", "--rate", "150")
        rates = lambda: [c["rate"] for c in d.ask({"verb": "list"})["cells"]]
        assert rates() == [100, 150]
        subprocess.run([RECEIVER, "keygen", "--kid", "k2", "--out", d.dir], check=True,
                       stdout=subprocess.DEVNULL)
        with open(d.file("keyring.json")) as f:
            d.keys = json.load(f)
        d.base_config = d.base_config.replace("kid = k1", "kid = k2").replace("k1.seed", "k2.seed")
        d.configure("[receiver]\nrate = 200\n")
        d.process.send_signal(signal.SIGHUP)
        d.wait_log("configuration applied")
        d.add("c")
        # Those that are there too, unless their own options say something else.
        assert rates() == [200, 150, 200]
        sock.sendall(spawned(2))
        d.wait_for("guest.v1.process_spawned", 2)
        d.stop()
        kids = [json.loads(line)["data"]["signerKid"] for line in d.lines()]
        assert kids == sorted(kids) and set(kids) == {"k1", "k2"}
        d.verify()


def reload(d, config, told, count=1):
    """The file after a SIGHUP, once the log has told this so often."""
    d.configure(config)
    d.process.send_signal(signal.SIGHUP)
    d.wait_log(told, count)


def a_reload_keeps_the_signer_of_the_environment():
    """Whose key is nowhere any more: it goes on signing, and nothing else does in its name."""
    for in_file in (True, False):
        with Daemon(start=False) as d:
            d.base_config, signing = d.base_config.split("[signing]\n")
            said = "[signing]\nalgorithm = ed25519\nkid = k1\n" if in_file else ""
            d.configure(said)
            with open(d.file("k1.seed")) as f:
                d.env["CELLOS_HOST_TELEMETRY_SIGN_ED25519_KEY"] = f.read()
            if not in_file:
                d.env["CELLOS_HOST_TELEMETRY_SIGN_ALG"] = "ed25519"
                d.env["CELLOS_HOST_TELEMETRY_SIGN_KID"] = "k1"
            d.start()
            reload(d, said + "[receiver]\nrate = 200\n", "configuration applied")
            d.add("a")
            assert json.loads(d.run("cell", "show", "a", "--json"))["cell"]["rate"] == 200
            reload(d, said.replace("k1", "k2") or "[signing]\nkid = k2\n",
                   "no key for algorithm ed25519, kid k2")
            if in_file:
                reload(d, "", "say algorithm = off")
            d.add("b")
            reload(d, "[signing]\n" + signing, "configuration applied", 2)
            # The key is in a file now: without it there is none.
            reload(d, "[signing]\nalgorithm = ed25519\nkid = k1\n",
                   "no key for algorithm ed25519, kid k1")
            reload(d, "", "say algorithm = off", 1 + in_file)
            d.add("c")
            assert 'msg="evidence is not signed' not in d.log()
            d.stop()
            assert {json.loads(line)["data"]["signerKid"] for line in d.lines()} == {"k1"}
            d.verify()


def a_reload_signs_as_the_file_says():
    with Daemon() as d:
        d.add("a")
        subprocess.run([RECEIVER, "keygen", "--kid", "k2", "--out", d.dir], check=True,
                       stdout=subprocess.DEVNULL)
        with open(d.file("keyring.json")) as f:
            keys = json.load(f)
        # The same file, but another key in it: a kid is one key for ever.
        os.replace(d.file("k2.seed"), d.file("k1.seed"))
        reload(d, "", "give the new key a kid of its own")
        d.base_config = d.base_config.replace("kid = k1", "kid = k2")
        reload(d, "", "configuration applied")
        d.keys = keys
        d.add("b")
        lines = [line for line in d.lines() if b'"cellId":"b"' in line]
        assert lines
        for line in lines:
            oracle.check_line(line, {"k2": keys["k2"]})
        d.add("b2")
        # One checkpoint is by both keys: trust passes from the old one to the new one.
        (log,) = d.logs().values()
        assert [c[2] for c in log.checkpoints if len(c[2]) == 2] == [["k1", "k2"]]
        assert log.checkpoints[-1][2] == ["k2"]
        (added,) = oracle.named(d.log_events(), "log.v1.key_added")
        assert (added["data"]["kid"], added["data"]["publicKey"]) == ("k2", keys["k2"])
        (retired,) = oracle.named(d.log_events(), "log.v1.key_retired")
        assert (retired["data"]["kid"], retired["data"]["publicKey"]) == ("k1", keys["k1"])
        # Unsigned only when it says so.
        d.base_config = d.base_config.split("[signing]")[0]
        reload(d, "", "say algorithm = off")
        reload(d, "[signing]\nalgorithm = off\n", 'msg="evidence is not signed')
        d.add("c")
        # What was sealed before it may be written after it.
        lines = [line for line in d.lines() if b'"cellId":"c"' in line]
        assert lines
        for line in lines:
            oracle.check_line(line)


def a_restart_serves_the_same_cells():
    with Daemon() as d:
        d.add("a")
        d.add("b", "--rate", "77")
        d.stop()
        d.verify()
        with open(d.file("state/cells/bad.json"), "w") as f:
            f.write("{")
        d.start()
        assert "cannot be served" in d.log()
        shown = json.loads(d.run("cell", "show", "b", "--json"))["cell"]
        assert shown["rate"] == 77
        d.connect("a").sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        d.stop()
        opened = named(d.events(), "stream.v1.opened")
        assert len(opened) == 4
        first = {e["data"]["cellId"]: e["data"]["streamId"] for e in opened[:2]}
        for e in opened[2:]:
            assert e["data"]["previousStreamId"] == first[e["data"]["cellId"]]
        d.verify()


def two_daemons():
    with Daemon() as d:
        run = subprocess.run([RECEIVER, "serve", "--config", d.file("conf")], capture_output=True,
                             text=True, timeout=PATIENCE)
        assert run.returncode == 73 and "another" in run.stderr, run
        assert d.ask({"verb": "list"})["ok"]


def a_cell_that_fills_the_log_raises_the_alarm():
    """By its name, and no other cell; until an operator acknowledges it."""
    with Daemon("[receiver]\nrate_bytes = 1G\nrate = 1000000\n"
                "[evidence]\nrotate_size = 64K\nretain_size = 1M\nretain_cell_share = 40\n",
                sign=False) as d:
        d.add("modest")
        d.add("greedy")
        modest, greedy = d.connect("modest"), d.connect("greedy")
        modest.sendall(hello() + b"".join(spawned(seq) for seq in range(1, 101)))
        greedy.sendall(hello())
        d.wait_for("guest.v1.process_spawned", 100)
        assert d.ask({"verb": "status"})["alarm"] is None
        greedy.sendall(b"".join(spawned(seq) for seq in range(1, 2001)))
        alarm = until(lambda: d.ask({"verb": "status"})["alarm"], "the alarm")
        assert "cell greedy" in alarm and "40 %" in alarm and "modest" not in alarm, alarm
        assert "one cell fills the evidence log" in d.log()
        d.run("log", "acknowledge")
        assert d.ask({"verb": "status"})["alarm"] is None
        d.stop()


def a_lock_of_a_group_member_stops_no_start():
    """Whoever may read the evidence may lock what can be opened, and nothing that matters can be."""
    if os.geteuid() != 0:
        print("skipped: needs root", flush=True)
        return
    with Daemon(start=False) as d:
        d.start()
        d.stop()
        os.chmod(d.dir, 0o755)
        shared = [d.evidence, d.file("state"), *d.segments()]
        for path in shared:
            os.chown(path, -1, 65534)
            os.chmod(path, 0o750 if os.path.isdir(path) else 0o640)
        # It waits for each lock that it may ask for, and holds it.
        holder = subprocess.Popen(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c",
             "import fcntl, os, sys\n"
             "kept = []\n"
             "for root in sys.argv[1:]:\n"
             "    for at, folders, files in os.walk(root):\n"
             "        for path in [at, *(os.path.join(at, f) for f in files)]:\n"
             "            try:\n"
             "                kept.append(os.open(path, os.O_RDONLY))\n"
             "                fcntl.flock(kept[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)\n"
             "            except OSError:\n"
             "                pass\n"
             "print(len(kept), flush=True)\n"
             "sys.stdin.read()", d.evidence, d.file("state")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert int(holder.stdout.readline()) >= 2, "it holds what its group may read"
        d.start()
        d.add("a")
        d.stop()
        holder.communicate("")
        d.verify()


def a_name_with_an_absurd_number_is_refused_and_never_counted_from():
    for number, refused in ((2**64 - 1, True), (2**63, True), (2**64, False)):
        with Daemon(start=False) as d:
            path = os.path.join(d.evidence, f"evidence-{number:020}.jsonl")
            open(path, "w").close()
            if refused:
                d.start(wait=False)
                assert d.process.wait(PATIENCE) == 73 and path in d.log(), d.log()
                assert d.segments() == [path]
                os.unlink(path)
            # This one is no segment's name at all.
            d.start()
            d.stop()
            assert [s for s in d.segments() if s != path] == [
                os.path.join(d.evidence, f"evidence-{1:020}.jsonl")], d.segments()


def every_error_of_a_configuration_is_reported():
    with Daemon("[receiver]\nrate = x\n[nope]\n", start=False) as d:
        d.start(wait=False)
        assert d.process.wait(PATIENCE) == 78
        assert "rate" in d.log() and "nope" in d.log()
        run = subprocess.run([RECEIVER, "check-config", "--config", d.file("conf")],
                             capture_output=True, text=True)
        assert run.returncode == 78 and len(run.stderr.splitlines()) == 2, run.stderr


def the_manual_names_every_key():
    manual = (pathlib.Path(__file__).parents[2] / "docs/cellos-host-telemetry.conf.5.scd").read_text()
    with Daemon(start=False) as d:
        with open(d.file("conf"), "w"):
            pass
        run = subprocess.run([RECEIVER, "dump-config", "--config", d.file("conf")],
                             capture_output=True, text=True, check=True)
        keys = re.findall(r"^(?:; )?(\w+) = ?(.*)$", run.stdout, re.MULTILINE)
        assert len(keys) >= 19, run.stdout
        for key, default in keys:
            assert re.search(rf"\*{key}\* = .*", manual), key
            assert not default or f"(*{default}" in manual, (key, default)
        for section in re.findall(r"^\[\w+\]$", run.stdout, re.MULTILINE):
            assert f"# {section}\n" in manual, section


def check_config(d, want=0):
    run = subprocess.run([RECEIVER, "check-config", "--config", d.file("conf")], text=True,
                         capture_output=True, env=d.env)
    assert run.returncode == want, run
    assert (run.stdout == "") == (want != 0), run
    return run.stdout + run.stderr


def check_config_finds_what_a_start_would_find():
    with Daemon(start=False) as d, socket.socket() as taken:
        said = check_config(d)
        assert "OK: signed by k1 (ed25519" in said and "checked as uid" not in said
        d.start()
        assert "OK: signed" in check_config(d), "beside a running daemon"
        d.stop()
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        good = d.base_config
        for old, new, why in (
                ("k1.seed", "none.seed", "No such file"),
                ("kid = k1", "kid = k9\nrequired = no", None),
                (f"dir = {d.evidence}", f"dir = {d.file('none')}", "[evidence] dir: "),
                (f"dir = {d.evidence}", f"dir = {d.file('conf')}", "Not a directory"),
                (f"state_dir = {d.file('state')}", "state_dir = /none", "[receiver] state_dir: "),
                ("[receiver]\n", "[receiver]\ncontrol_group = no-such-group\n", "no such group"),
                (f"control_socket = {d.control}", f"control_socket = {d.file('conf')}",
                 "is not a socket"),
                (f"control_socket = {d.control}", "control_socket = /none/x", "control_socket: "),
                (f"control_socket = {d.control}", f"control_socket = /{'x' * 107}", "107 bytes"),
                (f"unix:{d.file('metrics')}", f"127.0.0.1:{port}", "Address already in use"),
                (f"unix:{d.file('metrics')}", "unix:/none/x", "[metrics] listen: ")):
            assert old in good
            d.base_config = good.replace(old, new, 1)
            d.configure("")
            assert why is None or why in check_config(d, 78), why
        d.base_config = good
        d.configure("")
        os.chmod(d.file("k1.seed"), 0o644)
        assert "0600 or 0400" in check_config(d, 78)
        os.chmod(d.file("k1.seed"), 0o600)
        d.base_config = good.split("[signing]")[0]
        d.configure("[receiver]\nmax_cells = 1000000\n")
        said = check_config(d)
        assert "OK: not signed" in said and "would not be signed" in said
        assert "RLIMIT_NOFILE" in said
        d.base_config = good
        d.configure("")
        if os.getuid() != 0:
            print("skipped: needs root, to check as another user", flush=True)
            return
        # As the daemon's user: root could read and write everything.
        os.chmod(d.dir, 0o755)
        os.chown(d.file("state"), 65534, 65534)
        said = check_config(d, 78)
        assert "checked as uid 65534, the owner of state_dir" in said
        for key in ("[evidence] dir", "[signing]", "[receiver] control_socket"):
            assert f"{key}: " in said, said
        os.chown(d.file("k1.seed"), 65534, 65534)
        os.chown(d.evidence, 65534, 65534)
        os.chown(d.dir, 65534, 65534)
        assert "OK: signed by k1" in check_config(d)


def an_install_never_touches_the_configuration():
    """It brings an example, in which evidence must be signed."""
    build = pathlib.Path(RECEIVER).parents[1]
    if not shutil.which("meson"):
        print("skipped: no meson", flush=True)
        return
    with tempfile.TemporaryDirectory(prefix="cellos-install-") as to:
        subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--destdir", to],
                       check=True, stdout=subprocess.DEVNULL)
        found = sorted(pathlib.Path(to).rglob("host-telemetry.conf"))
        assert len(found) == 1 and found[0].parts[-2] == "examples", found
        assert not list(pathlib.Path(to).rglob("etc/cellos/*"))
        run = subprocess.run([RECEIVER, "check-config", "--config", found[0]],
                             capture_output=True, text=True)
        assert run.returncode == 78 and "required = yes" in run.stderr, run


def start_with_descriptors(d, limit):
    d.process = subprocess.Popen(["prlimit", f"--nofile={limit}:{limit}", RECEIVER, "serve",
                                  "--config", d.file("conf")],
                                 stdin=subprocess.DEVNULL, stderr=d.err, env=d.env)


def too_few_descriptors_are_named():
    """At the start, and for each cell that cannot be served; the others are, and none is sealed."""
    with Daemon("[receiver]\nmax_cells = 60\n") as d:
        cells = [f"c{i:02}" for i in range(60)]
        for cell in cells:
            assert d.ask({"verb": "add", "options": {"cell-id": cell, "run-id": "r", "spec-hash": HASH,
                                                     "uds": d.file(cell)}})["ok"]
        d.wait_for("stream.v1.opened", 60)
        d.kill()
        assert "RLIMIT_NOFILE is too low" not in d.log()
        start_with_descriptors(d, 100)
        d.wait_log('msg="ready"', 2)
        assert "RLIMIT_NOFILE is too low for max_cells" in d.log()
        listed = d.ask({"verb": "list"})
        assert len(listed["cells"]) + len(listed["unserved"]) == 60 and listed["cells"]
        assert listed["unserved"]
        for cell in listed["unserved"]:
            assert "Too many open files: a cell needs " in cell["unserved"], cell
        refused = d.ask({"verb": "add", "options": {"cell-id": "more", "run-id": "r", "spec-hash": HASH,
                                                    "uds": d.file("more")}})
        assert "Too many open files: a cell needs " in json.dumps(refused), refused
        d.kill()
        start_with_descriptors(d, 12)
        assert d.process.wait(PATIENCE) not in (0, -6, -11), d.log()
        assert "another daemon listens" not in d.log() and "Too many open files" in d.log()
        d.start()
        assert len(d.ask({"verb": "list"})["cells"]) == 60
        assert named(d.events(), "stream.v1.sealed") == []
        d.stop()
        d.streams()


def required_signing_never_falls_back():
    with Daemon("[signing]\nrequired = yes\n", sign=False, start=False) as d:
        d.start(wait=False)
        assert d.process.wait(PATIENCE) == 78, d.log()
        assert "required = yes" in d.log() and d.segments() == []
    with Daemon() as d:
        d.add("a")
        signing = d.base_config
        reload(d, "required = yes\n", "configuration applied")
        d.base_config = signing.split("[signing]")[0]
        reload(d, "[signing]\nalgorithm = off\nrequired = yes\n", "other than off with it")
        reload(d, "[signing]\nrequired = yes\n", "say algorithm = off")
        d.add("b")
        d.stop()
        d.verify()


def unsigned_evidence_is_warned_of():
    with Daemon() as d:
        assert "not signed" not in d.log()
    with Daemon(sign=False) as d:
        assert d.log().count("evidence is not signed") == 1
        assert d.ask({"verb": "status"})["signing"]["algorithm"] == "off"
        d.wait_metrics('cellos_host_telemetry_signing_info{algorithm="off",')


def metrics_and_health():
    with Daemon("[metrics]\nper_cell = yes\n") as d:
        d.add("a")
        d.add("b.2:x")
        d.connect("a").sendall(hello() + spawned(1) + b"\0\0\0\0")
        d.wait_for("guest.v1.channel_violation")
        # Clients that never speak, or never read, hold up nobody.
        idle = []
        for _ in range(20):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(d.file("metrics"))
            idle.append(sock)
        d.wait_metrics("cellos_host_telemetry_frames_received_total 2\n")
        status, text = d.http("/metrics")
        assert status == 200
        for line in ('frames_rejected_total{reason="frame_length"} 1', "cells 2",
                     'events_total{type="process.spawned"} 1', "log_segments 1",
                     'build_info{version="', 'cell_frames_received_total{cell="a"} 2',
                     'cell_frames_rejected_total{cell="a"} 1', 'cell_connected{cell="b.2:x"} 0',
                     'cell_events_total{cell="b.2:x"} 1', "inflight_oldest_seconds ",
                     'signing_info{algorithm="ed25519'):
            assert f"cellos_host_telemetry_{line}" in text, line
        # 503 where this machine stood still.
        for path in ("/healthz", "/readyz"):
            until(lambda p=path: d.http(p) == (200, "ok\n"), lambda p=path: d.http(p), 0.1)
        assert d.http("/x")[0] == 404
        key = base64.urlsafe_b64decode(d.keys["k1"] + "=")
        fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
        signing = d.ask({"verb": "status"})["signing"]
        assert (signing["kid"], signing["fingerprint"]) == ("k1", fingerprint), signing
        assert f'kid="k1",fingerprint="{fingerprint}"' in text and fingerprint in d.run("status")
        promtool = shutil.which("promtool")
        if promtool:
            run = subprocess.run([promtool, "check", "metrics"], input=text, text=True,
                                 capture_output=True)
            assert run.returncode == 0 and not run.stdout + run.stderr, run
        else:
            print("skipped: promtool (package prometheus) is not installed", flush=True)
        d.base_config = d.base_config.replace("metrics\n", "metrics\nper_cell = no\n")
        d.configure("")
        d.process.send_signal(signal.SIGHUP)
        until(lambda: "{cell=" not in d.http("/metrics")[1],
              "no series for each cell unless they are wanted", 0.1)
        d.stop()
        assert not os.path.exists(d.file("metrics"))


def healthy(port):
    """The address is served. 503 where this machine let the daemon stand still for five seconds."""
    def answers():
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        client.request("GET", "/healthz")
        return client.getresponse().status == 200

    return until(answers, "a daemon that turns", 0.1)


def is_healthy(port):
    try:
        return healthy(port)
    except OSError:
        return False


def losses_of_agents_are_in_the_metrics():
    """The total of all cells, which only grows, whatever a guest says next."""
    with Daemon() as d:
        for cell, dropped in (("a", (3, 7)), ("b", (5000, 0, 4999))):
            d.add(cell)
            sock = d.connect(cell)
            sock.sendall(hello() + b"".join(heartbeat(1, 6000, n) for n in dropped))
            d.wait_for_totals(frames={"a": 3, "b": 7}[cell])
        assert "cellos_host_telemetry_guest_dropped_total 5007\n" in d.wait_metrics(
            "frames_received_total 7\n")
        d.stop()


def _one_address_has_four_places(port):
    def fifth_is_refused():
        slow = [socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.3", 0))
                for _ in range(4)]
        with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.3", 0)) as sock:
            try:
                sock.settimeout(PATIENCE)
                sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                answer = sock.recv(64)
            except (ConnectionResetError, BrokenPipeError):
                answer = b""
        # Their five seconds may be over, where this machine stood still.
        all_live = not select.select(slow, [], [], 0)[0]
        for each in slow:
            each.close()
        assert not (all_live and answer), answer
        return all_live

    until(fifth_is_refused, "four connections that live for a moment")


def slow_http_clients_block_no_other():
    with Daemon(start=False) as d:
        port = free_port("0.0.0.0")
        d.base_config = d.base_config.replace(f"unix:{d.file('metrics')}", f"127.0.0.1:{port}")
        d.configure("")
        d.start()
        begin = time.monotonic()
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        closed = until(lambda: len(c := select.select(slow, [], [], PATIENCE)[0]) >= 196 and c,
                       "196 connections to be closed at once")
        kept = [sock for sock in slow if sock not in closed]
        # Those have their time, which is over if this machine stood still.
        assert len(kept) == 4 or time.monotonic() > begin + 4, f"{len(kept)} of 200 are served"
        _one_address_has_four_places(port)
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE,
                                           source_address=("127.0.0.2", 0))
        other.request("GET", "/healthz")
        assert other.getresponse().status == 200
        # A byte from time to time does not keep a connection.
        deadline = time.monotonic() + PATIENCE
        while kept:
            assert time.monotonic() < deadline, f"{len(kept)} slow clients are still served"
            for sock in list(kept):
                try:
                    sock.send(b"G")
                    if select.select([sock], [], [], 0.2)[0] and not sock.recv(1):
                        kept.remove(sock)
                except OSError:
                    kept.remove(sock)
        # The server forgets a connection a moment after it has closed it.
        until(lambda: is_healthy(port), "the address is served again", 0.1)


def two_places_are_kept_for_root():
    if os.getuid() != 0:
        print("skipped: needs root, to ask as another user", flush=True)
        return
    with Daemon() as d:
        os.chmod(d.dir, 0o755)
        os.chmod(d.control, 0o666)
        script = ("import socket, sys\n"
                  "socks = []\n"
                  "for i in range(80):\n"
                  "    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); socks.append(s)\n"
                  "print('there', flush=True)\n"
                  "sys.stdin.read()\n")
        with subprocess.Popen(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                               sys.executable, "-c", script, d.control], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as crowd:
            assert crowd.stdout.readline() == b"there\n"
            for _ in range(20):
                assert d.ask({"verb": "list"})["ok"], "root has its place at once"
            crowd.stdin.close()


def metrics_move_to_another_address_of_their_port():
    with Daemon(start=False) as d, socket.socket() as other:
        taken = free_port("0.0.0.0")
        other.bind(("127.0.0.2", taken))
        port = free_port("0.0.0.0")
        before, after = d.base_config.split(f"unix:{d.file('metrics')}")

        def listen(address, told, count=1):
            d.base_config = f"{before}{address}{after}"
            reload(d, "", told, count)

        d.base_config = f"{before}127.0.0.1:{port}{after}"
        d.configure("")
        d.start()
        assert healthy(port)
        listen(f"0.0.0.0:{port}", "configuration applied")
        assert healthy(port)
        listen(f"127.0.0.1:{port}", "configuration applied", 2)
        assert healthy(port)
        other.listen()
        # Where somebody else listens the new one stays out, and the old one is there.
        listen(f"127.0.0.2:{taken}", "the old one stays")
        assert healthy(port)
        listen(f"unix:{d.file('metrics')}", "configuration applied", 3)
        until(lambda: d.http("/healthz")[0] == 200, "a daemon that turns", 0.1)
        listen(f"127.0.0.1:{taken}", "configuration applied", 4)
        listen(f"0.0.0.0:{taken}", "the old one stays", 2)
        assert healthy(taken)
        listen("off", "configuration applied", 5)
        listen("off", "configuration applied", 6)
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", taken)) != 0
        assert d.log().count("cannot serve metrics") == 0


def tail_reads_and_follows():
    with Daemon("[evidence]\nrotate_size = 64K\n") as d:
        d.add("a")
        d.add("b")
        follower = subprocess.Popen([RECEIVER, "tail", "-f", "--type", "process.*",
                                     "--cell", "a", d.evidence], stdout=subprocess.PIPE, text=True)
        try:
            # It begins at the end of the log as it is then.
            until(lambda: d.segments()[-1] in open_files(follower.pid).values() and
                  is_idle(follower.pid), "a tail that waits for lines", 0)
            n = 200
            sock = d.connect("a")
            sock.sendall(b"".join(frame(seq=i, comm="\x1b[31m\u009b", detail={"ppid": 1})
                                  for i in range(1, n + 1)))
            other = d.connect("b")
            other.sendall(spawned(1))
            d.wait_for("guest.v1.process_spawned", n + 1)
            assert len(d.segments()) > 1, "it follows rotation"
            seen = [follower.stdout.readline() for _ in range(n)]
        finally:
            follower.kill()
            follower.wait()
        for line in seen:
            assert " a " in line and " process.spawned " in line and "ppid=1" in line
            assert all(" " <= c < "\x7f" for c in line.rstrip("\n")), line
        run = subprocess.run([RECEIVER, "tail", "--config", d.file("conf"), "--json"],
                             capture_output=True)
        assert run.stdout.splitlines(keepends=True) == d.entries()
        run = subprocess.run([RECEIVER, "tail", d.file("nothing")], capture_output=True)
        assert run.returncode == 66


def a_terminal_is_shown_nothing_that_it_obeys():
    event = {"type": oracle.PREFIX + "guest.v1.process_spawned", "data": {
        "cellId": "c", "sequence": 1, "comm": "a\0b\x7f\u009b2J", "\x1b[31mkey": "\x1b[31m"}}
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/evidence-{1:020}.jsonl", "w", encoding="utf-8") as f:
            f.write(json.dumps(event, ensure_ascii=False) + "\n")
        run = subprocess.run([RECEIVER, "tail", folder], capture_output=True, text=True)
        assert run.stderr == "" and all(" " <= c < "\x7f" for c in run.stdout[:-1]), run
        assert 'comm="a\\u0000b?\\u009B2J"' in run.stdout and "?[31mkey=" in run.stdout, run.stdout
        ours, theirs = pty.openpty()
        run = subprocess.run([RECEIVER, "tail", "--json", folder], stdout=theirs)
        os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as f:
            shown = f.read(4096).decode()
        assert not set(shown) & set(map(chr, [*range(32), *range(127, 160)])) - set("\r\n"), shown
        assert json.loads(shown) == event


def agent(d, cell, stop):
    """Sends for ever, and connects again like an agent."""
    seq = 0
    while not stop.is_set():
        try:
            with d.connect(cell) as sock:
                while not stop.is_set():
                    sock.sendall(b"".join(spawned(seq + i) for i in range(1, 9)))
                    seq += 8
                    time.sleep(0.05)
        except OSError:
            time.sleep(0.02)


class Disk:
    """The cells' entries on disk that a checkpoint covers, each time only what came since the last
    look."""

    def __init__(self, daemon):
        self.daemon, self.offsets, self.lines = daemon, {}, []

    def look(self):
        for path in self.daemon.segments():
            with open(path, "rb") as f:
                f.seek(self.offsets.get(path, 0))
                data = f.read()
            mark = b'"type":"dev.cellos.events.log_checkpoint.v1"}\n'
            end = data.rfind(mark)
            data = data[:end + len(mark)] if end >= 0 else b""
            self.offsets[path] = self.offsets.get(path, 0) + len(data)
            self.lines += [line for line in data.splitlines(keepends=True)
                           if b'"source":"cellos-host-telemetry/log"' not in line]


def killed_at_any_instant():
    """kill -9 under load: what was on disk is there once, each stream is linked, and verify names
    exactly the seals that are missing."""
    kills, cells = int(os.environ.get("CELLOS_KILLS", 6)), 12
    stop = threading.Event()
    with Daemon("[evidence]\nrotate_size = 1M\n") as d:
        for i in range(cells):
            d.add(f"c{i}")
        disk = Disk(d)
        agents = [threading.Thread(target=agent, args=(d, f"c{i}", stop)) for i in range(cells)]
        for thread in agents:
            thread.start()
        cut = 0
        try:
            for i in range(kills):
                time.sleep(random.choice([random.uniform(0.0, 0.02), random.uniform(0.0, 0.3)]))
                d.kill()
                disk.look()
                d.start(wait=i % 3 != 0)
                cut += i % 3 == 0
            d.wait_log('msg="ready"', kills + 1 - cut)
            until(lambda: os.path.exists(d.control) and
                  all(c["connected"] for c in d.ask({"verb": "list"})["cells"]),
                  "agents that come back", 0.05)
            assert len(d.ask({"verb": "list"})["cells"]) == cells
        finally:
            stop.set()
            for thread in agents:
                thread.join()
        d.stop()
        (log,) = d.logs().values()
        assert not log.tail, "at the end a checkpoint covers everything"
        lines = d.lines()
        assert len(set(lines)) == len(lines), "a record stands twice"
        assert set(disk.lines) <= set(lines), "a record that was on disk is gone"
        # Of each cell one chain: each stream names the one before it.
        streams, last = d.streams(), {}
        for events in streams.values():
            data = events[0]["data"]
            assert data.get("previousStreamId") == last.get(data["cellId"]), data
            last[data["cellId"]] = data["streamId"]
        sealed = {i for i, s in streams.items()
                  if s[-1]["type"] == oracle.PREFIX + "stream.v1.sealed"}
        assert sealed == set(last.values()), "those of the last run, and no others"
        verdict = json.loads(d.verify(None, "--json"))
        assert (verdict["records"], verdict["verified"]) == (len(d.entries()), len(d.entries()))
        assert (verdict["bad"], verdict["missing"]) == (0, 0)
        # And the log's own stream.
        assert (verdict["streams"], verdict["complete"]) == (len(streams) + 1, len(sealed) + 1)
        assert verdict["unsealed"] + verdict["interrupted"] == len(streams) - len(sealed)
        for place in verdict["places"]["unsealed"]:
            assert any(i in place["why"] for i in set(streams) - sealed), place
        print(f"{kills} kills, {cut} of them while starting; {len(streams)} streams of {cells} "
              f"cells, {len(lines)} records, {len(disk.lines)} of them seen before a restart, "
              f"{len(d.segments())} segments")


if __name__ == "__main__":
    main()
