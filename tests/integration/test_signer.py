# SPDX-License-Identifier: MIT
"""The signer process: the receiver has no key, and what happens to the signer loses nothing."""

import base64
import contextlib
import glob
import os
import pwd
import resource
import shutil
import signal
import subprocess
import tempfile

import oracle
from oracle import named
from receiver import HASH, RECEIVER, Receiver, frame, hello, open_files, spawned
from runner import PATIENCE, main, stand_still, until
from test_log import LogDaemon

PLAIN = os.environ.get("CELLOS_SANITIZE", "none") == "none"


def children(pid):
    """pid -> name of the process's children and theirs, but for those that end meanwhile."""
    found = {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                for child in map(int, f.read().split()):
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                        with open(f"/proc/{child}/comm") as f2:
                            found[child] = f2.read().strip()
                        found |= children(child)
    return found


def signer_of(pid):
    return next(p for p, name in children(pid).items() if name == "cellos-signer")


def memory_of(pid):
    """All that can be read of a process's memory."""
    data = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in maps:
            span, mode = line.split()[:2]
            begin, end = (int(x, 16) for x in span.split("-"))
            # So large is only what a sanitizer keeps of other memory.
            if "r" not in mode or "[vvar" in line or "[vsyscall" in line or end - begin > 1 << 30:
                continue
            try:
                mem.seek(begin)
                data.append(mem.read(end - begin))
            except (OSError, OverflowError):
                pass
    return b"".join(data)


def secrets_of(path):
    with open(path) as f:
        text = f.read().strip()
    seed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return [text.encode(), seed]


def status_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def the_receiver_never_has_the_key():
    for algorithm in ("ed25519-log", "ed25519"):
        with LogDaemon(algorithm) as d:
            d.add("a")
            d.send("a", range(1, 300))
            d.process.send_signal(signal.SIGHUP)  # the key is read again
            d.wait_log("configuration applied")
            d.send("a", range(300, 400))
            memory = memory_of(d.process.pid)
            assert d.evidence.encode() in memory, "the search finds what is there"
            for secret in secrets_of(d.file("k1.seed")):
                assert secret not in memory, "the receiver's memory holds the key"
            # The search would find it: the signer has it.
            signer = signer_of(d.process.pid)
            assert secrets_of(d.file("k1.seed"))[1] in memory_of(signer)
            d.stop()
            d.verdict(0)


def a_core_of_the_receiver_holds_no_key():
    with open("/proc/sys/kernel/core_pattern") as f:
        pattern = f.read().strip()
    if not PLAIN or pattern[:1] in ("|", "/"):
        print(f"skipped: a sanitizer, or cores go elsewhere ({pattern})", flush=True)
        return
    limit, folder = resource.getrlimit(resource.RLIMIT_CORE), os.getcwd()
    with LogDaemon() as d:
        d.stop()
        os.chdir(d.dir)
        resource.setrlimit(resource.RLIMIT_CORE, (limit[1], limit[1]))
        try:
            d.start()
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, limit)
            os.chdir(folder)
        d.add("a")
        d.send("a", range(1, 300))
        os.kill(d.process.pid, signal.SIGSEGV)
        assert d.process.wait(PATIENCE) == -signal.SIGSEGV
        cores = glob.glob(d.file("core*"))
        if not cores:
            print("skipped: this machine writes no core", flush=True)
            return
        with open(cores[0], "rb") as f:
            core = f.read()
        assert b"cellos-host-telemetry" in core and d.evidence.encode() in core
        for secret in secrets_of(d.file("k1.seed")):
            assert secret not in core, "the receiver's core holds the key"


def the_environments_key_is_not_the_receivers():
    if not PLAIN:
        print("not under a sanitizer, which keeps a copy of the environment")
        return
    seed = os.urandom(32)
    text = base64.urlsafe_b64encode(seed).rstrip(b"=")
    env = {"CELLOS_HOST_TELEMETRY_SIGN_ALG": "ed25519", "CELLOS_HOST_TELEMETRY_SIGN_KID": "e1",
           "CELLOS_HOST_TELEMETRY_SIGN_ED25519_KEY": text.decode()}
    with Receiver(sign=False, env=env) as r:
        memory = memory_of(r.process.pid)
        assert text not in memory and seed not in memory
        r.process.terminate()
        assert r.process.wait(PATIENCE) == 0


