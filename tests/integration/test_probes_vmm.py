# SPDX-License-Identifier: MIT
"""The VMM's metrics, from a writer that behaves as the VMM does; and readings that hang, options
that are refused."""

import itertools
import json
import os
import signal
import socket
import tempfile
import time

import oracle
from daemon import BadDisk, Daemon, no_preload
from receiver import Receiver, hello, is_idle, open_files
from runner import main, stand_still, until
from vmm import Api, FIELDS, Vmm

INTERVAL = 120
FAST = ("--probe-interval", str(INTERVAL))


class Folder(tempfile.TemporaryDirectory):
    """f("name") is a path in it."""

    def __init__(self):
        super().__init__(prefix="cellos-vmm-")

    def __enter__(self):
        path = super().__enter__()
        return lambda name: os.path.join(path, name)


def outputs(events):
    return [e["data"]["output"] for e in oracle.named(events, "host.v1.fc_metrics")]


def readings(receiver):
    return outputs(receiver.wait_for("stream.v1.opened"))


def newest_reading(receiver, condition):
    """The newest reading for which the condition holds."""
    return until(lambda: next(filter(condition, readings(receiver)[::-1]), None),
                 lambda: (readings(receiver)[-1:], receiver.log()), 0.03)


def wait_for_readings(receiver):
    """Several intervals, at whose end nothing is being read: is_idle() looks for five of them."""
    time.sleep(3 * INTERVAL / 1000)
    until(lambda: is_idle(receiver.process.pid), "a receiver that waits", 0)


def a_fifo():
    with Folder() as f:
        os.mkfifo(f("metrics"))
        r = Receiver("--fc-metrics", f("metrics"), *FAST)
        with Vmm(f("metrics")) as vmm:
            for i in range(5):
                vmm.count("vsock", "tx_bytes_count", 1000)
                vmm.count("net", "rx_packets_count", 7)
                vmm.count("block_rootfs", "read_agg", 50)
                vmm.count("signals", "sigpipe")
                vmm.counts["api_server", "process_startup_time_us"] = 4321
                vmm.counts["signals", "sigsegv"] = 1
                vmm.flush()
                if i == 2:
                    newest_reading(r, lambda o: o["documents"] == 3)
            data = newest_reading(r, lambda o: o["documents"] == 5)
            assert data["badLines"] == 0
            # The newest document, whole.
            assert set(data["metrics"]) == {"utc_timestamp_ms", *FIELDS}
            assert data["metrics"]["vsock"]["tx_bytes_count"] == 1000
            assert data["metrics"]["block_rootfs"]["read_agg"] == \
                {"min_us": 3, "max_us": 9, "sum_us": 50}
            assert data["metrics"]["api_server"]["process_startup_time_us"] == 4321
            totals = data["totals"]
            assert totals["vsock"]["tx_bytes_count"] == 5000
            assert totals["net"]["rx_packets_count"] == 35
            assert totals["block_rootfs"]["read_agg"] == {"sum_us": 250}
            assert totals["signals"] == {"sigpipe": 5}
            assert "process_startup_time_us" not in totals["api_server"]
            assert "utc_timestamp_ms" not in totals
        events = r.stop()
        assert events[-1]["data"]["vmmBytes"] == 5000 and events[-1]["data"]["bytes"] == 0


