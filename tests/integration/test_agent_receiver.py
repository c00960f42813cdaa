# SPDX-License-Identifier: MIT
"""The real agent and the real receiver: what a process does becomes signed evidence, and the agent
says goodbye. CELLOS_AGENT_WRAPPER runs an agent of another architecture."""

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time

from oracle import named
from receiver import Receiver
from runner import main

AGENT = os.environ["CELLOS_AGENT"]
WRAPPER = os.environ.get("CELLOS_AGENT_WRAPPER", "").split()
ARCH = os.environ.get("CELLOS_AGENT_ARCH", platform.machine())


def told(receiver, what, pid=None):
    """What is on disk of a process's life, or of all."""
    events = receiver.wait_for("guest.v1.telemetry_hello")
    return [e for e in named(events, f"guest.v1.process_{what}")
            if pid in (None, e["data"]["guestPid"])]


def a_life_is_evidence():
    with Receiver() as receiver, tempfile.TemporaryDirectory(prefix="cellos-agent-") as top:
        log_path = os.path.join(top, "log")
        with open(log_path, "wb") as log:
            agent = subprocess.Popen(
                [*WRAPPER, AGENT, "--foreground", "--connect", f"unix:{receiver.path}",
                 "--process", "proc-walk", "--poll", "20", "--net", "off", "--heartbeat", "200",
                 "--pid-file", os.path.join(top, "pid"),
                 "--listener-socket", os.path.join(top, "listener")],
                stdin=subprocess.DEVNULL, stderr=log)
        try:
            receiver.wait_for("guest.v1.telemetry_hello", timeout=20)
            # Its first walk is silent: over once anything is told.
            until = time.monotonic() + 20
            while not told(receiver, "spawned"):
                assert time.monotonic() < until, "no process is told"
                subprocess.run(["sleep", "0.2"])
            child = subprocess.Popen(["sh", "-c", "sleep 0.5; exit 0"])
            child.wait()
            while not told(receiver, "exited", child.pid):
                assert time.monotonic() < until, f"the end of {child.pid} is not told"
                time.sleep(0.05)
            agent.send_signal(signal.SIGTERM)
            with open(log_path) as log:
                assert agent.wait(10) == 0, log.read()
            receiver.wait_for("guest.v1.agent_disconnected")
        finally:
            if agent.poll() is None:
                agent.kill()
                agent.wait()
        # Judged by the oracle and by `verify`.
        events = receiver.stop()

    hello = named(events, "guest.v1.telemetry_hello")[0]["data"]["detail"]
    assert hello["arch"] == ARCH, hello
    assert hello["processVia"] == "proc-walk" and hello["netVia"] == "none", hello
    lives = [[e for e in named(events, f"guest.v1.process_{what}")
              if e["data"]["guestPid"] == child.pid] for what in ("spawned", "exited")]
    assert [len(told) for told in lives] == [1, 1], lives
    assert lives[0][0]["data"]["detail"]["ppid"] == os.getpid(), lives
    assert lives[0][0]["data"]["guestComm"] == "sh", lives
    bye = named(events, "guest.v1.telemetry_bye")
    assert len(bye) == 1 and bye[0]["data"]["detail"]["dropped"] == 0, bye
    assert not named(events, "guest.v1.telemetry_gap"), "nothing is missing"


if __name__ == "__main__":
    sys.exit(main([a_life_is_evidence]))
