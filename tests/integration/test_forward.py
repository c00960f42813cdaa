# SPDX-License-Identifier: MIT
"""The forwarder against a real nats-server: each entry of the log is in the stream once, whatever
ends server, connection or forwarder on the way."""

import json
import os
import shutil
import subprocess
import tempfile
import time

import nats
from forwarder import REWIND_INDEX, REWIND_TIME, Forwarder
from make_log import Log
from receiver import RECEIVER
from runner import PATIENCE, main, until


def entries(messages):
    """Index -> bytes of the entries in these messages of mode events, each there once."""
    found = {}
    for subject, headers, data in messages:
        if subject.startswith("cellos.events."):
            index = int(headers["Cellos-Index"])
            assert index not in found, index
            found[index] = data
    return found


def check(server, f):
    with server.client() as client:
        found = entries(client.messages())
    assert [found[i] for i in sorted(found)] == f.log.lines, (len(found), len(f.log.lines))


def every_entry_is_in_the_stream_once():
    with nats.Server() as server, server.client() as client, Forwarder(server.url) as f:
        client.make_stream()
        f.start().wait_done()
        check(server, f)
        messages = client.messages()
        subjects = {m[0] for m in messages}
        assert "cellos.events._.log_v1_opened" in subjects, subjects
        assert "cellos.events.cell-1.guest_v1_process_spawned" in subjects, subjects
        assert "cellos.checkpoints.cellos_host-1" in subjects, subjects
        one = next(m for m in messages if m[0].startswith("cellos.events.cell-2."))
        assert one[1]["Content-Type"] == "application/cloudevents+json"
        assert one[1]["Cellos-Log"] == f.log.origin
        assert one[1]["Nats-Msg-Id"].startswith("urn:cellos:event:")
        # What comes later follows.
        f.log.fill(10)
        f.say_end()
        f.wait_done()
        check(server, f)
        assert f.status["lag_events"] == 0, f.status
        f.stop()


def batches_are_the_log_as_it_stands():
    def make(folder):
        log = Log(folder)
        log.open()
        log.fill(300, per_commit=50, pad=2000)
        log.segment()
        log.fill(600, per_commit=600, pad=2000)  # a group of more than 512 KiB
        return log

    with nats.Server() as server, server.client() as client, \
            Forwarder(server.url, "mode = batches\n", make=make) as f:
        client.make_stream()
        f.start().wait_done()
        messages = client.messages()
        data = b"".join(m[2] for m in messages)
        whole = b""
        for name in sorted(os.listdir(f.file("evidence"))):
            with open(f.file("evidence/" + name), "rb") as segment:
                whole += segment.read()
        assert data == whole
        assert max(len(m[2]) for m in messages) <= 512 * 1024
        assert {m[0] for m in messages} == {"cellos.logs.cellos_host-1"}
        uuid = f.log.uuid
        assert messages[1][1]["Nats-Msg-Id"] == f"{uuid}:1-51", messages[1][1]
        f.stop()


def nothing_before_it_is_durable():
    with nats.Server() as server, server.client() as client, Forwarder(server.url) as f:
        client.make_stream()
        segment, offset, size = f.log.end()
        f.log.fill(50)
        end = f.log.end
        f.log.end = lambda: (segment, offset, size)
        f.start().wait(lambda s: s["index"] == size and s["state"] == "connected")
        assert len(entries(client.messages())) == size
        f.log.end = end
        f.say_end()
        f.wait_done()
        check(server, f)


# The server's ends in one run; tools/soak asks for more.
SERVER_KILLS = int(os.environ.get("CELLOS_SERVER_KILLS", "20"))


def absent_then_killed_and_restarted_under_load():
    with nats.Server(start=False) as server, Forwarder(server.url, "create_stream = yes\n") as f:
        f.start().wait_error("connect")
        server.start()
        f.wait_done()
        for i in range(SERVER_KILLS):
            f.log.fill(400)
            f.say_end()
            time.sleep(0.01 * (i % 5))
            server.kill()
            server.start()
        f.wait_done()
        check(server, f)
        f.stop()


