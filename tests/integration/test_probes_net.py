# SPDX-License-Identifier: MIT
"""Host probes on the real thing: a TAP with real packets of a guest in a namespace of its own, and
nftables' counters; and what the receiver says when they and the guest do not agree."""

import os
import socket
import subprocess
import time

import netns
import oracle
from daemon import Daemon
from receiver import Receiver, frame, hello
from runner import main, until

INTERVAL = 150
FAST = ("--probe-interval", str(INTERVAL))
# A TAP that was never down says "unknown".
UP = ("up", "unknown")
TABLE = """table inet cell {
    counter named {
    }
    chain in {
        type filter hook input priority 0; policy accept;
        iifname "cfc-test" icmp type echo-request counter accept
        iifname "cfc-test" tcp dport 7777 tcp flags syn counter name named accept
    }
}"""


def readings(events, probe):
    return [e["data"] for e in oracle.named(events, "host.v1." + probe)]


def until_reading(receiver, probe, condition):
    """The newest reading for which the condition holds."""
    def found():
        return [data for data in readings(receiver.wait_for("host.v1." + probe), probe)
                if condition(data["output"])]

    return until(found, receiver.log, 0.05)[-1]


def wait_readings(receiver, probe, count):
    """So many readings more."""
    before = len(readings(receiver.wait_for("host.v1." + probe), probe))
    receiver.wait_for("host.v1." + probe, before + count)


def row(output, chain, text):
    return next(r for r in output["rows"] if r["chain"] == chain and text in r["ruleRepr"])


def connect_frame(address, seq, family="inet", **detail):
    return frame("net.connect_attempted", seq=seq,
                 detail={"family": family, "address": address, "port": 80, **detail})


def sent_messages_are_counted():
    with netns.Guest() as guest:
        netns.nft(TABLE)
        r = Receiver("--tap", guest.tap, "--nft-table", "inet/cell", *FAST)
        r.wait_for("host.v1.nftables")
        r.wait_for("host.v1.tap_link")
        guest.ping(7)
        listener = socket.create_server(("10.9.0.1", 7777))
        guest.python("import socket; s = socket.create_connection(('10.9.0.1', 7777)); s.close()")
        listener.accept()[0].close()
        listener.close()
        # The guest may ask for its neighbour at any time.
        data = until_reading(r, "tap_link", lambda o: (
            o["rxPackets"], o["rxBytes"], o["txPackets"]) == (
                guest.sent_frames, guest.sent_bytes, guest.received_frames))
        assert data["inputs"] == {"iface": "cfc-test", "sysfs": "/sys/class/net/cfc-test"}
        assert data["output"]["carrier"] == "1" and data["output"]["operstate"] in UP, data
        data = until_reading(r, "nftables",
                             lambda o: row(o, "in", "echo-request")["packets"] == 7)
        assert data["inputs"] == {"family": "inet", "table": "cell"}
        ping = row(data["output"], "in", "echo-request")
        # Seven echo requests of 20 + 8 + 56 bytes.
        assert ping["bytes"] == 7 * 84 and ping["family"] == "inet" and ping["table"] == "cell"
        assert ping["ruleRepr"] == \
            "iifname cfc-test icmp type echo-request counter accept", ping["ruleRepr"]
        # More than one SYN where the carrier of the frames stood still.
        assert row(data["output"], "in", "named")["packets"] >= 1
        events = r.stop()
        assert all(e["data"]["authority"] == "observed" for e in events)
        assert all(e["source"] == "cellos-host-telemetry/probes"
                   for e in events if "probeSource" in e["data"])
        netns.nft("delete table inet cell")


def the_link_goes_down_and_comes_back():
    with netns.Guest() as guest:
        r = Receiver("--tap", guest.tap, *FAST)
        until_reading(r, "tap_link", lambda o: o["carrier"] == "1")
        netns.run(f"ip link set {guest.tap} down")
        data = until_reading(r, "tap_link", lambda o: o["carrier"] is None)
        assert data["output"]["operstate"] == "down"
        guest.up()
        until_reading(r, "tap_link", lambda o: o["carrier"] == "1" and o["operstate"] in UP)
        r.stop()


