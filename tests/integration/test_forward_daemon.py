# SPDX-License-Identifier: MIT
"""The daemon and its forwarder, with a real nats-server: what guests declare on three hosts is
verified from one stream, whatever ended on the way."""

import contextlib
import json
import os
import signal
import subprocess
import time

import nats
from runner import PATIENCE, free_port, main, until
from daemon import Daemon
from receiver import HASH, RECEIVER, frame


def daemon(server, algorithm="ed25519-log", more=""):
    d = Daemon(f"[nats]\nurl = {server.url}\ncreate_stream = yes\n{more}", start=False)
    d.base_config = d.base_config.replace("algorithm = ed25519\n", f"algorithm = {algorithm}\n")
    d.configure(f"[nats]\nurl = {server.url}\ncreate_stream = yes\n{more}")
    return d


def forward_status(d):
    return json.loads(d.run("forward", "status", "--json"))


def wait_forwarded(d, more_than=0, timeout=240):
    """Until all that the daemon has taken is in the log, and acknowledged, with the checkpoints after
    the last entry: before that it lags. What a start writes comes after it is ready: more_than says
    how many entries there were."""
    until = time.monotonic() + timeout
    while True:
        status = d.ask({"verb": "status"}, 60)
        forward, log = status["forward"], status["log"]
        if forward["state"] == "connected" and log["inflightBytes"] == 0 and \
                forward["index"] == log["size"] > more_than and forward["lagMs"] == 0:
            return forward
        assert time.monotonic() < until, (status["log"], forward, d.log())
        time.sleep(0.1)


def wait_metric(d, line):
    until = time.monotonic() + 120
    while line not in d.http("/metrics")[1]:
        assert time.monotonic() < until, d.http("/metrics")[1]
        time.sleep(0.1)


def forwarder_pid(d):
    until = time.monotonic() + 120
    while True:
        out = subprocess.run(["pgrep", "-P", str(d.process.pid), "-f", "forward run"],
                             capture_output=True, text=True).stdout.split()
        if out:
            return int(out[0])
        assert time.monotonic() < until, d.log()
        time.sleep(0.05)


def declare(d, cell, n):
    with d.connect(cell) as sock:
        for i in range(n):
            sock.sendall(frame("process.spawned", pid=i + 1))


def keyring(daemons, path):
    ring = {}
    for i, d in enumerate(daemons):
        ring |= {f"k{i + 1}": d.keys["k1"]}
    with open(path, "w") as f:
        json.dump(ring, f)
    return path


def verify(server, ring, want=0, options=()):
    run = subprocess.run([RECEIVER, "verify", "--keys", ring, "--nats", server.url, *options],
                         capture_output=True, text=True)
    assert run.returncode == want, (run.stdout, run.stderr)
    return run.stdout


def evidence_leaves_the_host():
    for algorithm in ["ed25519-log", "ed25519"]:
        with nats.Server() as server, daemon(server, algorithm) as d:
            d.start()
            d.add("web-7")
            declare(d, "web-7", 50)
            d.wait_for_totals(frames=50)
            forward = wait_forwarded(d)
            assert forward["acked"] >= 50 and forward["skipped"] == 0, forward
            assert "connected nats://127.0.0.1" in d.run("forward", "status")
            wait_metric(d, "cellos_host_telemetry_forward_lag_events 0\n")
            d.run("forward", "rewind", "--index", "0")
            before = forward["published"]
            until = time.monotonic() + 120
            while forward_status(d)["duplicates"] < 50:
                assert time.monotonic() < until, (before, forward_status(d))
                time.sleep(0.1)
            d.stop()
            d.start()
            wait_forwarded(d)
            d.stop()
            # The end of the last run comes with the next one, whose own beginning is open.
            entries = len(d.entries())
            d.start()
            wait_forwarded(d, entries)
            d.kill()
            text = verify(server, d.file("keyring.json"), want=4)
            assert "missing in the stream" not in text, text


def ends_of_daemon_and_forwarder():
    with nats.Server() as server, daemon(server) as d:
        d.start()
        d.add("web-7")
        for i in range(6):
            declare(d, "web-7", 200)
            pid = forwarder_pid(d)
            time.sleep(0.03 * i)
            if i % 2:
                os.kill(pid, signal.SIGKILL)
            else:
                d.kill()
                d.start()
        wait_forwarded(d)
        d.kill()
        text = verify(server, d.file("keyring.json"), want=4)
        assert "missing in the stream" not in text and "0 bad" in text, text


def three_daemons_of_100_cells_and_one_stream():
    """All of it is there; without one message, verify says which entry of which host is missing."""
    daemons = []
    with nats.Server() as server, server.client() as client, contextlib.ExitStack() as stack:
        client.make_stream()
        for i in range(3):
            d = daemon(server)
            daemons.append(stack.enter_context(d))
            d.base_config = d.base_config.replace("kid = k1", f"kid = host-{i}").replace(
                "[evidence]\n", f"[evidence]\norigin = test/host-{i}\n")
            d.configure(f"[nats]\nurl = {server.url}\n")
            d.start()
        for d in daemons:
            for n in range(100):
                answer = d.ask({"verb": "add", "options": {
                    "cell-id": f"cell-{n}", "run-id": "run", "spec-hash": HASH,
                    "uds": d.file(f"cell-{n}")}})
                assert answer["ok"], answer
            for n in range(100):
                declare(d, f"cell-{n}", 3)
        for d in daemons:
            d.wait_for_totals(frames=300)
            for n in range(100):
                assert d.ask({"verb": "remove", "cell": f"cell-{n}"})["ok"]
        ring = daemons[0].file("ring.json")
        with open(ring, "w") as f:
            json.dump({f"host-{i}": d.keys["k1"] for i, d in enumerate(daemons)}, f)
        for d in daemons:
            wait_forwarded(d)
        # The daemons run on, so their own streams are open: --live.
        text = verify(server, ring, options=["--live"])
        assert "OK: every record is verified" in text and "missing in the stream" not in text, text
        assert "303 streams: 300 complete, 0 interrupted, 3 unsealed" in text, text

        seq, headers = next((at, headers) for at, (_, headers, data)
                            in enumerate(client.messages(), 1)
                            if headers["Cellos-Log"].startswith("test/host-1/")
                            and b'"cellId":"cell-57"' in data and b"process_spawned" in data)
        client.api("STREAM.MSG.DELETE.CELLOS_EVENTS", {"seq": seq})
        text = verify(server, ring, want=3, options=["--live"])
        assert f"missing in the stream: {headers['Cellos-Log']} entry {headers['Cellos-Index']}\n" \
            in text, text
        verify(server, ring, options=["--live", "--origin", "test/host-0"])
        verify(server, ring, options=["--live", "--origin", "test/host-2"])


