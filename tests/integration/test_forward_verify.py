# SPDX-License-Identifier: MIT
"""Evidence of several hosts in one stream is verified in one pass: complete if it is, and an entry
that is missing is named."""

import json
import os
import select
import subprocess

import nats
from runner import main, until
from forwarder import Forwarder
from make_log import Log
from receiver import RECEIVER


def verify(url, keyring, *options, want=0):
    run = subprocess.run([RECEIVER, "verify", "--keys", keyring, "--nats", url, *options],
                         capture_output=True, text=True)
    assert run.returncode == want, (run.returncode, run.stdout, run.stderr)
    return run.stdout


def host(number, cells, entries, segments=1):
    def make(folder):
        log = Log(folder, host=f"host-{number}", seed=bytes([number]) * 32,
                  kid=f"k{number}")
        log.open()
        for i in range(segments):
            if i:
                log.segment()
            log.fill(entries // segments, per_commit=32, cells=cells)
        log.close()
        return log
    return make


def keys(path, *forwarders):
    ring = {}
    for f in forwarders:
        ring |= f.log.keyring()
    with open(path, "w") as out:
        json.dump(ring, out)
    return path


def forward_all(server, mode, *makers):
    config = f"create_stream = yes\nmode = {mode}\n"
    forwarders = [Forwarder(server.url, config, make=make) for make in makers]
    for f in forwarders:
        f.start()
    for f in forwarders:
        f.wait_done()
        f.stop()
    return forwarders


def three_hosts_one_stream():
    for mode in ["events", "batches"]:
        with nats.Server() as server, server.client() as client:
            hosts = forward_all(server, mode, host(1, 100, 600), host(2, 100, 600),
                                host(3, 100, 600, segments=3))
            ring = keys(hosts[0].file("ring"), *hosts)
            text = verify(server.url, ring)
            assert "missing in the stream" not in text and "OK: every record" in text, text
            only = verify(server.url, ring, "--origin", "cellos/host-2")
            assert "OK: every record" in only, only
            # The newest checkpoint that an auditor kept is in it.
            kept = hosts[1].file("kept")
            with open(kept, "w") as f:
                f.write(hosts[1].log.note)
            verify(server.url, ring, "--checkpoint", kept)
            if mode == "events":
                delete_one(server, client, hosts, ring)
            for f in hosts:
                f.__exit__(None)


def delete_one(server, client, hosts, ring):
    messages = client.messages()
    log = hosts[1].log
    at = next(i for i, (subject, headers, _) in enumerate(messages)
              if headers["Cellos-Log"] == log.origin and headers["Cellos-Index"] == "300"
              and subject.startswith("cellos.events."))
    assert client.api("STREAM.MSG.DELETE.CELLOS_EVENTS", {"seq": at + 1})["success"]
    text = verify(server.url, ring, want=3)
    assert f"missing in the stream: {log.origin} entry 300\n" in text, text
    # The other hosts' evidence is as good as before.
    verify(server.url, ring, "--origin", "cellos/host-1")
    verify(server.url, ring, "--origin", "cellos/host-3")


def messages_sent_twice_count_once():
    with nats.Server() as server, server.client() as client:
        client.make_stream(duplicate_window=10**8)
        f, = forward_all(server, "events", host(1, 5, 200))

        def sent_again():
            """Within the window, and for as long as it takes the server to look at its clock, they
            are no new messages."""
            for name in os.listdir(f.file("state/forward")):
                os.unlink(f.file("state/forward/" + name))
            f.start().wait_done()
            f.stop()
            return client.count() > f.log.tree.size * 1.5

        until(sent_again, "a server that has forgotten the first messages")
        text = verify(server.url, keys(f.file("ring"), f))
        assert "counted once" in text, text
        f.__exit__(None)


def a_forged_message_is_bad():
    with nats.Server() as server, server.client() as client:
        client.make_stream()
        f, = forward_all(server, "events", host(1, 5, 100))
        messages = client.messages()
        client.api("STREAM.PURGE.CELLOS_EVENTS")
        for subject, headers, data in messages:
            if headers["Cellos-Index"] == "50" and subject.startswith("cellos.events."):
                data = data.replace(b'"guestPid":', b'"guestPid":1')
            head = "NATS/1.0\r\n" + "".join(
                f"{k}: {v}\r\n" for k, v in headers.items() if k.startswith("Cellos")) + "\r\n"
            client.send(f"HPUB {subject} {len(head)} {len(head) + len(data)}", head.encode() + data)
        until(lambda: client.count() == len(messages), "all of them in the stream")
        verify(server.url, keys(f.file("ring"), f), want=1)
        f.__exit__(None)


def tail_of_many_hosts():
    for mode in ["events", "batches"]:
        with nats.Server() as server:
            hosts = forward_all(server, mode, host(1, 3, 30), host(2, 3, 30))
            run = subprocess.run([RECEIVER, "tail", "--json", "--nats", server.url],
                                 capture_output=True, check=True)
            assert sorted(run.stdout.splitlines()) == sorted(hosts[0].log.lines + hosts[1].log.lines)
            run = subprocess.run([RECEIVER, "tail", "--nats", server.url, "--cell", "cell-1"],
                                 capture_output=True, check=True, text=True)
            assert run.stdout.count("cell-1") == run.stdout.count("\n") > 10, run.stdout
            follow = subprocess.Popen([RECEIVER, "tail", "-f", "--json", "--nats", server.url],
                                      stdout=subprocess.PIPE)
            # It has begun when a line that came later is the first that it prints.
            hosts[0].start()
            while not select.select([follow.stdout], [], [], 0.5)[0]:
                hosts[0].log.fill(1)
                hosts[0].say_end()
            assert json.loads(follow.stdout.readline())["data"]["cellId"].startswith("cell-")
            follow.kill()
            follow.wait()
            for f in hosts:
                f.__exit__(None)


def nothing_and_nobody():
    with nats.Server() as server, server.client() as client, Forwarder(server.url) as f:
        ring = keys(f.file("ring"), f)
        run = subprocess.run([RECEIVER, "verify", "--keys", ring, "--nats", server.url],
                             capture_output=True, text=True)
        assert run.returncode == 66 and "CELLOS_EVENTS" in run.stderr, run
        client.make_stream()
        assert "NOTHING" in verify(server.url, ring, want=5)
    run = subprocess.run([RECEIVER, "verify", "--keys", "/dev/null", "--nats", "nats://127.0.0.1:1"],
                         capture_output=True, text=True)
    assert run.returncode == 78, run


if __name__ == "__main__":
    nats.need_server()
    main()
