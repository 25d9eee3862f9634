"""Makes a raw disk boot under a BIOS: GRUB in the gap before the first partition, written without mounting anything.

GRUB's installer wants a block device and does two things that are known beforehand: it says where the second stage is (right
behind the first, as both stages expect of themselves) and where the configuration is (first partition, /boot/grub). So the
stages are simply written, and a partition table of one entry. Source: GRUB manual, "Images" and "BIOS installation".
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from deploy.image.packages import ImageError, fetch

ROOTS = ("grub-common", "grub-pc-bin")
SECTOR = 512
FIRST_PARTITION = 1 << 20  # octets
LINUX = 0x83
MODULES = ("biosdisk", "part_msdos", "ext2", "normal", "linux", "configfile", "serial", "terminal", "test", "echo")


def write(raw: Path, packages: list[str], scratch: Path) -> None:
    """Write boot sector, second stage and partition table; the disk's first partition is its only one."""
    first, second = _stages(packages, scratch)
    if SECTOR + len(second) > FIRST_PARTITION:
        raise ImageError(f"GRUB's second stage has {len(second)} octets, too many for the gap before the partition.")
    sectors = raw.stat().st_size // SECTOR
    start = FIRST_PARTITION // SECTOR
    # status, first and last as cylinder/head/sector (no longer used), type, first sector, number of sectors
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", LINUX, b"\xfe\xff\xff", start, sectors - start)
    with raw.open("r+b") as disk:
        disk.write(first[:440] + b"FED0\0\0" + entry + bytes(48) + b"\x55\xaa")
        disk.write(second)


def _stages(packages: list[str], scratch: Path) -> tuple[bytes, bytes]:
    """The two stages, made by the very GRUB that was fetched, with its own libraries."""
    (debs := scratch / "grub-debs").mkdir()
    grub = scratch / "grub"
    for deb in fetch(packages, debs):
        subprocess.run(["dpkg-deb", "-x", str(deb), str(grub)], check=True, capture_output=True)
    stages = grub / "usr/lib/grub/i386-pc"
    libraries = ":".join(str(grub / path) for path in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
    loader = [str(grub / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"), "--library-path", libraries]
    command = ["-O", "i386-pc", "-d", str(stages), "-p", "(hd0,msdos1)/boot/grub", "-o", str(scratch / "core.img")]
    done = subprocess.run(
        [*loader, str(grub / "usr/bin/grub-mkimage"), *command, *MODULES], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ImageError(f"grub-mkimage failed: {done.stderr.strip()[-500:]}")
    return (stages / "boot.img").read_bytes(), (scratch / "core.img").read_bytes()
