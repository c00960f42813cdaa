# SPDX-License-Identifier: MIT
"""What operators get for Prometheus and Grafana: the alert rules by promtool, and every query of
the rules and of the dashboard by a real prometheus that scraped the daemon."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from daemon import Daemon
from receiver import frame, hello, spawned
from runner import PATIENCE, free_port, main, until

PACKAGING = os.path.join(os.environ["CELLOS_SOURCE"], "packaging")
RULES = os.path.join(PACKAGING, "prometheus", "cellos-host-telemetry.rules.yml")
TESTS = os.path.join(PACKAGING, "prometheus", "cellos-host-telemetry.test.yml")
# What Grafana would put there.
VARIABLES = {"$instance": ".*", "$__rate_interval": "20s"}


def _promtool(*args):
    run = subprocess.run(["promtool", *args], capture_output=True, text=True, timeout=PATIENCE,
                         check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def the_rules_hold():
    _promtool("check", "rules", RULES)
    _promtool("test", "rules", TESTS)
    with open(RULES, encoding="utf-8") as rules, open(TESTS, encoding="utf-8") as tests:
        alerts, tested = re.findall(r"- alert: (\w+)", rules.read()), tests.read()
    assert len(alerts) > 10
    assert [a for a in alerts if f'alertname="{a}"' not in tested] == [], "each alert has a test"


class Prometheus:
    """Scrapes one target each second, with our rules."""

    def __init__(self, target):
        self.tmp = tempfile.TemporaryDirectory(prefix="cellos-prometheus-")
        self.url = f"http://127.0.0.1:{free_port()}"
        with open(f"{self.tmp.name}/conf.yml", "w", encoding="utf-8") as f:
            f.write("global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
                    f"rule_files: [{json.dumps(RULES)}]\n"
                    "scrape_configs: [{job_name: cellos, static_configs: "
                    f"[{{targets: [\"{target}\"]}}]}}]\n")
        self.log = open(f"{self.tmp.name}/log", "wb")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={self.tmp.name}/conf.yml",
             f"--storage.tsdb.path={self.tmp.name}/data",
             "--web.listen-address=" + self.url.removeprefix("http://")],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def ask(self, path, **params):
        """The data of an answer; None: it does not answer yet."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?" +
                                        urllib.parse.urlencode(params), timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as e:
            if e.code == 503:
                return None  # it listens, but has not read its storage yet
            raise AssertionError(f"{params}: {e.read().decode()}") from e
        except (urllib.error.URLError, ConnectionError):
            assert self.process.poll() is None, self.said()
            return None

    def query(self, expression):
        data = self.ask("query", query=expression)
        return data["result"] if data else []

    def said(self):
        with open(f"{self.tmp.name}/log", encoding="utf-8") as f:
            return f.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.tmp.cleanup()


def _dashboard_queries():
    for path in glob.glob(os.path.join(PACKAGING, "grafana", "*.json")):
        with open(path, encoding="utf-8") as f:
            dashboard = json.load(f)
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield panel["title"], target["expr"]


def every_query_has_a_result():
    port = free_port()
    with Daemon(start=False) as d:
        d.base_config = d.base_config.replace(f"listen = unix:{d.file('metrics')}",
                                              f"listen = 127.0.0.1:{port}")
        # A forwarder without a server: its metrics are there.
        d.configure("[nats]\nurl = nats://127.0.0.1:1\n")
        d.start()
        d.add("web-1")
        with d.connect("web-1") as sock, Prometheus(f"127.0.0.1:{port}") as p:
            sock.sendall(hello())
            seq = 0

            def every(queries):
                """Those without a result, while a guest goes on."""
                nonlocal seq
                seq += 1
                sock.sendall(spawned(seq) + frame("no.such"))
                return [q for q in queries if not p.query(q[1])]

            queries = []
            for title, expression in _dashboard_queries():
                for name, value in VARIABLES.items():
                    expression = expression.replace(name, value)
                queries.append((title, expression))
            assert len(queries) > 25
            missing = queries
            def asked():
                nonlocal missing
                missing = every(missing)
                return not missing
            until(asked, lambda: f"queries without a result: {missing}\n{p.said()}", 0.5)
            the_rules_ask_for_what_there_is(p)
        d.stop()


def the_rules_ask_for_what_there_is(p):
    names = set(p.ask("label/__name__/values"))
    with open(RULES, encoding="utf-8") as f:
        asked = set(re.findall(r"\bcellos_host_telemetry_\w+", f.read()))
    assert len(asked) > 10 and asked <= names, asked - names
    groups = p.ask("rules")["groups"]
    assert [r["lastError"] for g in groups for r in g["rules"] if r.get("lastError")] == []

    def alerts():
        return {a["labels"]["alertname"] for a in p.ask("alerts")["alerts"]}

    until(lambda: "CellosForwardingStopped" in alerts(), lambda: f"no server: {alerts()}", 0.2)
    # A daemon that does not answer within a second is down for that second.
    until(lambda: not alerts() & {"CellosReceiverDown", "CellosEvidenceAlarm",
                                  "CellosEvidenceUnsigned"}, alerts, 0.2)


if __name__ == "__main__":
    if not shutil.which("prometheus") or not shutil.which("promtool"):
        print("skipped: prometheus is not installed")
        sys.exit(77)
    sys.exit(main([the_rules_hold, every_query_has_a_result]))
