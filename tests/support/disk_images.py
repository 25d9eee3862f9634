"""Small disk images, right or wrong in a chosen way."""

from __future__ import annotations

import struct
from typing import Any

from federation_member.middleware.images import qcow2

CLUSTER = 1 << 16


def raw_image(size: int) -> bytes:
    """A raw disk with a boot signature and nothing else."""
    return (bytes(510) + b"\x55\xaa" + bytes(size))[:size]


def qcow2_image(filling: bytes = b"", **change: Any) -> bytes:
    """An empty disk of 1 MiB as qcow2 version 3, with fields of its header changed, and `filling` behind it.

    Clusters: header, refcount table, one refcount block, first-level table; QEMU finds nothing wrong with it.
    """
    given: dict[str, Any] = {
        "version": 3,
        "backing": 0,
        "bits": 16,
        "size": 1 << 20,
        "crypt": 0,
        "l1": 1,
        "l1_at": 3 * CLUSTER,
        "refcounts_at": CLUSTER,
        "refcounts": 1,
        "snapshots": 0,
        "incompatible": 0,
        "refcount_order": 4,
        "length": 104,
        "extensions": b"",
    } | change
    header = qcow2.HEADER.pack(
        *(qcow2.MAGIC, given["version"], given["backing"], 0, given["bits"], given["size"], given["crypt"]),
        *(given["l1"], given["l1_at"], given["refcounts_at"], given["refcounts"], given["snapshots"], 0),
    )
    header += qcow2.ADDED.pack(given["incompatible"], 0, 0, given["refcount_order"], given["length"])
    clusters = [
        header + given["extensions"],
        struct.pack(">Q", 2 * CLUSTER),
        struct.pack(">4H", 1, 1, 1, 1),
        b"",
    ]
    return b"".join(cluster.ljust(CLUSTER, b"\x00") for cluster in clusters) + filling