def a_fifo_that_was_full():
    """Lines are cut and run into each other; what is whole is counted, the rest is told."""
    with Folder() as f:
        os.mkfifo(f("metrics"))
        with Vmm(f("metrics"), padding=13) as vmm:
            while vmm.cut < 3:
                vmm.count("uart", "write_count")
                vmm.flush()
            assert vmm.cut_inside, "another padding is needed for a line that is cut"
            whole = vmm.flushed - vmm.cut
            r = Receiver("--fc-metrics", f("metrics"), *FAST)
            newest_reading(r, lambda o: o["documents"] == whole)
            # The cut one has no end: the next runs into it, and is found where it begins.
            vmm.count("uart", "write_count", 1000)
            vmm.flush()
            data = newest_reading(r, lambda o: o["documents"] == whole + 1)
            assert data["badLines"] == 1, data["badLines"]
            assert data["totals"]["uart"]["write_count"] == whole + 1000
            # Those before were counted in lines that were lost themselves.
            assert data["totals"]["logger"]["missed_metrics_count"] == 1
            vmm.write(b"garbage\n\xff\xfe{}\n{\"utc_timestamp_ms\":1}\n[]\n\n")
            vmm.write(b'{"utc_timestamp_ms":1,"vsock":{"conns_added":-1}}\n')
            vmm.write(b'{"utc_timestamp_ms":1,"vsock":{"conns_added":18446744073709551616}}\n')
            vmm.write(b'{"utc_timestamp_ms":1,"vsock":{"conns_added":1.5}}\n')
            # What no line of evidence could hold, or its readers not read.
            vmm.write(b'{"utc_timestamp_ms":1,"x":{"a":{"a":{"a":{}}}}}\n')
            vmm.write(b'{"utc_timestamp_ms":1,"x":' + b'{"a":' * 29 + b"1" + b"}" * 30 + b"\n")
            vmm.write(b'{"utc_timestamp_ms":1,"x":' + b"1" * 21 + b"}\n")
            vmm.write(b'{"utc_timestamp_ms":1,"x":{"\\u0000":1}}\n \t\n')
            vmm.count("uart", "write_count", 5)
            vmm.flush()
            data = newest_reading(r, lambda o: o["documents"] == whole + 3)
            assert data["badLines"] == 1 + 6 + 4, data["badLines"]
            assert data["totals"]["uart"]["write_count"] == whole + 1005
        r.stop()


def sums_stop_at_the_end():
    with Folder() as f:
        os.mkfifo(f("metrics"))
        r = Receiver("--fc-metrics", f("metrics"), *FAST)
        with Vmm(f("metrics")) as vmm:
            for _ in range(3):
                vmm.count("uart", "read_count", 2**63)
                vmm.flush()
            data = newest_reading(r, lambda o: o["documents"] == 3)
            assert data["totals"]["uart"]["read_count"] == 2**64 - 1
        r.stop()


def many_devices_are_more_than_a_line():
    with Folder() as f:
        os.mkfifo(f("metrics"))
        r = Receiver("--fc-metrics", f("metrics"), *FAST)
        with Vmm(f("metrics"), padding=1000) as vmm:
            # More than a FIFO holds: as it is read.
            data = json.dumps(vmm.document(), separators=(",", ":")).encode() + b"\n"
            vmm.write_whole(data)
            newest_reading(r, lambda o: o.get("part") and o["part"] == o["parts"])
        parts = outputs(r.stop())
        parts = parts[:parts[0]["parts"]]
        assert len(parts) > 2
        metrics = {k: v for part in parts for k, v in part["metrics"].items()}
        totals = {k: v for part in parts for k, v in part["totals"].items()}
        assert len(metrics) == 1 + len(FIELDS) + 1000 and len(totals) == len(FIELDS) + 1000
        assert metrics == json.loads(data)


def a_file():
    with Folder() as f:
        # Of a VMM before; its documents are not of this cell.
        with Vmm(f("metrics")) as old:
            for _ in range(3):
                old.count("vsock", "conns_added", 100)
                old.flush()
        time.sleep(0.01)
        r = Receiver("--fc-metrics", f("metrics"), *FAST)
        until(lambda: f("metrics") in open_files(r.process.pid).values(), "a first reading")
        wait_for_readings(r)
        assert readings(r) == []
        # It writes over what is there.
        with Vmm(f("metrics")) as vmm:
            vmm.count("uart", "write_count", 3)
            vmm.flush()
            data = newest_reading(r, lambda o: o["documents"] == 1)
            for i in range(2, 12):
                vmm.count("uart", "write_count", 3)
                vmm.flush()
                data = newest_reading(r, lambda o, n=i: o["documents"] == n)
            assert data["totals"]["uart"]["write_count"] == 33, data["totals"]["uart"]
            assert data["totals"]["vsock"]["conns_added"] == 0
        # A new VMM, on the same file again, with a first line as long as or longer than the old.
        with Vmm(f("metrics")) as vmm:
            vmm.count("uart", "write_count", 100000)
            vmm.flush()
            data = newest_reading(r, lambda o: o["documents"] == 12)
            vmm.count("uart", "write_count", 100000)
            vmm.flush()
            data = newest_reading(r, lambda o: o["documents"] == 13)
            assert data["totals"]["uart"]["write_count"] == 200033, data["totals"]["uart"]
        assert data["badLines"] == 0, data["badLines"]
        r.stop()


