# SPDX-License-Identifier: MIT
"""The real agent against a real Unix socket: what it says, when, and how it ends."""

import os
import signal
import subprocess
import tempfile
import time

from agent import AGENT, Agent, Host, of, source
from runner import PATIENCE, main, stand_still, until

WALK = ("--process", "proc-walk", "--poll", "20", "--heartbeat=200")


def hello_is_first():
    with Host() as host, Agent(host, *WALK) as agent:
        hello = host.accept().frame()
        assert hello["probe_source"] == "telemetry.hello", hello
        assert list(hello) == ["content_version", "probe_source", "guest_pid", "guest_comm",
                               "guest_monotonic_ns", "detail"], "keys in the order of the wire"
        detail = hello["detail"]
        assert hello["guest_pid"] == agent.pid and hello["guest_comm"] == "cellos-telemetr"
        assert len(detail["session"]) == 16 and int(detail["session"], 16) >= 0
        assert detail["next_seq"] == 1 and detail["process_via"] == "proc-walk"
        assert detail["net_via"] == "none" and detail["fs_via"] == "none"
        assert detail["kernel"] == os.uname().release and detail["arch"] == os.uname().machine
        assert detail["heartbeat_ms"] == 200 and detail["queue_capacity"] == 8192
        with open("/proc/sys/kernel/random/boot_id") as f:
            assert detail["boot_id"] == f.read().strip()


def a_process_is_spawned_and_exits():
    with Host() as host, Agent(host, *WALK):
        conn = host.accept()
        conn.until(source("telemetry.heartbeat"))
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        # A walk may see it before its exec, and again after it.
        conn.until(lambda f: f["probe_source"] in ("process.spawned", "process.executed")
                   and f["guest_pid"] == child.pid and f["guest_comm"] == "cat")
        child.communicate()
        frames = conn.until(lambda f: f["probe_source"] == "process.exited"
                            and f["guest_pid"] == child.pid)
        assert frames[-1]["guest_comm"] == "cat", frames[-1]
        assert frames[-1]["detail"]["ppid"] == os.getpid()


def a_changed_comm_is_an_exec():
    with Host() as host, Agent(host, *WALK):
        conn = host.accept()
        conn.until(source("telemetry.heartbeat"))
        until(lambda: _an_exec_is_resolved(conn), "an exec that was read in time", 0)


def _an_exec_is_resolved(conn):
    """False where the agent stood still while it read: then it is not sure."""
    child = subprocess.Popen(["sh", "-c", "read x; exec sleep 600"], stdin=subprocess.PIPE)
    conn.until(lambda f: f["probe_source"] in ("process.spawned", "process.executed")
               and f["guest_pid"] == child.pid and f["guest_comm"] == "sh")
    child.stdin.write(b"\n")
    child.stdin.close()
    detail = conn.until(lambda f: f["probe_source"] == "process.executed"
                        and f["guest_pid"] == child.pid and f["guest_comm"] == "sleep")[-1]["detail"]
    child.kill()
    child.wait()
    if not detail["resolved"]:
        assert detail["why"] == "unsure", detail
        return False
    assert detail["exe"].endswith("/sleep"), detail
    return True


def existing_files_are_not_reported():
    with Host() as host, Agent(host, *WALK):
        conn = host.accept()
        told = conn.until(source("telemetry.heartbeat"))
        child = subprocess.Popen(["sleep", "600"])
        # Once a new process is reported, the walks go on.
        told += conn.until(lambda f: f["guest_pid"] == child.pid)
        child.kill()
        child.wait()
        told += conn.until(lambda f: f["probe_source"] == "process.exited"
                           and f["guest_pid"] == child.pid)
        assert not [f for f in of(told, "process.spawned") if f["guest_pid"] == os.getpid()]


