# SPDX-License-Identifier: MIT
"""What the agent's loop asks of the kernel while a workload attacks it: no other process's memory,
none of the files of /proc that take a process's locks or hold its memory, and no system call beside
its own list."""

import os
import re
from types import SimpleNamespace

from runner import main, once
from vm import Receiver, Vm, test_program

POLICY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "seccomp",
                      "agent.policy")

# fs/proc: these take neither mmap_lock nor cred_guard_mutex, read no memory of the process, and hold
# no reference to it. stat and status do hold one: if the process ends just then, who reads them frees
# all of its memory. The agent's reader processes read them; strace follows the loop only.
PROC_FILES = re.compile(r"""
    /proc(/(\d+|self|thread-self))?
    | /proc/(\d+|self)(/task/\d+)?/(comm|exe|cwd|cgroup|ns/pid|ns/net|fd|fd/\d+|task)
    | /proc/(self/)?net/(tcp|tcp6|udp|udp6)
    | /proc/(stat|uptime|loadavg)
    | /proc/sys/.*
""", re.VERBOSE)
# They name a file of /proc by a path.
BY_PATH = re.compile(r'(open|openat|openat2|readlink|readlinkat|stat|lstat|newfstatat|access)\(')

SCRIPT = """
mkdir /tmp/watched
trace() {
    cellos-telemetry --heartbeat 300 --inotify /tmp/watched "$@" || exit 10
    agent=$(cat /run/cellos-telemetry/agent.pid)
    strace -o /tmp/trace -s 256 -p $agent 2> /tmp/attached &
    tracer=$!
    until grep -q attached /tmp/attached; do sleep 0.1; done
}
finish() {
    kill -INT $tracer
    wait $tracer
    kill -TERM $agent
    while [ -d /proc/$agent ]; do sleep 0.05; done
    vm put /tmp/trace $1
}
trace
cellos-workload-exec --init -- attack default $agent > /dev/null
for i in 1 2 3 4 5; do touch /tmp/watched/$i; sh -c 'exec /bin/true'; nc 127.0.0.1 42$i < /dev/null; done
cellos-workload-exec --share-pidns -- sh -c 'chroot /; hostname x' 2> /dev/null
cellos-workload-exec --init -- hostile flood 2 > /dev/null
sleep 1
finish connector
# The sources that poll, which read every process.
trace --process proc-walk --net proc-net --poll 50
sh -c 'sleep 0.2; exec /bin/sleep 0.2'
nc 127.0.0.1 99 < /dev/null
cellos-workload-exec --init -- hostile flood 1 > /dev/null
finish polling
"""


@once
def ran():
    """One run of the VM for all tests."""
    got = SimpleNamespace()
    with Receiver("--keepalive", "0") as receiver:
        got.result = Vm(SCRIPT, receiver=receiver, programs=[
            "/usr/bin/strace", test_program("attack"), test_program("hostile")]).run(300).check()
        receiver.finish()
    got.polling = got.result.files["polling"].decode(errors="replace").splitlines()
    got.lines = got.result.files["connector"].decode(errors="replace").splitlines() + got.polling
    return got


def it_was_watched():
    calls = {line.split("(")[0] for line in ran().lines}
    assert len(ran().lines) > 1000
    assert len(ran().polling) > 100
    for call in ("epoll_pwait", "ioctl", "readlink", "open", "read"):
        assert call in calls


def system_calls_are_of_its_list():
    with open(POLICY, encoding="utf-8") as f:
        allowed = {call for line in f if line.startswith("allow ")
                   for call in line.split()[1].split(",")}
    assert "process_vm_readv" not in allowed
    assert "ptrace" not in allowed
    made = {m.group(1) for m in (re.match(r"(\w+)\(", line) for line in ran().lines) if m}
    print("system calls:", " ".join(sorted(made)), flush=True)
    assert made - allowed == set()


def files_of_proc_take_no_locks():
    paths = {path for line in ran().lines if BY_PATH.match(line)
             for path in re.findall(r'"(/proc[^"]*)"', line)[:1]}
    # Relative to a descriptor of /proc.
    paths |= {"/proc/" + path for line in ran().lines if BY_PATH.match(line)
              for path in re.findall(r'\(\d+, "(\d+[^"]*)"', line)[:1]}
    kinds = {re.sub(r"\d+", "N", path) for path in paths}
    print("files:", " ".join(sorted(kinds)), flush=True)
    assert {path for path in paths if not PROC_FILES.fullmatch(path)} == set()
    for wanted in ("/proc/N/comm", "/proc/N/exe"):
        assert wanted in kinds
    # What it knows of capabilities, it does not have from a status file.
    assert any(line.startswith("capget(") for line in ran().lines)


if __name__ == "__main__":
    main()