def an_interface_that_vanishes_and_returns():
    with Daemon() as d:
        guest = netns.Guest()
        d.add("a", "--tap", guest.tap, *FAST)
        d.wait_for("host.v1.tap_link")
        guest.close()
        d.wait_log('msg="a probe cannot read" cell=a probe=tap_link')
        assert "the probe tap_link cannot read: no interface cfc-test" in d.run("status")
        # Once, however many readings fail.
        until(lambda: d.ask({"verb": "show", "cell": "a"})["cell"]["probes"]["tap_link"]["failures"] > 5,
              "more failures", 0.1)
        until(lambda: 'probe_failures_total{probe="tap_link"} 0' not in d.http("/metrics")[1],
              "failures in the metrics", 0.1)
        assert d.log().count("a probe cannot read") == 1, d.log()
        count = len(readings(d.events(), "tap_link"))
        with netns.Guest():
            d.wait_log('msg="the probe reads again" cell=a probe=tap_link')
            d.wait_for("host.v1.tap_link", count + 2)
            probe = d.ask({"verb": "show", "cell": "a"})["cell"]["probes"]["tap_link"]
            assert not probe["failing"] and probe["error"] is None and probe["failures"] > 1
            assert probe["readings"] > count, probe
        d.stop()
        d.verify()


def a_table_deleted_and_made_again():
    netns.nft(TABLE)
    r = Receiver("--nft-table", "inet/cell", *FAST)
    r.wait_for("host.v1.nftables")
    netns.nft("delete table inet cell")
    r.wait_log("nft table inet cell: not in the ruleset")
    netns.nft(TABLE)
    r.wait_log("the probe reads again")
    r.stop()
    netns.nft("delete table inet cell")


def a_thousand_rules():
    rules = "\n".join(f"ip saddr 10.1.{i // 250}.{i % 250} tcp dport {i + 1} counter drop"
                      for i in range(1000))
    script = ("table ip many {\nchain c {\ntype filter hook input priority 0;\n" + rules +
              "\n}\n}\n")
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
    r = Receiver("--nft-table", "many", "--probe-interval", "3600000")
    first = r.wait_for("host.v1.nftables")
    parts = readings(first, "nftables")[0]["output"]["parts"]
    assert parts > 1
    r.wait_for("host.v1.nftables", parts)
    events = r.stop()
    # One reading at the start, one at the end.
    both = readings(events, "nftables")
    assert len(both) == 2 * parts and [e["output"]["part"] for e in both] == \
        2 * list(range(1, parts + 1))
    rows = [row for e in both[:parts] for row in e["output"]["rows"]]
    assert [r["ruleRepr"] for r in rows] == \
        [f"ip saddr 10.1.{i // 250}.{i % 250} tcp dport {i + 1} counter drop"
         for i in range(1000)]
    assert len({r["handle"] for r in rows}) == 1000
    netns.nft("delete table ip many")


def many_cells_and_one_dump():
    """All cells with a table are read from the same dump: at the same instant."""
    netns.nft("; ".join(f"add table ip cell{i}; add chain ip cell{i} c; "
                        f"add rule ip cell{i} c counter" for i in range(8)))
    with Daemon() as d:
        for i in range(8):
            d.add(f"c{i}", "--nft-table", f"cell{i}", "--probe-interval", "400")
        d.wait_for("host.v1.nftables", 24)
        d.stop()
        d.verify()
        cells = {e["data"]["cellId"]: e["data"]["inputs"]["table"]
                 for e in oracle.named(d.events(), "host.v1.nftables")}
        assert cells == {f"c{i}": f"cell{i}" for i in range(8)}
    for i in range(8):
        netns.nft(f"delete table ip cell{i}")


def unwitnessed(events):
    return [e["data"] for e in oracle.named(events, "guest.v1.declaration_unwitnessed")]