def inotify_on_two_paths():
    with Host() as host:
        one, two = host.file("one"), host.file("two")
        os.mkdir(one)
        with open(two, "w") as f:
            f.write("x")
        with Agent(host, "--process", "off", "--fs", "inotify", "--poll", "20", "--inotify", one,
                   "--inotify", two) as _:
            conn = host.accept()
            assert conn.frame()["detail"]["fs_via"] == "inotify"
            with open(os.path.join(one, "new \udcff".encode("utf-8", "surrogateescape")
                                   .decode("utf-8", "surrogateescape")), "w"):
                pass
            got = conn.until(source("fs.inotify_fired"))[-1]
            assert got["guest_pid"] == 0 and got["guest_comm"] == ""
            assert got["detail"] == {"path": one, "event": "create", "name": "new \ufffd"}, got
            with open(two, "a") as f:
                f.write("more")
            got = conn.until(lambda f: f["detail"].get("path") == two)[-1]
            assert got["detail"] == {"path": two, "event": "modify"}, got
            os.unlink(two)
            conn.until(lambda f: f["detail"].get("path") == two
                       and "delete" in f["detail"]["event"])
            with open(two, "w") as f:
                f.write("again")
            conn.until(lambda f: f["detail"].get("path") == two
                       and "create" in f["detail"]["event"])
            with open(two, "a") as f:
                f.write("and watched")
            conn.until(lambda f: f["detail"].get("path") == two
                       and f["detail"]["event"] == "modify")


def a_path_that_is_moved_away_and_back_is_still_reported():
    """All in one go, before the agent sees the first of it. The kernel merges both moves."""
    with Host() as host:
        path = host.file("watched")
        with open(path, "w"):
            pass
        with Agent(host, "--process", "off", "--fs", "inotify", "--heartbeat", "200", "--inotify",
                   path) as agent:
            conn = host.accept()
            conn.frame()
            stand_still(agent.process.pid)
            os.rename(path, path + "2")
            os.rename(path + "2", path)
            with open(path, "a") as f:
                f.write("more")
            agent.process.send_signal(signal.SIGCONT)
            # A heartbeat may stand before them, and anything more stands before the second one.
            told = conn.until(lambda f: f["detail"].get("event") == "modify")
            for _ in range(2):
                told += conn.until(source("telemetry.heartbeat"))
            events = [f["detail"]["event"] for f in of(told, "fs.inotify_fired")]
            assert events == ["moved_from", "create", "modify"], events
            with open(path, "a") as f:
                f.write("and watched")
            conn.until(lambda f: f["detail"].get("event") == "modify")


def the_environment_names_a_path():
    with Host() as host:
        path = host.file("watched")
        os.mkdir(path)
        with Agent(host, "--process", "off", "--fs", "inotify",
                   env={**os.environ, "CELLOS_TELEMETRY_INOTIFY_PATH": path}):
            conn = host.accept()
            assert conn.frame()["detail"]["fs_via"] == "inotify"
            os.mkdir(os.path.join(path, "new"))
            got = conn.until(source("fs.inotify_fired"))[-1]
            assert got["detail"] == {"path": path, "event": "create", "name": "new"}, got


def an_overflow_of_inotify_is_reported():
    with open("/proc/sys/fs/inotify/max_queued_events") as f:
        most = int(f.read())
    # Files have an eighth of the agent's queue, and half of it is shared.
    if most > 40000:
        print(f"skipped: fs.inotify.max_queued_events is {most}, more than the agent's queue holds",
              flush=True)
        return
    with Host() as host, tempfile.TemporaryDirectory(prefix="cellos-agent-") as watched:
        with Agent(host, "--process", "off", "--fs", "inotify", "--queue", "65536", "--inotify",
                   watched) as agent:
            conn = host.accept()
            conn.frame()
            stand_still(agent.process.pid)
            for i in range(most + 10):
                os.mkdir(os.path.join(watched, str(i)))
            agent.process.send_signal(signal.SIGCONT)
            told = conn.until(source("telemetry.dropped"))
            detail = told[-1]["detail"]
            # The kernel does not say how many: one is the least.
            assert detail["kernel_overrun"] == 1 and detail["queue_full"] == 0, detail
            # The rest is there, and it still watches.
            while len(of(told, "fs.inotify_fired")) < most:
                told += conn.until(source("fs.inotify_fired"))
            os.mkdir(os.path.join(watched, "after"))
            conn.until(lambda f: f["detail"].get("name") == "after")


def heartbeats_tell_totals():
    with Host() as host, Agent(host, *WALK):
        conn, beats = host.accept(), []
        while len(beats) < 6:
            beats += of(conn.until(source("telemetry.heartbeat")), "telemetry.heartbeat")
        stamps = [f["guest_monotonic_ns"] for f in beats]
        assert all(a < b for a, b in zip(stamps, stamps[1:])), stamps
        # A machine that is busy makes them late, never early. The first may be late by more than a
        # period, and the next one comes in its own time.
        assert stamps[-1] - stamps[0] >= 3 * 200_000_000, stamps
        for name in ("observed", "sent", "dropped", "kernel_lost", "queue_peak", "next_seq"):
            assert isinstance(beats[-1]["detail"][name], int)
        assert beats[-1]["detail"]["process_ok"] is True and "seq" not in beats[-1]


