# SPDX-License-Identifier: MIT
"""The launcher as a user sees it: exit codes, signals, what it leaves out, what it refuses to do.
Everything happens in namespaces that the launcher makes; no AF_VSOCK."""

import errno
import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

from runner import PATIENCE, main, need, until

LAUNCHER = os.environ["CELLOS_WORKLOAD_EXEC"]
# No agent is here; with --share-pidns this process stands for it.
NOWHERE = ["--no-listener", "--protect-pid", str(os.getpid())]
MAGIC, VERSION, AGENT_UID = 0x4C504C43, 2, 64042


def launch(*arguments, **kwargs):
    return subprocess.run([LAUNCHER, *NOWHERE, *arguments], capture_output=True, text=True,
                          timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL, **kwargs)


def exit_codes():
    for options in ([], ["--init"], ["--share-pidns"], ["--share-pidns", "--init"]):
        for code in (0, 1, 7, 125, 255):
            r = launch(*options, "--", "sh", "-c", f"exit {code}")
            assert r.returncode == code, (options, code, r)
        r = launch(*options, "/nonexistent")
        assert r.returncode == 127 and "/nonexistent" in r.stderr, r
        r = launch(*options, "/etc/passwd")
        assert r.returncode == 126, r
    # The leader of a session has its session already, and cannot make another.
    assert launch("--share-pidns", "sh", "-c", "exit 7", start_new_session=True).returncode == 7
    for options in (["--init"], ["--share-pidns"], ["--share-pidns", "--init"]):
        r = launch(*options, "sh", "-c", "kill -USR1 $$")
        assert r.returncode == -signal.SIGUSR1, (options, r)
    for bad in (["--allow", "everything", "true"], ["--cap-keep", "CAP_WISH", "true"], [],
                ["--protect-pid", "0", "true"], ["--agent-uid", "0", "true"], ["--unknown"]):
        r = launch(*bad)
        assert r.returncode == 64 and r.stderr, (bad, r)


