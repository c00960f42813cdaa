# SPDX-License-Identifier: MIT
"""The launcher as a user sees it: exit codes, signals, what it leaves out, what it refuses to do.
Everything happens in namespaces that the launcher makes; no AF_VSOCK."""

import os
import signal
import subprocess
import sys
import tempfile

from runner import PATIENCE, main

LAUNCHER = os.environ["CELLOS_WORKLOAD_EXEC"]
NOWHERE = ["--listener", "/nonexistent/listener", "--pid-file", "/nonexistent/pid"]


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
    for options in (["--init"], ["--share-pidns"], ["--share-pidns", "--init"]):
        r = launch(*options, "sh", "-c", "kill -USR1 $$")
        assert r.returncode == -signal.SIGUSR1, (options, r)
    for bad in (["--allow", "everything", "true"], ["--cap-keep", "CAP_WISH", "true"], [],
                ["--protect-pid", "0", "true"], ["--unknown"]):
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
    with tempfile.NamedTemporaryFile("w") as f:
        f.write(f"{p.pid}\n")
        f.flush()
        kill = ["sh", "-c", f"kill -TERM {p.pid}; echo 500 > /proc/{p.pid}/oom_score_adj"]
        for options in (["--protect-pid", str(p.pid)], ["--pid-file", f.name]):
            r = launch("--share-pidns", *options, *kill)
            assert "Operation not permitted" in r.stderr and "Read-only" in r.stderr, r
            assert p.poll() is None
    r = launch("--share-pidns", *kill)
    assert "only PIDs 1 and 2" in r.stderr and p.wait(PATIENCE) == -signal.SIGTERM, r


def it_explains_itself():
    r = launch("--print-filter")
    assert r.returncode == 0 and "the channel to the host" in r.stdout and "ask the agent" in r.stdout
    assert "ask the agent" not in launch("--no-listener", "--print-filter").stdout
    r = launch("--dry-run", "--share-pidns", "--protect-pid", "77", "touch", "/nonexistent/x")
    assert r.returncode == 0 and "PIDs 1, 2 and 77" in r.stdout, r
    assert "/proc/PID/root" in r.stdout and "/proc/PID/root" not in launch("--dry-run", "true").stdout
    assert launch("--check").returncode == 0
    assert "io-uring" in launch("--allow", "list").stdout


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
    if os.geteuid() != 0:
        print("skipped: needs root, to make namespaces")
        sys.exit(77)
    main([exit_codes, signals_pass_through, the_workload_ends_with_the_launcher, init_reaps,
          layer_1, options_change_what_is_refused, it_explains_itself, never_unprotected])