def sigterm_says_bye():
    with Host() as host, Agent(host, *WALK) as agent:
        conn = host.accept()
        conn.until(source("telemetry.heartbeat"))
        assert agent.stop() == 0
        bye = conn.frames(PATIENCE)[-1]
        assert bye["probe_source"] == "telemetry.bye"
        detail = bye["detail"]
        assert detail["reason"] == "SIGTERM"
        assert detail["observed"] == detail["sent"] + detail["dropped"]


def waiting_events_are_reported_before_bye():
    """Many turns' worth of it, and the signal is there before the first."""
    with Host() as host, tempfile.TemporaryDirectory(prefix="cellos-agent-") as watched:
        with Agent(host, "--process", "off", "--fs", "inotify", "--inotify", watched) as agent:
            conn = host.accept()
            conn.frame()
            stand_still(agent.process.pid)
            for i in range(2000):
                path = os.path.join(watched, str(i))
                os.mkdir(path)
                os.rmdir(path)
            agent.process.send_signal(signal.SIGTERM)
            agent.process.send_signal(signal.SIGCONT)
            told = conn.until(source("telemetry.bye"))
            detail = told[-1]["detail"]
            lost = sum(f["detail"]["kernel_overrun"] for f in of(told, "telemetry.dropped"))
            assert detail["observed"] == 4000 or lost > 0, detail
            fired = len(of(told, "fs.inotify_fired"))
            assert detail["observed"] == fired + detail["dropped"], (fired, detail)
            # A full socket may still hold some of them back when the numbers are taken.
            assert detail["sent"] <= fired, (fired, detail)


def a_guest_that_gets_no_processor_says_bye():
    """Each read takes longer than the whole end may: the signal's, and the source's in the drain."""
    with Host() as host, tempfile.TemporaryDirectory(prefix="cellos-agent-") as watched:
        # The search for leaks traces the process, and strace does already.
        with Agent(host, "--process", "off", "--fs", "inotify", "--inotify", watched,
                   env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}) as agent:
            conn = host.accept()
            conn.frame()
            os.mkdir(os.path.join(watched, "seen"))
            conn.until(source("fs.inotify_fired"))
            with subprocess.Popen(["strace", "-o", "/dev/null", "-p", str(agent.pid), "-e",
                                   "inject=read:delay_exit=700000"],
                                  stderr=subprocess.PIPE) as strace:
                assert b"attached" in strace.stderr.readline()
                agent.process.terminate()
                detail = conn.until(source("telemetry.bye"))[-1]["detail"]
                assert detail["observed"] == detail["sent"] == 1, detail
                assert agent.stop() == 0


def the_parent_waits_for_hello():
    with Host() as host:
        host.sock.listen(0)
        parent = subprocess.Popen(host.args(*WALK), stderr=subprocess.PIPE)
        conn = host.accept()
        assert parent.wait(PATIENCE) == 0
        # What was sent before the parent ended can be read at once.
        conn.read(0)
        hello = conn.frame(0)
        assert hello and hello["probe_source"] == "telemetry.hello", "the parent left before the hello"
        with open(host.file("pid")) as f:
            pid = int(f.read())
        assert pid == hello["guest_pid"] != parent.pid
        assert os.getsid(pid) == pid, "the agent has its own session"
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        os.kill(pid, signal.SIGTERM)
        conn.until(source("telemetry.bye"))
        parent.stderr.close()


def in_the_foreground_it_has_a_group_of_its_own():
    """Whether it was started in somebody's group or at the head of one."""
    for popen in ({}, {"process_group": 0}, {"start_new_session": True}):
        with Host() as host, Agent(host, *WALK, **popen) as agent:
            host.accept().frame()
            assert os.getpgid(agent.pid) == agent.pid, popen


def no_receiver_is_exit_3():
    with Host() as host:
        host.stop_listening()
        begin = time.monotonic()
        run = subprocess.run(host.args(*WALK, "--ready-timeout", "400"), capture_output=True,
                             text=True, timeout=PATIENCE)
        took = time.monotonic() - begin
        assert run.returncode == 3, run
        assert took >= 0.4, took
        assert "not ready in time" in run.stderr and host.path in run.stderr, run.stderr
        assert "No such file or directory" in run.stderr
        host.listen()


