# SPDX-License-Identifier: MIT
"""Runs the tests of a file: integration tests and VM tests alike. docs/testing.md says how a test
is written. A test waits for an event, never for a time: until() gives up only after PATIENCE, which
no machine is slow enough to need."""

import ast
import contextlib
import glob
import inspect
import linecache
import os
import random
import signal
import socket
import sys
import time
import traceback

# Seconds. A time-out is a failure only when it is absurd: see docs/testing.md. With a test that
# fails a developer may want less.
PATIENCE = float(os.environ.get("CELLOS_PATIENCE", 300))

# Meson's exit code for a test that was skipped.
SKIPPED = 77
VALUE_MAX = 2000


class Skip(Exception):
    """Raised by a test that cannot run here. Its text is the reason."""


def need(condition, reason):
    """Before main(): skips the whole file unless the condition holds."""
    if not condition:
        print(f"skipped: {reason}", flush=True)
        sys.exit(SKIPPED)


def until(condition, what="a condition", pause=0.01, patience=PATIENCE):
    """The first true value of condition(). Fails after PATIENCE, or after `patience` if that is
    longer. `what` may be a function, which is called only for the message of a failure."""
    begin = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - begin
        assert waited < max(PATIENCE, patience), \
            f"waited {waited:.0f} s for {what() if callable(what) else what}"
        time.sleep(pause)
    return value


def stand_still(pid):
    """Stops the process. Returns once all its threads stand still: one that runs on another
    processor stops a moment later. SIGCONT lets it go on."""
    os.kill(pid, signal.SIGSTOP)

    def all_stand():
        for path in glob.glob(f"/proc/{pid}/task/*/stat"):
            try:
                with open(path, encoding="utf-8", errors="replace") as f:
                    if f.read().rpartition(")")[2].split()[0] != "T":
                        return False
            except FileNotFoundError:
                return False  # a thread that has just ended
        return True

    until(all_stand, f"process {pid} to stand still", 0.001)


def free_port(address="127.0.0.1"):
    """A TCP port on which nobody listens, below those that the kernel gives to who connects: in that
    range a client that tries again and again can become its own server. Tests that run beside each
    other have ports of their own, by their pids."""
    while True:
        port = 10000 + os.getpid() % 220 * 100 + random.randrange(100)
        with socket.socket() as sock:
            try:
                sock.bind((address, port))
                return port
            except OSError:
                pass


@contextlib.contextmanager
def case(*words):
    """Around one row of a table: a failure names the row."""
    try:
        yield
    except AssertionError:
        print("in the case", *words, flush=True)
        raise


class once:
    """A decorator: the function runs at its first use, and all tests of the file look at what it
    returned. If it failed, each of them fails in the same way at once."""

    def __init__(self, function):
        self.function = function
        self.outcome = None

    def __call__(self):
        if self.outcome is None:
            try:
                self.outcome = self.function(), None
            except Exception as failure:
                self.outcome = None, failure
        result, failure = self.outcome
        if failure:
            raise failure
        return result


def own_tests():
    """The functions of the program that need no argument. A leading _ hides one, @once too."""
    program = vars(sys.modules["__main__"])
    return [f for name, f in program.items() if inspect.isfunction(f) and
            f.__module__ == "__main__" and not name.startswith("_") and
            not inspect.signature(f).parameters]


def values_in(failure):
    """The names in an assertion that failed, and their values: (name, text)."""
    frame = failure.__traceback__
    while frame.tb_next:
        frame = frame.tb_next
    source = "".join(linecache.getlines(frame.tb_frame.f_code.co_filename))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert) and node.lineno <= frame.tb_lineno <= node.end_lineno:
            names = {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}
            for name in sorted(names & frame.tb_frame.f_locals.keys()):
                yield name, repr(frame.tb_frame.f_locals[name])[:VALUE_MAX]


def run(test):
    """Whether it passed; None: it was skipped."""
    begin = time.monotonic()
    try:
        test()
    except Skip as reason:
        print(f"skipped {test.__name__}: {reason}", flush=True)
        return None
    except Exception as failure:
        traceback.print_exc(file=sys.stdout)
        if isinstance(failure, AssertionError):
            for name, value in values_in(failure):
                print(f"    {name} = {value}")
        print(f"FAILED {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
        return False
    print(f"ok {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
    return True


def end_what_is_left():
    """Ends the processes that a failed test has left. Meson, which gives each test a session of its
    own, would wait for the last one that can still write to the test's output."""
    own = os.getpid()
    if os.getsid(0) != own:
        return
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with contextlib.suppress(ProcessLookupError):
            if pid != own and os.getsid(pid) == own:
                os.kill(pid, signal.SIGKILL)


def main(tests=None):
    """Runs own_tests(), or those that arguments name, and exits: 0, 1 when a test failed,
    77 when none failed and one was skipped. A skip that nobody sees is worse than a pass that is
    not counted."""
    tests = tests or own_tests()
    wanted = sys.argv[1:]
    unknown = set(wanted) - {test.__name__ for test in tests}
    if unknown:
        sys.exit(f"no such test here: {', '.join(sorted(unknown))}")
    results = [run(test) for test in tests if not wanted or test.__name__ in wanted]
    if False in results:
        end_what_is_left()
    sys.exit(1 if False in results else SKIPPED if None in results else 0)
