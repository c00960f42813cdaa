# SPDX-License-Identifier: MIT
"""verify on the same events, signed one by one (ed25519) and only by the log (ed25519-log).

bench_verify.py [EVENTS]: CPU and wall time an event, bytes, peak memory."""

import base64
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.environ["CELLOS_INTEGRATION"])

import logmaker  # noqa: E402
import oracle  # noqa: E402

GROUP, CELLS = 64, 16


def write(folder, key, events, envelope):
    """A log of many segments; its events are alike, so that Python can make enough of them."""
    log = logmaker.Log(key, envelope=envelope)
    names = [f"cell-{i}" for i in range(CELLS)]
    streams = [log.open(name) for name in names]
    log.commit()
    for name, stream in zip(names, streams):
        log.spawn(name, stream)
    plain = [e if not envelope else None for e in log.waiting]
    if envelope:
        plain = [oracle.canonical(json.loads(e)["data"]["event"]) for e in log.waiting]
    head = b'{"data":{"algorithm":"ed25519","event":'
    log.commit()
    log.entries = []
    for i in range(events):
        cell = i % CELLS
        number = 3 + i // CELLS
        line = plain[cell].replace(b'"sequence":2,', b'"sequence":%d,' % number)
        if envelope:
            rest = json.loads(line)
            signature = base64.urlsafe_b64encode(envelope.sign(line).signature).rstrip(b"=")
            line = (head + line + b',"signature":"' + signature + b'","signerKid":"k1"},'
                    b'"datacontenttype":"application/json","id":"' + rest["id"].encode() +
                    b'","source":"' + rest["source"].encode() + b'","specversion":"1.0","time":"' +
                    rest["time"].encode() + b'","type":"' + oracle.ENVELOPE.encode() + b'"}')
        log.raw(line)
        if i % GROUP == GROUP - 1:
            log.commit()
            log.entries = []
    for name, stream in zip(names, streams):
        log.sequence[stream] += (events - 1 - names.index(name)) // CELLS + 1
        log.seal(name, stream)
    log.close()
    log.write(folder)
    return sum(os.path.getsize(f"{folder}/{n}") for n in os.listdir(folder))


# Run by a process of its own, for a child begins as large as its parent.
MEASURE = """
import resource, subprocess, sys, time
begin = time.monotonic()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.monotonic() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def judge(receiver, keyring, folder):
    """Wall and CPU seconds of the best of three runs; peak memory in MiB."""
    runs = []
    for _ in range(3):
        got = subprocess.run([sys.executable, "-c", MEASURE, receiver, "verify", "--keys", keyring,
                              folder], check=True, stdout=subprocess.PIPE, text=True)
        runs.append(tuple(map(float, got.stdout.split())))
    return min(runs, key=lambda run: run[1])


def main(events=100000):
    receiver, events, key = os.environ["CELLOS_RECEIVER"], int(events), logmaker.new_key()
    with tempfile.TemporaryDirectory() as d:
        with open(f"{d}/keyring.json", "wb") as f:
            f.write(logmaker.keyring(("k1", key)))
        rows = {}
        for mode, envelope in (("ed25519-log", None), ("ed25519", key)):
            size = write(f"{d}/{mode}", key, events, envelope)
            wall, cpu, mib = judge(receiver, f"{d}/keyring.json", f"{d}/{mode}")
            rows[mode] = cpu
            print(f"{mode:12} {events} events, {size / events:6.0f} bytes an event: "
                  f"{cpu / events * 1e6:6.2f} us CPU an event, {wall / events * 1e6:6.2f} us, "
                  f"{size / wall / 1e6:6.0f} MB/s, {mib:.0f} MiB at most", flush=True)
        print(f"ed25519 / ed25519-log: {rows['ed25519'] / rows['ed25519-log']:.1f} x CPU "
              f"(budget: at least 10)")


main(*sys.argv[1:])