def a_first_line_longer_than_the_old_file():
    with Folder() as f:
        r = Receiver("--fc-metrics", f("metrics"), *FAST)
        r.wait_log("metrics: No such file")
        with Vmm(f("metrics")) as vmm:
            vmm.flush()
            newest_reading(r, lambda o: o["documents"] == 1)
        r.wait_log("reads again")
        time.sleep(0.05)
        with Vmm(f("metrics"), padding=3) as vmm:
            vmm.count("uart", "write_count", 9)
            vmm.flush()
            data = newest_reading(r, lambda o: o["documents"] == 2)
            assert data["totals"]["uart"]["write_count"] == 9
        r.stop()


def rotation():
    with Folder() as f:
        with Vmm(f("metrics")) as vmm:
            r = Receiver("--fc-metrics", f("metrics"), *FAST)
            n = 0

            def more():
                nonlocal n
                n += 1
                vmm.count("uart", "write_count")
                vmm.flush()
                data = newest_reading(r, lambda o: o["documents"] == n)
                assert data["totals"]["uart"]["write_count"] == n and data["badLines"] == 0

            for _ in range(3):
                more()
            # Truncated under its writer, which goes on behind a hole.
            os.truncate(f("metrics"), 0)
            for _ in range(3):
                more()
            os.truncate(f("metrics"), 0)
            wait_for_readings(r)
            more()
            # Renamed: the writer has it still; the new file is nobody's yet.
            os.rename(f("metrics"), f("metrics.1"))
            more()
            open(f("metrics"), "w", encoding="ascii").close()
            more()
            # A new VMM opens the new one.
            vmm.close()
            vmm = Vmm(f("metrics"))
            for _ in range(3):
                more()
        r.stop()


def a_line_that_never_ends():
    with Folder() as f:
        with Vmm(f("metrics")) as vmm:
            r = Receiver("--fc-metrics", f("metrics"), *FAST)
            vmm.write(b'{"utc_timestamp_ms":' + b"1" * (9 << 20) + b"\n")
            vmm.count("uart", "write_count", 4)
            vmm.flush()
            data = newest_reading(r, lambda o: o["documents"] == 1)
            assert data["totals"]["uart"]["write_count"] == 4
            assert data["badLines"] == 1
        r.stop()


def a_clock_that_goes_back():
    """What is appended is new, whatever its time; a cut line beside it is told."""
    with Folder() as f:
        r = Receiver("--fc-metrics", f("metrics"), *FAST)
        with Vmm(f("metrics")) as vmm:
            vmm.flush()
            newest_reading(r, lambda o: o["documents"] == 1)
            # A file that was written to and has not grown may be written over from its beginning.
            os.utime(f("metrics"))
            wait_for_readings(r)
            vmm.write(b'{"utc_timestamp_ms":1000,"uart":{"write_count":7}}\n')
            data = newest_reading(r, lambda o: o["documents"] == 2)
            assert data["totals"]["uart"]["write_count"] == 7 and data["badLines"] == 0
            vmm.write(b'{"utc_timestamp_ms":17\n{"utc_timestamp_ms":%d,"uart":{"write_count":1}}\n' %
                      (time.time() * 1000 + 5000))
            data = newest_reading(r, lambda o: o["documents"] == 3)
            assert data["totals"]["uart"]["write_count"] == 8 and data["badLines"] == 1, data
        r.stop()


def more_than_one_reading_takes_in():
    """Each small line costs as much as the sums are long: it is told, and nothing is lost."""
    # Each is newer than the one before. A file that changes while it is read may be taken for one
    # that is written over from its beginning, where what is older has been counted.
    newer = itertools.count(int(time.time() * 1000) + 10**6)
    for fifo in (True, False):
        with Folder() as f:
            if fifo:
                os.mkfifo(f("metrics"))
            r = Receiver("--fc-metrics", f("metrics"), *FAST)
            with Vmm(f("metrics"), padding=3500) as vmm:
                data = json.dumps(vmm.document(), separators=(",", ":")).encode() + b"\n"
                vmm.write_whole(data)
                newest_reading(r, lambda o: o["documents"] == 1)
                # As many as this machine, and this build, need.
                before = total = 0
                for n in (10, 40, 160, 640, 1800):
                    before, total = total, total + n
                    vmm.write_whole(b"".join(
                        b'{"utc_timestamp_ms":%d,"a":{"a":1}}\n' % next(newer) for _ in range(n)))
                    data = newest_reading(r, lambda o, n=total: o["documents"] == n + 1 and
                                 "a" in o["totals"])
                    assert data["totals"]["a"]["a"] == total and data["badLines"] == 0
                    if "more than one reading takes in" in r.log():
                        break
                found = readings(r)
                assert any(before < o["documents"] - 1 < total for o in found), r.log()
            r.stop()