def signals_pass_through():
    for options in (["--init"], ["--share-pidns"], ["--share-pidns", "--init"]):
        p = subprocess.Popen([LAUNCHER, *NOWHERE, *options, "sh", "-c",
                              "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; "
                              "done"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert p.stdout.readline() == "ready\n"
        p.send_signal(signal.SIGTERM)
        assert p.wait(PATIENCE) == 9 and p.stdout.read() == "got\n", options
        p.stdout.close()


def the_workload_ends_with_the_launcher():
    p = subprocess.Popen([LAUNCHER, *NOWHERE, "--init", "sh", "-c", "echo ready; sleep 3600"],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert p.stdout.readline() == "ready\n"
    p.kill()
    p.wait()
    assert p.stdout.read() == ""  # the last writer is gone
    p.stdout.close()


def init_reaps():
    # An orphan that ends stays a zombie unless PID 1 takes it; it may take its time.
    script = ("mkfifo $0; sh -c 'cat $0 > /dev/null & echo $! > $0.pid' $0; : > $0; "
              "orphan=$(cat $0.pid); while [ -e /proc/$orphan ]; do sleep 0.05; done; echo gone")
    with tempfile.TemporaryDirectory() as d:
        assert launch("--init", "sh", "-c", script, f"{d}/fifo").stdout.strip() == "gone"


def layer_1():
    r = launch("sh", "-c", "echo $$; cat /proc/self/status; ls /proc/self/fd | wc -l;"
               "cat /proc/keys /proc/timer_list | wc -c; echo; cat /proc/self/mountinfo",
               pass_fds=[os.open("/etc/passwd", os.O_RDONLY)])
    lines = r.stdout.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert lines[0] == "1" and status["NoNewPrivs"].strip() == "1", r
    assert status["Seccomp"].strip() == "2"
    for cap in (21, 19, 22, 16, 17, 23, 24, 25, 27, 39, 38, 30, 29, 37, 34, 9):
        for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
            assert not int(status[name], 16) >> cap & 1, (name, cap)
    mounts = [line.split() for line in lines if " - " in line]
    for fields in mounts:
        kind = fields[fields.index("-") + 1]
        if kind in ("sysfs", "cgroup", "cgroup2") or fields[4].startswith("/sys/"):
            assert "ro" in fields[5].split(","), fields
        assert not any(f.startswith(("shared:", "master:")) for f in fields[6:]), fields
    assert [f[5] for f in mounts if f[4] == "/proc/sys"][-1].startswith("ro")
    # The descriptor passed in is not there: 0, 1, 2 and ls's own.
    assert launch("sh", "-c", "ls /proc/self/fd | wc -l").stdout.strip() == "4"
    # Nothing of it is seen out here.
    with open("/proc/self/mountinfo", encoding="ascii", errors="replace") as f:
        assert not any(line.split()[4] == "/proc/sys" for line in f)


def options_change_what_is_refused():
    unshare = ["unshare", "--net", "true"]
    assert "not permitted" in launch(*unshare).stderr
    r = launch("--allow", "namespaces", "--cap-keep", "SYS_ADMIN", *unshare)
    assert r.returncode == 0 and r.stderr.count("opens a hole") == 2, r
    trace = ["strace", "-o", "/dev/null", "true"]
    if subprocess.run(["which", "strace"], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        assert launch(*trace).returncode == 0
        assert launch("--share-pidns", *trace).returncode != 0
        assert launch("--share-pidns", "--allow-debug", *trace).returncode == 0
    # A pid of our own stands for the agent.
    p = subprocess.Popen(["sleep", "3600"])
    kill = ["sh", "-c", f"kill -TERM {p.pid}; echo 500 > /proc/{p.pid}/oom_score_adj"]
    r = launch("--share-pidns", "--protect-pid", str(p.pid), *kill)
    assert "Operation not permitted" in r.stderr and p.poll() is None, r
    assert "nonexistent" in r.stderr or "cannot create" in r.stderr, r  # /proc/PID is masked
    p.kill()
    p.wait()
    # Nobody becomes the agent's user.
    for who in (["--reuid", "64042"], ["--regid", "64042"], ["--ruid", "64042"]):
        become = ["setpriv", *who, "--clear-groups", "true"]
        assert "not permitted" in launch(*become).stderr, who
        assert launch("--agent-uid", "64043", *become).returncode == 0, who
    assert launch("setpriv", "--reuid", "64041", "--clear-groups", "true").returncode == 0

    def permitted(*options):
        r = launch(*options, "grep", "CapPrm", "/proc/self/status")
        return int(r.stdout.split()[1], 16)
    kill, net_admin, net_raw = 1 << 5, 1 << 12, 1 << 13
    everything = kill | net_admin | net_raw
    assert permitted() & everything == everything
    assert permitted("--share-pidns") & everything == net_admin | net_raw
    assert permitted("--drop-net-admin") & everything == kill
    assert permitted("--drop-net-admin", "--cap-keep", "net_raw") & everything == kill | net_raw


class FakeAgent(threading.Thread):
    """Listens as the agent does and gives these answers to one launcher after the other. None: no
    answer. uid: whose credentials the socket has."""

    def __init__(self, path, *answers, uid=0):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(path)
        if uid:
            os.seteuid(uid)
        self.socket.listen(8)
        os.seteuid(0)
        self.answers, self.messages, self.fds = list(answers), [], []
        self.start()

    def stop(self):
        path = self.socket.getsockname()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.join(PATIENCE)
        self.socket.close()
        os.unlink(path)
        for fd in self.fds:
            os.close(fd)

    def run(self):
        connections = []  # open until the end: no answer is not the end of a connection
        try:
            while self.answers:
                connections.append(self.socket.accept()[0])
                self.serve(connections[-1])
        except OSError:
            pass  # the launcher gave up, or stop()

    def serve(self, connection):
        while self.answers:
            answer = self.answers.pop(0)
            if answer is None:
                return
            connection.send(struct.pack("=IIIi", MAGIC, VERSION, AGENT_UID, answer))
            if answer < 0:
                return
            message, fds = socket.recv_fds(connection, 65536, 4)[:2]
            if not message:
                return
            self.messages.append(message)
            self.fds += fds


def without_an_agent_nothing_runs():
    """Each way in which no agent takes the descriptor: 125, the reason, and COMMAND is not run."""
    def refused(path, *words, mark, ready_ms=300):
        for options in ([], ["--init"], ["--share-pidns"]):
            r = subprocess.run([LAUNCHER, "--listener", path, "--ready-timeout", str(ready_ms),
                                *options, "touch", mark], capture_output=True, text=True,
                               timeout=PATIENCE, check=False)
            assert r.returncode == 125 and not os.path.exists(mark), r
            assert "COMMAND was not run" in r.stderr, r
            said = all(word in r.stderr for word in words)
            # Where the machine stood still the time may be over at an earlier step: then once more.
            assert said or f"within {ready_ms} ms" in r.stderr, (words, r)
            if not said:
                return False
        return True

    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o711)
        path, mark = os.path.join(d, "s"), os.path.join(d, "ran")
        refused(path, path, "300 ms", mark=mark)
        # The last number: only what waits until the time is over has little of it.
        cases = (((None,) * 9, "wait for the agent's answer to the connection", 0, 300),
                 ((-errno.EACCES,) * 9, "the agent accept the connection: Permission", 0, 60000),
                 ((-errno.EMFILE,) * 200, "300 ms", 0, 300),
                 ((0, -errno.ENOSPC) * 9, "the notification descriptor: No space", 0, 60000),
                 ((0, None) * 9, "answer to the notification descriptor", 0, 2000),
                 ((0, 0) * 9, "trust the listener of user 65534", 65534, 60000))
        for answers, words, uid, ready_ms in cases:
            def as_it_must(answers=answers, words=words, uid=uid, ready_ms=ready_ms):
                agent = FakeAgent(path, *answers, uid=uid)
                try:
                    return refused(path, words, mark=mark, ready_ms=ready_ms)
                finally:
                    agent.stop()

            until(as_it_must, words, 0)


def a_late_agent_is_waited_for():
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "s")
        for options in ([], ["--init"], ["--share-pidns"]):
            p = subprocess.Popen([LAUNCHER, "--listener", path, "--ready-timeout", "300000",
                                  *options, "echo", "ran"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            time.sleep(0.2)
            agent = FakeAgent(path, -errno.EMFILE, 0, 0)
            out, err = p.communicate(timeout=PATIENCE)
            assert (p.returncode, out, err) == (0, "ran\n", ""), (p.returncode, out, err)
            agent.join(PATIENCE)
            assert len(agent.messages) == 1 and len(agent.fds) == 1
            agent.stop()
        # The pid to protect is the agent's: the kernel says whose the socket is.
        agent = FakeAgent(path, 0, 0)
        r = subprocess.run([LAUNCHER, "--listener", path, "--ready-timeout", "300000",
                            "--share-pidns", "--protect-pid", str(os.getpid() + 1), "true"],
                           capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert r.returncode == 64 and f"the agent's pid is {os.getpid()}" in r.stderr, r
        agent.stop()
    r = launch("true")
    assert r.returncode == 0 and "warning: --no-listener" in r.stderr, r


def help_explains_every_option():
    r = subprocess.run([LAUNCHER, "--print-filter"], capture_output=True, text=True, check=False)
    assert r.returncode == 0 and "the channel to the host" in r.stdout and "ask the agent" in r.stdout
    assert "ask the agent" not in launch("--no-listener", "--print-filter").stdout
    r = launch("--dry-run", "--share-pidns", "touch", "/nonexistent/x")
    assert r.returncode == 0 and "PIDs 1, 2 and the agent's" in r.stdout, r
    assert "/proc/PID/root" in r.stdout and "/proc/PID/root" not in launch("--dry-run", "true").stdout
    assert launch("--check").returncode == 0
    assert "io-uring" in launch("--allow", "list").stdout


def _read_listing(text, nr, *args, arch=0xc000003e):
    """The line of --print-filter's listing where this call's way through the filter ends."""
    lines = [line.split(maxsplit=1)[1] for line in text.splitlines()]
    values = {"nr": nr, "arch": arch, **{f"arg{i}": v for i, v in enumerate(args)}}
    at, loaded = 0, 0
    for _ in lines:
        words = lines[at].split()
        if words[0] == "load":
            loaded, at = values.get(words[1], 0), at + 1
        elif words[0] == "and":
            loaded, at = loaded & int(words[1], 16), at + 1
        elif words[0] == "goto":
            at = int(words[1])
        elif words[0] == "if":
            _, operator, number, _, yes, _, no = words
            number = int(number, 16)
            holds = {"==": loaded == number, ">=": loaded >= number, "&": loaded & number}[operator]
            at = int(yes if holds else no)
        else:
            return lines[at]
    raise AssertionError("the listing has no end")


def the_listing_is_the_filter():
    """Who follows it comes to the verdict, and to the reason of that verdict."""
    need(os.uname().machine == "x86_64", "the numbers are those of x86_64")
    text = launch("--print-filter").stdout
    asked = subprocess.run([LAUNCHER, "--print-filter"], capture_output=True, text=True,
                           check=False).stdout
    for nr, args, why in ((41, (socket.AF_VSOCK,), "socket: the channel to the host"),
                          (165, (), "mount: uncovers what is masked"),
                          (272, (0x10000000,), "unshare: a user namespace")):
        for listing, verdict in ((text, "refuse, errno "), (asked, "ask the agent")):
            line = _read_listing(listing, nr, *args)
            assert line.startswith(verdict) and f"\t# {why}" in line, (nr, args, line)
    # What is only watched is nobody's question without an agent.
    assert "# socket: needs CAP_NET_RAW; reads" in _read_listing(asked, 41, socket.AF_PACKET)
    assert _read_listing(text, 41, socket.AF_PACKET) == "allow"
    for nr, args in ((41, (socket.AF_INET, socket.SOCK_STREAM)), (0, ()), (272, (0x400,))):
        assert _read_listing(text, nr, *args) == "allow", (nr, args)
    assert _read_listing(text, 0, arch=0x40000003) != "allow"  # i386


def never_unprotected():
    """Without what it needs it says which step failed, and COMMAND is not run."""
    with tempfile.TemporaryDirectory() as d:
        mark = os.path.join(d, "ran")
        for drop, step in (("-sys_admin", "unshare the pid namespace"),
                           ("-setpcap", "bounding set")):
            r = subprocess.run(["setpriv", "--bounding-set", drop, "--inh-caps", "-all",
                                LAUNCHER, *NOWHERE, "touch", mark], capture_output=True, text=True,
                               check=False)
            assert r.returncode == 125 and step in r.stderr and "errno" in r.stderr, r
            assert not os.path.exists(mark)


if __name__ == "__main__":
    need(os.geteuid() == 0, "needs root, to make namespaces")
    main()
