# SPDX-License-Identifier: MIT
"""What people meet at the command line before anything runs: help, mistakes, colours, and what the
shells complete."""

import os
import pty
import re
import shutil
import subprocess
import tempfile

import logmaker
from runner import PATIENCE, main

RECEIVER = os.environ["CELLOS_RECEIVER"]
COMPLETIONS = os.path.join(os.environ["CELLOS_SOURCE"], "packaging", "completions")
HASH = "sha256:" + "5" * 64


def run(*args, **options):
    return subprocess.run([RECEIVER, *args], capture_output=True, text=True, timeout=PATIENCE, **options)


def _verbs():
    return re.findall(r"^  ([a-z-]+) ", run("--help").stdout, re.MULTILINE)


def help_in_every_form():
    whole = run("--help")
    assert whole.returncode == 0 and not whole.stderr and len(_verbs()) > 10
    for same in (["-h"], ["help"], ["help", "-h"], ["help", "--help"]):
        assert run(*same).stdout == whole.stdout
    nothing = run()
    assert (nothing.returncode, nothing.stderr, nothing.stdout) == (64, whole.stdout, "")
    for verb in _verbs():
        got = run("help", verb)
        assert got.returncode == 0 and not got.stderr and got.stdout.startswith("Usage: "), got
        assert got.stdout == run(verb, "--help").stdout == run(verb, "-h").stdout


def a_wrong_verb_is_guessed():
    for args, meant in ((["recieve"], "receive"), (["verfy", "x"], "verify"), (["stat"], "status"),
                        (["help", "keygne"], "keygen"), (["hlep"], "help"),
                        (["cell", "lst"], "list"), (["cell", "rm"], "remove"),
                        (["log", "acknowlege"], "acknowledge")):
        got = run(*args)
        assert got.returncode == 64 and not got.stdout, got
        wrong = "no such verb; did you mean %s? --help lists them\n" % meant
        if meant == "remove":  # too far away to guess
            wrong = "no such verb; --help lists them\n"
        assert got.stderr.endswith(wrong), got.stderr
    for args in (["quux"], ["cell", "x"], ["x"], ["log", "x" * 200]):
        got = run(*args)
        assert got.returncode == 64 and "did you mean" not in got.stderr, got
    assert "did you mean --cell-id?" in run("receive", "--cel-id", "x").stderr


CONFIG = "/etc/cellos/host-telemetry.conf"
NO_FILE = "No such file or directory"

# Arguments, the exit status, the message. Beside a folder, an empty file and a file that is no evidence.
MISTAKES = (
    ("tail", 64, f"tail: expected a folder or a file of evidence; without one it reads the daemon's folder, "
                 f"which\n{CONFIG} names: {NO_FILE}; --help says how it is used\n"),
    ("tail missing", 66, f"tail: missing: {NO_FILE}\n"),
    ("tail empty", 0, "tail: there is no event\n"),
    ("tail folder", 0, "tail: there is no event\n"),
    ("tail file", 0, "tail: a line that is no event; verify says more\ntail: there is no event\n"),
    ("tail -f empty", 64, "tail: empty: -f follows a folder of segments, not a file\n"),
    ("export", 64, "export: expected a file, a folder of segments or - to read; --help says how it is used\n"),
    ("export folder", 0, "export: there is no event\n"),
    ("verify", 64, "verify: expected a file, a folder of segments or - to read; --help says how it is used\n"),
    ("verify folder", 5, "verify: folder: the folder has no segment evidence-<20 digits>.jsonl\n"),
    ("verify --keys folder file", 78, "verify: --keys folder: folder: expected a regular file\n"),
    ("verify --checkpoint missing file", 66, f"verify: missing: {NO_FILE}\n"),
    ("report empty", 64, "report: expected -o FILE: where the page goes; --help says how it is used\n"),
    ("report empty -o folder", 73, "report: folder: it exists and is not a file\n"),
    ("report empty -o file", 73,
     "report: file: it exists and is not a page; remove it, or name another file\n"),
    ("checkpoint", 64, "checkpoint: expected a folder or a file of evidence; without one it reads the daemon's "
                       f"folder, which\n{CONFIG} names: {NO_FILE}; --help says how it is used\n"),
    ("checkpoint folder", 66, "checkpoint: folder: there is no log\n"),
    ("prove", 64,
     "prove: expected the index of an entry, --id or --consistency; --help says how it is used\n"),
    ("check-config --config folder", 78, "folder: cannot open it: Is a directory\n"),
    ("check-config --config file", 78, 'file:1: "hi": expected KEY = VALUE\n'),
    ("status --config missing", 78, f"missing: cannot open it: {NO_FILE}\n"),
    ("status --control missing", 69,
     f"status: missing: cannot reach the daemon; is it running?: {NO_FILE}\n"),
    ("cell add --control missing --uds v", 64, "cell: --cell-id is missing; --help says how it is used\n"),
    ("cell show", 64, "cell: expected a cell's id; --help says how it is used\n"),
    ("log acknowledge --control missing", 69,
     f"log: missing: cannot reach the daemon; is it running?: {NO_FILE}\n"),
    ("forward", 64, "forward: expected status, rewind or run; --help says how it is used\n"),
    ("keygen", 64, "keygen: --kid is missing; --help says how it is used\n"),
    ("keygen --kid k --out missing", 73, f"keygen: missing: {NO_FILE}\n"),
)


