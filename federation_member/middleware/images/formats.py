"""What a file is: a disk that a machine can boot from, or what it is instead, by its first octets.

The format is decided here once and told to whoever opens the file (`format=` of QEMU, `disk_format` of Glance), so nobody needs
to guess it again: guessing is how a raw disk becomes a qcow2 file with somebody else's file behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn

from federation_member.middleware.contract import UnusableImage
from federation_member.middleware.images import qcow2

WANTED = qcow2.WANTED  # octets from the start of the file that decide
SECTOR = 512
BOOT_SIGNATURE = (510, b"\x55\xaa")  # of a master boot record, also where there is a GPT
UNPACK = "unpack it first"
CONVERT = "convert it with `qemu-img convert -O qcow2`"

KNOWN: list[tuple[int, bytes, str]] = [
    (0, b"\x1f\x8b", f"compressed with gzip; {UNPACK}"),
    (0, b"\xfd7zXZ\x00", f"compressed with xz; {UNPACK}"),
    (0, b"BZh", f"compressed with bzip2; {UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"compressed with zstd; {UNPACK}"),
    (0, b"\x04\x22\x4d\x18", f"compressed with lz4; {UNPACK}"),
    (0, b"PK\x03\x04", f"a zip archive; {UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"a 7-Zip archive; {UNPACK}"),
    (257, b"ustar", f"a tar archive (an OVA is one, too); {UNPACK}"),
    (0, b"KDMV", f"a VMDK file; {CONVERT}"),
    (0, b"COWD", f"a VMDK file; {CONVERT}"),
    (0, b"# Disk DescriptorFile", f"a VMDK descriptor; {CONVERT}"),
    (64, b"\x7f\x10\xda\xbe", f"a VDI file; {CONVERT}"),
    (0, b"conectix", f"a VHD file; {CONVERT}"),
    (0, b"vhdxfile", f"a VHDX file; {CONVERT}"),
    (0, b"QED\x00", f"a QED file; {CONVERT}"),
    (0, b"LUKS\xba\xbe", "an encrypted (LUKS) disk"),
    (0, b"\x7fELF", "a program (ELF)"),
    (0, b"hsqs", "a bare squashfs file system without a boot sector"),
    (514, b"HdrS", "a Linux kernel; a whole disk is needed"),
    (0, b"%PDF-", "a PDF document"),
]
WITHOUT_BOOT_SECTOR: list[tuple[int, bytes, str]] = [
    (32769, b"CD001", "an ISO 9660 image that no disk boots from; a disk image is needed"),
    (1080, b"\x53\xef", "a bare ext file system without a boot sector"),
]


@dataclass(frozen=True)
class Disk:
    """A file that can be booted from; `virtual_size` is the disk's in octets."""

    format: Literal["qcow2", "raw"]
    virtual_size: int


def inspect(head: bytes, size: int | None, limit: int) -> Disk | None:
    """Say what disk a file holds, from its first 64 KiB and its size; raise `UnusableImage` that says what it is instead.

    Without `size`, the file is still on its way: None then means that only the whole will tell. The disk has `limit` octets at most.
    """
    if size == 0:
        _refuse("an empty file")
    if head.startswith(qcow2.MAGIC):
        return _bounded(Disk("qcow2", qcow2.virtual_size(head, size)), limit)
    _look_for(KNOWN, head)
    if not _holds(head, *BOOT_SIGNATURE):
        _look_for(WITHOUT_BOOT_SECTOR, head)
        _refuse(_text(head) or "neither a qcow2 file nor a raw disk with a boot sector")
    return None if size is None else _bounded(Disk("raw", -(-size // SECTOR) * SECTOR), limit)


def _bounded(disk: Disk, limit: int) -> Disk:
    if disk.virtual_size > limit:
        raise UnusableImage(f"The image's disk has {disk.virtual_size} octets; at most {limit} are taken here.")
    return disk


def _look_for(table: list[tuple[int, bytes, str]], head: bytes) -> None:
    for offset, magic, what in table:
        if _holds(head, offset, magic):
            _refuse(what)


def _holds(head: bytes, offset: int, magic: bytes) -> bool:
    return head[offset : offset + len(magic)] == magic


def _text(head: bytes) -> str:
    """What kind of text this is; empty if it is none."""
    start = head[:SECTOR].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"<":
        return "an HTML page" if b"<html" in start.lower() or b"<!doctype html" in start.lower() else "an XML text"
    printable = all(octet >= 0x20 or octet in b"\t\n\r\f" for octet in head[:SECTOR])
    return "a text" if printable else ""


def _refuse(what: str) -> NoReturn:
    raise UnusableImage(f"What the URL leads to is not an image: it is {what}.")
