# SPDX-License-Identifier: MIT
"""Which program it was: exe is the truth or is not told, with the reason; what else a process does
that the connector shows; an exit is an exit, also of a process that the table had no room for; and
an excluded pid is excluded with its process, not for ever."""

import collections
import unittest

from vm import Receiver, Vm, find, main, test_program

COUNT = 40
SLEEPERS = 4300

SCRIPT = f"""
end() {{
    kill -TERM $1
    while [ -d /proc/$1 ]; do sleep 0.05; done
}}
sleep 1000 & excluded=$!
cellos-telemetry --heartbeat 500 --exclude-pid $excluded || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say agent $agent
vm idle $agent
execs all {COUNT} > /tmp/all || vm say failed $?
vm put /tmp/all all
# The reader of arguments hangs: it is killed, another takes its place.
reader() {{
    for stat in /proc/[0-9]*/stat; do
        read pid comm state ppid rest < $stat 2> /tmp/null && [ "$ppid" = $agent ] &&
            [ $state != Z ] && echo $pid
    done
}}
hung=$(reader)
kill -STOP $hung
/bin/sleep 1000 first & first=$!
new=$hung
while [ -z "$new" ] || [ "$new" = $hung ]; do
    sleep 0.05
    new=$(reader)
done
vm idle $agent
kill $first
wait $first
vm say readers $hung $new
/bin/sleep 1000 0 & second=$!
vm idle $second
vm idle $agent
kill $second
wait $second
vm say hung $first $second
for file in fd oom_score_adj status; do
    vm say $file $(ls /proc/$(reader)/$file; cat /proc/$(reader)/$file 2> /tmp/null)
done
vm say fds $(ls /proc/$(reader)/fd | wc -l)
kill $excluded
wait $excluded
# Its number goes round to another process.
echo $((excluded - 1)) > /proc/sys/kernel/ns_last_pid
/bin/sleep 0.1 & again=$!
wait $again
vm say again $excluded $again
vm idle $agent
end $agent

cellos-telemetry --heartbeat 500 --net off || exit 11
agent=$(cat /run/cellos-telemetry/agent.pid)
vm say full $(execs full {SLEEPERS})
vm idle $agent
end $agent
"""


