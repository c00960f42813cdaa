# SPDX-License-Identifier: MIT
"""report as people use it: what is written, and what a browser shows of it."""

import base64
import gzip
import json
import os
import re
import shlex
import subprocess
import tempfile

import browser
import logmaker
from receiver import RECEIVER
from runner import main, own_tests, until

KEY = logmaker.new_key()
HOSTILE = ["<script>window.broken=1</script>", "</script><img src=x onerror=window.broken=1>",
           "\u202egpj.exe\u2066", "\0nul\x1b[31m\x7f", "a\u200bb\u2028c", "--></script -->", "\\u0041",
           '"&lt;"', "\u05e9\u05dc\u05d5\u05dd \u65e5\u672c"]
CELL = "web-1"
MANY = 100000
PAGE_RECORDS_MAX = 500000  # of host-receiver/report/page.h
MANY_LINE = (
    '{"data":{"authority":"declared","cellId":"web-1","connection":1,"contentVersion":2,'
    '"detail":{"args":"%d sh","exe":"/bin/sh","ppid":1},"guestComm":"sh","guestMonotonicNs":1,'
    '"guestPid":%d,"probeSource":"process.executed","runId":"r","sequence":%d,'
    '"streamId":"11111111-1111-4111-8111-111111111111"},"datacontenttype":"application/json",'
    '"id":"urn:cellos:event:%d","source":"cellos-host-telemetry/guest","specversion":"1.0",'
    '"time":"2026-11-21T10:00:%06.3fZ",'
    '"type":"dev.cellos.events.cell.observability.guest.v1.process_executed"}\n')


class Made:
    """A log of a cell with processes, a refused call, a silence, a gap and the host's readings."""

    def __init__(self):
        self.log = logmaker.Log(KEY)
        self.stream = self.log.open(CELL)
        self.seq = 0
        self.ordinary()
        self.log.seal(CELL, self.stream, guestDropped=3)
        self.log.close()
        self.tmp = tempfile.TemporaryDirectory(prefix="cellos-report-")
        # A name that a shell and a page must not take for anything else.
        self.folder = self.log.write(self.file("it's <b>$(here)</b>"))
        with open(self.file("keyring.json"), "wb") as f:
            f.write(logmaker.keyring(("k1", KEY)))

    def guest(self, name, pid, comm, **detail):
        self.seq += 1
        self.log.event(self.stream, "cellos-host-telemetry/guest",
                       "guest.v1." + name.replace(".", "_"),
                       {"authority": "declared", "cellId": CELL, "runId": "r",
                        "specSignatureHash": logmaker.SPEC, "probeSource": name, "guestPid": pid,
                        "guestComm": comm, "guestMonotonicNs": 2**64 - 1, "connection": 1,
                        "contentVersion": 2, "seq": self.seq, "detail": detail})

    def probe(self, name, output):
        self.log.event(self.stream, "cellos-host-telemetry/probes", "host.v1." + name,
                       {"authority": "observed", "cellId": CELL, "runId": "r",
                        "specSignatureHash": logmaker.SPEC, "probeSource": "host." + name,
                        "inputs": {}, "output": output})

    def ordinary(self):
        self.guest("process.spawned", 100, "init", ppid=1)
        self.guest("process.executed", 100, "server", exe="/srv/server", args="server --port 80",
                   uid=1000, euid=1000)
        for n, text in enumerate(HOSTILE):
            self.guest("process.spawned", 200 + n, "server", ppid=100)
            self.guest("process.executed", 200 + n, text[:15], exe="/tmp/" + text, args=text + " -x",
                       uid=0, euid=0)
            self.guest("net.connect_attempted", 200 + n, text[:15], family="inet",
                       address="203.0.113.7", port=443)
        # Of another source: it is reported after the end.
        self.guest("process.exited", 200, "server", exitCode=0)
        self.guest("net.connect_attempted", 200, "server", family="inet", address="198.51.100.9",
                   port=53)
        self.guest("capability.denied", 201, "mount", syscall="mount", error="EPERM",
                   capability="CAP_SYS_ADMIN")
        for n in (1, 2, 3):
            self.probe("cgroup", {"cpu_stat": {"usage_usec": n * n * 1000},
                                  "memory_events": {"oom": n}, "pids_events": None})
            self.probe("tap_link", {"operstate": "up", "carrier": "1", "rxPackets": n * 10,
                                    "txPackets": n, "rxBytes": n, "txBytes": n})
            self.probe("fc_metrics", {"documents": 1, "badLines": 0, "metrics": {},
                                      "totals": {"vsock": {"tx_bytes_count": n * 100}}})
        self.log.cell(CELL, "guest.v1.agent_silenced", self.stream, reason="no_frames",
                      windowMs=10000, lastFrameAgeMs=10001, connected=True)
        self.log.clock += 5000
        self.log.cell(CELL, "guest.v1.agent_resumed", self.stream, silentMs=15000)
        self.log.cell(CELL, "guest.v1.telemetry_gap", self.stream, session="0" * 16, firstMissing=7,
                      lastMissing=9, reason="jump")

    def file(self, name):
        return os.path.join(self.tmp.name, name)

    def report(self, *args, want=0):
        got = subprocess.run([RECEIVER, "report", "--keys", self.file("keyring.json"), self.folder,
                              "-o", self.file("page.html"), *args], capture_output=True, text=True,
                             timeout=300, check=False)
        assert got.returncode == want, (got.returncode, got.stdout, got.stderr)
        return got.stdout if want < 64 else got.stderr

    def page(self):
        with open(self.file("page.html"), encoding="utf-8") as f:
            return f.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tmp.cleanup()


