# SPDX-License-Identifier: MIT
"""How the receiver begins: its socket, its command line, its signing configuration."""

import base64
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading

import oracle
from oracle import named
from receiver import HASH, RECEIVER, Receiver, frame
from runner import PATIENCE, main


def run(*options, env=None, timeout=PATIENCE):
    return subprocess.run([RECEIVER, "receive", *options], capture_output=True, text=True,
                          timeout=timeout, env={**os.environ, **(env or {})})


def cell(base):
    return ["--uds", base, "--cell-id", "c", "--run-id", "r", "--spec-hash", HASH]


def what_exists_is_left_alone():
    with tempfile.TemporaryDirectory() as d:
        base, path = f"{d}/v", f"{d}/v_9001"
        with open(path, "w") as f:
            f.write("precious")
        got = run(*cell(base))
        assert got.returncode == 73 and "not a socket" in got.stderr and path in got.stderr
        with open(path) as f:
            assert f.read() == "precious"
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)
            s.listen(1)
            got = run(*cell(base))
            assert got.returncode == 73 and "listens there already" in got.stderr, got
            s.setblocking(False)
        inode = os.stat(path).st_ino
        got = run(*cell(base))
        assert got.returncode == 73 and "did not make" in got.stderr, got
        assert os.stat(path).st_ino == inode, "a stale socket of somebody else's stays"


def bad_folders_are_named():
    with tempfile.TemporaryDirectory() as d:
        got = run(*cell(f"{d}/none/v"))
        assert got.returncode == 73 and f"{d}/none" in got.stderr, got
        os.mkdir(f"{d}/real")
        os.symlink(f"{d}/real", f"{d}/link")
        got = run(*cell(f"{d}/link/v"))
        assert got.returncode == 73 and "symbolic link" in got.stderr, got
        got = run(*cell(f"{d}/{'n' * 100}"))
        assert got.returncode == 73 and "name too long" in got.stderr.lower(), got
        assert os.listdir(f"{d}/real") == []


def long_paths_are_served():
    with tempfile.TemporaryDirectory() as d:
        folder = d + "/" + "/".join(["x" * 60] * 4)
        os.makedirs(folder)
        with Receiver(base=f"{folder}/v.sock") as r:
            assert len(r.path) > 200
            r.connect().sendall(frame(version=1))
            r.wait_for("guest.v1.process_spawned")
            r.stop()
        assert os.listdir(folder) == [], "its own socket is gone"


def mode_and_owner_are_right_from_the_first_instant():
    seen = set()
    with tempfile.TemporaryDirectory() as d:
        with Receiver("--socket-owner", "1234:5678", base=f"{d}/v", wait=False) as r:
            assert r.process.wait(PATIENCE) == 77 and "writable by --socket-owner" in r.log()
        os.chown(d, 1234, 5678)  # as a jailed VMM's folder is
        done = threading.Event()

        def look():
            while not done.is_set():
                try:
                    st = os.lstat(f"{d}/v_9001")
                    seen.add((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid))
                except FileNotFoundError:
                    pass

        thread = threading.Thread(target=look)
        thread.start()
        try:
            for _ in range(20):
                with Receiver("--socket-owner", "1234:5678", "--socket-mode", "0620",
                              base=f"{d}/v", sign=False) as r:
                    r.stop()
        finally:
            done.set()
            thread.join()
    assert seen == {(0o620, 1234, 5678)}, seen


def a_swapped_name_is_not_unlinked():
    with tempfile.TemporaryDirectory() as d:
        with Receiver(base=f"{d}/v", sign=False) as r:
            os.unlink(r.path)
            with open(r.path, "w") as f:
                f.write("somebody else's")
            r.stop()
            assert os.path.exists(r.path)


def usage_errors_name_the_option():
    good = cell("/tmp/none/v")

    def without(name):
        at = good.index(name)
        return good[:at] + good[at + 2:]

    def with_value(name, value):
        at = good.index(name)
        return good[:at + 1] + [value] + good[at + 2:]

    for options, words in (
            (without("--uds"), ["--uds is missing"]),
            (without("--cell-id"), ["--cell-id is missing"]),
            (without("--run-id"), ["--run-id is missing"]),
            (without("--spec-hash"), ["--spec-hash is missing"]),
            (with_value("--cell-id", ""), ["--cell-id", "1..128"]),
            (with_value("--cell-id", "a/b"), ["--cell-id a/b"]),
            (with_value("--cell-id", "x" * 129), ["--cell-id", "1..128"]),
            (with_value("--run-id", "ü"), ["--run-id"]),
            (with_value("--spec-hash", "sha256:" + "0" * 63), ["--spec-hash", "64"]),
            (with_value("--spec-hash", "sha256:" + "g" * 64), ["--spec-hash", "64"]),
            (with_value("--spec-hash", "md5:" + "0" * 64), ["--spec-hash", "sha256:"]),
            (good + ["--keepalive", "-1"], ["--keepalive -1", "0..86400000"]),
            (good + ["--rate", "0"], ["--rate 0", "1.."]),
            (good + ["--socket-mode", "999"], ["--socket-mode 999", "octal"]),
            (good + ["--socket-mode", "01777"], ["--socket-mode", "0777"]),
            (good + ["--socket-owner", "root"], ["--socket-owner root", "UID:GID"]),
            (good + ["--socket-owner", "1:x"], ["--socket-owner", "numbers"]),
            (good + ["--peer-uid", "me"], ["--peer-uid me"]),
            (good + ["--checkpoint", "1"], ["--checkpoint", "100.."]),
            (good + ["--log-level", "x"], ["--log-level"]),
            (good + ["--nonsense"], ["--nonsense"]),
            (good + ["--rate"], ["--rate", "value"]),
            (good + ["stray"], ["stray"])):
        got = run(*options)
        assert got.returncode == 64 and not got.stdout, (options, got)
        for word in words:
            assert word in got.stderr, (options, word, got.stderr)
    got = subprocess.run([RECEIVER, "nonsense"], capture_output=True, text=True)
    assert got.returncode == 64 and "nonsense" in got.stderr