def the_signer_is_confined():
    with LogDaemon() as d:
        signer = signer_of(d.process.pid)
        status = status_of(signer)
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == 0 and int(status["CapPrm"], 16) == 0
        assert int(status["CapBnd"], 16) == 0
        if PLAIN:
            for task in os.listdir(f"/proc/{signer}/task"):
                with open(f"/proc/{signer}/task/{task}/status") as f:
                    assert "Seccomp:\t2" in f.read()
        # Its key is locked, nothing of it reaches a core, and it has no way to the network or disk.
        # (A sanitizer makes mlock do nothing.)
        assert int(status["VmLck"].split()[0]) > 0 or not PLAIN
        fds = open_files(signer)
        for target in fds.values():
            assert target.startswith(("socket:", "/dev/null", "pipe:")) or \
                target == d.file("state/signer/tree.state") or target == d.file("stderr"), fds
        assert os.stat(d.file("state/signer")).st_mode & 0o7777 == 0o700


def a_receiver_that_is_taken_over_cannot_reach_the_signer():
    with LogDaemon() as d:
        status = status_of(d.process.pid)
        assert status["NoNewPrivs"] == "1"
        for name in ("CapEff", "CapPrm", "CapInh"):
            assert int(status[name], 16) & (1 << 19) == 0, "CAP_SYS_PTRACE"
        # Its list of system calls holds for each of its threads.
        for task in os.listdir(f"/proc/{d.process.pid}/task") if PLAIN else ():
            with open(f"/proc/{d.process.pid}/task/{task}/status") as f:
                assert "Seccomp:\t2" in f.read()
        assert all(int(status[name], 16) & ~(1 << 12) == 0 for name in ("CapEff", "CapPrm", "CapBnd"))
        # The kernel here has Landlock: a process of one domain traces none outside it.
        signing = d.ask({"verb": "status"})["signing"]
        assert signing["landlock"] and not signing["separateUsers"]
        assert 'msg="receiver and signer are the same user"' in d.log()


USER, SIGNER = "daemon", "games"  # that every Debian has


class SplitDaemon(LogDaemon):
    """Receiver and signer with users of their own, as the unit starts them."""

    def start(self, wait=True):
        if not self.args:
            os.mkdir(self.file("signer"), 0o700)
            shutil.chown(self.file("signer"), SIGNER)
            for name in ("", "state", "evidence"):
                shutil.chown(self.file(name), USER)
            os.chmod(self.dir, 0o755)
            self.args = ["--user", USER, "--signer-user", SIGNER, "--signer-state",
                         self.file("signer")]
        super().start(wait)


def _not_root():
    if os.geteuid() != 0:
        print("skipped: needs root, for other users", flush=True)
    return os.geteuid() != 0


def three_processes_of_three_users():
    if _not_root():
        return
    with SplitDaemon() as d:
        pids = {name: pid for pid, name in children(d.process.pid).items()}
        status = {"receiver": status_of(d.process.pid), "keeper": status_of(pids["cellos-keeper"]),
                  "signer": status_of(pids["cellos-signer"])}
        uids = {name: set(s["Uid"].split()) for name, s in status.items()}
        assert uids == {"receiver": {str(pwd.getpwnam(USER).pw_uid)}, "keeper": {"0"},
                        "signer": {str(pwd.getpwnam(SIGNER).pw_uid)}}
        # CAP_NET_ADMIN for nftables' counters; SETUID, SETGID, SETPCAP.
        for name, may in (("receiver", 1 << 12), ("keeper", 1 << 6 | 1 << 7 | 1 << 8), ("signer", 0)):
            for which in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
                assert int(status[name][which], 16) & ~may == 0, (name, which, status[name])
            assert status[name]["NoNewPrivs"] == "1"
        assert status["signer"]["Groups"].strip() == ""
        signing = d.ask({"verb": "status"})["signing"]
        assert signing["separateUsers"] and signing["landlock"]
        assert "are the same user" not in d.log()
        assert os.stat(d.file("signer/tree.state")).st_uid == pwd.getpwnam(SIGNER).pw_uid
        # A jailed VMM's folder, in one that only root can pass.
        os.makedirs(d.file("jail/a"))
        os.chown(d.file("jail/a"), 1234, 5678)
        os.chmod(d.file("jail/a"), 0o700)
        os.chmod(d.file("jail"), 0o700)
        d.run("cell", "add", "--cell-id", "a", "--run-id", "r", "--spec-hash", HASH, "--uds",
              d.file("jail/a/v"), "--socket-owner", "1234:5678", "--socket-mode", "0600")
        st = os.stat(d.file("jail/a/v_9001"))
        assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (1234, 5678, 0o600)
        for owner in ("0:0", f"{pwd.getpwnam(SIGNER).pw_uid}:0"):
            assert "no socket is given to root" in d.add("b", "--socket-owner", owner, want=77)
        with d.connect("jail/a/v") as sock:
            sock.sendall(hello() + b"".join(map(spawned, range(1, 50))))
            until(lambda: d.count("a", 49), "number 49")
        # A file that is renamed into the place of the configuration, as editors do.
        shutil.copy(d.file("conf"), d.file("conf~"))
        os.rename(d.file("conf~"), d.file("conf"))
        d.process.send_signal(signal.SIGHUP)
        d.wait_log("configuration applied")
        d.kill()
        d.start()
        assert os.path.exists(d.file("jail/a/v_9001")), "its stale socket was replaced"
        d.run("cell", "remove", "a")
        assert os.listdir(d.file("jail/a")) == [], "the socket is unlinked as its owner"
        memory = memory_of(d.process.pid)
        assert not any(secret in memory for secret in secrets_of(d.file("k1.seed")))
        d.stop()
        d.verdict(0)


