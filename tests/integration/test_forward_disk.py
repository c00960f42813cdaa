# SPDX-License-Identifier: MIT
"""A disk that is full, the server's or the forwarder's: small file systems in a mount namespace of
this test's own. Nothing is lost, and once there is room everything is in the stream once."""

import contextlib
import os
import subprocess
import sys

import nats
from forwarder import Forwarder
from runner import main, need
from test_forward import check


@contextlib.contextmanager
def small_disk(path, size):
    os.makedirs(path, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def grow(path, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", path], check=True)


def the_servers_disk():
    """nats-server 2.9 says that it is full, or answers no more until it is started again."""
    with nats.Server(start=False) as server, small_disk(server.store, "1m"), \
            Forwarder(server.url, "create_stream = yes\n", entries=5000) as f:
        server.start()
        f.start().wait(lambda s: s["error"] in ("full", "no_jetstream", "timeout"))
        assert f.status["acked"] < f.log.tree.size, f.status
        # Evidence goes on, in the log.
        f.log.fill(100)
        f.say_end()
        f.wait(lambda s: s["lag_events"] > 100)
        grow(server.store, "64m")
        server.kill()
        server.start()
        f.wait_done()
        check(server, f)
        f.stop()


def the_disk_of_the_cursor():
    with nats.Server() as server, Forwarder(server.url, "create_stream = yes\n") as f, \
            small_disk(f.file("state"), "1m"):
        f.start().wait_done()
        f.stop()
        f.start().wait_done()
        with open(f.file("state/filler"), "wb", buffering=0) as filler, \
                contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        f.log.fill(50)
        f.say_end()
        f.wait_done()
        while "cannot write the forwarder's cursor" not in f.output():
            f.take_status()
        # What was sent and is not in the cursor comes again, and the stream knows it.
        f.kill()
        os.unlink(f.file("state/filler"))
        f.log.fill(10)
        f.start().wait_done()
        assert f.status["duplicates"] >= 50 and f.status["cursor_lost"] == 0, f.status
        assert f.output().count("cannot write the forwarder's cursor") == 1, f.output()
        check(server, f)
        f.stop()


if __name__ == "__main__":
    nats.need_server()
    need(os.geteuid() == 0, "needs root: a tmpfs in a mount namespace of its own")
    if "CELLOS_IN_NAMESPACE" not in os.environ:
        os.environ["CELLOS_IN_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable] + sys.argv)
    main()