def a_server_that_hangs():
    with nats.Server() as server, Forwarder(server.url, "create_stream = yes\n") as f:
        f.start().wait_done()
        server.pause()
        f.log.fill(50)
        f.say_end()
        f.wait_error("timeout")
        server.resume()
        f.wait_done()
        check(server, f)


def the_stream_is_deleted_and_made_again():
    with nats.Server() as server, server.client() as client, Forwarder(server.url) as f:
        f.start().wait_error("no_stream")
        client.make_stream()
        f.wait_done()
        client.api("STREAM.DELETE.CELLOS_EVENTS")
        f.log.fill(20)
        f.say_end()
        f.wait_error("no_stream")
        client.make_stream()
        f.wait_done()
        # What the deleted stream held is gone from the server, and not from the log.
        f.order(REWIND_INDEX, index=0)
        f.wait(lambda s: len(entries(client.messages())) == f.log.tree.size)
        check(server, f)


def a_full_stream_loses_nothing():
    with nats.Server() as server, server.client() as client, Forwarder(server.url, entries=300) as f:
        client.make_stream(max_msgs=100)
        status = f.start().wait_error("full")
        assert "maximum messages exceeded" in status["why"], status
        assert client.count() == 100
        client.api("STREAM.UPDATE.CELLOS_EVENTS", {
            "name": "CELLOS_EVENTS", "storage": "file", "retention": "limits", "discard": "new",
            "num_replicas": 1, "duplicate_window": 120 * 10**9, "max_msgs": -1,
            "subjects": ["cellos.events.>", "cellos.checkpoints.>", "cellos.logs.>"]})
        f.wait_done()
        check(server, f)


def streams_that_would_lose_evidence_are_refused():
    for config, why in [({"storage": "memory"}, "memory"), ({"retention": "workqueue"}, "limits"),
                        ({"no_ack": True}, "no_ack")]:
        with nats.Server() as server, server.client() as client, Forwarder(server.url) as f:
            client.make_stream(**config)
            status = f.start().wait_error("stream")
            assert why in status["why"], status
            assert client.count() == 0
    with nats.Server() as server, server.client() as client, Forwarder(server.url) as f:
        client.make_stream(discard="old", max_msgs=10**6, duplicate_window=10**9, max_age=10**15)
        status = f.start().wait_done()
        for word in ["duplicate window", "discard is old", "max_age"]:
            assert word in status["warnings"], status


def one_large(folder):
    log = Log(folder)
    log.open()
    log.fill(10)
    log.add("cell-0", pad="x" * 20000)
    log.commit()
    log.fill(10)
    return log


def check_skipped(client, f):
    """All but the large entry is there, and a notice in the place of that one."""
    messages = client.messages()
    notices = [m for m in messages if m[0] == "cellos.events._.forward_v1_skipped"]
    large = next(i for i, line in enumerate(f.log.lines) if len(line) > 20000)
    found = entries(m for m in messages if m not in notices)
    assert sorted(found) == [i for i in range(f.log.tree.size) if i != large], sorted(found)
    (_, headers, data), = notices
    assert headers["Cellos-Index"] == str(large) and headers["Cellos-Log"] == f.log.origin
    said = json.loads(data)["data"]
    assert said["bytes"] == len(f.log.lines[large]) and said["index"] == large, said


def a_record_that_the_server_never_takes():
    # By the stream's limit, and by the server's.
    for config, stream in [("", {"max_msg_size": 8000}), ("max_payload: 8000\n", {})]:
        with nats.Server(config) as server, server.client() as client, \
                Forwarder(server.url, make=one_large) as f:
            client.make_stream(**stream)
            status = f.start().wait_done()
            assert status["skipped"] == 1 and status["errors"]["too_large"] == 1, status
            assert "skipped" in f.output()
            check_skipped(client, f)
            ring = f.file("ring")
            with open(ring, "w") as out:
                json.dump(f.log.keyring(), out)
            run = subprocess.run([RECEIVER, "verify", "--keys", ring, "--nats", server.url],
                                 capture_output=True, text=True)
            assert run.returncode == 3 and "skipped" in run.stdout, run
            f.stop()


