# SPDX-License-Identifier: MIT
"""Every command of guides, as it is written and in order, in a throw-away copy of this machine:
test_guides.py GUIDE.md..."""

import sys

import guide

if __name__ == "__main__":
    guide.test(sys.argv[1:])
