# SPDX-License-Identifier: MIT
"""Runs the tests of a file, a line each; arguments name some of them. A test waits for an event,
never for a time: until() gives up only after PATIENCE, which no machine is slow enough to need."""

import inspect
import os
import sys
import time

# Seconds. A time-out is a failure only when it is absurd: see docs/testing.md. Who works on a test
# that fails may want less.
PATIENCE = float(os.environ.get("CELLOS_PATIENCE", 300))


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


def own_tests():
    """The functions of the program that need no argument; a leading _ hides one."""
    program = vars(sys.modules["__main__"])
    return [f for name, f in program.items() if inspect.isfunction(f) and
            f.__module__ == "__main__" and not name.startswith("_") and
            not inspect.signature(f).parameters]


def main(tests=None):
    for test in tests or own_tests():
        if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
            continue
        begin = time.monotonic()
        test()
        print(f"ok {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
