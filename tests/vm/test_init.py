# SPDX-License-Identifier: MIT
"""The example of an init for image builders: agent, workload under the profile, exit code to the
host's port 9000, goodbye."""

import os
import socket
import threading

from runner import PATIENCE, main
from vm import Receiver, Vm, built, find, guest_program

SCRIPT = """
guest-init sh -c 'mount -t tmpfs none /mnt; echo pid $$; exit 42'
vm say first $?
guest-init sh -c 'kill -KILL $$'
vm say second $?
rm /bin/cellos-telemetry
guest-init touch /tmp/ran
vm say third $?
[ ! -e /tmp/ran ]
"""


def exit_codes_reach_the_host():
    codes = []
    with Receiver() as receiver, \
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"{receiver.base}_9000")
        listener.listen(4)

        def accept():
            for _ in range(3):
                with listener.accept()[0] as s, s.makefile("rb") as f:
                    codes.append(f.read())

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        program = os.path.join(built("CELLOS_VM_PROGRAMS"), "vm-guest-init")
        result = Vm(SCRIPT, receiver=receiver, ports=(9000, 9001), programs=[
            (program, "/bin/guest-init"),
            guest_program("seccomp/cellos-workload-exec")]).run().check()
        thread.join(PATIENCE)
        events = receiver.finish()
    assert codes == [n.to_bytes(4, "little") for n in (42, 137, 124)], result.output
    assert [result.mark(m) for m in ("first", "second", "third")] == ["42", "137", "124"]
    assert len(find(events, "telemetry.bye")) == 2
    assert find(events, "capability.denied", syscall="mount", via="profile")


if __name__ == "__main__":
    main()
