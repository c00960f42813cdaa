# SPDX-License-Identifier: MIT
"""Boots an image that somebody built: an archive whose /init is PID 1. Nothing of the harness runs
in it but what loads the modules that this kernel has not built in."""

import shutil

from initramfs import BUSYBOX, Initramfs
from vm import MODULES, VSOCK_MODULES, Receiver, Vm, find


class _Before(Initramfs):
    """An archive in front of another: the kernel unpacks one after the other."""

    def __init__(self, image):
        super().__init__()
        self.image = image

    def write(self, path):
        super().write(path)
        with open(self.image, "rb") as image, open(path, "ab") as out:
            shutil.copyfileobj(image, out)


class ImageVm(Vm):
    def __init__(self, image, receiver, **more):
        self.image = image
        super().__init__("", receiver, agent=False, append="rdinit=/vm/boot", transport="device",
                         **more)

    def _initramfs(self, *_):
        fs = _Before(self.image)
        fs.directory("dev")
        fs.character_device("dev/console", 5, 1)
        fs.copy(BUSYBOX, "/vm/busybox", 0o755)
        order = self.kernel.load_order([*MODULES, VSOCK_MODULES["device"]])
        boot = ["#!/vm/busybox sh"]
        for path in order:
            name = f"/vm/{self.kernel.name(path)}.ko"
            fs.file(name, self.kernel.read_module(path))
            boot.append(f"/vm/busybox insmod {name}")
        fs.file("/vm/boot", "\n".join([*boot, "exec /init\n"]), 0o755)
        return fs


def boot(image, memory_mib=256):
    """The image's workload has run, and its evidence is on the host. Returns the seconds."""
    with Receiver() as receiver:
        ran = ImageVm(image, receiver, memory_mib=memory_mib).run()
        events = receiver.finish()
    assert "hello from the workload" in ran.console, ran.console[-4000:]
    assert find(events, "telemetry.hello"), ran.console[-4000:]
    executed = [e["data"]["detail"] for e in find(events, "process.executed")]
    # Its shell can have ended before the agent read what it was called with.
    assert any("hello from the workload" in detail.get("args", "hello from the workload")
               for detail in executed), executed
    assert len(find(events, "telemetry.bye")) == 1
    return ran.seconds
