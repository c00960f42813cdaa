# SPDX-License-Identifier: MIT
"""verify on whole logs: what somebody without the key can do to them, what honest writers do after
a crash, a rotation, a retention, and what an auditor may ask for."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import tempfile
import uuid

import golden
import logmaker
from logmaker import Log, ordinary
from receiver import RECEIVER, open_files
from runner import PATIENCE, case, main, until

VECTORS = os.environ["CELLOS_VECTORS"]
SANITIZE = os.environ.get("CELLOS_SANITIZE", "none")
KEY, OTHER = logmaker.new_key(), logmaker.new_key()


def add_up(text):
    """Each record is counted once: `2 records: 0 verified, 3 bad` says nothing."""
    counts = re.search(r"^(\d+) records?: (.*)$", text, re.M)
    if counts:
        assert sum(map(int, re.findall(r"\d+", counts[2]))) == int(counts[1]), text


class Case:
    """A folder, a keyring, and verify on it."""

    def __init__(self, *pairs):
        self.dir = tempfile.mkdtemp()
        self.log = f"{self.dir}/log"
        self.keys(*(pairs or (("k1", KEY),)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)

    def keys(self, *pairs):
        self.keyring = self.file("keyring.json", logmaker.keyring(*pairs))

    def file(self, name, data):
        with open(f"{self.dir}/{name}", "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return f"{self.dir}/{name}"

    def run(self, *args, paths=None, stdin=None):
        return subprocess.run([RECEIVER, "verify", "--keys", self.keyring, *args,
                               *(paths or [self.log])], input=stdin, capture_output=True,
                              timeout=PATIENCE)

    def check(self, want, *args, words=None, **more):
        got = self.run(*args, **more)
        assert got.returncode == want, (want, args, got.stdout.decode(), got.stderr.decode())
        add_up(got.stdout.decode())
        for word in [words] if isinstance(words, str) else words or []:
            assert word in got.stdout.decode(), (word, got.stdout.decode())
        return got

    def json(self, *args, **more):
        return json.loads(self.run("--json", "--report", *args, **more).stdout)

    def names(self):
        return sorted(os.path.join(self.log, n) for n in os.listdir(self.log))


def lines_of(path):
    with open(path, "rb") as f:
        return f.read().splitlines(keepends=True)


def write_lines(path, lines):
    with open(path, "wb") as f:
        f.writelines(lines)


def is_entry(line):
    return b'"type":"dev.cellos.events.log_' not in line


def golden_logs_end_as_they_must():
    for path, status, kept in golden.cases():
        with case(path):
            args = ["--checkpoint", kept] if kept else []
            got = subprocess.run([RECEIVER, "verify", "--keys", golden.KEYRING, *args, path],
                                 capture_output=True, timeout=PATIENCE)
            assert got.returncode == status, got.stdout.decode()


def honest_logs_are_intact():
    for options in ({}, {"envelope": KEY}):
        with Case() as c:
            ordinary(KEY, **options).write(c.log)
            c.check(0, words=["OK: every record is verified", "note: no kept checkpoint"])
            # The order of the files does not matter, nor how they come.
            c.check(0, paths=list(reversed(c.names())))
            c.check(0, paths=["-"], stdin=b"".join(b"".join(lines_of(n)) for n in c.names()))
            subprocess.run(["gzip", c.names()[0]], check=True)
            subprocess.run(["zstd", "-q", "--rm", c.names()[1]], check=True)
            c.check(0)


def removed_records_show():
    """Without the key: one stream, one cell, a record of each kind, a segment, all of it."""
    log = ordinary(KEY)
    for what, gone in (
            ("a whole stream", lambda l: b"cell-1-1" in l),
            ("a cell and what names it", lambda l: b"cell-0-0" in l),
            ("one record", lambda l: b'"sequence":3' in l and b"cell-2-0" in l),
            ("all opened events", lambda l: b"stream.v1.opened" in l),
            ("the log's own events", lambda l: b"log.v1." in l)):
        with Case() as c:
            log.write(c.log)
            for name in c.names():
                write_lines(name, [x for x in lines_of(name) if not (is_entry(x) and gone(x))])
            c.check(1, words="NOT OK")
    for number, want in ((0, 3), (1, 3), (2, 4)):
        with Case() as c:
            log.write(c.log)
            os.unlink(c.names()[number])
            c.check(want)
            kept = c.file("kept", log.note)
            c.check(2 if number == 3 else 3, "--checkpoint", kept)
    with Case() as c:
        log.write(c.log)
        for name in c.names():
            os.unlink(name)
        c.check(5)
        c.check(3, "--checkpoint", c.file("kept", log.note), words="is not in the input")
        c.check(3, "--expect-cell", "cell-0-0")


def a_rollback_shows_with_a_kept_checkpoint():
    log = ordinary(KEY)
    kept = []
    with Case() as c:
        log.write(c.log)
        for name in c.names():
            kept += [json.loads(x)["data"]["checkpoint"] for x in lines_of(name)
                     if not is_entry(x) and b"log_checkpoint" in x]
        for text in kept:
            c.check(0, "--checkpoint", c.file("kept", text))
        every = [a for i, text in enumerate(kept) for a in ("--checkpoint",
                                                          c.file(f"kept-{i}", text))]
        assert b"note: " not in c.check(0, *every).stdout
        # Cut back to each earlier checkpoint: newer ones show it, older ones do not.
        name = c.names()[-1]
        whole = lines_of(name)
        ends = [i + 1 for i, x in enumerate(whole) if b"log_checkpoint" in x]
        write_lines(name, whole[:ends[-2]])
        c.check(4, "--checkpoint", c.file("kept", kept[-2]))
        c.check(3, "--checkpoint", c.file("kept", kept[-1]), words="ends after")
        # Damaged, or of a key that nobody knows, it proves nothing.
        write_lines(name, whole)
        c.check(1, "--checkpoint", c.file("kept", kept[-1].replace("\n", "\r\n")))
        size = kept[-1].split("\n")[1]
        c.check(1, "--checkpoint", c.file("kept", kept[-1].replace(f"\n{size}\n", "\n1\n")))
        stranger = logmaker.note(log.origin, log.frontier.size, log.frontier.root(), OTHER)
        c.check(2, "--checkpoint", c.file("kept", stranger), words="no key for this checkpoint")
        cosigned = log.note + "\u2014 witness.example AAAAAAAAAAA=\n"
        c.check(0, "--checkpoint", c.file("kept", cosigned))
        c.check(66, "--checkpoint", f"{c.dir}/none")


def a_log_rewritten_with_the_key_shows():
    """The key itself was stolen: only a checkpoint that somebody kept tells."""
    name = str(uuid.uuid4())
    honest, forged = Log(KEY, name=name), Log(KEY, name=name)
    for each, comm in ((honest, "sh"), (forged, "true")):
        stream = each.open("c")
        each.cell("c", "guest.v1.process_spawned", stream, guestComm=comm)
        each.seal("c", stream)
        each.close()
    with Case() as c:
        forged.write(c.log)
        c.check(0)
        c.check(3, "--checkpoint", c.file("kept", honest.note), words="is another one")
        # Both at once: the host signed twice.
        honest.write(f"{c.dir}/other")
        c.check(1, paths=[c.log, f"{c.dir}/other"], words="forked")


def added_and_swapped_records_show():
    log, stranger = ordinary(KEY), ordinary(KEY, prefix="example.org/other")
    with Case() as c:
        log.write(c.log)
        whole = lines_of(c.names()[0])
        entries = [i for i, x in enumerate(whole) if is_entry(x)]
        a, b = entries[1], entries[2]
        swapped = whole[:a] + [whole[b], whole[a]] + whole[b + 1:]
        for what, lines in (
                ("swapped", swapped),
                ("a replayed stream", whole[:-1] + [x for x in whole if b"cell-0-1" in x] +
                 whole[-1:]),
                ("an entry twice", whole[:a + 1] + [whole[a]] + whole[a + 1:]),
                ("an added line", whole[:a] + [b"{}\n"] + whole[a:]),
                ("an empty line", whole[:a] + [b"\n"] + whole[a:]),
                ("a re-formatted line", whole[:a] + [whole[a].replace(b'"data":', b'"data": ')] +
                 whole[a + 1:]),
                ("a checkpoint of another log", whole + [stranger.segments[0][-1]]),
                ("entries of another log", whole + stranger.segments[0][1:]),
                ("the segment line twice", whole[:1] + whole),
                ("another segment line in it", whole + log.segments[1])):
            write_lines(c.names()[0], lines)
            c.check(1, words="bad:")
        # A segment of another host is a log of its own, and its rest is missing.
        write_lines(c.names()[0], whole)
        write_lines(f"{c.log}/evidence-{9:020}.jsonl", stranger.segments[1])
        c.check(3, words="no verified pruned entry explains it")
        c.check(2, "--origin", "example.org/host", words="--origin allows")


def lines_of_the_log_are_exact():
    log = ordinary(KEY, segments=2)
    with Case() as c:
        log.write(c.log)
        for number, old, new in (
                (0, b'"firstIndex":0', b'"firstIndex":1'),
                (1, b'"frontier":["', b'"frontier":["AAAA'),
                (1, b'"checkpoint":"', b'"checkpoint":"x'),
                (1, b'"source":"cellos-host-telemetry/log"', b'"source":"elsewhere"'),
                (1, b'urn:cellos:segment', b'urn:cellos:Segment'),
                (1, b'"data":{', b'"data": {'),
                (1, b'"specversion"', b'"more":1,"specversion"'),
                (1, b'"origin":"example.org/', b'"origin":"example.net/')):
            whole = lines_of(c.names()[number])
            assert old in whole[0], old
            write_lines(c.names()[number], [whole[0].replace(old, new, 1)] + whole[1:])
            c.check(1, words="bad:")
            write_lines(c.names()[number], whole)
        whole = lines_of(c.names()[0])
        at = next(i for i, x in enumerate(whole) if b"log_checkpoint" in x)
        for old, new in ((b'"size":1}', b'"size":2}'), (b'"signerKid":"k1"', b'"signerKid":"k2"'),
                         (b"urn:cellos:checkpoint", b"urn:cellos:checkPoint"),
                         (b'\\n1\\n', b'\\n01\\n'), (b'"data":{', b'"data":{"a":1,')):
            assert old in whole[at], old
            write_lines(c.names()[0], whole[:at] + [whole[at].replace(old, new, 1)] +
                        whole[at + 1:])
            c.check(1, words="bad:")


def stripped_signatures_show():
    log = ordinary(KEY, envelope=KEY)
    with Case() as c:
        log.write(c.log)
        for name in c.names():
            write_lines(name, [x for x in lines_of(name) if is_entry(x)])
        # Each event is signed, but its stream says that it was in a log.
        c.check(1, words="stands outside of it")
    log = ordinary(KEY)
    with Case() as c:
        log.write(c.log)
        for name in c.names():
            write_lines(name, [x for x in lines_of(name) if b"log_checkpoint" not in x])
        os.unlink(c.names()[2])
        os.unlink(c.names()[1])
        c.check(2, words="after the last checkpoint")
        c.check(2, "--live", "--require-log", paths=[f"{VECTORS}/evidence-unsigned.jsonl"])
        # Evidence of no log: the verdict names what it cannot show.
        got = c.run("--allow-unsigned", paths=[f"{VECTORS}/evidence-unsigned.jsonl"])
        assert b"note: no checkpoint covers some records: a stream that was removed whole" in got.stdout


def unverifiable_entries_count_for_nothing():
    """Whoever has no key cannot fill a hole, open or seal a stream with one of their own."""
    log = Log(KEY)
    stream = log.open("c")
    log.commit()
    log.spawn("c", stream, 2)
    log.seal("c", stream)
    log.commit(keys=[OTHER], kid="k2")
    with Case() as c:
        log.write(c.log)
        got = c.json()
        assert got["exit"] == 2 and got["unverifiable"] == 3 and got["complete"] == 0, got
        # A later checkpoint of a known key covers what an unknown one stands in.
        log.commit()
        log.close()
        log.write(c.log)
        got = c.json()
        assert got["exit"] == 0 and got["unverifiable"] == 0, got


def keys_are_rotated():
    log = Log(KEY)
    stream = log.open("c")
    log.own("key_added", kid="k2", publicKey="x")
    log.commit()
    log.commit(keys=[KEY, OTHER], kid="k2")
    log.sign_with, log.kid = [OTHER], "k2"
    log.seal("c", stream)
    log.close()
    with Case(("k1", KEY), ("k2", OTHER)) as c:
        log.write(c.log)
        c.check(0)
        # The new key alone covers what the old one signed; the old one alone does not.
        c.keys(("k2", OTHER))
        c.check(0)
        c.keys(("k1", KEY))
        c.check(2, words="no key for kid")
        # An old key that signs on is not believed beyond its size.
        with open(c.keyring) as f:
            old = json.load(f)["k1"]
        for entry, want in (({"key": old, "notAfterSize": 3}, 2),
                            ({"key": old, "origins": ["example.org/host"]}, 2),
                            ({"key": old, "origins": ["elsewhere"]}, 2)):
            c.keyring = c.file("keyring.json", json.dumps({"k1": entry}))
            c.check(want)
        log = ordinary(KEY)
        log.write(f"{c.dir}/plain")
        for entry, want in (({"key": old, "notAfterSize": log.frontier.size}, 0),
                            ({"key": old, "notAfterSize": log.frontier.size - 1}, 2),
                            ({"key": old, "origins": ["x", "example.org/host"]}, 0),
                            ({"key": old, "origins": ["example.org/hos"]}, 2)):
            c.keyring = c.file("keyring.json", json.dumps({"k1": entry}))
            c.check(want, paths=[f"{c.dir}/plain"])


def an_interrupted_stream_is_no_alarm():
    log = Log(KEY)
    first = log.open("c")
    log.spawn("c", first, 3)
    log.commit()
    log.own("resumed", unclean=True, cutBytes=10, cutLines=2, abandoned=None, lastIndex=5,
            hostBootId="0")
    second = log.open("c", previousStreamId=first, previousSequence=4)
    log.seal("c", second)
    log.close()
    with Case() as c:
        log.write(c.log)
        got = c.json()
        assert got["exit"] == 0 and got["interrupted"] == 1 and got["complete"] == 2, got
        # What a crash cut was sent again by its agent, or is a gap: it is no loss of its own.
        one = next(s for s in got["streamList"] if s["declared"]["cutLines"])
        assert one["declared"]["cutLines"] == 2 and one["lost"] == got["declaredLost"] == 0, got
    for previous, sequence, words in ((first, 5, "its successor"), (str(uuid.uuid4()), 4,
                                                                     "its predecessor")):
        log = Log(KEY)
        stream = log.open("c")
        log.spawn("c", stream, 3)
        other = log.open("c", previousStreamId=stream if previous == first else previous,
                         previousSequence=sequence)
        log.seal("c", other)
        if previous != first:
            log.seal("c", stream)
        log.close()
        with Case() as c:
            log.write(c.log)
            c.check(3, words=words)


def changes_of_the_mode_are_true():
    """Signed by the log, then unsigned, then signed again: nothing is missing, only unsigned."""
    first = Log(KEY)
    one = first.open("c")
    first.seal("c", one)
    first.close()
    middle = Log(KEY)
    middle.segments, middle.waiting = [[]], []
    two = str(uuid.uuid4())
    middle.cell("c", "stream.v1.opened", two, previousStreamId=one, previousSequence=2)
    middle.seal("c", two)
    middle.segments[0] = [x + b"\n" for x in middle.waiting]
    last = Log(KEY, previousOrigin=first.origin, previousSize=first.frontier.size,
               reason="signing_changed")
    three = last.open("c", previousStreamId=two, previousSequence=2)
    last.seal("c", three)
    last.close()
    with Case() as c:
        for i, log in enumerate((first, middle, last)):
            log.write(c.log, first=i + 1)
        got = c.json()
        assert (got["exit"], got["missing"], got["unsigned"]) == (2, 0, 2), got
        c.check(0, "--allow-unsigned", words="but not everything is signed")
        # An unsigned stream does not end a verified one that was cut.
        first.segments[0] = first.segments[0][:5]
        cut = Log(KEY)
        stream = cut.open("c")
        cut.commit()
        cut.write(c.log, first=1)
        middle.waiting, middle.sequence = [], {}
        middle.cell("c", "stream.v1.opened", two, previousStreamId=stream, previousSequence=1)
        middle.seal("c", two)
        middle.segments[0] = [x + b"\n" for x in middle.waiting]
        middle.write(c.log, first=2)
        os.unlink(c.names()[2])
        got = c.json("--allow-unsigned")
        assert (got["exit"], got["interrupted"], got["unsealed"]) == (4, 0, 2), got


def logs_follow_each_other():
    old = Log(KEY)
    stream = old.open("c")
    old.spawn("c", stream, 2)
    old.commit()
    size = old.frontier.size
    new = Log(KEY, previousOrigin=old.origin, previousSize=size, reason="damaged")
    second = new.open("c", previousStreamId=stream, previousSequence=3)
    new.seal("c", second)
    new.close()
    with Case() as c:
        old.write(c.log)
        new.write(c.log, first=10)
        got = c.json()
        assert got["exit"] == 0 and got["interrupted"] == 2, got
        os.unlink(c.names()[0])
        c.check(3, words=["its predecessor", "is not there"])
        old.segments[0] = old.segments[0][:3]
        old.write(c.log)
        c.check(3, words="its successor")


def retention_is_distinguished_from_a_cut():
    log = ordinary(KEY)
    with Case() as c:
        log.write(c.log)
        first = json.loads(lines_of(c.names()[1])[0])["data"]["firstIndex"]
        os.unlink(c.names()[0])
        c.check(3, words="no verified pruned entry explains it")
        log.own("pruned", origin=log.origin, firstIndex=first, segments=1, bytes=1, policy="size")
        log.close()
        log.write(c.log)
        c.check(0)
        os.unlink(c.names()[0])
        c.check(0)
        c.check(2, "--checkpoint", c.file("kept", json.loads(log.segments[0][2])["data"]
                                          ["checkpoint"]), words="keep a newer one")
        c.check(3, "--retention", "100000d", words="reaches back to")
        os.unlink(c.names()[0])
        c.check(3)


def segments_deleted_while_they_are_read():
    """Retention may overtake a long verify, which then judges what the folder holds now. The first
    segment is so long that it is still read when the test deletes it: it ends with a hole."""
    def position(pid, path):
        for fd, name in open_files(pid).items():
            # It may be closed since it was listed.
            with contextlib.suppress(FileNotFoundError):
                if name == path:
                    with open(f"/proc/{pid}/fdinfo/{fd}") as f:
                        return int(f.readline().split()[1])
        return 0

    for named, want, words in (
            (lambda c: [c.log], 0, b""),
            # The copy is compared with the segment, which must be read again for that.
            (lambda c: [c.log, c.copy], 0, b""),
            # Standard input cannot be read again, and a file that was named must be there.
            (lambda c: [c.log, "-"], 66, b"copy the folder"),
            (lambda c: c.names(), 66, b"No such file")):
        log = ordinary(KEY)
        with case(want, words), Case() as c:
            log.write(c.log)
            log.own("pruned", origin=log.origin, segments=2, bytes=1, policy="size",
                    firstIndex=json.loads(lines_of(c.names()[2])[0])["data"]["firstIndex"])
            log.close()
            log.write(c.log)
            names = c.names()
            assert len(names) > 2, names
            c.copy = shutil.copy(names[0], f"{c.dir}/copy.jsonl")
            paths = named(c)
            gone = names[:1] if c.copy in paths else names[:2]
            with open(names[0], "r+b") as f:
                size = os.fstat(f.fileno()).st_size
                f.truncate(1 << 40)
                run = subprocess.Popen([RECEIVER, "verify", "--keys", c.keyring, *paths],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE)
                until(lambda: position(run.pid, names[0]) > 1 << 20, "the hole that is read")
                for name in gone:
                    os.unlink(name)
                f.truncate(size)
            out, err = run.communicate(timeout=PATIENCE)
            assert run.returncode == want, (run.returncode, out, err)
            assert words in err and bool(words) == bool(err), (out, err)


def other_verbs_read_what_is_left():
    """They stop when they have opened a segment for the n-th time, and go on without some of the
    segments: the first time for the folder's order, the second time to read it."""
    for verb, args, opened, nth, gone, want, words in (
            ("export", [], 0, 2, [0, 1], 0, ""),
            ("checkpoint", [], -1, 1, [-1], 0, ""),
            ("prove", ["--id", "LAST"], 0, 2, [0, 1], 0, ""),
            ("prove", ["--id", "urn:cellos:event:none"], 0, 2, [0, 1], 1, "has no event"),
            ("prove", ["--consistency", "KEPT"], 0, 2, [0, 1], 1, "entries that were pruned"),
            ("prove", ["--id", "LAST"], 0, 2, [0, 1, 2], 66, "there is no log")):
        with case(verb, args, gone), Case() as c:
            ordinary(KEY).write(c.log)
            names = c.names()
            assert len(names) == 3, names
            entries = {name: [json.loads(x)["id"] for x in lines_of(name) if is_entry(x)]
                       for name in names}
            kept = [json.loads(x)["data"]["checkpoint"] for x in lines_of(names[0])
                    if b"log_checkpoint" in x]
            values = {"LAST": entries[names[-1]][-1], "KEPT": c.file("kept", kept[0])}
            trace = c.file("trace", "")
            # The search for leaks traces the process, and strace does already.
            with subprocess.Popen(
                    ["strace", "-D", "-o", trace, "-P", names[opened], "-e",
                     f"inject=openat:signal=STOP:when={nth}", RECEIVER, verb,
                     *(values.get(a, a) for a in args), c.log],
                    cwd=c.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, text=True,
                    env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}) as run:
                until(lambda: b"stopped by SIGSTOP" in b"".join(lines_of(trace)), "its stop")
                for i in gone:
                    os.unlink(names[i])
                os.kill(run.pid, signal.SIGCONT)
                out, err = run.communicate(timeout=PATIENCE)
            assert run.returncode == want, (run.returncode, out, err)
            assert words in err and bool(words) == bool(err), (out, err)
            if verb == "export":
                ids = [json.loads(x)["metadata"]["original_event_uid"] for x in out.splitlines()]
                assert set(ids) == {i for n in (0, 2) for i in entries[names[n]]}, out
            elif verb == "checkpoint":
                last = [json.loads(x)["data"]["checkpoint"] for x in lines_of(names[-2])
                        if b"log_checkpoint" in x][-1]
                assert out == last, out