def retention_waits_and_the_hard_limit_does_not():
    """What the server has may be needed again for ten minutes. Above retain_size_hard the oldest
    goes all the same, and a signed entry says so."""
    sizes = "[evidence]\nrotate_size = 64K\nretain_size = 128K\nretain_size_hard = 512K\n"
    with nats.Server() as server, daemon(server) as d:
        d.configure(f"{sizes}[nats]\nurl = {server.url}\ncreate_stream = yes\n")
        d.start()
        d.add("web-7")
        declare(d, "web-7", 400)
        d.wait_for_totals(frames=400)
        wait_forwarded(d)
        declare(d, "web-7", 50)
        d.wait_for_totals(frames=450)
        assert sum(os.path.getsize(p) for p in d.segments()) > 160 * 1024
        assert d.segments()[0].endswith("evidence-00000000000000000001.jsonl"), d.segments()
        assert "log.v1.pruned" not in str(d.raw_lines())
        # No more at once than there is room for while the forwarder stands still.
        for frames in range(600, 1351, 150):
            declare(d, "web-7", 150)
            d.wait_for_totals(frames=frames)
            wait_forwarded(d)
        pruned = until(lambda: [line for line in d.raw_lines() if b"log.v1.pruned" in line],
                       "evidence that was given up")
        assert b'"policy":"retain_size_hard"' in pruned[0], pruned
        wait_forwarded(d)
        # The server has what the host gave up.
        text = verify(server, d.file("keyring.json"), options=["--live"])
        assert "missing in the stream" not in text, text


def becomes_ready(d):
    until(lambda: d.http("/readyz")[0] == 200, lambda: f"readiness: {d.http('/readyz')}")


def a_server_that_is_away_is_named():
    with nats.Server() as server, daemon(server, more="lag_ready = 1s\n") as d:
        d.start()
        d.add("web-7")
        wait_forwarded(d)
        becomes_ready(d)
        server.kill()
        declare(d, "web-7", 10)
        until(lambda: d.http("/readyz")[0] != 200, lambda: forward_status(d))
        until(lambda: "has not left this host" in d.http("/readyz")[1], "the reason")
        server.start()
        wait_forwarded(d)
        becomes_ready(d)


def a_forwarder_that_cannot_start_is_behind_by_nobody_knows_how_much():
    with nats.Server() as server, daemon(server) as d:
        folder = d.file("state/forward")
        with open(folder, "w"):
            pass
        d.start()
        d.wait_log("cannot open the forwarder's folder", 2)
        until(lambda: forward_status(d)["restarts"] > 1, lambda: forward_status(d))
        text = d.run("forward", "status")
        assert text.startswith("starting: ") and "started again" in text, text
        assert "behind" not in text, text
        os.unlink(folder)
        wait_forwarded(d)
        assert " 0 behind" in d.run("forward", "status")


def without_a_tree_nothing_is_forwarded():
    with Daemon("[nats]\nurl = nats://127.0.0.1:1\n", sign=False, start=False) as d:
        d.start(wait=False)
        assert d.process.wait(PATIENCE) == 78, d.log()
        assert "ed25519-log" in d.log()


def a_reload_changes_the_server():
    with nats.Server() as one, nats.Server() as other, daemon(one) as d:
        d.start()
        d.add("web-7")
        wait_forwarded(d)
        d.configure(f"[nats]\nurl = {other.url}\ncreate_stream = yes\n")
        d.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 120
        while forward_status(d)["server"] != other.url:
            assert time.monotonic() < until, forward_status(d)
            time.sleep(0.1)
        declare(d, "web-7", 10)
        # There is no stream to count before it is made.
        wait_forwarded(d)
        with other.client() as client:
            until = time.monotonic() + 120
            while client.count() < 10:
                assert time.monotonic() < until, forward_status(d)
                time.sleep(0.1)
        d.configure("")
        d.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 120
        while d.ask({"verb": "status"}, 60).get("forward") is not None:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert "forwards nothing" in d.run("forward", "status", want=1)


def the_example_of_three_hosts():
    run = subprocess.run([os.path.join(os.environ["CELLOS_SOURCE"], "docs/examples/three-hosts")],
                         env={**os.environ, "NATS_PORT": str(free_port()),
                              "PATH": os.environ["PATH"] + ":" + os.path.dirname(nats.SERVER)},
                         capture_output=True, text=True, timeout=600)
    assert run.returncode == 0 and "OK: every record is verified" in run.stdout, run


if __name__ == "__main__":
    nats.need_server()
    main()