def signing_fails_closed():
    seed = base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")
    prefix = "CELLOS_HOST_TELEMETRY_SIGN_"
    with tempfile.TemporaryDirectory() as d:
        good, open_file, short = f"{d}/good", f"{d}/open", f"{d}/short"
        for path, text, mode in ((good, seed, 0o600), (open_file, seed, 0o640),
                                 (short, base64.urlsafe_b64encode(b"s" * 29).decode(), 0o600)):
            with open(path, "w") as f:
                f.write(text + "\n")
            os.chmod(path, mode)
        os.symlink(good, f"{d}/link")
        os.mkfifo(f"{d}/fifo", 0o600)
        ed = ["--sign-alg", "ed25519", "--sign-kid", "k"]
        for options, env, words in (
                (ed, {}, ["--sign-key-file", prefix + "ED25519_KEY"]),
                (["--sign-alg", "ed25519", "--sign-key-file", good], {}, ["kid"]),
                (ed + ["--sign-kid", "../x", "--sign-key-file", good], {}, ["kid"]),
                (["--sign-alg", "rot13"], {}, ["rot13", "hmac-sha256"]),
                (["--sign-key-file", good], {}, ["no algorithm"]),
                ([], {prefix + "ED25519_KEY": seed}, ["no algorithm"]),
                (ed + ["--sign-key-file", open_file], {}, [open_file, "0600"]),
                (ed + ["--sign-key-file", short], {}, [short, "29 bytes", "32"]),
                (ed + ["--sign-key-file", f"{d}/link"], {}, ["symbolic link"]),
                (ed + ["--sign-key-file", f"{d}/fifo"], {}, ["regular file"]),
                (ed + ["--sign-key-file", f"{d}/none"], {}, [f"{d}/none"]),
                (ed, {prefix + "ED25519_KEY": "!!!"}, ["base64url"]),
                (ed, {prefix + "HMAC_KEY": seed}, [prefix + "HMAC_KEY", "hmac-sha256"]),
                (["--sign-alg", "hmac-sha256", "--sign-kid", "k"],
                 {prefix + "HMAC_KEY": seed[:40]}, ["at least 32"])):
            got = run(*cell(f"{d}/v"), *options, env=env)
            assert got.returncode == 78, (options, env, got)
            assert not got.stdout and not os.path.exists(f"{d}/v_9001"), "nothing was begun"
            for word in words:
                assert word in got.stderr, (options, word, got.stderr)
            assert seed[:20] not in got.stderr, "never a key in a message"


def the_key_of_the_environment_is_wiped():
    key = b"0123456789abcdef0123456789abcdef++"
    text = base64.urlsafe_b64encode(key).decode()
    prefix = "CELLOS_HOST_TELEMETRY_SIGN_"
    with Receiver(sign=False, env={prefix + "ALG": "hmac-sha256", prefix + "KID": "h1",
                                   prefix + "HMAC_KEY": text}) as r:
        with open(f"/proc/{r.process.pid}/environ", "rb") as f:
            assert text.encode() not in f.read()
        r.connect().sendall(frame(version=1))
        r.process.terminate()
        assert r.process.wait(PATIENCE) == 0
        events = oracle.check(r.lines(), hmac_keys={"h1": key})
        assert named(events, "stream.v1.sealed")
        with open(r.file("hmac.json"), "w") as f:
            f.write(f'{{"h1": "{text}"}}')
        os.chmod(r.file("hmac.json"), 0o600)
        got = subprocess.run([RECEIVER, "verify", "--require-signed", "--hmac-keys",
                              r.file("hmac.json"), r.evidence_path], capture_output=True)
        assert got.returncode == 0, got
        # An HMAC key is no public key, and the reverse.
        got = subprocess.run([RECEIVER, "verify", r.evidence_path], capture_output=True)
        assert got.returncode == 2, got


if __name__ == "__main__":
    sys.exit(main([what_exists_is_left_alone, bad_folders_are_named, long_paths_are_served,
                   mode_and_owner_are_right_from_the_first_instant,
                   a_swapped_name_is_not_unlinked, usage_errors_name_the_option,
                   signing_fails_closed, the_key_of_the_environment_is_wiped]))