def a_limit_that_is_lowered_later():
    """The forwarder learns of it by the refusal of a message, and sends the notice then."""
    with nats.Server() as server, server.client() as client, Forwarder(server.url) as f:
        config = client.make_stream()["config"]
        f.start().wait_done()
        client.api("STREAM.UPDATE.CELLOS_EVENTS", {**config, "max_msg_size": 8000})
        f.log.add("cell-0", pad="x" * 20000)
        f.log.commit()
        f.log.fill(10)
        f.say_end()
        f.wait(lambda s: s["skipped"] == 1)
        f.wait_done()
        check_skipped(client, f)


def a_message_of_just_the_limit_is_sent():
    """The limit is on headers and data together, to the byte."""
    with nats.Server() as server, server.client() as client, \
            Forwarder(server.url, make=one_large) as f:
        client.make_stream()
        f.start().wait_done()
        f.stop()
        large = next(i for i, line in enumerate(f.log.lines) if len(line) > 20000)
        headers = next(m[1] for m in client.messages()
                       if m[1]["Cellos-Index"] == str(large) and m[0].startswith("cellos.events."))
        size = len(f.log.lines[large]) + len("NATS/1.0\r\n\r\n") + sum(
            len(f"{k}: {v}\r\n") for k, v in headers.items())
        for limit, skipped in [(size, 0), (size - 1, 1)]:
            client.api("STREAM.DELETE.CELLOS_EVENTS")
            client.make_stream(max_msg_size=limit)
            f.start()
            f.order(REWIND_INDEX, index=0)
            f.wait(lambda s: s["acked"] >= f.log.tree.size and s["lag_events"] == 0)
            assert f.status["skipped"] == skipped and f.status["retries"] == 0, f.status
            f.stop()


def wrong_credentials():
    config = 'authorization { user: agent, password: right }\n'
    with nats.Server(config) as server, \
            Forwarder(server.url.replace("//", "//agent:wrong@")) as f:
        status = f.start().wait_error("credentials")
        assert "wrong" not in status["server"] and "wrong" not in f.output().replace(
            "something went wrong", ""), status
    with Forwarder("nats://127.0.0.1:1", "credentials = /nowhere/user.creds\n") as f:
        status = f.start().wait_error("credentials")
        assert "/nowhere/user.creds" in status["why"], status


def a_user_that_may_not_publish():
    config = ('authorization { users: [{ user: all, password: x },\n'
              '{ user: agent, password: x, permissions: { publish: "$JS.API.>" } }] }\n')
    login = {"user": "all", "pass": "x"}
    with nats.Server(config) as server, server.client(**login) as client, \
            Forwarder(server.url.replace("//", "//agent:x@")) as f:
        client.make_stream()
        status = f.start().wait_error("credentials")
        assert "ermission" in status["why"], status
        assert client.count() == 0


def answer_version(client, version):
    """Stand in for a server that says its version: Debian has but one."""
    subject, reply, *_ = client.read()
    assert subject == "$SYS.REQ.USER.INFO", subject
    data = json.dumps({"server": {"ver": version}}).encode()
    client.send(f"PUB {reply} {len(data)}", data)


def servers_that_lose_what_they_acknowledge():
    for version in [None, "2.10.4", "2.10.5"]:
        until(lambda v=version: _a_version_is_judged(v), "a version that is said in time", 0)


