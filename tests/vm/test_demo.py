# SPDX-License-Identifier: MIT
"""The README's commands and what it says that they print. tools/demo runs as it is written there,
with the build of these tests. tools/test runs this test: only its last line is looked at."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("CELLOS_SOURCE", str(SOURCE))
sys.path.insert(1, str(SOURCE / "tests" / "integration"))

import guide  # noqa: E402
from runner import main  # noqa: E402
from vm import Vm  # noqa: E402


def _command(name):
    """The README's block of this one command."""
    return next(b for b in guide.blocks("README.md") if b.text == f"{name}\n" and b.wanted)


def _form(line):
    """Without what differs from run to run: numbers, but for those of key=value, and columns."""
    return re.sub(r"(?<![\w=.])\d[\d:.]*", "0", " ".join(line.split()))


def _is_said(wanted, lines):
    pattern = re.compile(".*".join(re.escape(part) for part in _form(wanted).split("...")))
    return any(pattern.fullmatch(line) for line in lines)


def the_demo_prints_what_the_readme_shows():
    Vm("")  # Skips the test where no VM can be made.
    block = _command("tools/demo")
    with tempfile.TemporaryDirectory(prefix="cellos-demo-") as folder:
        run = subprocess.run(
            ["bash", "-ec", block.text], cwd=SOURCE, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            check=False, env={**os.environ, "CELLOS_BUILD_ROOT": folder,
                              "CELLOS_DEMO_BUILD": os.environ["CELLOS_BUILD"]})
        assert run.returncode == 0, run.stdout[-6000:]
        kept = os.listdir(f"{folder}/build-demo/last-run")
    assert sorted(kept) == ["evidence.jsonl", "keyring.json", "report.html"], kept
    lines = [_form(line) for line in run.stdout.splitlines()]
    for wanted in block.wanted.splitlines():
        assert _is_said(wanted, lines), f"the README says\n{wanted}\nand not\n{run.stdout}"


def the_tests_end_with_the_line_of_the_readme():
    wanted = _command("tools/test").wanted
    with tempfile.TemporaryDirectory(prefix="cellos-demo-") as folder:
        pathlib.Path(folder, "normal.json").write_text('{"name": "a", "result": "OK"}\n')
        run = subprocess.run([sys.executable, SOURCE / "tools" / "summarise-tests", folder],
                             stdout=subprocess.PIPE, text=True, check=True)
    assert _form(run.stdout.splitlines()[-1]) == _form(wanted), run.stdout


if __name__ == "__main__":
    sys.exit(main())