def _unpack(page):
    packed = re.search(r'id="packed">\n(.*)</script>\n<script>', page, re.DOTALL)[1]
    return gzip.decompress(base64.b64decode(packed)).decode().split("\n")


def nothing_of_a_guest_is_in_the_document():
    with Made() as made:
        out = made.report()
        assert "OK: intact; 3 observations were declared lost" in out, out
        page = made.page()
        for text in ("window.broken", "203.0.113.7", CELL, "$(here)"):
            assert text not in page, "only packed"
        assert "<title>OK: intact; 3 observations were declared lost</title>" in page
        assert re.findall(r'(?:src|href)\s*=\s*"?\w+:', page) == [], "it loads nothing"
        head, *lines = _unpack(page)
        verify = subprocess.run([RECEIVER, "verify", "--json", "--report", "--keys",
                                 made.file("keyring.json"), made.folder], capture_output=True,
                                check=True).stdout
        assert json.loads(head)["verify"] == json.loads(verify), "the verdict is verify's"
        records = [line.split("\t", 2) for line in lines if re.match(r"\d+\t", line)]
        assert [int(index) for index, _, _ in records] == list(range(len(made.log.entries)))
        assert [raw.encode() for _, _, raw in records] == made.log.entries
        assert os.stat(made.file("page.html")).st_mode & 0o777 == 0o640 & ~os.umask(os.umask(0))


def the_verdict_of_a_changed_log():
    with Made() as made:
        path = os.path.join(made.folder, sorted(os.listdir(made.folder))[0])
        with open(path, "rb") as f:
            data = f.read()
        with open(path, "wb") as f:
            f.write(data.replace(b"server --port 80", b"server --port 81"))
        assert "NOT OK: something was changed" in made.report(want=1)
        assert "<title>NOT OK: something was changed" in made.page()


def write_errors_are_reported():
    with Made() as made:
        made.report()
        before = made.page()
        assert "No such file" in made.report("--checkpoint", made.file("none"), want=66)
        assert made.page() == before, "the old page is still there"
        os.mkdir(made.file("folder"))
        assert "not a file" in made.report("-o", made.file("folder"), want=73)
        assert "No such file" in made.report("-o", made.file("none/page.html"), want=73)
        assert "read twice" in made.report("-", want=64)
        got = subprocess.run([RECEIVER, "report", made.folder], capture_output=True, text=True)
        assert got.returncode == 64 and "-o FILE" in got.stderr
        assert [n for n in os.listdir(made.tmp.name) if n.endswith("#new")] == []


def a_part_of_the_records():
    with Made() as made:
        all_of_them = len([x for x in _unpack(made.report() and made.page()) if x[:1].isdigit()])
        for args, some in ((["--cell", "other"], 2), (["--cell", CELL], all_of_them),
                           (["--since", "2030-01-01"], 0), (["--until", "2001-01-01"], 0)):
            made.report(*args)
            records = [x for x in _unpack(made.page()) if x[:1].isdigit()]
            assert len(records) == some, (args, len(records))