def a_file_of_nothing():
    """A hole of a terabyte is passed over at once; what comes behind it is read."""
    with Folder() as f:
        with open(f("metrics"), "wb") as hole:
            hole.truncate(1 << 40)
            r = Receiver("--fc-metrics", f("metrics"), *FAST)
            wait_for_readings(r)
            with open(f"/proc/{r.process.pid}/io", encoding="ascii") as io:
                read = int(next(line for line in io if line.startswith("rchar")).split()[1])
            assert read < 1 << 20, read
            with Vmm(f("metrics")) as vmm:
                os.lseek(vmm.fd, 1 << 40, os.SEEK_SET)
                vmm.count("uart", "write_count", 6)
                vmm.flush()
                data = newest_reading(r, lambda o: o["documents"] == 1)
                assert data["totals"]["uart"]["write_count"] == 6
        r.stop()


def the_api_is_asked():
    with Folder() as f:
        os.mkfifo(f("metrics"))
        with Vmm(f("metrics")) as vmm:
            vmm.count("uart", "write_count", 11)
            api = Api(f("api"), vmm)
            r = Receiver("--fc-metrics", f("metrics"), "--fc-api", f("api"), *FAST)
            data = newest_reading(r, lambda o: o["documents"] >= 4)
            assert data["totals"]["uart"]["write_count"] == 11
            assert api.requests[0] == (
                b"PUT /actions HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
                b"Content-Type: application/json\r\nContent-Length: 31\r\n\r\n"
                b'{"action_type": "FlushMetrics"}')
            # A VMM that refuses, with something a terminal would obey.
            api.answer = (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 40\r\n\r\n"
                          b'{"fault_message":"not \x1b[2Jsupported"}')
            r.wait_log('not  [2Jsupported')
            assert "\x1b" not in r.log()
            # One that does not answer: in its time, and what it writes of itself counts.
            api.answer = None
            r.wait_log("cannot read", 1)
            vmm.flush()
            newest_reading(r, lambda o: o["documents"] == vmm.flushed)
            api.close()
            events = r.stop()
            assert events[-1]["type"].endswith("sealed")


def another_socket_in_the_apis_place():
    with Daemon() as d, Vmm(d.file("vmm")) as vmm:
        api = Api(d.file("others"), vmm)
        d.add("a", "--fc-metrics", d.file("vmm"), "--fc-api", d.file("api"), *FAST)
        d.wait_log("api: the VMM's API: No such file")
        os.symlink(d.file("others"), d.file("api"))
        until(lambda: "a symbolic link is not followed" in d.run("status"),
              lambda: d.run("status"), 0.05)
        assert api.requests == []
        d.stop()
        api.close()


def apis_that_never_answer():
    """Many cells are sealed in time all the same."""
    n = 40
    with Daemon() as d, socket.socket(socket.AF_UNIX) as api:
        api.bind(d.file("api"))
        api.listen(4096)
        for i in range(n):
            d.add(f"c{i}", "--fc-metrics", d.file("vmm"), "--fc-api", d.file("api"),
                  "--probe-interval", "600000")
        d.stop()
        sealed = oracle.named(d.events(), "stream.v1.sealed")
        assert len(sealed) == n, len(sealed)
        d.verify()


def readings_wait_for_room():
    """With a disk that takes nothing they do not fill the memory."""
    if no_preload():
        return
    with BadDisk() as disk, Daemon("[receiver]\nmax_inflight = 1M\n", env=disk.env) as d, \
            Vmm(d.file("vmm"), padding=700) as vmm:
        d.add("a", "--fc-metrics", d.file("vmm"), "--probe-interval", "100")
        disk.set("pwritev=fail")
        flushed = 0

        def in_flight():
            nonlocal flushed
            vmm.flush()
            flushed += 1
            time.sleep(0.1)
            return json.loads(d.run("status", "--json"))["log"]["inflightBytes"]

        until(lambda: in_flight() >= 1 << 20, "more than a mebibyte on its way", 0)
        most = max(in_flight() for _ in range(40))
        assert most < 2 << 20, most
        disk.good()
        until(lambda: max([0] + [o["documents"] for o in outputs(d.events())]) >= flushed,
              "all documents", 0.1)
        d.stop()
        d.verify()


