# SPDX-License-Identifier: MIT
"""Network namespaces of a test's own: this process in a fresh one, with its own /sys, and a "guest"
in another, connected by a TAP whose frames a thread carries, as a VMM does."""

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import threading

from runner import need

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000

libc = ctypes.CDLL(None, use_errno=True)


def enter():
    """Run this program again in namespaces of its own, or skip it."""
    if os.environ.get("CELLOS_IN_NETNS") == "1":
        return
    need(os.geteuid() == 0, "needs root: a network namespace with a TAP and nftables in it")
    mount = "mount -t sysfs sysfs /sys && ip link set lo up && exec \"$@\""
    os.environ["CELLOS_IN_NETNS"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", "sh", "-c", mount, "sh",
                          sys.executable, *sys.argv])


def run(command, **kwargs):
    return subprocess.run(command.split() if isinstance(command, str) else command, check=True,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, **kwargs)


def open_tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def nft(script):
    run(["nft", script])


class Guest:
    """A namespace with eth0 10.9.0.2/24; the host's end is the interface `tap`, 10.9.0.1/24."""

    def __init__(self, tap="cfc-test"):
        self.tap = tap
        self.sent_frames = self.sent_bytes = self.received_frames = 0
        self.host_fd = open_tap(tap)
        ready = threading.Event()
        self.done = threading.Event()
        self.holder = threading.Thread(target=self._hold, args=(ready,))
        self.holder.start()
        ready.wait()
        # No neighbour discovery of IPv6, which sends whenever it likes.
        for path, ns in (("all", None), ("all", self.ns_fd)):
            run(["sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{path}/disable_ipv6"],
                preexec_fn=self._entered(ns))
        self.up()
        for command in ("ip addr add 10.9.0.2/24 dev eth0", "ip link set eth0 up",
                        "ip link set lo up"):
            self.run(command)
        self.carrier = threading.Thread(target=self._carry)
        self.carrier.start()

    def _hold(self, ready):
        """The thread whose namespace is the guest's."""
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        self.guest_fd = open_tap("eth0")
        self.ns_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        ready.set()
        self.done.wait()

    def _carry(self):
        while not self.done.is_set():
            for fd in select.select([self.host_fd, self.guest_fd], [], [], 0.05)[0]:
                try:
                    frame = os.read(fd, 65536)
                    if fd == self.guest_fd:
                        os.write(self.host_fd, frame)
                        self.sent_frames += 1
                        self.sent_bytes += len(frame)
                    else:
                        os.write(self.guest_fd, frame)
                        self.received_frames += 1
                except OSError:
                    # The link is down.
                    pass

    @staticmethod
    def _entered(ns_fd):
        return lambda: ns_fd is not None and libc.setns(ns_fd, CLONE_NEWNET)

    def up(self):
        run(f"ip addr replace 10.9.0.1/24 dev {self.tap}")
        run(f"ip link set {self.tap} up")

    def run(self, command):
        return run(command, preexec_fn=self._entered(self.ns_fd))

    def python(self, program):
        return self.run([sys.executable, "-c", program])

    def ping(self, count):
        self.run(f"busybox ping -q -c {count} -i 0.02 -W 2 10.9.0.1")

    def close(self):
        self.done.set()
        self.carrier.join()
        self.holder.join()
        for fd in (self.host_fd, self.guest_fd, self.ns_fd):
            os.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