class Exe(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Receiver("--keepalive", "0", "--rate", "1000000") as receiver:
            cls.result = Vm(SCRIPT, receiver=receiver, memory_mib=768,
                            programs=[test_program("execs")]
                            ).run(300).check()
            events = receiver.finish()
        cls.runs = []
        for event in events:
            if event["type"].endswith("agent_connected"):
                cls.runs.append([])
            if cls.runs:
                cls.runs[-1].append(event)
        cls.pids = collections.defaultdict(list)
        for line in cls.result.files["all"].decode().split("\n")[:-1]:
            what, pid, *_ = line.split()
            cls.pids[what].append(int(pid))

    def executed(self, pid):
        return [e["data"] for e in find(self.runs[0], "process.executed", guestPid=pid)]

    def test_chain(self):
        """evil executes true at once: never is true named for evil, nor the other way round."""
        self.assertNotIn("failed", self.result.marks)
        verdicts = collections.Counter()
        for pid in self.pids["chain"]:
            execs = self.executed(pid)
            self.assertEqual(len(execs), 2, execs)
            for data, exe in zip(execs, ("/tmp/evil", "/bin/busybox"), strict=True):
                detail = data["detail"]
                if detail["resolved"]:
                    self.assertEqual(detail["exe"], exe)
                    self.assertNotIn("why", detail)
                else:
                    self.assertEqual(detail["exe"], "")
                    self.assertIn(detail["why"], ("replaced", "gone", "unsure"))
                verdicts[exe, detail.get("why")] += 1
        print(dict(verdicts), flush=True)
        self.assertGreater(verdicts["/tmp/evil", "replaced"], 0)

    def test_connect_then_exec(self):
        named = 0
        for pid in self.pids["connexec"]:
            connects = find(self.runs[0], "net.connect_attempted", guestPid=pid)
            self.assertEqual(len(connects), 1)
            exe = connects[0]["data"]["detail"].get("exe")
            self.assertIn(exe, (None, "/tmp/evil"))
            named += exe is not None
        print(f"{named} of {COUNT} connects with their exe", flush=True)

    def test_traced(self):
        detail = self.executed(self.pids["traced"][0])[0]["detail"]
        self.assertEqual((detail["resolved"], detail["why"], detail["exe"]), (False, "traced", ""))

    def test_attached(self):
        line = [line.split() for line in self.result.files["all"].decode().split("\n")
                if line.startswith("attached")][0]
        found = find(self.runs[0], "process.traced", guestPid=int(line[1]))
        self.assertEqual([(e["data"]["detail"]["tracerPid"], e["data"]["detail"]["tracerComm"])
                          for e in found], [(int(line[2]), "execs")])

    def test_deep_path(self):
        detail = self.executed(self.pids["deep"][0])[0]["detail"]
        self.assertEqual((detail["resolved"], detail["why"], detail["exe"]),
                         (False, "too_long", ""))

    def test_details(self):
        data = self.executed(self.pids["identity"][0])[0]
        self.assertTrue(data["detail"]["resolved"], data)
        self.assertEqual({k: data["detail"][k] for k in ("exe", "uid", "euid", "cwd", "resolved")},
                         {"exe": "/tmp/evil", "uid": 0, "euid": 0, "cwd": "/", "resolved": True})
        changes = [e["data"]["detail"] for e in find(self.runs[0], "process.identity_changed",
                                                     guestPid=self.pids["identity"][0])]
        self.assertEqual([(c["kind"], c["real"], c["effective"], c["exe"]) for c in changes],
                         [("gid", 1001, 1002, "/tmp/evil"), ("uid", 1001, 1002, "/tmp/evil")])
        self.assertEqual(len(find(self.runs[0], "process.session_started",
                                  guestPid=self.pids["identity"][0])), 1)
        core = self.pids["core"][0]
        self.assertEqual(len(find(self.runs[0], "process.core_dumped", guestPid=core)), 1)
        exited = find(self.runs[0], "process.exited", guestPid=core)
        self.assertEqual([e["data"]["detail"]["signal"] for e in exited], [6])

    def test_arguments(self):
        detail = self.executed(self.pids["args"][0])[0]["detail"]
        self.assertEqual(detail["args"], "evil sleep 500 a b new?line  end")
        self.assertFalse(detail["argsCut"])
        detail = self.executed(self.pids["args_cut"][0])[0]["detail"]
        self.assertEqual(detail["args"], ("evil sleep 500 " + 2999 * "x")[:1024])
        self.assertTrue(detail["argsCut"])
        self.assertTrue(detail["resolved"])

    def test_reader_that_hangs(self):
        first, second = map(int, self.result.mark("hung").split())
        detail = self.executed(first)[-1]["detail"]
        self.assertNotIn("args", detail)
        self.assertTrue(detail["resolved"])
        self.assertEqual(self.executed(second)[-1]["detail"]["args"], "/bin/sleep 1000 0")
        hung, now = self.result.mark("readers").split()
        self.assertNotEqual(hung, now)
        # It has its end of the socket and nothing else, and may be killed for memory.
        self.assertEqual(self.result.mark("fds"), "1")
        self.assertTrue(self.result.mark("oom_score_adj").endswith(" 0"))
        self.assertRegex(self.result.mark("status"), r"CapPrm: 0000000000080000 ")
        self.assertRegex(self.result.mark("status"), r"Seccomp: 2 ")

    def test_excluded_pid_is_free_again(self):
        excluded, again = map(int, self.result.mark("again").split())
        self.assertEqual(again, excluded)
        lives = [e["data"]["probeSource"] for e in self.runs[0]
                 if e["data"].get("guestPid") == excluded]
        self.assertEqual(lives, ["process.spawned", "process.executed", "process.exited"])

    def test_full_table(self):
        """The end of a process without a place in the table is its last thread's."""
        pid = int(self.result.mark("full"))
        exited = [e["data"]["detail"] for e in find(self.runs[1], "process.exited", guestPid=pid)]
        self.assertEqual([d.get("exitCode") for d in exited], [42])
        # Who had no place is a loss.
        lost = sum(e["data"]["detail"]["kernelOverrun"]
                   for e in find(self.runs[1], "telemetry.dropped"))
        self.assertGreater(lost, 0)


if __name__ == "__main__":
    main()
