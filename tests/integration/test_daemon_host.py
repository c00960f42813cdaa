# SPDX-License-Identifier: MIT
"""The daemon and what its host gives it: the service manager's socket, and file descriptors."""

import os
import signal
import socket
import tempfile
import time

from daemon import Daemon
from receiver import closed_by_host, cpu_seconds, no_more_descriptors, spawned
from runner import PATIENCE, main, stand_still


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


def said_besides(messages):
    """Without those of the watchdog, whose time comes when it comes."""
    return [m for m in messages if "WATCHDOG=1" not in m]


def the_service_manager_gets_every_message():
    manager = Manager()
    # The kernel keeps ten messages for a manager that stands still, and drops the others.
    with Daemon(env={**manager.env, "WATCHDOG_USEC": "1000000"}) as d:
        assert not any("WATCHDOG" in m for m in manager.wait("READY=1")), "nothing before it"
        begin = time.monotonic()
        for _ in range(5):
            manager.wait("WATCHDOG=1")
        print(f"5 watchdog messages of 1 s each in {time.monotonic() - begin:.2f} s")
        d.add("a")
        manager.wait("STATUS=1 cells, 0 connected")
        sock = d.connect("a")
        manager.wait("STATUS=1 cells, 1 connected")
        d.process.send_signal(signal.SIGHUP)
        manager.wait("RELOADING=1", "MONOTONIC_USEC=")
        assert said_besides(manager.wait("READY=1")) == []
        d.configure("[nonsense]\n")
        d.process.send_signal(signal.SIGHUP)
        manager.wait("RELOADING=1")
        assert said_besides(manager.wait("READY=1")) == [], "refused, and it runs on"
        # A loop that does not turn says nothing.
        stand_still(d.process.pid)
        time.sleep(0.2)
        manager.sock.setblocking(False)
        try:
            while True:
                manager.sock.recv(4096)
        except BlockingIOError:
            pass
        time.sleep(1.2)
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


def the_watchdog_of_another_process_is_left_alone():
    manager = Manager(abstract=True)
    with Daemon(env={**manager.env, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}) as d:
        manager.wait("READY=1")
        time.sleep(0.7)
        d.process.send_signal(signal.SIGTERM)
        assert not any("WATCHDOG" in m for m in manager.wait("STOPPING=1")), "that is another's"


def clients_without_a_free_descriptor_are_closed():
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


if __name__ == "__main__":
    main()