def _a_version_is_judged(version):
    """False where this machine stood still: the forwarder waits for VERSION_WAIT_MS, two seconds, and
    does not see an answer that came while it stood still itself."""
    with nats.Server() as server, server.client() as client, server.client() as other, \
            Forwarder(server.url) as f:
        client.make_stream(max_bytes=10**8)
        if version:
            other.subscribe("$SYS.REQ.USER.INFO")
            other.request("nobody.there", None)  # the subscription is with the server
        begin = time.monotonic()
        f.start()
        if version:
            answer_version(other, version)
        warnings = f.wait_done()["warnings"]
        late = time.monotonic() - begin > 1
        right = ("before 2.10.5" in warnings) == (version != "2.10.5") and (
            "2.10.4" in warnings or version != "2.10.4")
        assert right or late, (version, f.status)
        return right


def no_jetstream():
    with nats.Server(jetstream=False) as server, Forwarder(server.url) as f:
        f.start().wait_error("no_jetstream")


def another_stream_takes_the_subject():
    with nats.Server() as server, server.client() as client, Forwarder(server.url) as f:
        client.make_stream("CELLOS_EVENTS", subjects=["elsewhere.>"])
        client.make_stream("OTHER")
        f.start().wait_error("wrong_stream")
        assert client.count("OTHER") == 0


def certificate(folder, name, ca=None, days=30, host="127.0.0.1"):
    """A key and a certificate, by openssl."""
    def path(end):
        return os.path.join(folder, f"{name}.{end}")

    run = lambda *args: subprocess.run(["openssl", *args], check=True, capture_output=True)
    run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path("key"))
    if ca is None:
        run("req", "-x509", "-new", "-key", path("key"), "-subj", f"/CN={name}", "-days", "30",
            "-out", path("pem"))
        return
    run("req", "-new", "-key", path("key"), "-subj", f"/CN={name}", "-out", path("csr"))
    kind = "IP" if host[0].isdigit() else "DNS"
    with open(path("ext"), "w") as f:
        f.write(f"subjectAltName={kind}:{host}\n")
    run("x509", "-req", "-in", path("csr"), "-CA", os.path.join(folder, ca + ".pem"), "-CAkey",
        os.path.join(folder, ca + ".key"), "-CAcreateserial", "-days", str(days), "-extfile",
        path("ext"), "-out", path("pem"))


def tls():
    with tempfile.TemporaryDirectory() as folder:
        certificate(folder, "ca")
        certificate(folder, "other-ca")
        certificate(folder, "good", "ca")
        certificate(folder, "expired", "ca", days=-1)
        certificate(folder, "elsewhere", "ca", host="nats.example.org")
        cases = [("good", "ca", None), ("good", "other-ca", "tls"), ("expired", "ca", "tls"),
                 ("elsewhere", "ca", "tls")]
        for cert, ca, error in cases:
            tls = (f'tls {{ cert_file: "{folder}/{cert}.pem"\nkey_file: "{folder}/{cert}.key" }}\n')
            with nats.Server(tls, scheme="tls") as server, \
                    Forwarder(server.url, f"create_stream = yes\ntls_ca = {folder}/{ca}.pem\n") as f:
                f.start()
                if error:
                    f.wait_error(error)
                    assert f.status["published"] == 0, (cert, ca)
                else:
                    f.wait_done()