def a_receiver_that_could_open_the_key_does_not_start():
    if _not_root():
        return
    with SplitDaemon() as d:
        d.stop()
        serve = [RECEIVER, "serve", "--config", d.file("conf"), *d.args]

        def refused(words):
            got = subprocess.run(serve, capture_output=True, text=True, timeout=PATIENCE)
            assert got.returncode == 78 and words in got.stderr, got

        shutil.chown(d.file("k1.seed"), USER)
        refused("belongs to uid")
        shutil.chown(d.file("k1.seed"), SIGNER)
        d.start()
        d.stop()
        shutil.chown(d.file("k1.seed"), "root")
        os.chmod(d.file("k1.seed"), 0o644)
        refused("mode 0644 lets others at the key")
        os.chmod(d.file("k1.seed"), 0o600)
        # Landlock hides files, not what stands in a folder: the user must do that.
        os.chmod(d.file("signer"), 0o755)
        refused("can open a file of the signer")
        os.chmod(d.file("signer"), 0o700)
        d.start()
        d.stop()
        d.verdict(0)
        for wrong in (["--user", USER], ["--user", USER, "--signer-user", USER],
                      ["--user", "root", "--signer-user", SIGNER],
                      ["--user", USER, "--signer-user", "nobody-of-that-name"]):
            got = subprocess.run([*serve[:4], *wrong], capture_output=True, text=True, timeout=PATIENCE)
            assert got.returncode == 64 and "user" in got.stderr, got


def a_key_of_somebody_else():
    with LogDaemon() as d:
        d.stop()
        if os.getuid() != 0:
            return
        os.chown(d.file("k1.seed"), 4321, -1)
        got = subprocess.run([RECEIVER, "serve", "--config", d.file("conf")], capture_output=True,
                             text=True, timeout=PATIENCE)
        assert got.returncode == 78 and "belongs to uid 4321" in got.stderr, got


def a_signer_that_dies():
    for algorithm in ("ed25519-log", "ed25519", "hmac-sha256"):
        with LogDaemon(algorithm) as d:
            d.add("a")
            first = 1
            for _ in range(2):
                d.send("a", range(first, first + 50))
                os.kill(signer_of(d.process.pid), signal.SIGKILL)
                d.send("a", range(first + 50, first + 100))
                first += 100
            d.stop()
            d.verdict(0)
            if d.has_tree:
                assert len(d.logs()) == 1
            assert "alarm" not in d.log()


def three_deaths_in_a_minute():
    with LogDaemon() as d:
        d.add("a")
        d.send("a", range(1, 5))
        for i in range(3):
            os.kill(signer_of(d.process.pid), signal.SIGKILL)
            # After the third one the daemon may have ended already.
            with contextlib.suppress(OSError) if i == 2 else contextlib.nullcontext(), \
                    d.connect("a") as sock:
                sock.sendall(hello() + spawned(1))
                if i < 2:
                    until(lambda: d.ask({"verb": "status"})["signing"]["restarts"] == i + 1,
                          "another signer")
        assert d.process.wait(PATIENCE) == 71
        d.wait_log("the signer died 3 times in a minute")
        # Nothing was lost: the next daemon goes on.
        d.start()
        d.stop()
        d.verdict(0, 4)
        assert len(d.logs()) == 1 and "alarm" not in d.log()