def more_records_than_a_page_holds():
    with tempfile.TemporaryDirectory(prefix="cellos-report-") as tmp:
        for more, want in ((-1, 1), (0, 1), (1, 65)):
            with open(f"{tmp}/many.jsonl", "wb") as f:
                f.write(b"x\n" * (PAGE_RECORDS_MAX + more))
            got = subprocess.run([RECEIVER, "report", f"{tmp}/many.jsonl", "-o", f"{tmp}/page.html"],
                                 capture_output=True, text=True)
            assert got.returncode == want, (more, got)
            assert os.path.exists(f"{tmp}/page.html") == (want != 65), os.listdir(tmp)
            if want == 65:
                assert "--cell, --since, --until" in got.stderr, got
            else:
                os.unlink(f"{tmp}/page.html")


# ---- in a browser ----

def a_browser_shows_it():
    with Made() as made, browser.Browser() as b:
        made.report()
        b.open(made.file("page.html"))
        text = b.js("document.body.innerText")
        for part in ("OK: intact; 3 observations were declared lost", "no kept checkpoint was given",
                     made.log.origin, "1\nsilence", "1\ngap", "1\nrefused privilege",
                     "CPU, cores", "Memory events", "Packets a second", "VMM vsock bytes a second"):
            assert part in text, (part, text)
        assert b.js("document.querySelectorAll('rect.silence').length") == 1
        hostile_is_text(b)
        a_record_and_its_proof(b, made)
        processes(b)
        filters(b)
        paper_and_dark(b)
        assert b.js("window.broken") is None
        for wrong in ("Runtime.exceptionThrown", "Log.entryAdded"):
            assert b.said(wrong) == [], b.said(wrong)
        urls = [e["request"]["url"] for e in b.said("Network.requestWillBeSent")]
        assert urls == [f"file://{made.file('page.html')}"], "it asked for nothing else"


def hostile_is_text(b):
    rows = b.js("[...document.querySelectorAll('.row')].map(x => x.textContent).join('\\n')")
    for text in ("<script>window.broken=1</script> -x", "\\u{202e}gpj.exe\\u{2066} -x",
                 "\\u{0}nul\\u{1b}[31m\\u{7f} -x", "a\\u{200b}b\\u{2028}c -x", "\\u0041 -x", '"&lt;" -x'):
        assert text in rows, (text, rows)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08]", rows)
    assert b.js("document.querySelectorAll('.row script, .row img').length") == 0


def a_record_and_its_proof(b, made):
    b.js("[...document.querySelectorAll('.row')].find(x => x.textContent.includes('gpj')).click()")
    detail = b.js("document.getElementById('detail').innerText")
    assert '"guestMonotonicNs": 18446744073709551615' in detail, "every digit"
    assert "The guest declared it" in detail and "Not everything" not in detail
    commands = b.js("[...document.querySelectorAll('.command')].map(x => x.textContent)")
    for command in commands:
        words = shlex.split(command)
        assert words.pop(0) == "cellos-host-telemetry"
        got = subprocess.run([RECEIVER, *words], cwd=made.tmp.name, capture_output=True, text=True)
        assert got.returncode == 0, (command, got)
    assert got.stdout.startswith("OK: "), got
    number = re.search(r"entry-(\d+)", command)[1]
    with open(made.file(f"entry-{number}.json"), encoding="utf-8") as f:
        assert "gpj" in f.read(), "the record that was chosen"
    assert b.js("location.hash").startswith("#record-")


def processes(b):
    b.js("document.getElementById('tab-tree').click()")
    rows = b.js("[...document.querySelectorAll('#tree .row')].map(x => x.innerText)")
    assert "server --port 80" in rows[1] and "uid 1000" in rows[1], rows
    assert len(rows) == 2 + len(HOSTILE) and all("uid 0" in row for row in rows[2:]), rows
    depth = b.js("[...document.querySelectorAll('#tree .program')].map(x => "
                 "parseInt(x.style.paddingLeft))")
    assert depth[0] < depth[1] < depth[2] == depth[-1], depth


