"""Records: frames on their way between portals, with the crossing that each belongs to.

    4 octets length | 2 octets tag | 10 octets virtio-net header | Ethernet frame
             of what follows the tag

The kernel hands out TCP and UDP in super-frames of up to 64 KiB, cut and summed only where they leave for a real wire, and the
header says how (virtio 1.2 §5.1.6, little endian everywhere). The far kernel is told the same header, so a peer could make it
cut one frame into ten thousand: what a header may say is bounded here (`is_sound`), before a tap sees it.

Tag `CONTROL` belongs to no crossing: its records are messages between the portals (`messages.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fedkit.portal.errors import Violation

VNET = struct.Struct("<BBHHHH")  # flags, gso type, header length, gso size, checksum start, checksum offset
NO_OFFLOAD = bytes(VNET.size)
RECORD = struct.Struct(">IH")
ETHERNET, VLAN_TAG = 14, 4
LARGEST_FRAME = ETHERNET + 2 * VLAN_TAG + 65536
LARGEST = VNET.size + LARGEST_FRAME  # octets of a record behind its tag
CONTROL = 0xFFFF

NEEDS_CHECKSUM, CHECKSUM_VALID = 1, 2
GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP, ECN = 0, 1, 4, 5, 0x80
LEAST_SEGMENT = 48  # octets: what Linux takes for the least a TCP may ask for (TCP_MIN_SND_MSS)
MTU = 1500


def is_sound(record: memoryview) -> bool:
    """Whether a record's header may be told to the kernel: nothing outside the frame, no flood out of one frame."""
    size = len(record) - VNET.size
    if size < ETHERNET:
        return False
    flags, gso, _, segment, start, offset = VNET.unpack_from(record)
    if flags & ~(NEEDS_CHECKSUM | CHECKSUM_VALID):
        return False
    if flags & NEEDS_CHECKSUM and start + offset + 2 > size:
        return False
    if gso == GSO_NONE:
        return size <= ETHERNET + 2 * VLAN_TAG + MTU
    return (
        gso & ~ECN in (GSO_TCP4, GSO_TCP6, GSO_UDP)
        and bool(flags & NEEDS_CHECKSUM)
        and LEAST_SEGMENT <= segment <= MTU
        and size <= LARGEST_FRAME
    )


def split(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Cut what came into (tag, record); raise `Violation` where it is no whole number of records."""
    start, end = 0, len(data)
    while start < end:
        if end - start < RECORD.size:
            raise Violation("A record without its header")
        size, tag = RECORD.unpack_from(data, start)
        start += RECORD.size
        if not 0 < size <= LARGEST or size > end - start:
            raise Violation(f"A record of {size} octets where {end - start} are left")
        yield tag, data[start : start + size]
        start += size


def join(records: list[tuple[int, bytes]]) -> bytes:
    """The other way round."""
    return b"".join(RECORD.pack(len(record), tag) + record for tag, record in records)