def a_declared_connect_without_a_packet():
    with netns.Guest() as guest:
        netns.nft(TABLE)
        r = Receiver("--tap", guest.tap, "--nft-table", "inet/cell", *FAST)
        r.wait_for("host.v1.tap_link", 2)
        r.wait_for("host.v1.nftables", 2)
        # What the namespaces say when they begin is over.
        quiet = -1
        while quiet != guest.sent_frames:
            quiet = guest.sent_frames
            # By readings, which a busy machine makes late.
            for probe in ("tap_link", "nftables"):
                wait_readings(r, probe, 3)
        sock = r.connect()
        sock.sendall(hello() + connect_frame("10.9.0.1", 1) + connect_frame("10.9.0.7", 2))
        events = r.wait_for("guest.v1.declaration_unwitnessed")
        told = unwitnessed(events)[0]
        assert told["declared"] == 2 and told["witnesses"] == ["host.tap_link", "host.nftables"]
        assert told["sinceMs"] >= 2 * INTERVAL, told
        # None of these sends a packet through the interface, and none is a lie.
        sock.sendall(connect_frame("127.0.0.1", 3) + connect_frame("127.9.9.9", 4) +
                     connect_frame("::1", 5, "inet6") + connect_frame("0.0.0.0", 6) +
                     connect_frame("::ffff:127.0.0.1", 7, "inet6") + connect_frame("::", 8, "inet6") +
                     connect_frame("10.9.0.1", 9, result="ENETUNREACH") +
                     connect_frame("2", 10, "vsock") +
                     frame("process.spawned", seq=11, detail={"ppid": 1}))
        r.wait_for("guest.v1.process_spawned")
        wait_readings(r, "tap_link", 5)
        events = r.stop()
        assert len(unwitnessed(events)) == 1, unwitnessed(events)
        assert "the host saw nothing of declared connects" in r.log()
        netns.nft("delete table inet cell")


def a_declared_connect_with_packets():
    with netns.Guest() as guest:
        # However long a busy machine takes from the packet to the frame.
        r = Receiver("--tap", guest.tap, "--witness-before", "60000", *FAST)
        r.wait_for("host.v1.tap_link", 2)
        sock = r.connect()
        sock.sendall(hello())
        for seq in range(1, 9):
            # Refused, but sent.
            guest.python("import socket; socket.socket().connect_ex(('10.9.0.1', 5))")
            sock.sendall(connect_frame("10.9.0.1", seq, result="ECONNREFUSED"))
            time.sleep(INTERVAL / 1000)
        wait_readings(r, "tap_link", 5)
        assert unwitnessed(r.stop()) == []


def there_is_no_verdict_without_a_witness():
    r = Receiver("--tap", "gone0", *FAST)
    sock = r.connect()
    sock.sendall(hello() + connect_frame("10.9.0.1", 1))
    r.wait_for("guest.v1.net_connect_attempted")
    time.sleep(6 * INTERVAL / 1000)
    assert unwitnessed(r.stop()) == []


def the_window_is_an_option():
    with netns.Guest() as guest:
        r = Receiver("--tap", guest.tap, "--witness-after", "60000", *FAST)
        r.wait_for("host.v1.tap_link", 2)
        time.sleep(0.5)
        r.connect().sendall(hello() + connect_frame("10.9.0.1", 1))
        before = len(readings(r.wait_for("guest.v1.net_connect_attempted"), "tap_link"))
        r.wait_for("host.v1.tap_link", before + 6)
        assert unwitnessed(r.stop()) == []


def probes_are_read_once_more_at_the_end():
    with netns.Guest() as guest:
        netns.nft(TABLE)
        with Daemon() as d:
            d.add("a", "--tap", guest.tap, "--nft-table", "inet/cell", "--probe-interval",
                  "3600000")
            d.wait_for("host.v1.tap_link")
            d.wait_for("host.v1.nftables")
            guest.ping(3)
            sent = guest.sent_frames
            d.run("cell", "remove", "a")
            d.wait_for("stream.v1.sealed")
            events = d.events()
            assert events[-1]["type"].endswith("stream.v1.sealed")
            assert row(readings(events, "nftables")[-1]["output"], "in",
                       "echo-request")["packets"] == 3
            read = readings(events, "tap_link")[-1]["output"]["rxPackets"]
            assert sent <= read <= guest.sent_frames, (sent, read, guest.sent_frames)
            d.stop()
            d.verify()
        netns.nft("delete table inet cell")


def tail_shows_what_changed():
    with netns.Guest() as guest:
        netns.nft(TABLE)
        with Daemon(sign=False) as d:
            d.add("a", "--nft-table", "inet/cell", "--probe-interval", "3600000")
            d.wait_for("host.v1.nftables")
            guest.ping(4)
            d.stop()
            out = subprocess.run([os.environ["CELLOS_RECEIVER"], "tail", "--type", "host.*",
                                  d.evidence], capture_output=True, text=True, check=True).stdout
            first, last = out.splitlines()
            assert "unchanged" in first, out
            assert ".packets=+4 " in last and last.endswith(".bytes=+336"), out
        netns.nft("delete table inet cell")


netns.enter()
main()
