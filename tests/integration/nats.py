# SPDX-License-Identifier: MIT
"""A real nats-server for tests, and a small client of its text protocol (docs.nats.io)."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from runner import PATIENCE, free_port, need, stand_still

SERVER = shutil.which("nats-server") or "/usr/sbin/nats-server"


def need_server():
    need(os.path.exists(SERVER), "nats-server is not installed")


class Server:
    """nats-server on a loopback port. config: more lines of its configuration file."""

    def __init__(self, config="", jetstream=True, start=True, scheme="nats"):
        # In memory: a disk that others keep busy would be waited for.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.tmp = tempfile.TemporaryDirectory(prefix="cellos-nats-", dir=memory)
        self.port = free_port()
        self.config = os.path.join(self.tmp.name, "nats.conf")
        self.store = os.path.join(self.tmp.name, "js")
        # A limit of its own: the server's default is what the disk has free at its start.
        store = (f'jetstream {{ store_dir: "{self.store}"\nmax_file_store: 10GB }}\n'
                 if jetstream else "")
        with open(self.config, "w") as f:
            f.write(f"host: 127.0.0.1\nport: {self.port}\n{store}{config}")
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.process = None
        if start:
            self.start()

    def start(self):
        self.log = open(os.path.join(self.tmp.name, "log"), "ab")
        self.process = subprocess.Popen([SERVER, "-c", self.config], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < until, self.output()
                time.sleep(0.02)

    def output(self):
        with open(os.path.join(self.tmp.name, "log")) as f:
            return f.read()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def pause(self):
        stand_still(self.process.pid)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def client(self, **options):
        return Client(self.port, **options)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process and self.process.poll() is None:
            self.resume()
            self.kill()
        self.tmp.cleanup()


class Client:
    def __init__(self, port, **connect):
        self.port, self.options = port, connect
        self.sock = socket.create_connection(("127.0.0.1", port), 60)
        self.file = self.sock.makefile("rb")
        self.n, self.others = 0, []
        assert self.file.readline().startswith(b"INFO ")
        self.send("CONNECT " + json.dumps({"verbose": False, "headers": True,
                                           "no_responders": True, **connect}))

    def send(self, line, data=None):
        self.sock.sendall(line.encode() + b"\r\n" + (data + b"\r\n" if data is not None else b""))

    def read(self):
        """The next message: subject, reply, headers (a dict), data."""
        while True:
            words = self.file.readline().decode().split()
            assert words and words[0] != "-ERR", words
            if words[0] == "PING":
                self.send("PONG")
            if words[0] not in ("MSG", "HMSG"):
                continue
            total = int(words[-1])
            head = int(words[-2]) if words[0] == "HMSG" else 0
            names = words[3:-2] if words[0] == "HMSG" else words[3:-1]
            data = self.file.read(total + 2)[:-2]
            return words[1], names[0] if names else None, parse_headers(data[:head]), data[head:]

    def subscribe(self, subject):
        self.n += 1
        self.send(f"SUB {subject} {self.n}")

    def request(self, subject, payload):
        inbox = f"_INBOX.{os.getpid()}.{self.n}.{time.monotonic_ns()}"
        self.subscribe(inbox)
        data = json.dumps(payload).encode() if payload is not None else b""
        self.send(f"PUB {subject} {inbox} {len(data)}", data)
        while (message := self.read())[0] != inbox:
            self.others.append(message)
        answer = json.loads(message[3] or "{}")
        self.send(f"UNSUB {self.n}")
        return answer

    def api(self, what, payload=None):
        answer = self.request(f"$JS.API.{what}", payload)
        assert "error" not in answer, answer
        return answer

    def make_stream(self, name="CELLOS_EVENTS", **config):
        return self.api(f"STREAM.CREATE.{name}", {
            "name": name, "storage": "file", "retention": "limits", "discard": "new",
            "num_replicas": 1, "duplicate_window": 120 * 10**9,
            "subjects": ["cellos.events.>", "cellos.checkpoints.>", "cellos.logs.>"], **config})

    def count(self, name="CELLOS_EVENTS"):
        return self.api(f"STREAM.INFO.{name}")["state"]["messages"]

    def messages(self, name="CELLOS_EVENTS"):
        """All messages of the stream in their order: (subject, headers, data)."""
        # A connection of its own: its consumer goes with it.
        with Client(self.port) as client:
            return client.read_all(name)

    def read_all(self, name):
        left = self.count(name)
        inbox = f"_INBOX.{os.getpid()}.all.{time.monotonic_ns()}"
        self.subscribe(inbox)
        self.api(f"CONSUMER.CREATE.{name}", {
            "stream_name": name, "config": {"deliver_subject": inbox, "deliver_policy": "all",
                                            "ack_policy": "none", "replay_policy": "instant"}})
        # What came before the answer, then what comes. A reply names the delivery: the subject of
        # an ordinary delivery is the message's own.
        found = self.others
        while left > len(found):
            found.append(self.read())
        return [(subject, headers, data) for subject, _, headers, data in found]

    def close(self):
        self.file.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def parse_headers(data):
    lines = data.decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if ": " in line)
