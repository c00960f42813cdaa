# SPDX-License-Identifier: MIT
"""The power of a host goes while its receiver writes. The daemon runs in a VM, its evidence and its
state on an ext4 of a virtual disk, and the emulator records each write and each flush of that disk.
The record is played back up to instants in it: all that was flushed is there, and of the rest all of
it, or only some writes. What is then on the disk is given to a daemon here: the log goes on without an
alarm, verifies, and has every event that an agent was told is durable.

CELLOS_CUTS: how many instants, for each sync mode (default 8)."""

import os
import random
import re
import struct
import subprocess
import tempfile

import oracle
from daemon import Daemon
from guest import hello
from oracle import named
from receiver import HASH, RECEIVER, spawned
from runner import case, main
from vm import Vm, receiver_binary, test_program

CUTS = int(os.environ.get("CELLOS_CUTS", 8))
CELLS, NUMBERS, PIECE = 3, 600, 40
SECTOR, DISK, FILES = 512, 64 << 20, 48 << 20
FLUSH, DISCARD = 1, 4
CONFIG = """[receiver]
control_socket = {0}/control.sock
state_dir = {0}/disk/state
[evidence]
dir = {0}/disk/evidence
rotate_size = 256K
sync = {1}
[signing]
algorithm = ed25519-log
kid = k1
key_file = {0}/k1.seed
"""
SCRIPT = """
mkdir -p {0}/disk && mount -t ext4 /dev/vda {0}/disk && mkdir {0}/disk/evidence {0}/disk/state || exit 9
cp /root/k1.seed {0}/k1.seed && chmod 600 {0}/k1.seed
cellos-host-telemetry serve --config /root/conf 2> /tmp/log &
until grep -q 'msg="ready"' /tmp/log; do sleep 0.1; done
for i in {1}; do
    cellos-host-telemetry cell add --cell-id c$i --run-id r --spec-hash {2} --uds {0}/c$i \
        --control {0}/control.sock || exit 8
done
for i in {1}; do
    acked {0}/c${{i}}_9001 /root/frames /dev/vda $(({3} + i)) &
    agents="$agents $!"
done
for agent in $agents; do wait $agent || exit 7; done
"""


def run(*args, want=(0,)):
    got = subprocess.run(args, capture_output=True, text=True)
    assert got.returncode in want, (args, got.returncode, got.stdout, got.stderr)


class Disk:
    """An empty disk, and the record of what is done to it."""

    def __init__(self, folder):
        self.image, self.record = f"{folder}/image", f"{folder}/record"
        with open(self.image, "wb") as f:
            f.truncate(DISK)
        run("mke2fs", "-q", "-t", "ext4", self.image, f"{FILES >> 10}K")
        with open(self.image, "rb") as f:
            self.empty = f.read()
        open(self.record, "wb").close()

    def arguments(self):
        return ["-blockdev", f"driver=file,node-name=image,filename={self.image},cache.direct=off",
                "-blockdev", f"driver=file,node-name=record,filename={self.record}",
                "-blockdev", "driver=blklogwrites,node-name=disk,file=image,log=record",
                "-device", "virtio-blk-pci,drive=disk,write-cache=on"]

    def entries(self):
        """(flags, offset, data) of each, in their order: the format of dm-log-writes."""
        with open(self.record, "rb") as f:
            data = f.read()
        magic, _, count, sector = struct.unpack_from("<QQQI", data)
        assert magic == 0x6A736677736872 and sector == SECTOR, hex(magic)
        at, found = SECTOR, []
        for _ in range(count):
            first, sectors, flags, _ = struct.unpack_from("<QQQQ", data, at)
            at += SECTOR
            size = 0 if flags & DISCARD else sectors * SECTOR
            found.append((flags, first * SECTOR, data[at:at + size]))
            at += size
        return found