def no_wait_returns_at_once():
    with Host() as host:
        # Nobody listens yet: a parent that waited would fail.
        host.stop_listening()
        assert subprocess.run(host.args(*WALK, "--no-wait"), timeout=PATIENCE).returncode == 0
        host.listen()
        hello = host.accept().frame()
        os.kill(hello["guest_pid"], signal.SIGTERM)


def the_parent_becomes_the_command():
    with Host() as host:
        parent = subprocess.Popen(host.args(*WALK, "--", "sh", "-c", "echo $$; exit 7"),
                                  stdout=subprocess.PIPE, text=True)
        conn = host.accept()
        out, _ = parent.communicate(timeout=PATIENCE)
        assert int(out) == parent.pid and parent.returncode == 7
        os.kill(conn.frame()["guest_pid"], signal.SIGTERM)


def a_command_that_cannot_run():
    with Host() as host:
        for command, status in (("/nonexistent", 127), ("/etc/passwd", 126)):
            run = subprocess.Popen(host.args(*WALK, "--", command), stderr=subprocess.PIPE,
                                   text=True)
            conn = host.accept()
            _, err = run.communicate(timeout=PATIENCE)
            assert run.returncode == status, (command, run.returncode)
            assert command in err
            conn.until(source("telemetry.bye"))


def a_fork_that_fails_is_exit_2():
    """RLIMIT_NPROC binds everybody but root."""
    if os.environ.get("CELLOS_SANITIZE", "none") != "none":
        print("not under a sanitizer, which needs a thread of its own to end")
        return
    with Host() as host:
        os.chmod(host.dir.name, 0o777)
        run = subprocess.run(["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups",
                              "prlimit", "--nproc=0:0",
                              *host.args(*WALK, "--allow-unprivileged")],
                             # LeakSanitizer cannot fork either.
                             env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
                             capture_output=True, text=True, timeout=PATIENCE)
        assert run.returncode == 2 and "fork failed" in run.stderr, run


def the_ready_fd_gets_the_pid():
    with Host() as host:
        read_end, write_end = os.pipe()
        parent = subprocess.Popen(host.args(*WALK, "--ready-fd", str(write_end)),
                                  pass_fds=[write_end])
        os.close(write_end)
        conn = host.accept()
        assert parent.wait(PATIENCE) == 0
        pid = conn.frame()["guest_pid"]
        with os.fdopen(read_end) as f:
            assert f.read() == f"{pid}\n", "the pid, and closed behind it"
        os.kill(pid, signal.SIGTERM)


def inherited_descriptors_are_closed():
    with Host() as host:
        read_end, write_end = os.pipe()
        with Agent(host, *WALK, pass_fds=[write_end]) as agent:
            os.close(write_end)
            host.accept().frame()
            assert os.read(read_end, 1) == b"", "nobody else holds it"
        os.close(read_end)


def hardened():
    with Host() as host, Agent(host, *WALK) as agent:
        host.accept().until(source("telemetry.heartbeat"))
        with open(f"/proc/{agent.pid}/status") as f:
            status = dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
        allowed = 1 << 19 | 1 << 2  # CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH
        for name in ("CapPrm", "CapEff", "CapBnd", "CapInh"):
            assert int(status[name], 16) & ~allowed == 0, (name, status[name])
        assert status["NoNewPrivs"].strip() == "1"
        # AddressSanitizer makes mlockall(2) do nothing; under one there is no filter either.
        if "address" not in os.environ.get("CELLOS_SANITIZE", ""):
            assert int(status["VmLck"].split()[0]) > 0
        if os.environ.get("CELLOS_SANITIZE", "none") == "none":
            assert status["Seccomp"].strip() == "2"
        # Some machines let nobody lower it; then the agent says so and goes on.
        may = subprocess.run(["sh", "-c", "echo -1000 >/proc/self/oom_score_adj"],
                             stderr=subprocess.DEVNULL).returncode == 0
        with open(f"/proc/{agent.pid}/oom_score_adj") as f:
            assert f.read().strip() == ("-1000" if may else "0")
        agent.stop()
        assert ("oom_score_adj" in agent.process.stderr.read().decode()) != may