def a_vmm_that_counts_more():
    with Folder() as f:
        os.mkfifo(f("metrics"))
        with Vmm(f("metrics")) as vmm:
            r = Receiver("--fc-metrics", f("metrics"), *FAST)
            sock = r.connect()
            sock.sendall(hello())
            r.wait_for("guest.v1.telemetry_hello")
            vmm.count("vsock", "conns_added", 1)
            vmm.count("vsock", "tx_bytes_count", 200)
            vmm.flush()
            newest_reading(r, lambda o: o["documents"] == 1)
            wait_for_readings(r)
            assert not oracle.named(r.wait_for("stream.v1.opened"), "guest.v1.channel_contested")
            # Somebody else took the guest's next three.
            vmm.count("vsock", "conns_added", 3)
            vmm.flush()
            events = r.wait_for("guest.v1.channel_contested")
            data = oracle.named(events, "guest.v1.channel_contested")[0]["data"]
            assert data["reason"] == "vmm_counts_more" and data["count"] == 3, data
            assert "peerPid" not in data
            # The same three are told once.
            vmm.flush()
            newest_reading(r, lambda o: o["documents"] == 3)
            events = r.stop()
            assert len(oracle.named(events, "guest.v1.channel_contested")) == 1
            assert events[-1]["data"]["vmmBytes"] == 200


def too_many_connections_do_not_contest():
    """Above its rate a cell's connections wait; those are not another's."""
    with Folder() as f:
        os.mkfifo(f("metrics"))
        with Vmm(f("metrics")) as vmm:
            r = Receiver("--rate", "5", "--fc-metrics", f("metrics"), "--probe-interval", "100")
            for _ in range(20):
                socks = [r.connect() for _ in range(300)]
                vmm.count("vsock", "conns_added", 300)
                vmm.flush()
                for sock in socks:
                    sock.close()
                time.sleep(0.05)
            newest_reading(r, lambda o: o["totals"]["vsock"]["conns_added"] == 6000)
            events = [e for e in r.stop() if e["data"].get("reason") == "vmm_counts_more"]
            assert not events, events


def a_restarted_daemon_raises_no_false_alarm():
    with Daemon() as d:
        os.mkfifo(d.file("metrics-a"))
        with Vmm(d.file("metrics-a")) as vmm:
            d.add("a", "--fc-metrics", d.file("metrics-a"), *FAST)
            vmm.count("vsock", "conns_added", 5)
            vmm.flush()
            d.wait_for("guest.v1.channel_contested")
            d.kill()
            vmm.count("vsock", "conns_added", 5)
            vmm.flush()
            d.start()
            d.wait_for("host.v1.fc_metrics", 2)
            time.sleep(3 * INTERVAL / 1000)
            assert len(oracle.named(d.events(), "guest.v1.channel_contested")) == 1
            d.stop()


def a_reading_that_hangs():
    """It is given up after 2 s; every other goes on in its time, and the daemon ends in its."""
    with Folder() as f:
        env = {"LD_PRELOAD": os.environ["CELLOS_HANG_PREAD"], "CELLOS_HANG": f("hang")}
        with Vmm(f("metrics")) as vmm, Daemon(env=env) as d:
            os.mkfifo(d.file("fifo"))
            with Vmm(d.file("fifo")) as other:
                d.add("hangs", "--fc-metrics", f("metrics"), *FAST)
                d.add("other", "--fc-metrics", d.file("fifo"), *FAST)
                vmm.flush()
                d.wait_for("host.v1.fc_metrics")
                begin = time.monotonic()
                open(f("hang"), "w", encoding="ascii").close()
                vmm.flush()

                def others():
                    other.flush()
                    return [e["data"]["cellId"] for e in
                            oracle.named(d.events(), "host.v1.fc_metrics")].count("other")

                until(lambda: others() and "hangs for 2 s" in d.log(), d.log, 0.1)
                assert time.monotonic() - begin > 1.5
                until(lambda: others() >= 5, "readings of the other cell", 0.1)
                d.wait_metrics("probe_readings_stuck 1")
                assert "the probe fc_metrics cannot read: the reading hangs" in d.run("status")
                # It comes back.
                os.unlink(f("hang"))
                d.wait_log("the probe reads again")
                # What it had taken in is told, though late.
                until(lambda: [
                    e for e in oracle.named(d.events(), "host.v1.fc_metrics")
                    if e["data"]["cellId"] == "hangs" and e["data"]["output"]["documents"] == 2],
                    d.log, 0.02)
                # Nothing that hangs keeps the daemon.
                open(f("hang"), "w", encoding="ascii").close()
                vmm.flush()
                time.sleep(3 * INTERVAL / 1000)
                d.stop()
                os.unlink(f("hang"))
                d.verify()


