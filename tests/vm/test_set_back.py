# SPDX-License-Identifier: MIT
"""A machine that is set back to a saved state, twice: the receiver knows more of its agent than the
agent does. Each time a new session begins, and what is observed from then on is in the log once."""

import tempfile

from runner import main, until
from states import States
from vm import Receiver, Vm, find, sessions_of

# A connection of before ends with the setting back, also that of `vm await`.
SCRIPT = """
mkdir /tmp/watched
cellos-telemetry --heartbeat 300 --process off --net off --capability off \\
    --fs inotify --inotify /tmp/watched || exit 10
agent=$(cat /run/cellos-telemetry/agent.pid)
vm idle $agent
if vm await saved; then
    : > /tmp/watched/forgotten
    vm await nothing
    exit 11
fi
(vm await one && : > /tmp/watched/one && vm await nothing) &
vm await two || exit 12
: > /tmp/watched/two
vm idle $agent
kill $agent
while [ -d /proc/$agent ]; do sleep 0.05; done
"""


def each_time_a_session_of_its_own_begins():
    with tempfile.TemporaryDirectory(prefix="cellos-states-") as folder, \
            Receiver("--keepalive", "0", signed=True) as receiver:
        states = States(folder)
        with Vm(SCRIPT, receiver=receiver, transport="loopback", qemu_args=states.args) as vm:
            vm.wait_awaiting("saved")
            states.save(vm)
            vm.tell("saved")
            receiver.wait_event("fs.inotify_fired", name="forgotten")
            for n, name in enumerate(("one", "two"), 2):
                vm.told.clear()
                states.set_back(vm)
                until(lambda n=n: len(sessions_of(receiver.events())) == n, f"session {n}")
                vm.tell(name)
                receiver.wait_event("fs.inotify_fired", name=name)
            vm.wait().check()
        events = receiver.finish()
        verdict = receiver.verify()
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert len(sessions_of(events)) == 3
    for name in ("forgotten", "one", "two"):
        created = [e for e in find(events, "fs.inotify_fired", name=name)
                   if "create" in e["data"]["detail"]["event"]]
        assert len(created) == 1, (name, created)
    gaps = find(events, "guest.v1.telemetry_gap")
    assert gaps and {e["data"]["reason"] for e in gaps} == {"host_ahead"}, gaps


if __name__ == "__main__":
    main()
