# SPDX-License-Identifier: MIT
"""The real agent and the real receiver: what a process does becomes signed evidence, and the agent
says goodbye. CELLOS_AGENT_WRAPPER runs an agent of another architecture."""

import os
import platform
import signal
import subprocess
import tempfile

from oracle import named
from receiver import Receiver
from runner import PATIENCE, main, until

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
                [*WRAPPER, AGENT, "--foreground", "--ready-timeout", "60000", "--connect", f"unix:{receiver.path}",
                 "--process", "proc-walk", "--poll", "20", "--net", "off", "--heartbeat", "200",
                 "--pid-file", os.path.join(top, "pid"),
                 "--listener-socket", os.path.join(top, "listener"), "--keep-sysctls",
                 "--uid", "0"],
                stdin=subprocess.DEVNULL, stderr=log)
        try:
            receiver.wait_for("guest.v1.telemetry_hello")
            # Its first walk is silent: once anything is reported, that walk is over.
            until(lambda: subprocess.run(["sleep", "0.2"]) and told(receiver, "spawned"),
                  "the second walk")
            # This child ends only when its beginning has been seen.
            child = subprocess.Popen(["sh", "-c", "read line; exit 0"], stdin=subprocess.PIPE)
            until(lambda: told(receiver, "spawned", child.pid), "the beginning of the child")
            # A walk may see it between fork and exec; the next one reports the exec.
            until(lambda: any(e["data"]["guestComm"] == "sh" for what in ("spawned", "executed")
                              for e in told(receiver, what, child.pid)), "its program")
            child.communicate(b"\n")
            until(lambda: told(receiver, "exited", child.pid), "the end of the child")
            agent.send_signal(signal.SIGTERM)
            with open(log_path) as log:
                assert agent.wait(PATIENCE) == 0, log.read()
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
    comms = [e["data"]["guestComm"] for e in events if e["data"].get("guestPid") == child.pid]
    assert "sh" in comms, comms
    bye = named(events, "guest.v1.telemetry_bye")
    assert len(bye) == 1 and bye[0]["data"]["detail"]["dropped"] == 0, bye
    assert not named(events, "guest.v1.telemetry_gap"), "nothing is missing"


if __name__ == "__main__":
    main()
