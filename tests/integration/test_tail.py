# SPDX-License-Identifier: MIT
"""tail as people use it: a folder, a file, the newest lines, a time, and what does not match."""

import json
import os
import subprocess
import tempfile

import logmaker
from receiver import RECEIVER
from runner import PATIENCE, main

KEY = logmaker.new_key()


def tail(*args, want=0, **options):
    got = subprocess.run([RECEIVER, "tail", *args], capture_output=True, timeout=PATIENCE, **options)
    assert got.returncode == want, (args, got)
    return got


class Folder:
    def __init__(self, **options):
        self.tmp = tempfile.TemporaryDirectory()
        self.made = logmaker.ordinary(KEY, cells=2, events=3, **options)
        self.path = self.made.write(f"{self.tmp.name}/log")
        self.files = sorted(os.path.join(self.path, n) for n in os.listdir(self.path))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tmp.cleanup()


def events_of(got):
    return [json.loads(x) for x in got.stdout.splitlines()]


def a_folder_and_a_file_are_printed():
    for options in ({}, {"envelope": KEY}):
        with Folder(**options) as f:
            whole = tail("--json", f.path).stdout.splitlines()
            assert whole == f.made.entries, "the entries, and no line of the log itself"
            one = tail("--json", f.files[1]).stdout.splitlines()
            assert one and all(x in whole for x in one)
            for pack in (["gzip", "-k"], ["zstd", "-qk"]):
                subprocess.run([*pack, f.files[1]], check=True)
            for name in (".gz", ".zst"):
                assert tail("--json", f.files[1] + name).stdout.splitlines() == one
            with open(f.files[1], "rb") as stdin:
                assert tail("--json", "-", stdin=stdin).stdout.splitlines() == one
            lines = tail(f.path).stdout.splitlines()
            assert len(lines) == len(whole)
            assert b" stream.opened " in lines[1] and b"cell-0-0" in lines[1]


def the_newest_lines():
    with Folder() as f:
        entries = f.made.entries
        for n in (1, 2, 7, len(entries) - 1, len(entries), len(entries) + 1, 100000):
            for args in (["-n", str(n)], ["--lines", str(n)], [f"--lines={n}"]):
                got = tail("--json", *args, f.path).stdout.splitlines()
                assert got == entries[-n:], (n, len(got))
        got = tail("--json", "-n", "2", "--cell", "cell-1-0", f.path).stdout.splitlines()
        assert got == [x for x in entries if b'"cell-1-0"' in x][-2:]
        for wrong in ("0", "-1", "x", "100001"):
            tail("-n", wrong, f.path, want=64)


def a_part_of_the_time():
    with Folder() as f:
        times = [json.loads(x)["time"] for x in f.made.entries]
        first, last = times[3], times[9]
        got = events_of(tail("--json", "--since", first, "--until", last, f.path))
        assert [e["time"] for e in got] == times[3:10]
        got = tail("--json", "--since", times[-1], f.path).stdout.splitlines()
        assert got == f.made.entries[-1:]
        tail("--since", "tomorrow", f.path, want=64)


def nothing_that_matches_is_said():
    with Folder() as f:
        n = len(f.made.entries)
        for args in (["--cell", "web-7"], ["--type", "guest.v1.net_*"], ["--until", "2001-01-01"]):
            got = tail(*args, f.path)
            assert got.stdout == b"" and got.stderr == b"tail: none of %d events matches\n" % n, got
        assert tail(f.path).stderr == b""


def only_files_are_read():
    with Folder() as f:
        os.mkfifo(f"{f.tmp.name}/fifo")
        assert b"not a regular file" in tail(f"{f.tmp.name}/fifo", want=66).stderr
        assert b"not a file" in tail("-f", f.files[0], want=64).stderr
        tail(f"{f.tmp.name}/none", want=66)
        os.unlink(f.files[1])
        os.mkfifo(f.files[1])
        assert b"not a regular file" in tail(f.path, want=66).stderr


def the_newest_lines_and_what_comes():
    with Folder() as f:
        run = subprocess.Popen([RECEIVER, "tail", "--json", "-n", "2", "-f", f.path],
                               stdout=subprocess.PIPE)
        try:
            got = [run.stdout.readline().rstrip(b"\n") for _ in range(2)]
            assert got == f.made.entries[-2:]
            stream = f.made.open("late")
            f.made.seal("late", stream)
            f.made.commit()
            with open(f.files[-1], "ab") as out:
                out.write(b"".join(f.made.segments[-1][-3:]))
            got = [run.stdout.readline().rstrip(b"\n") for _ in range(2)]
            assert got == f.made.entries[-2:] and b'"late"' in got[0]
        finally:
            run.terminate()
            run.communicate()


if __name__ == "__main__":
    main()