def filters(b):
    def shown():
        return b.js("page.list.items.length")

    def search(words):
        b.js(f"""(() => {{ const s = document.getElementById('search'); s.value = {json.dumps(words)};
             s.dispatchEvent(new Event('input')); }})()""")

    b.js("document.getElementById('tab-list').click()")
    everything = shown()
    search("203.0.113.7:443")
    until(lambda: shown() == len(HOSTILE), "the records that were searched")
    search("no such word")
    until(lambda: shown() == 0, "a search without a result")
    assert "Nothing matches" in b.js("document.getElementById('list').innerText")
    b.js("document.getElementById('reset').click()")
    assert shown() == everything
    b.js("document.querySelector('.kind.k-denied').click()")
    assert shown() == 1
    b.js("document.getElementById('reset').click(); document.querySelector('.tile').click()")
    assert shown() == 1 and b.js("page.list.items[0].name") == "guest.agent_silenced"
    # The first half of the axis: what came after the silence is not there. The chart is drawn anew
    # with the page's first frame, which may come late and would end the drag.
    b.js("document.getElementById('reset').click()")
    b.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    box = b.js("(r => [r.left, r.top, r.width])(document.querySelector('#chart svg')"
               ".getBoundingClientRect())")
    drag = [("mousePressed", 190), ("mouseMoved", 300), ("mouseReleased", box[2] / 2)]
    for kind, x in drag:
        b.call("Input.dispatchMouseEvent", type=kind, x=box[0] + x, y=box[1] + 20, button="left",
               clickCount=1)
    assert 0 < shown() < everything and "of" in b.js("document.getElementById('count').innerText")
    b.js("document.getElementById('reset').click()")


def paper_and_dark(b):
    light = b.js("getComputedStyle(document.body).backgroundColor")
    b.media(prefers_color_scheme="dark")
    assert b.js("getComputedStyle(document.body).backgroundColor") != light
    b.media(prefers_color_scheme="light")
    assert b.pdf().startswith(b"%PDF")
    b.media(type="print")
    b.js("fillPrint()")
    paper = b.js("document.getElementById('print').innerText")
    assert paper.count("capability.denied") == 1 and "server --port 80" in paper, paper
    b.js("document.body.style.width = '700px'")
    assert b.js("[...document.querySelectorAll('#print .records tr')].every(row => {"
                "const time = document.createRange(); time.selectNodeContents(row.cells[1]);"
                "return time.getClientRects().length <= 1 && "
                "time.getBoundingClientRect().width < row.cells[1].clientWidth; })"), "a time fits"
    b.js("document.body.style.width = ''")
    assert b.js("document.getElementById('list').offsetParent") is None
    b.media(type="")


def very_many_records():
    with tempfile.TemporaryDirectory(prefix="cellos-report-") as tmp, browser.Browser() as b:
        with open(f"{tmp}/many.jsonl", "w", encoding="utf-8") as f:
            for n in range(1, MANY + 1):
                f.write(MANY_LINE % (n, n, n, n, n % 60000 / 1000))
        got = subprocess.run([RECEIVER, "report", f"{tmp}/many.jsonl", "-o", f"{tmp}/page.html"],
                             capture_output=True, text=True)
        assert got.returncode == 3 and f"{MANY} records" in got.stdout, got
        b.open(f"{tmp}/page.html")
        assert b.js("page.list.items.length") == MANY
        for at in (0, 0.5, 1):
            b.js(f"""(async l => {{ l.scrollTop = l.scrollHeight * {at};
                 await new Promise(requestAnimationFrame); }})(document.getElementById('list'))""")
            # Only what can be seen is in the document: that is what keeps it fluent.
            assert 20 < b.js("document.querySelectorAll('.row').length") < 100
        assert f"{MANY} sh" in b.js("document.getElementById('list').innerText"), "the last record"
        b.js("page.filter.search = '99999 sh'; applyFilter()")
        assert b.js("page.list.items.length") == 1
        detail = b.js("showRecord(page.list.items[0]), document.getElementById('detail').innerText")
        assert "outside of any log" in detail and "Not everything here verifies" in detail, detail


if __name__ == "__main__":
    tests, skipped = own_tests(), (a_browser_shows_it, very_many_records)
    why = None if browser.program() else f"no browser ({' or '.join(browser.NAMES)})"
    if os.environ.get("CELLOS_SANITIZE", "none") != "none":
        skipped += (more_records_than_a_page_holds,)
        why = "a sanitizer does not change what a browser shows, and is slow with very many records"
    if why:
        print(f"skipped: {why}: {', '.join(t.__name__ for t in skipped)}", flush=True)
        tests = [t for t in tests if t not in skipped]
    main(tests)
