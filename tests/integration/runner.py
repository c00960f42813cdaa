# SPDX-License-Identifier: MIT
"""Runs the tests of a file, a line each; arguments name some of them."""

import sys
import time


def main(tests):
    for test in tests:
        if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
            continue
        begin = time.monotonic()
        test()
        print(f"ok {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