def a_second_start_is_exit_5():
    with Host() as host, Agent(host, *WALK) as agent:
        conn = host.accept()
        conn.until(source("telemetry.heartbeat"))
        run = subprocess.run(host.args("--foreground", *WALK), capture_output=True, text=True,
                             timeout=PATIENCE)
        assert run.returncode == 5 and "an agent runs already" in run.stderr, run
        with open(host.file("pid")) as f:
            assert int(f.read()) == agent.pid, "the file still names the first"
        agent.stop()
        assert not os.path.exists(host.file("pid"))
        # What a killed agent left is no lock.
        with open(host.file("pid"), "w") as f:
            f.write(f"{agent.pid}\n")
        with Agent(host, *WALK) as again:
            conn = host.accept()
            conn.until(source("telemetry.heartbeat"))
            with open(host.file("pid")) as f:
                assert int(f.read()) == again.pid


def not_root_is_exit_77():
    with Host() as host:
        line = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", *host.args(*WALK)]
        run = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
        assert run.returncode == 77 and "--allow-unprivileged" in run.stderr, run


def no_proc_is_exit_3():
    with Host() as host:
        script = 'mount -t tmpfs none /proc && exec "$@"'
        run = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", *host.args(*WALK)],
                             capture_output=True, text=True, timeout=PATIENCE)
        if os.environ.get("CELLOS_SANITIZE", "none") == "none":
            assert run.returncode == 3, run
        # Without /proc the search for leaks fails, and even its options cannot be read.
        assert "/proc is not mounted" in run.stderr, run


def a_required_source_that_is_missing_is_exit_3():
    with Host() as host:
        for required, words in (("process=proc-connector", ["CONFIG_PROC_EVENTS", "proc-walk"]),
                                ("process=any,fs=any", ["fs=any", "CONFIG_"])):
            run = subprocess.run(host.args(*WALK, "--require", required), capture_output=True,
                                 text=True, timeout=PATIENCE)
            assert run.returncode == 3, run
            for word in words:
                assert word in run.stderr, (word, run.stderr)
        with Agent(host, *WALK, "--require", "process=proc-walk") as agent:
            host.accept().frame()
            assert agent.stop() == 0


def a_missing_path_is_warned_of():
    with Host() as host, Agent(host, *WALK, "--inotify", host.file("later")) as agent:
        host.accept().frame()
        agent.stop()
        said = agent.process.stderr.read().decode()
        assert "not there yet" in said and host.file("later") in said, said


def fill(pipe):
    """Write until not a byte fits any more."""
    for chunk in (b"x" * 4096, b"x"):
        try:
            while True:
                os.write(pipe, chunk)
        except BlockingIOError:
            pass