def a_name_without_a_file_is_as_good_as_none():
    """However often the folder is listed."""
    log = ordinary(KEY)
    with Case() as c:
        log.write(c.log)
        os.symlink("nowhere", f"{c.log}/evidence-{99:020}.jsonl")
        assert c.check(0).stderr == b""


def a_live_log_is_fine():
    log = Log(KEY)
    stream = log.open("c")
    log.spawn("c", stream)
    log.commit()
    log.spawn("c", stream, 2)
    with Case() as c:
        log.segments[-1] += [x + b"\n" for x in log.waiting] + [b'{"data":{"auth']
        log.write(c.log)
        c.check(2, words=["after the last checkpoint", "the last line is torn"])
        got = c.check(0, "--live", words="2 in flight")
        # A segment whose first line is torn, and one that is empty.
        write_lines(f"{c.log}/evidence-{2:020}.jsonl", [log.segments[0][0][:50]])
        c.check(0, "--live", words="2 in flight")
        c.check(2)
        write_lines(f"{c.log}/evidence-{2:020}.jsonl", [])
        c.check(0, "--live", words="2 in flight")
        assert b"OK: every record is verified up to the newest checkpoint" in got.stdout


def holes_are_named_by_index():
    log = ordinary(KEY, segments=4)
    with Case() as c:
        log.write(c.log)
        bounds = [json.loads(lines_of(n)[0])["data"]["firstIndex"] for n in c.names()]
        os.unlink(c.names()[1])
        c.check(3, words=f"entries {bounds[1]}..{bounds[2] - 1} are missing")
        got = c.json()
        assert got["missing"] >= bounds[2] - bounds[1], got