def a_daemon_that_stood_still_gives_no_reading_up():
    """The reading that it was at stood still as well."""
    with Folder() as f:
        env = {"LD_PRELOAD": os.environ["CELLOS_HANG_PREAD"], "CELLOS_HANG": f("hang")}
        with Vmm(f("metrics")) as vmm, Daemon(env=env) as d:
            d.add("a", "--fc-metrics", f("metrics"), *FAST)
            vmm.flush()
            d.wait_for("host.v1.fc_metrics")
            begin = time.monotonic()
            open(f("hang"), "w", encoding="ascii").close()
            vmm.flush()
            time.sleep(2 * INTERVAL / 1000)
            stand_still(d.process.pid)
            hung = time.monotonic() - begin
            time.sleep(2)
            begin = time.monotonic()
            os.kill(d.process.pid, signal.SIGCONT)
            time.sleep(0.6)  # two looks of the daemon at its readings, and more
            os.unlink(f("hang"))
            hung += time.monotonic() - begin
            until(lambda: max(o["documents"] for o in outputs(d.events())) == 2, "the reading", 0.02)
            d.stop()
            assert "cannot read" not in d.log() or hung > 1.5, d.log()


def bad_options_are_refused():
    hostile = [
        ("--tap", "../../etc"), ("--tap", "a/b"), ("--tap", ""), ("--tap", "."), ("--tap", ".."),
        ("--tap", "sixteen-bytes-xx"), ("--tap", "a b"), ("--tap", "a\nb"), ("--tap", "a\"b"),
        ("--tap", "t\u00e4p"), ("--nft-table", ""), ("--nft-table", "inet/"),
        ("--nft-table", "inet/a;b"), ("--nft-table", "cell; flush ruleset"),
        ("--nft-table", "other/table"), ("--nft-table", "a/b/c"), ("--nft-table", "x" * 256),
        ("--cgroup", "relative"), ("--cgroup", "/a/../b"), ("--cgroup", "/a/.."), ("--cgroup", ""), ("--cgroup", "/a\nb"),
        ("--cgroup", "/" + "x" * 1024), ("--cgroup", "/tmp"), ("--cgroup", "/proc/self"),
        ("--fc-metrics", "relative"), ("--fc-metrics", "/tmp"), ("--fc-metrics", "/dev/null"),
        ("--fc-metrics", "/dev/vsock") if os.path.exists("/dev/vsock") else
        ("--fc-metrics", "/dev/zero"),
        ("--probe-interval", "99"), ("--probe-interval", "x"), ("--probe-interval", "86400001"),
        ("--witness-before", "0"), ("--witness-after", "-1"), ("--fc-api", "/run/x"),
    ]
    with Daemon(sign=False) as d:
        os.symlink("/proc/self/status", d.file("link"))
        os.symlink("/sys/fs/cgroup", d.file("cgroups"))
        for option, value in hostile + [("--fc-metrics", d.file("link")),
                                        ("--cgroup", d.file("cgroups"))]:
            said = d.add("a", option, value, want=64)
            assert option in said, said
        api = d.add("a", "--fc-metrics", d.file("m"), "--fc-api", d.file("conf"), want=64)
        assert "no socket" in api
        assert d.ask({"verb": "list"})["cells"] == []
        # What is not there yet may come.
        d.add("a", "--fc-metrics", d.file("m"), "--cgroup", "/sys/fs/cgroup/cellos-none/x", *FAST)
        d.wait_log("probe=fc_metrics")
        # And what comes as something else is not read.
        os.symlink("/proc/self/status", d.file("m"))
        until(lambda: "a symbolic link is not followed" in d.run("status"),
              lambda: d.run("status"), 0.05)
        assert not oracle.named(d.events(), "host.v1.fc_metrics")
        d.stop()


main()
