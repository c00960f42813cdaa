# SPDX-License-Identifier: MIT
"""What the documents promise about the programs: every message is in docs/troubleshooting.md, every
metric in docs/reference/metrics.md, every test that the threat model names exists, every link of a
document leads somewhere, every command of a guide says whether it is run."""

import glob
import os
import re
import subprocess
import sys

import guide
from daemon import Daemon
from runner import main

SOURCE = os.environ["CELLOS_SOURCE"]
PROGRAMS = ("host-receiver", "guest-agent", "seccomp/launcher", "common")


def _read(*path):
    with open(os.path.join(SOURCE, *path), encoding="utf-8") as f:
        return f.read()


def _plain(text):
    return re.sub(r"\s+", " ", text)


def _literals(path):
    """The C source with adjacent string literals joined and without comments."""
    text = re.sub(r"/\*.*?\*/", "", _read(path), flags=re.DOTALL)
    text = re.sub(r'"\s*PRI[a-zA-Z0-9]+\s*"', "u", text)
    return re.sub(r'"\s*\n\s*"', "", text)


def _sources():
    for room in PROGRAMS:
        for path in glob.glob(os.path.join(SOURCE, room, "**", "*.c"), recursive=True):
            yield os.path.relpath(path, SOURCE)


def every_message_is_in_troubleshooting():
    page = _plain(_read("docs", "troubleshooting.md"))
    missing, n = [], 0
    for path in _sources():
        text = _literals(path)
        messages = re.findall(r'msg=\\"([^%]*?)\\"', text)
        # What verbs print: the part between the conversions that says something.
        for line in re.findall(r'(?:fprintf\(stderr,|fputs\()\s*"((?:[^"\\]|\\.)*)"[^;]*stderr|'
                               r'fprintf\(stderr,\s*"((?:[^"\\]|\\.)*)"', text):
            said = max(re.split(r"%[-+ #0-9.*a-zA-Z]*?[a-z]|\\n", "".join(line)), key=len).strip(" :;,")
            if len(said.split()) >= 4:
                messages.append(said)
        for message in messages:
            n += 1
            if _plain(message) not in page and _plain(message).split(";")[0] not in page:
                missing.append(f"{path}: {message}")
    assert n > 80, f"only {n} messages are found in the sources"
    assert not missing, "not in docs/troubleshooting.md:\n" + "\n".join(missing)


def every_metric_is_in_the_reference():
    with Daemon("per_cell = yes\n", sign=False) as d:
        d.add("a")
        names = set(re.findall(r"^# TYPE cellos_host_telemetry_(\w+) ", d.wait_metrics("cell_connected"),
                               re.MULTILINE))
        rows = set(re.findall(r"^\| `(\w+)` \| (?:counter|gauge|histogram) ",
                              _read("docs", "reference", "metrics.md"), re.MULTILINE))
    forwarder = {name for name in rows if name.startswith("forward")}
    assert names == rows - forwarder, (names - rows, rows - names - forwarder)


def every_key_of_the_configuration_is_in_its_page():
    page = _read("docs", "cellos-host-telemetry.conf.5.scd")
    sections = dict(re.findall(r"^# \[(\w+)\]\n(.*?)(?=^# )", page, re.MULTILINE | re.DOTALL))
    with Daemon(sign=False, start=False) as d:
        shown = subprocess.run([os.environ["CELLOS_RECEIVER"], "dump-config", "--config",
                                d.file("conf")], capture_output=True, text=True, check=True).stdout
    section, wanted = "", set()
    for line in shown.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif match := re.match(r"(?:; )?(\w+) =", line):
            wanted.add((section, match[1]))
    documented = {(name, key) for name, text in sections.items()
                  for key in re.findall(r"\*(\w+)\* = ", text)}
    assert len(wanted) > 30 and wanted == documented, wanted ^ documented


def every_request_of_the_control_socket_is_in_its_page():
    verbs = set(re.findall(r'\{"(\w+)", (?:daemon|answer)_\w+\}',
                           _read("host-receiver", "daemon", "answers.c")))
    page = set(re.findall(r'"verb":"(\w+)"', _read("docs", "control-protocol.md")))
    assert len(verbs) >= 7 and verbs == page, verbs ^ page


def the_threat_model_names_tests_that_exist():
    listed = subprocess.run(["meson", "test", "--list", "-C", os.environ["CELLOS_BUILD"]],
                            capture_output=True, text=True)
    if listed.returncode != 0:
        print("skip the_threat_model_names_tests_that_exist: meson cannot list the tests")
        return
    tests = {line.split(" / ")[-1].strip() for line in listed.stdout.splitlines()}
    rows = [row for row in _read("docs", "threat-model.md").splitlines()
            if row.startswith("| ") and not row.startswith("| who, ")]
    assert len(rows) > 15
    for row in rows:
        for name in re.findall(r"`([\w-]+)`", row.split("|")[-2]):
            assert name in tests or f"fuzz_{name}" in tests or f"fuzz-{name}" in tests, \
                f"docs/threat-model.md names {name}, which is no test"


def links_lead_somewhere():
    documents = glob.glob(f"{SOURCE}/docs/**/*.md", recursive=True) + [f"{SOURCE}/README.md"]
    for path in documents:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for link in re.findall(r"\]\(([^)#: ]+)(?:#[^)]*)?\)", text):
            target = os.path.join(os.path.dirname(path), link)
            assert os.path.exists(target), f"{os.path.relpath(path, SOURCE)}: {link}"


def every_block_of_a_guide_says_whether_it_is_run():
    guides = sorted(glob.glob(f"{SOURCE}/docs/guide-*.md"))
    assert len(guides) >= 3
    others = [f"{SOURCE}/docs/{name}.md" for name in ("jetstream", "host-probes", "workload-profile")]
    for path in [*guides, *others, f"{SOURCE}/README.md"]:
        assert guide.blocks(os.path.relpath(path, SOURCE)), path


if __name__ == "__main__":
    sys.exit(main())