def a_forwarder_gives_up_its_privileges():
    with nats.Server() as server, Forwarder(server.url, "create_stream = yes\n") as f:
        f.start().wait_done()
        with open(f"/proc/{f.process.pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        assert fields["NoNewPrivs"].strip() == "1"
        for which in ["CapEff", "CapPrm", "CapInh"]:
            assert int(fields[which], 16) == 0, fields
        if os.environ.get("CELLOS_SANITIZE", "none") == "none":
            assert fields["Seccomp"].strip() == "2"
        f.stop()


def a_ca_that_is_replaced():
    """A new file under the old name, as tools that renew certificates make it: it is read without
    an operator."""
    with tempfile.TemporaryDirectory() as folder:
        for ca in ["old", "new"]:
            certificate(folder, ca)
            certificate(folder, ca + "-server", ca)
        shutil.copy(f"{folder}/old.pem", f"{folder}/ca.pem")
        tls = 'tls {{ cert_file: "{0}-server.pem"\nkey_file: "{0}-server.key" }}\n'
        with nats.Server(tls.format(f"{folder}/old"), scheme="tls") as server, \
                Forwarder(server.url, f"create_stream = yes\ntls_ca = {folder}/ca.pem\n") as f:
            f.start().wait_done()
            server.kill()
            with open(server.config) as config:
                text = config.read()
            with open(server.config, "w") as config:
                config.write(text.replace(f"{folder}/old", f"{folder}/new"))
            server.start()
            f.log.fill(10)
            f.say_end()
            f.wait_error("tls")
            os.rename(f"{folder}/new.pem", f"{folder}/ca.pem")
            # The daemon starts it again at once.
            assert f.process.wait(PATIENCE) == 75, f.output()
            assert "ca.pem" in f.output()
            f.link.close()
            f.start().wait_done()
            f.stop()


def killed_at_any_moment():
    with nats.Server() as server, Forwarder(server.url, "create_stream = yes\n", entries=3000) as f:
        for i in range(10):
            f.start()
            time.sleep(0.02 * i)
            f.kill()
            f.log.fill(100)
        f.start().wait_done()
        check(server, f)
        assert f.status["cursor_lost"] == 0, f.status


def any_cursor():
    """Empty, cut, of zeros, of another log: all is sent again, which the stream knows already."""
    with nats.Server() as server, Forwarder(server.url, "create_stream = yes\n") as f:
        f.start().wait_done()
        f.stop()
        names = [f.file("state/forward/cursor.0"), f.file("state/forward/cursor.1")]
        good = [open(n, "rb").read() if os.path.exists(n) else b"" for n in names]
        for damage in [lambda d: b"", lambda d: d[:40], lambda d: b"\0" * 300,
                       lambda d: d.replace(b"1", b"2", 1)]:
            for name, data in zip(names, good):
                with open(name, "wb") as cursor:
                    cursor.write(damage(data))
            f.start().wait_done()
            assert f.status["cursor_lost"] == 1, f.status
            check(server, f)
            f.stop()
        # One damaged generation is not worth a word to the operator's pager.
        f.log.fill(5)
        f.start().wait_done()
        f.stop()
        with open(names[0], "wb"):
            pass
        f.start().wait_done()
        assert f.status["cursor_lost"] == 0, f.status
        f.stop()
    # Of another log.
    with nats.Server() as server, Forwarder(server.url, "create_stream = yes\n") as f:
        f.start().wait_done()
        f.stop()
        for name in os.listdir(f.file("evidence")):
            os.unlink(f.file("evidence/" + name))
        f.log = Log(f.file("evidence"))
        f.log.open()
        f.log.fill(30)
        f.start().wait_done()
        assert f.status["cursor_lost"] == 1, f.status
        with server.client() as client:
            found = [m for m in client.messages() if m[1]["Cellos-Log"] == f.log.origin]
        assert [v for _, v in sorted(entries(found).items())] == f.log.lines


def evidence_pruned_under_it():
    def make(folder):
        log = Log(folder)
        log.open()
        log.fill(50)
        log.segment()
        log.fill(50)
        return log

    with nats.Server(start=False) as server, \
            Forwarder(server.url, "create_stream = yes\n", make=make) as f:
        f.start().wait_error("connect")
        os.unlink(f.file("evidence/evidence-00000000000000000001.jsonl"))
        server.start()
        f.wait_done()
        with server.client() as client:
            found = entries(client.messages())
        assert sorted(found) == list(range(51, 51 + 50)), sorted(found)


def rewind_by_time():
    with nats.Server() as server, server.client() as client, \
            Forwarder(server.url, "create_stream = yes\n") as f:
        f.start().wait_done()
        f.order(REWIND_TIME, ms=0)
        f.wait(lambda s: s["duplicates"] >= f.log.tree.size)
        check(server, f)


if __name__ == "__main__":
    nats.need_server()
    main()
