"""The header of a qcow2 image (QEMU, docs/interop/qcow2.txt), as far as it decides whether the image is harmless.

A qcow2 file can name other files: a backing file or an external data file, and whoever opens it then reads `/etc/shadow` of
the hypervisor into the guest's disk. It can be encrypted, corrupt, or describe a disk of exabytes. None of these is taken.
What is not known is refused, as the format demands of incompatible features.
"""

from __future__ import annotations

import struct
from typing import NoReturn

from federation_member.middleware.contract import UnusableImage

MAGIC = b"QFI\xfb"
HEADER = struct.Struct(">4sIQIIQIIQQIIQ")  # of version 2; version 3 adds what follows
ADDED = struct.Struct(">QQQII")
CLUSTER_BITS = range(9, 22)  # 512 octets to 2 MiB
MAX_REFCOUNT_ORDER = 6
MAX_L1_SIZE = 32 << 20  # octets, QEMU's own bound
MAX_REFCOUNT_TABLE = 8 << 20  # octets, QEMU's own bound
MAX_SNAPSHOTS = 65536
DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = (1 << bit for bit in range(5))
END, BACKING_FORMAT, ENCRYPTION, DATA_FILE = 0, 0xE2792ACA, 0x0537BE77, 0x44415441
REFUSED_EXTENSIONS = {BACKING_FORMAT: "a backing file", ENCRYPTION: "encryption", DATA_FILE: "an external data file"}
MAX_EXTENSIONS = 64
WANTED = 64 * 1024  # octets from the start that `virtual_size` needs


def virtual_size(head: bytes, size: int | None = None) -> int:
    """Return the octets of the disk that a qcow2 file describes; raise `UnusableImage` if it is not one to boot.

    `head` is the first 64 KiB of the file, or all of it; with `size`, the file's own, tables must lie inside it.
    """
    if len(head) < HEADER.size:
        _refuse("its header is cut off")
    _, version, backing, _, bits, disk, crypt, l1, l1_at, refcounts_at, refcounts, snapshots, _ = HEADER.unpack_from(
        head
    )
    if version not in (2, 3):
        _refuse(f"its version is {version}, and only 2 and 3 are taken")
    if backing:
        _refuse("it needs a backing file; flatten it with `qemu-img convert`")
    if crypt:
        _refuse("it is encrypted")
    if bits not in CLUSTER_BITS:
        _refuse(f"its clusters are of 2^{bits} octets")
    if disk == 0:
        _refuse("its disk is empty")
    cluster, wide = 1 << bits, False
    extensions = HEADER.size
    if version == 3:
        wide, extensions = _check_added(head, cluster)
    if extensions < cluster:
        _check_extensions(head[: min(cluster, WANTED)], extensions)
    _check_l1(disk, l1, cluster, 16 if wide else 8)
    if not 0 < refcounts * cluster <= MAX_REFCOUNT_TABLE or snapshots > MAX_SNAPSHOTS:
        _refuse("its tables are too large")
    for offset, length in ((l1_at, l1 * 8), (refcounts_at, refcounts * cluster)):
        if offset % cluster or offset < cluster or (size is not None and offset + length > size):
            _refuse("its tables lie outside of it")
    return int(disk)


def _check_added(head: bytes, cluster: int) -> tuple[bool, int]:
    """Check what version 3 adds; return whether L2 entries are extended, and where header extensions begin."""
    if len(head) < HEADER.size + ADDED.size:
        _refuse("its header is cut off")
    incompatible, _, _, refcount_order, length = ADDED.unpack_from(head, HEADER.size)
    if incompatible & EXTERNAL_DATA:
        _refuse("it needs an external data file")
    if incompatible & (CORRUPT | DIRTY):
        _refuse("it is marked as corrupt or was not closed; repair it with `qemu-img check -r all`")
    if incompatible & ~(COMPRESSION_TYPE | EXTENDED_L2):
        _refuse(f"it needs features that are not known here ({incompatible:#x})")
    if refcount_order > MAX_REFCOUNT_ORDER:
        _refuse("its reference counts are too wide")
    if length < HEADER.size + ADDED.size or length % 8 or length > cluster:
        _refuse(f"its header says that it has {length} octets")
    return bool(incompatible & EXTENDED_L2), length


def _check_extensions(head: bytes, offset: int) -> None:
    for _ in range(MAX_EXTENSIONS):
        if offset + 8 > len(head):
            return  # the list may fill the first cluster to its end
        kind, length = struct.unpack_from(">II", head, offset)
        if kind == END:
            return
        if kind in REFUSED_EXTENSIONS:
            _refuse(f"it uses {REFUSED_EXTENSIONS[kind]}")
        offset += 8 + (length + 7) // 8 * 8
    _refuse("its header has too many extensions")


def _check_l1(disk: int, entries: int, cluster: int, l2_entry: int) -> None:
    """The first table must cover the disk: each entry leads to one cluster of second-level entries."""
    covered = entries * (cluster // l2_entry) * cluster
    if entries * 8 > MAX_L1_SIZE or covered < disk:
        _refuse("its first-level table does not fit its disk")


def _refuse(why: str) -> NoReturn:
    raise UnusableImage(f"The image is a qcow2 file that cannot be used: {why}.")
