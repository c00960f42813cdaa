# SPDX-License-Identifier: MIT
"""The initramfs of a test VM: an archive in memory, the kernel's modules in the order in which
they load, programs with the shared libraries they need. Written uncompressed (cpio "newc"),
because unpacking is what an emulated processor does slowly."""

import gzip
import lzma
import os
import re
import stat
import subprocess

from runner import Skip

BUSYBOX = "/bin/busybox"


class Kernel:
    """A distribution kernel and its modules."""

    def __init__(self, image, modules):
        self.image = image
        self.modules = modules
        self.dependencies = {}
        self.paths = {}
        with open(os.path.join(modules, "modules.dep"), encoding="ascii") as f:
            for line in f:
                path, _, needs = line.partition(":")
                self.paths[self.name(path)] = path
                self.dependencies[path] = needs.split()
        with open(os.path.join(modules, "modules.builtin"), encoding="ascii") as f:
            self.builtin = {self.name(line.strip()) for line in f}

    @staticmethod
    def name(path):
        return re.sub(r"\.ko(\.\w+)?$", "", os.path.basename(path)).replace("-", "_")

    @classmethod
    def find(cls):
        """The oldest cloud kernel, which is the distribution's own, or the one whose image
        CELLOS_VM_KERNEL names."""
        named = os.environ.get("CELLOS_VM_KERNEL")
        if named:
            images = [named]
        else:
            images = [
                os.path.join("/boot", name)
                for name in os.listdir("/boot")
                if re.fullmatch(r"vmlinuz-.*-cloud-amd64", name)
            ]
            images.sort(key=lambda path: [int(n) for n in re.findall(r"\d+", path)])
        for image in images:
            version = os.path.basename(image).removeprefix("vmlinuz-")
            modules = os.path.join("/lib/modules", version)
            if os.path.exists(os.path.join(modules, "modules.dep")):
                return cls(image, modules)
        raise Skip("no kernel: install linux-image-cloud-amd64")

    def load_order(self, names):
        """Paths of the modules and of all they depend on, what is needed first."""
        order = []
        for name in names:
            name = name.replace("-", "_")
            if name in self.builtin:
                continue
            if name not in self.paths:
                raise Skip(f"kernel {self.image} has no module {name}")
            path = self.paths[name]
            # modules.dep names them so that the last is to be loaded first.
            for each in [*reversed(self.dependencies[path]), path]:
                if each not in order:
                    order.append(each)
        return order

    def read_module(self, path):
        with open(os.path.join(self.modules, path), "rb") as f:
            data = f.read()
        if path.endswith(".xz"):
            return lzma.decompress(data)
        if path.endswith(".gz"):
            return gzip.decompress(data)
        if not path.endswith(".ko"):
            raise Skip(f"module {path}: unknown compression")
        return data


class Initramfs:
    def __init__(self):
        self.entries = {}

    def _parents(self, path):
        parent = os.path.dirname(path)
        if parent and parent not in self.entries:
            self.directory(parent)

    def directory(self, path, mode=0o755):
        path = path.strip("/")
        self._parents(path)
        self.entries[path] = (stat.S_IFDIR | mode, b"", 0)

    def file(self, path, data, mode=0o644):
        path = path.strip("/")
        self._parents(path)
        if isinstance(data, str):
            data = data.encode()
        self.entries[path] = (stat.S_IFREG | mode, data, 0)

    def symlink(self, path, target):
        path = path.strip("/")
        self._parents(path)
        self.entries[path] = (stat.S_IFLNK | 0o777, target.encode(), 0)

    def character_device(self, path, major, minor):
        path = path.strip("/")
        self._parents(path)
        self.entries[path] = (stat.S_IFCHR | 0o600, b"", (major, minor))

    def copy(self, source, path=None, mode=None):
        with open(source, "rb") as f:
            data = f.read()
            if mode is None:
                mode = stat.S_IMODE(os.fstat(f.fileno()).st_mode)
        self.file(path or source, data, mode)

    def program(self, source, path=None):
        """An executable, and where it is dynamic its libraries and its loader."""
        self.copy(source, path or os.path.join("/bin", os.path.basename(source)), 0o755)
        ldd = subprocess.run(
            ["ldd", source], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        if "not found" in ldd.stdout:
            raise Skip(f"{source}: a shared library is missing:\n{ldd.stdout}")
        for library in re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", ldd.stdout, re.M):
            if library.strip("/") not in self.entries:
                self.copy(library, mode=0o755)

    def busybox(self):
        if not os.path.exists(BUSYBOX):
            raise Skip("no static busybox: install busybox-static")
        self.copy(BUSYBOX, "/bin/busybox", 0o755)
        applets = subprocess.run(
            [BUSYBOX, "--list"], capture_output=True, text=True, check=True
        ).stdout.split()
        for applet in applets:
            if applet != "busybox":
                self.symlink(f"/bin/{applet}", "busybox")

    def write(self, path):
        with open(path, "wb") as f:
            offset = 0
            entries = [*self.entries.items(), ("TRAILER!!!", (0, b"", 0))]
            for inode, (name, (mode, data, device)) in enumerate(entries, 1):
                major, minor = device or (0, 0)
                fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor,
                          len(name.encode()) + 1, 0]
                header = b"070701" + b"".join(b"%08x" % field for field in fields)
                for part in (header + name.encode() + b"\0", data):
                    f.write(part)
                    offset += len(part)
                    f.write(b"\0" * (-offset % 4))
                    offset += -offset % 4