def after_cut(disk, entries, chance):
    """The disk's bytes when the power goes after these: what was flushed, and of the rest each write
    by chance."""
    last_flush = max((i for i, entry in enumerate(entries) if entry[0] & FLUSH), default=-1)
    image = bytearray(disk.empty)
    for i, (flags, offset, data) in enumerate(entries):
        if not flags & DISCARD and (i <= last_flush or chance.random() < 0.7):
            image[offset:offset + len(data)] = data
    return image


def acknowledged(entries):
    """cell -> the newest number that its agent had been told by then."""
    found = dict.fromkeys(range(CELLS), 0)
    for _, offset, data in entries:
        if offset >= FILES and data:
            found[(offset - FILES) // SECTOR] = int.from_bytes(data[:8], "little")
    return found


def numbers_of(lines):
    found = {i: set() for i in range(CELLS)}
    for line in lines:
        match = re.search(rb'"cellId":"c(\d+)".*?"seq":(\d+),', line)
        if match:
            found[int(match[1])].add(int(match[2]))
    return found


class AfterPower(Daemon):
    """A daemon on what the disk has."""

    def __init__(self, folder, sync):
        super().__init__(sign=False, start=False)
        self.evidence, self.control = f"{folder}/disk/evidence", f"{folder}/control.sock"
        self.base_config = CONFIG.format(folder, sync)
        self.configure("")


def check(folder, disk, entries, sync, chance):
    """What is on the disk after these writes. False: no log had begun."""
    with open(f"{folder}/cut", "wb") as f:
        f.write(after_cut(disk, entries, chance))
    run("rm", "-rf", f"{folder}/disk")
    run("mkdir", f"{folder}/disk")
    # As a mount would: its journal first.
    run("e2fsck", "-fy", f"{folder}/cut", want=(0, 1))
    run("debugfs", "-R", f"rdump / {folder}/disk", f"{folder}/cut")
    if not os.path.exists(f"{folder}/disk/evidence") or not os.path.exists(f"{folder}/disk/state"):
        return False
    with AfterPower(folder, sync) as d:
        d.start()
        d.stop()
        assert "alarm" not in d.log() and "previous log" not in d.log(), d.log()
        run(RECEIVER, "verify", "--keys", f"{folder}/keyring.json", d.evidence, want=(0, 4))
        events, lines = d.log_events(), d.entries()
    if sync == "batch":
        found = numbers_of(lines)
        for cell, number in acknowledged(entries).items():
            lost = set(range(1, number + 1)) - found[cell]
            assert not lost, (cell, number, sorted(lost)[:5])
    return bool(named(events, "log.v1.resumed"))


def power_goes_while_the_receiver_writes():
    for sync in ("batch", "interval"):
        with tempfile.TemporaryDirectory(prefix="cellos-power-") as folder:
            run(RECEIVER, "keygen", "--kid", "k1", "--out", folder)
            disk = Disk(folder)
            frames = [spawned(n) for n in range(1, NUMBERS + 1)]
            data = hello("0123456789abcdef", 1, assigned=1) + b"".join(frames)
            with open(f"{folder}/k1.seed", encoding="ascii") as f:
                seed = f.read()
            vm = Vm(SCRIPT.format(folder, " ".join(map(str, range(CELLS))), HASH, FILES // SECTOR),
                    agent=False, programs=[receiver_binary(), test_program("acked")],
                    modules=["virtio_blk"], qemu_args=disk.arguments(),
                    files={"/root/conf": CONFIG.format(folder, sync), "/root/k1.seed": seed,
                           "/root/frames": struct.pack("<QQ", NUMBERS, PIECE * len(frames[0])) + data})
            vm.run().check()
            entries = disk.entries()
            assert acknowledged(entries) == dict.fromkeys(range(CELLS), NUMBERS)
            chance = random.Random(1)
            begun = 0
            for i in range(CUTS):
                at = len(entries) * (i + 1) // CUTS
                with case(sync, at, len(entries)):
                    begun += check(folder, disk, entries[:at], sync, chance)
            assert begun >= CUTS // 2, begun
            print(f"sync {sync}: {len(entries)} writes and flushes, cut at {CUTS} places, "
                  f"a log in {begun}", flush=True)


if __name__ == "__main__":
    main()
