# SPDX-License-Identifier: MIT
"""Every command of guides, as it is written and in order, in a clean Debian that has only what the
guides install: test_guides.py GUIDE.md... The images that the commands made are booted."""

import glob
import os
import sys

import guide


def boot_images(folder):
    images = sorted(glob.glob(f"{folder}/rootfs*.cpio.gz"))
    if not images:
        return
    sys.path.append(os.path.join(os.environ["CELLOS_SOURCE"], "tests", "vm"))
    import image
    from runner import Skip
    for path in images:
        name = os.path.basename(path)
        try:
            # A whole Debian is larger than an image with busybox.
            seconds = image.boot(path, memory_mib=256 if name == "rootfs.cpio.gz" else 1536)
            print(f"ok {name} boots and ends ({seconds:.0f} s)", flush=True)
        except Skip as e:
            print(f"{name} is not booted: {e}", flush=True)


if __name__ == "__main__":
    guide.test(sys.argv[1:], boot_images)