def a_signer_that_stands_still():
    with LogDaemon() as d:
        d.add("a")
        d.send("a", range(1, 5))
        signer = signer_of(d.process.pid)
        stand_still(signer)
        try:
            with d.connect("a") as sock:
                sock.sendall(hello(next_seq=5) + b"".join(map(spawned, range(5, 50))))
                until(lambda: f"the signer (pid {signer})" in d.http("/readyz")[1],
                      "/readyz that names the signer")
                assert d.http("/readyz")[0] == 503
                assert d.count("a", 49) == 0
        finally:
            os.kill(signer, signal.SIGCONT)
        until(lambda: d.count("a", 49), "what waited")
        until(lambda: d.http("/readyz")[0] == 200, "/readyz that is fine again")
        d.stop()
        d.verdict(0)


def a_signer_is_watched_while_there_is_nothing_to_sign():
    """A dead one is replaced, and a stopped one named, before any evidence waits for it."""
    with LogDaemon() as d:
        signer = signer_of(d.process.pid)
        os.kill(signer, signal.SIGKILL)
        until(lambda: d.ask({"verb": "status"})["signing"]["restarts"] == 1, "another signer")
        signer = signer_of(d.process.pid)
        until(lambda: d.http("/readyz")[0] == 200, "/readyz that is fine")
        stand_still(signer)
        try:
            until(lambda: f"the signer (pid {signer}) has not answered" in d.http("/readyz")[1],
                  "/readyz that names the signer")
            assert d.http("/readyz")[0] == 503
            until(lambda: d.http("/healthz")[0] == 200, "a loop that turns")
        finally:
            os.kill(signer, signal.SIGCONT)
        until(lambda: d.http("/readyz")[0] == 200, "/readyz that is fine again")
        d.stop()
        d.verdict(0)


def a_signer_that_is_refused_memory():
    """No other can be started while its parent has no memory: that is named, and nothing is lost."""
    if not PLAIN:
        print("not under a sanitizer, which takes memory of its own")
        return
    with LogDaemon() as d:
        d.add("a")
        d.send("a", range(1, 5))
        keeper = next(p for p, name in children(d.process.pid).items() if name == "cellos-keeper")
        resource.prlimit(keeper, resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
        os.kill(signer_of(d.process.pid), signal.SIGKILL)
        with d.connect("a") as sock:
            sock.sendall(hello(next_seq=5) + b"".join(map(spawned, range(5, 50))))
            until(lambda: "the signer is down: the signer process cannot start: Cannot allocate memory"
                  in d.http("/readyz")[1], "/readyz that names the signer")
            assert d.http("/readyz")[0] == 503
            until(lambda: d.http("/healthz")[0] == 200, "a loop that turns")
            assert d.count("a", 49) == 0
            resource.prlimit(keeper, resource.RLIMIT_AS,
                             (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            until(lambda: d.count("a", 49), "what waited")
        until(lambda: d.http("/readyz")[0] == 200, "/readyz that is fine again")
        d.stop()
        d.verdict(0)
        assert len(d.logs()) == 1 and "alarm" not in d.log()


def a_key_that_cannot_be_locked():
    if not PLAIN:
        print("not under a sanitizer, where mlock does nothing")
        return
    with LogDaemon() as d:
        d.stop()
        run = ["prlimit", "--memlock=0:0", "setpriv", "--bounding-set=-ipc_lock",
               "--inh-caps=-ipc_lock", RECEIVER, "serve", "--config", d.file("conf")]
        got = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE)
        assert got.returncode == 78 and "cannot be locked in memory" in got.stderr, got
        d.configure("")
        with open(d.file("conf"), "a") as f:
            f.write("allow_unlocked = yes\n")
        d.start()
        d.stop()


def parent_and_signer_end_with_the_receiver():
    for end in (signal.SIGKILL, signal.SIGTERM):
        with LogDaemon() as d:
            d.add("a")
            family = children(d.process.pid)
            assert sorted(family.values()) == ["cellos-keeper", "cellos-signer"]
            d.process.send_signal(end)
            d.process.wait(PATIENCE)
            until(lambda: not any(os.path.exists(f"/proc/{p}") for p in family),
                  "the end of parent and signer")


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
            got = subprocess.run([RECEIVER, "receive", "--uds", f"{d}/v", "--cell-id", "c", "--run-id",
                                  "r", "--spec-hash", HASH, *options], capture_output=True,
                                 text=True, env={**os.environ, **env})
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
    main()