def every_mistake_says_what_was_expected():
    with tempfile.TemporaryDirectory() as tmp:
        os.mkdir(f"{tmp}/folder")
        for name, text in (("empty", ""), ("file", "hi\n")):
            with open(f"{tmp}/{name}", "w") as f:
                f.write(text)
        for words, status, message in MISTAKES:
            if CONFIG in message and os.path.exists(CONFIG):
                continue
            got = run(*words.split(), cwd=tmp)
            assert (got.returncode, got.stderr) == (status, message), (words, got)
        # It asks the socket that the daemon has by default.
        if not os.path.exists(CONFIG):
            for words in ("status", "cell list", "log acknowledge", "forward status"):
                assert run(*words.split()).returncode == 69, words


def a_report_replaces_a_page_and_nothing_else():
    with tempfile.TemporaryDirectory() as tmp:
        log = logmaker.ordinary(logmaker.new_key(), cells=1, events=2).write(f"{tmp}/log")
        page, evidence = f"{tmp}/page.html", os.path.join(log, os.listdir(log)[0])
        for _ in range(2):
            assert run("report", log, "-o", page).returncode == 2  # no key was given
            assert os.path.getsize(page) > 1000
        with open(evidence, "rb") as f:
            before = f.read()
        assert run("report", page, "-o", evidence).returncode == 73
        with open(evidence, "rb") as f:
            assert f.read() == before


def unsigned_evidence_is_warned_of():
    with tempfile.TemporaryDirectory() as tmp:
        command = ["receive", "--uds", f"{tmp}/v", "--cell-id", "a", "--run-id", "r",
                   "--spec-hash", HASH]
        for signing, warned in (([], True), (["--sign-alg", "ed25519-log", "--sign-kid", "k",
                                              "--sign-key-file", f"{tmp}/k.seed"], False)):
            run("keygen", "--kid", "k", "--out", tmp)
            process = subprocess.Popen([RECEIVER, *command, *signing], stderr=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL, text=True)
            said = []
            while not said or "listening" not in said[-1]:
                said.append(process.stderr.readline())
                assert said[-1], said
            process.terminate()
            assert process.wait(PATIENCE) == 0
            assert ("evidence is not signed" in "".join(said)) == warned, said
            # Of the key, if there is one, it says what still separates it from the receiver.
            assert ("receiver and signer are the same user" in "".join(said)) != warned, said


def one_and_many():
    key = logmaker.new_key()
    with tempfile.TemporaryDirectory() as tmp:
        log = logmaker.ordinary(key, cells=1, events=2).write(f"{tmp}/log")
        keyring = f"{tmp}/keyring.json"
        with open(keyring, "w") as f:
            f.write(logmaker.keyring(("k", key)).decode())
        said = run("verify", "--keys", keyring, log).stdout
        assert not re.search(r"\b1 (records|streams|entries|checkpoints|findings)\b", said), said
        assert re.search(r"^\d+ records: ", said, re.MULTILINE), said


def on_a_terminal(args, environment):
    """What it prints there."""
    master, slave = pty.openpty()
    with subprocess.Popen([RECEIVER, *args], stdout=slave, env=environment) as process:
        os.close(slave)
        out = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            out += data
        os.close(master)
        assert process.wait(PATIENCE) == 0
    return out


def colour_only_where_it_is_wanted():
    with tempfile.TemporaryDirectory() as tmp:
        log = logmaker.ordinary(logmaker.new_key(), cells=1, events=2).write(f"{tmp}/log")
        plain = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        assert b"\x1b[" in on_a_terminal(["tail", log], plain)
        assert b"\x1b[" not in on_a_terminal(["tail", log], {**plain, "NO_COLOR": "1"})
        assert b"\x1b[" not in subprocess.run([RECEIVER, "tail", log], capture_output=True,
                                              env=plain, check=True).stdout