def copies_are_compared():
    log = ordinary(KEY)
    with Case() as c:
        log.write(c.log)
        shutil.copytree(c.log, f"{c.dir}/copy")
        c.check(0, paths=[c.log, f"{c.dir}/copy"], words="read twice")
        c.check(0, paths=[f"{c.dir}/copy", c.names()[1], c.names()[2]])
        # An older copy is a prefix.
        whole = lines_of(f"{c.dir}/copy/" + os.path.basename(c.names()[2]))
        ends = [i + 1 for i, x in enumerate(whole) if b"log_checkpoint" in x]
        write_lines(f"{c.dir}/copy/" + os.path.basename(c.names()[2]), whole[:ends[1]])
        for paths in ([c.log, f"{c.dir}/copy"], [f"{c.dir}/copy", c.log]):
            c.check(0, paths=paths)
        name = f"{c.dir}/copy/" + os.path.basename(c.names()[1])
        write_lines(name, [x.replace(b"web", b"wep") for x in lines_of(name)])
        for paths in ([c.log, f"{c.dir}/copy"], [f"{c.dir}/copy", c.log]):
            c.check(1, paths=paths, words="bad:")


def required_contents_can_be_limited_to_a_period():
    log = ordinary(KEY)
    with Case() as c:
        log.write(c.log)
        c.check(0, "--expect-cell", "cell-0-0", "--expect-cell", "cell-2-2")
        c.check(3, "--expect-cell", "cell-0-0", "--expect-cell", "web-7",
                words="no verified evidence of cell web-7")
        times = [json.loads(x)["time"] for x in log.entries]
        middle = next(json.loads(x)["time"] for x in lines_of(c.names()[1])[1:] if is_entry(x))
        os.unlink(c.names()[0])
        c.check(3)
        c.check(0, "--since", times[len(times) // 2])
        c.check(3, "--since", times[0])
        c.check(3, "--since", times[-2], "--expect-cell", "cell-1-0")
        c.check(0, "--since", middle, "--expect-cell", "cell-1-0")
        os.unlink(c.names()[1])
        c.check(64, "--since", "yesterday")
        c.check(64, "--retention", "7")
    open_log = Log(KEY)
    stream = open_log.open("c")
    open_log.spawn("c", stream, 3)
    open_log.commit()
    with Case() as c:
        open_log.write(c.log)
        c.check(4)
        c.check(0, "--until", json.loads(open_log.entries[-2])["time"])


def losses_are_reported():
    log = Log(KEY)
    stream = log.open("c")
    for kind, data in (("telemetry_gap", {"firstMissing": 3, "lastMissing": 7, "reason": "jump"}),
                       ("telemetry_gap", {"firstMissing": 1, "lastMissing": 9,
                                          "reason": "inherited"}),
                       ("agent_silenced", {"reason": "no_frames"}),
                       ("channel_contested", {"reason": "second_connection", "count": 3}),
                       ("declaration_unwitnessed", {"declared": "net.connect"})):
        log.cell("c", "guest.v1." + kind, stream, **data)
    log.cell("c", "guest.v1.telemetry_dropped", stream, detail={
        "channel": 0, "kernelOverrun": 2, "queueFull": 10, "tooLarge": 0})
    log.seal("c", stream, guestDropped=10, guestKernelLost=2)
    log.close()
    with Case() as c:
        log.write(c.log)
        c.check(0, "--report", words=[
            "OK: intact; 12 observations were declared lost",
            "declared: 5 frames in gaps, 10 dropped by the guest, 2 lost by its kernel, 1 silence, "
            "3 contests of the channel, 1 unwitnessed declaration",
            f"log {log.origin}", "cell c, run r, host host-1", "signed by k1"])
        got = c.json()
        assert got["declaredLost"] == 12 and got["verdict"].startswith("intact; 12"), got
        one = next(s for s in got["streamList"] if s["cellId"] == "c")
        assert one["declared"]["gaps"] == 1 and one["lost"] == 12 and one["end"] == "sealed"
        assert got["logs"][0]["size"] == log.frontier.size and got["logs"][0]["kids"] == ["k1"]


def a_loss_is_counted_once():
    """An agent goes on through three streams; its totals go on too, and its numbers name the same
    losses. Another cell's losses are its own."""
    log = Log(KEY)
    receipt = {"channel": 0, "kernelOverrun": 1, "queueFull": 4, "tooLarge": 0}
    previous = {}
    for i in range(1, 4):
        stream = log.open("c", **previous)
        log.cell("c", "guest.v1.telemetry_gap", stream, firstMissing=10 * i, lastMissing=10 * i + 3,
                 reason="jump")
        log.cell("c", "guest.v1.telemetry_dropped", stream, detail=receipt)
        log.seal("c", stream, guestDropped=4 * i, guestKernelLost=i)
        previous = {"previousStreamId": stream, "previousSequence": 4}
    quiet = log.open("c", **previous)
    log.seal("c", quiet, guestDropped=12, guestKernelLost=4)
    other = log.open("d")
    log.seal("d", other, guestDropped=5, guestKernelLost=1)
    log.close()
    with Case() as c:
        log.write(c.log)
        got = c.json()
        # Cell c: 3 gaps of 4, and 4 that its kernel lost: the last total says one more than the
        # receipts. Cell d: 6 by its totals alone.
        assert got["exit"] == 0 and got["declaredLost"] == 12 + 4 + 6, got


def too_long_groups_are_refused():
    """At most 65536 entries stand between two checkpoints."""
    for n, want in ((65535, 0), (65536, 0), (65537, 1)):
        log = Log(KEY)
        stream = log.open("c")
        log.commit()
        template = None
        for i in range(n - 1):
            if template is None:
                log.spawn("c", stream)
                template = log.waiting[-1]
            else:
                log.sequence[stream] += 1
                log.raw(template.replace(b'"sequence":2,',
                                         b'"sequence":%d,' % log.sequence[stream]))
        log.seal("c", stream)
        log.commit()
        log.close()
        with Case() as c:
            log.write(c.log)
            c.check(want, words="stand between two checkpoints" if want else None)


def hostile_texts_stay_texts():
    log = Log(KEY, host="\x1b[31mred\u202e")
    stream = log.open("c\x1b]0;x\x07")
    log.seal("c", stream)
    log.close()
    with Case() as c:
        log.write(c.log)
        got = c.run("--report")
        assert b"\x1b" not in got.stdout and "\u202e".encode() not in got.stdout, got.stdout


def progress_is_shown_on_a_terminal():
    """On a terminal only, and nothing of it stays."""
    log = ordinary(KEY, cells=1, segments=1)
    template = next(x for x in log.segments[0] if b"process_spawned" in x)
    with Case() as c:
        ours, theirs = pty.openpty()
        run = subprocess.Popen([RECEIVER, "verify", "--keys", c.keyring, "-"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        os.set_blocking(ours, False)
        shown = b""

        def read():
            nonlocal shown
            try:
                shown += os.read(ours, 65536)
            except (BlockingIOError, OSError):
                pass

        def feed():
            run.stdin.write(template * 1000)
            run.stdin.flush()
            read()
            return b"MB/s" in shown

        until(feed, "the progress line", pause=0.05)
        run.stdin.close()
        run.stdin = None
        run.communicate()
        before = None
        while before != shown:  # a terminal gives 4 KiB at a time
            before = shown
            read()
        os.close(ours)
        assert shown.endswith(b"\r\x1b[K"), shown[-50:]
        got = c.run(paths=["-"], stdin=template * 1000)
        assert got.stderr == b"", got


def memory_is_bounded():
    """64 MiB are enough, whatever the size: here many entries, and all of them without checkpoint."""
    log = Log(KEY)
    stream = log.open("c")
    log.commit()
    log.spawn("c", stream)
    template = log.waiting[-1]
    log.commit()
    filler = b"x" * 300
    with Case() as c:
        os.makedirs(c.log)
        with open(f"{c.log}/evidence-{1:020}.jsonl", "wb") as f:
            f.writelines(log.segments[0])
            for i in range(3, 200000 if SANITIZE == "none" else 20000):
                f.write(template.replace(b'"sequence":2,', b'"sequence":%d,' % i)
                        .replace(b"web", b"web" + filler) + b"\n")
        got = subprocess.run(["/usr/bin/python3", "-c",
                              "import resource,subprocess,sys;"
                              "r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL);"
                              "print(r.returncode,resource.getrusage(resource.RUSAGE_CHILDREN)"
                              ".ru_maxrss)", RECEIVER, "verify", "--keys", c.keyring, c.log],
                             capture_output=True, text=True, timeout=PATIENCE)
        status, kib = map(int, got.stdout.split())
        assert status == 2, got
        if SANITIZE == "none":
            assert kib < 64 * 1024, f"{kib} KiB"


if __name__ == "__main__":
    main()