def the_log_never_blocks_the_agent():
    """The workload can hold the same pipe, and fill it at any moment."""
    with Host() as host, Agent(host, *WALK) as agent:
        first = host.accept()
        first.frame()
        assert os.get_blocking(agent.process.stderr.fileno()), "ours is what it was"
        pipe = os.open(f"/proc/{agent.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        fill(pipe)
        # It has something to log: a connection that is lost, the next one, its end.
        first.close()
        second = host.accept()
        assert second.frame()["probe_source"] == "telemetry.hello"
        second.until(source("telemetry.heartbeat"))
        agent.process.terminate()
        second.until(source("telemetry.bye"))
        assert agent.stop() == 0
        os.close(pipe)
        said = agent.process.stderr.read()
        assert said.endswith(b"x"), said[-200:]


def usage_errors_name_the_option():
    for options, words in (
            (["--queue", "15"], ["--queue 15", "16..65536"]),
            (["--queue", "65537"], ["--queue 65537", "16..65536"]),
            (["--require", "net"], ["--require net", "FAMILY=SOURCE"]),
            (["--require", "net=magic"], ["net=magic", "--probe"]),
            (["--require", "process=any,"], ["--require process=any,"]),
            (["--args", "some"], ["--args some", "on, off"]),
            (["--json"], ["--json", "--probe"]),
            (["--heartbeat", "99"], ["--heartbeat 99", "100..60000"]),
            (["--heartbeat", "1e3"], ["--heartbeat 1e3", "100..60000"]),
            (["--connect", "tcp:1"], ["--connect tcp:1", "vsock:CID:PORT or unix:PATH"]),
            (["--connect", "vsock:1"], ["--connect vsock:1", "vsock:CID:PORT"]),
            (["--connect", "unix:/" + "x" * 107], ["absolute", "107"]),
            (["--connect", "unix:"], ["--connect unix:", "absolute"]),
            (["--connect", "unix:host.sock"], ["--connect unix:host.sock", "absolute"]),
            (["--pid-file", "agent.pid"], ["--pid-file agent.pid", "absolute"]),
            (["--listener-socket", "./l"], ["--listener-socket ./l", "absolute"]),
            (["--inotify", "relative"], ["--inotify relative", "absolute"]),
            (["--inotify", "/x"] * 65, ["--inotify /x", "at most 64"]),
            (["--net", "magic"], ["--net magic", "cgroup-bpf"]),
            (["--content-version", "3"], ["--content-version 3", "1..2"]),
            (["--exclude-pid", "0"], ["--exclude-pid 0"]),
            (["--log-level", "loud"], ["--log-level loud", "debug"]),
            (["--nonsense"], ["--nonsense", "--help"]),
            (["--queue"], ["--queue", "value"]),
            (["--queue=15"], ["--queue 15", "16..65536"]),
            (["--queu", "64"], ["--queu", "--help"]),
            (["--foreground=1"], ["--foreground=1", "no value"]),
            (["-q"], ["-q", "--help"]),
            (["stray"], ["stray", "--"]),
            (["--"], ["command"]),
            (["--foreground", "--", "true"], ["--foreground"])):
        run = subprocess.run([AGENT, *options], capture_output=True, text=True, timeout=PATIENCE)
        assert run.returncode == 64, (options, run)
        for word in words:
            assert word in run.stderr, (options, word, run.stderr)


def the_most_paths_are_taken():
    with Host() as host:
        paths = [host.file(f"w{i}") for i in range(64)]
        for path in paths:
            os.mkdir(path)
        options = [o for path in paths for o in ("--inotify", path)]
        with Agent(host, "--process", "off", "--fs", "inotify", *options):
            conn = host.accept()
            conn.frame()
            for path in paths:
                os.mkdir(os.path.join(path, "d"))
            seen = set()
            while len(seen) < 64:
                seen.add(conn.until(source("fs.inotify_fired"))[-1]["detail"]["path"])


def a_forced_source_that_is_missing():
    with Host() as host:
        run = subprocess.run(["unshare", "--pid", "--fork", *host.args(
            "--process", "proc-connector")],
            capture_output=True, text=True, timeout=PATIENCE)
        assert run.returncode == 3, run
        assert "--process" in run.stderr and "proc-connector" in run.stderr, run.stderr


def a_fallback_is_reported():
    with Host() as host:
        run = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", *host.args(
            "--foreground", "--heartbeat", "200")], stderr=subprocess.PIPE)
        try:
            assert host.accept().frame()["detail"]["process_via"] == "proc-walk"
        finally:
            run.kill()
            run.wait()
            run.stderr.close()


def version_1_writes_five_keys():
    with Host() as host, Agent(host, *WALK, "--content-version", "1") as agent:
        conn = host.accept()
        frames = conn.until(source("telemetry.heartbeat"))
        agent.stop()
        frames += conn.frames(PATIENCE)
        assert not of(frames, "telemetry.hello") and not of(frames, "process.executed")
        assert of(frames, "telemetry.heartbeat") and of(frames, "telemetry.bye")
        for f in frames:
            assert list(f) == ["content_version", "probe_source", "guest_pid", "guest_comm",
                               "guest_monotonic_ns"] and f["content_version"] == 1, f


def excluded_pids_are_not_reported():
    with Host() as host:
        child = subprocess.Popen(["sh", "-c", "read x; exec sleep 0.3"], stdin=subprocess.PIPE)
        with Agent(host, *WALK, "--exclude-pid", str(child.pid)):
            conn = host.accept()
            conn.until(source("telemetry.heartbeat"))
            child.stdin.write(b"\n")
            child.stdin.close()
            child.wait()
            # The end of one that is not excluded comes after it.
            other = subprocess.Popen(["sleep", "600"])
            told = conn.until(lambda f: f["guest_pid"] == other.pid)
            other.kill()
            other.wait()
            told += conn.until(lambda f: f["guest_pid"] == other.pid and
                               f["probe_source"] == "process.exited")
            assert not [f for f in told if f["guest_pid"] == child.pid], told


if __name__ == "__main__":
    main()