COMPLETED = (
    # words, and what must be among the completions of the last of them
    (["cellos-host-telemetry", "ver"], {"verify"}),
    (["cellos-host-telemetry", "help", "key"], {"keygen"}),
    (["cellos-host-telemetry", "cell", ""], {"add", "remove", "list", "show"}),
    (["cellos-host-telemetry", "log", "a"], {"acknowledge"}),
    (["cellos-host-telemetry", "verify", "--ke"], {"--keys"}),
    (["cellos-host-telemetry", "receive", "--sign-alg", "ed"], {"ed25519", "ed25519-log"}),
    (["cellos-host-telemetry", "receive", "--log-level", "e"], {"emerg", "err"}),
    (["cellos-host-telemetry", "verify", "--keys", "some-f"], {"some-file"}),
    (["cellos-telemetry", "--inot"], {"--inotify"}),
    (["cellos-telemetry", "--process", "proc-"], {"proc-connector", "proc-walk"}),
    (["cellos-telemetry", "--content-version", ""], {"1", "2"}),
    (["cellos-workload-exec", "--drop"], {"--drop-net-admin"}),
)


def programs_on_the_path(tmp):
    """The programs that were built, by their names."""
    there = set()
    for variable in ("CELLOS_RECEIVER", "CELLOS_AGENT", "CELLOS_WORKLOAD_EXEC"):
        if path := os.environ.get(variable):
            os.symlink(path, os.path.join(tmp, os.path.basename(path)))
            there.add(os.path.basename(path))
    open(os.path.join(tmp, "some-file"), "w").close()
    return there, {**os.environ, "PATH": f"{tmp}:{os.environ['PATH']}", "HOME": tmp}


def bash_completes():
    with tempfile.TemporaryDirectory() as tmp:
        there, environment = programs_on_the_path(tmp)
        for words, wanted in COMPLETED:
            if words[0] not in there:
                continue
            script = f'''source {COMPLETIONS}/cellos.bash
COMP_WORDS=({" ".join(repr(w) for w in words)}) COMP_CWORD={len(words) - 1}
_cellos; printf '%s\\n' "${{COMPREPLY[@]}}"'''
            got = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True,
                                 env=environment, cwd=tmp, check=True, timeout=PATIENCE)
            assert not got.stderr and set(got.stdout.split()) == wanted, (words, got)


def zsh_completes():
    if not shutil.which("zsh"):
        print("skip zsh_completes: no zsh")
        return
    with tempfile.TemporaryDirectory() as tmp:
        there, environment = programs_on_the_path(tmp)
        # zsh completes in an interactive shell only: zpty is its own terminal for that. The marks that
        # are waited for are not what is typed, which the terminal shows as well. The key after the Tab
        # is none that the terminal itself takes where the shell does not read yet.
        for words, wanted in COMPLETED[::2]:
            if words[0] not in there:
                continue
            script = f'''zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "fpath=({COMPLETIONS} \\$fpath); autoload -Uz compinit; compinit -u -d {tmp}/dump"
zpty -w shell "PS1=; unset zle_bracketed_paste; bindkey '^I' list-choices; LISTMAX=1000; stty -echo"
zpty -w shell "compadd() {{ if [[ \\${{@[1,(i)(-|--)]}} == *-(O|A|D)\\ * ]]; then builtin compadd \\"\\$@\\"; return; fi;
 typeset -a __hits; builtin compadd -A __hits \\"\\$@\\"; print -l HIT:\\${{^__hits}}:TIH >> {tmp}/hits; builtin compadd \\"\\$@\\" }}"
zpty -w shell "said() {{ print DO''NE: }}; zle -N said; bindkey '^G' said"
zpty -w shell "echo REA''DY:"
zpty -r shell line "*READY:*"
: > {tmp}/hits
zpty -w -n shell {" ".join(words)!r}$'\\t\\a'
zpty -r shell line "*DONE:*"
zpty -d shell'''
            subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True,
                           env=environment, cwd=tmp, timeout=PATIENCE)
            with open(f"{tmp}/hits") as f:
                got = set(re.findall(r"HIT:([^:]+).*:TIH", f.read()))
            assert got == wanted, (words, got)


if __name__ == "__main__":
    main()
