# SPDX-License-Identifier: MIT
"""The golden logs of tests/vectors/log and how `verify` must end on each."""

import json
import os

FOLDER = os.path.join(os.environ["CELLOS_VECTORS"], "log")
KEYRING = os.path.join(FOLDER, "keyring.json")


def cases():
    """(path, exit status, path of a kept checkpoint or None) of each golden log."""
    with open(os.path.join(FOLDER, "verify-exit-codes.json")) as f:
        wanted = json.load(f)
    found = []
    for key, value in wanted.items():
        if isinstance(value, int):
            found.append((os.path.join(FOLDER, key), value, None))
        elif isinstance(value, dict):
            kept = os.path.join(FOLDER, key.removeprefix("with "))
            found += [(os.path.join(FOLDER, name), status, kept) for name, status in value.items()]
    assert len(found) > 20
    return found
