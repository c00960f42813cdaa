# SPDX-License-Identifier: MIT
"""Every option of a program's --help is in its man page, and the other way round."""

import os
import re
import subprocess

from runner import PATIENCE, main

SOURCE = os.environ["CELLOS_SOURCE"]
RECEIVER, AGENT = os.environ.get("CELLOS_RECEIVER"), os.environ.get("CELLOS_AGENT")
LAUNCHER = os.environ.get("CELLOS_WORKLOAD_EXEC")

# In the receiver's page each verb has its options in the section of this name; the options that
# describe a cell are in RECEIVE.
SECTIONS = {"receive": "RECEIVE", "serve": "SERVE", "cell": "CELL, STATUS",
            "status": "CELL, STATUS", "tail": "TAIL", "log": "LOG", "check-config": "CHECK-CONFIG, DUMP-CONFIG",
            "dump-config": "CHECK-CONFIG, DUMP-CONFIG",
            "checkpoint": "CHECKPOINT, PROVE", "prove": "CHECKPOINT, PROVE"}


def options_of_help(*command):
    run = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 0 and not run.stderr, run
    short = subprocess.run([*command, "-h"], capture_output=True, text=True, timeout=PATIENCE)
    assert short.stdout == run.stdout, command
    found = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", run.stdout, re.MULTILINE)
    assert found and len(set(found)) == len(found), (command, found)
    return set(found) - {"--help"}


def page(name):
    with open(os.path.join(SOURCE, "docs", name + ".scd")) as f:
        return f.read()


def options_of_page(text):
    return set(re.findall(r"\*(--[a-z-]+)(?: list)?\*", text)) - {"--help"}


def sections(text):
    parts = re.split(r"^# (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def compare(wanted, documented, what):
    assert not wanted - documented, f"{what}: not in the man page: {sorted(wanted - documented)}"
    assert not documented - wanted, f"{what}: not in --help: {sorted(documented - wanted)}"


def a_page_of_one_program(program, name):
    # What it says of other programs' options is no promise of this one's.
    own = sections(page(name))["OPTIONS"]
    compare(options_of_help(program), options_of_page(own), name)


def agent():
    a_page_of_one_program(AGENT, "cellos-telemetry.8")


def launcher():
    a_page_of_one_program(LAUNCHER, "cellos-workload-exec.8")


def receiver():
    listing = subprocess.run([RECEIVER, "--help"], capture_output=True, text=True, timeout=PATIENCE)
    verbs = re.findall(r"^  ([a-z-]+) ", listing.stdout, re.MULTILINE)
    text = page("cellos-host-telemetry.1")
    parts = sections(text)
    of_section, everything = {}, {"--version"}
    for verb in verbs:
        options = options_of_help(RECEIVER, verb)
        section = SECTIONS.get(verb, verb.upper())
        assert section in parts, f"no section for {verb}"
        of_section.setdefault(section, set()).update(options)
        everything |= options
    compare(everything - {"--version"}, options_of_page(text) - {"--version"}, "all verbs")
    cell = of_section["CELL, STATUS"] & of_section["RECEIVE"]
    for section, options in of_section.items():
        if section == "CELL, STATUS":
            options = options - cell
        compare(options, options_of_page(parts[section]), section)


if __name__ == "__main__":
    main([test for test, program in ((agent, AGENT), (launcher, LAUNCHER), (receiver, RECEIVER))
          if program])
