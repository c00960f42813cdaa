# SPDX-License-Identifier: MIT
"""The daemon and a disk that is full or fails: nothing that was read is lost, and it says so."""

import os
import subprocess
import sys
import time

from daemon import Daemon
from receiver import spawned
from runner import main


def wait_ready(d, want, timeout=10):
    until = time.monotonic() + timeout
    while d.http("/readyz")[0] != want:
        assert time.monotonic() < until, d.http("/readyz")
        time.sleep(0.05)
    return d.http("/readyz")[1]


def pids(d):
    return [e["data"]["guestPid"] for e in d.events() if "guestPid" in e["data"]]


def a_full_disk():
    with Daemon(start=False) as d:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", d.evidence],
                       check=True)
        try:
            d.start()
            d.add("a")
            sock = d.connect("a")
            ballast = os.path.join(d.evidence, "ballast")
            with open(ballast, "wb", buffering=0) as f:
                try:
                    while True:
                        f.write(b"x" * 4096)
                except OSError:
                    pass
            n = 200
            for i in range(1, n + 1):
                sock.sendall(spawned(i))
                time.sleep(0.001)
            assert "No space left" in wait_ready(d, 503)
            assert "CANNOT WRITE" in d.run("status")
            time.sleep(2.2)
            assert d.log().count("cannot write evidence") == 1, "told once, not at each retry"
            # At most whole lines, even now.
            with open(d.segments()[-1], "rb") as f:
                data = f.read()
            assert not data or data.endswith(b"\n")
            os.unlink(ballast)
            wait_ready(d, 200)
            d.wait_for("guest.v1.process_spawned", n)
            assert "written again" in d.log()
            d.stop()
            d.verify()
        finally:
            if d.process.poll() is None:
                d.kill()
            subprocess.run(["umount", d.evidence], check=True)


def syncs_that_fail():
    if "address" in os.environ.get("CELLOS_SANITIZE", ""):
        print("skipped: a preloaded library and AddressSanitizer do not go together")
        return
    flag = f"/tmp/cellos-fail-fdatasync.{os.getpid()}"
    with Daemon(env={"LD_PRELOAD": os.environ["CELLOS_FAIL_FDATASYNC"],
                     "FAIL_FDATASYNC": flag}) as d:
        d.add("a")
        sock = d.connect("a")
        sock.sendall(spawned(1))
        d.wait_for("guest.v1.process_spawned")
        try:
            with open(flag, "w"):
                pass
            sock.sendall(spawned(2))
            assert "Input/output error" in wait_ready(d, 503)
            assert len([e for e in d.events() if e["data"].get("seq") == 2]) == 0, \
                "what is not synced does not count as written"
        finally:
            os.unlink(flag)
        wait_ready(d, 200)
        d.wait_for("guest.v1.process_spawned", 2)
        d.stop()
        d.verify()


def stopping_with_a_disk_that_fails():
    if "address" in os.environ.get("CELLOS_SANITIZE", ""):
        return
    flag = f"/tmp/cellos-fail-fdatasync.{os.getpid()}"
    with Daemon(env={"LD_PRELOAD": os.environ["CELLOS_FAIL_FDATASYNC"],
                     "FAIL_FDATASYNC": flag}) as d:
        d.add("a")
        d.wait_for("stream.v1.opened")
        try:
            with open(flag, "w"):
                pass
            # A sanitizer takes some seconds of its own to end.
            limit = 5 if os.environ.get("CELLOS_SANITIZE", "none") == "none" else 10
            assert d.stop(want=1) < limit, "it ends in its time all the same, and says what is missing"
        finally:
            os.unlink(flag)
        assert "not all is sealed" in d.log()
        d.start()
        d.stop()
        d.streams()


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("needs root: a tmpfs in a mount namespace of its own")
        sys.exit(77)
    if "CELLOS_IN_NAMESPACE" not in os.environ:
        os.environ["CELLOS_IN_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable] + sys.argv)
    main([a_full_disk, syncs_that_fail, stopping_with_a_disk_that_fails])
