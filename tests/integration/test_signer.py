# SPDX-License-Identifier: MIT
"""The signer process: the receiver has no key, and what happens to the signer loses nothing."""

import base64
import os
import signal
import subprocess
import time

import oracle
from daemon import Daemon
from receiver import RECEIVER, Receiver, spawned, hello
from runner import main, until
from test_log import LogDaemon

PLAIN = os.environ.get("CELLOS_SANITIZE", "none") == "none"


def children(pid):
    """pid -> name of the process's children and theirs."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as f:
            for child in f.read().split():
                with open(f"/proc/{child}/comm") as f2:
                    found[int(child)] = f2.read().strip()
                found |= children(int(child))
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
        assert r.process.wait(60) == 0


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
        fds = {fd: os.readlink(f"/proc/{signer}/fd/{fd}") for fd in os.listdir(f"/proc/{signer}/fd")}
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
        # The kernel here has Landlock: a process of one domain traces none outside it.
        assert d.ask({"verb": "status"})["signing"]["landlock"]


def a_key_of_somebody_else():
    with LogDaemon() as d:
        d.stop()
        if os.getuid() != 0:
            return
        os.chown(d.file("k1.seed"), 4321, -1)
        got = subprocess.run([RECEIVER, "serve", "--config", d.file("conf")], capture_output=True,
                             text=True, timeout=60)
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
            with d.connect("a") as sock:
                sock.sendall(hello() + spawned(1))
                if i < 2:
                    until(lambda: d.ask({"verb": "status"})["signing"]["restarts"] == i + 1,
                          "another signer")
        assert d.process.wait(60) == 71
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
        os.kill(signer, signal.SIGSTOP)
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


def a_key_that_cannot_be_locked():
    if not PLAIN:
        print("not under a sanitizer, where mlock does nothing")
        return
    with LogDaemon() as d:
        d.stop()
        run = ["prlimit", "--memlock=0:0", "setpriv", "--bounding-set=-ipc_lock",
               "--inh-caps=-ipc_lock", RECEIVER, "serve", "--config", d.file("conf")]
        got = subprocess.run(run, capture_output=True, text=True, timeout=60)
        assert got.returncode == 78 and "cannot be locked in memory" in got.stderr, got
        d.configure("")
        with open(d.file("conf"), "a") as f:
            f.write("allow_unlocked = yes\n")
        d.start()
        d.stop()


def it_all_ends_with_the_receiver():
    for end in (signal.SIGKILL, signal.SIGTERM):
        with LogDaemon() as d:
            d.add("a")
            family = children(d.process.pid)
            assert sorted(family.values()) == ["cellos-keeper", "cellos-signer"]
            d.process.send_signal(end)
            d.process.wait(60)
            until(lambda: not any(os.path.exists(f"/proc/{p}") for p in family),
                  "the end of parent and signer")


if __name__ == "__main__":
    main([the_receiver_never_has_the_key, the_environments_key_is_not_the_receivers,
          the_signer_is_confined,
          a_receiver_that_is_taken_over_cannot_reach_the_signer, a_key_of_somebody_else,
          a_signer_that_dies, three_deaths_in_a_minute,
          a_signer_that_stands_still, a_key_that_cannot_be_locked, it_all_ends_with_the_receiver])
