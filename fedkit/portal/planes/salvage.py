"""What can be had of a burst of records some of whose pieces were lost.

A lost datagram of 1.4 KiB must not cost the 64 KiB around it, or a line that loses one in a thousand would look to the TCP
inside like one that loses one in twenty. Records that are whole are whole; of a TCP super-frame with a hole, the segments before
and behind are made into smaller super-frames, as the sender's kernel would have cut it (RFC 793, RFC 791, RFC 8200).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from fedkit.portal.errors import Violation
from fedkit.portal.frames import (
    ECN,
    ETHERNET,
    GSO_NONE,
    GSO_TCP4,
    GSO_TCP6,
    LARGEST,
    NEEDS_CHECKSUM,
    RECORD,
    VLAN_TAG,
    VNET,
)

IP4_HEADER, IP6_HEADER, TCP_HEADER = 20, 40, 20
TAGGED = (0x8100, 0x88A8)
FIN, PSH, CWR = 0x01, 0x08, 0x80
TCP = 6

Whole = Callable[[int, int], bool]
"""Whether nothing is lost of the octets from the first up to the second."""


def records(pieces: Sequence[bytes | None], size: int) -> Iterator[tuple[int, memoryview]]:
    """Cut a burst, of pieces of `size` octets (the last may be shorter), into what can be had of its records.

    Raises `Violation`.
    """
    lost = {index for index, piece in enumerate(pieces) if piece is None}
    data = memoryview(b"".join(piece if piece is not None else bytes(size) for piece in pieces))

    def whole(start: int, end: int) -> bool:
        return lost.isdisjoint(range(start // size, (max(end, start + 1) - 1) // size + 1))

    start = 0
    while start + RECORD.size <= len(data) and whole(start, start + RECORD.size):
        length, tag = RECORD.unpack_from(data, start)
        start += RECORD.size
        end = start + length
        if not 0 < length <= LARGEST:
            return
        if end <= len(data) and whole(start, end):
            yield tag, data[start:end]
        elif end <= len(pieces) * size and whole(start, start + VNET.size):
            record = data[start:end].tobytes().ljust(length, b"\0")
            try:
                parts = list(tcp_parts(record, _behind(whole, start)))
            except struct.error as error:
                raise Violation("A super-frame whose headers lead out of it") from error
            yield from ((tag, memoryview(part)) for part in parts)
        start = end


def _behind(whole: Whole, start: int) -> Whole:
    return lambda first, last: whole(start + first, start + last)


def tcp_parts(record: bytes, whole: Whole) -> Iterator[bytes]:
    """Make of a TCP super-frame with holes the super-frames of its whole segments; nothing of any other frame."""
    flags, gso, _, segment, start, _ = VNET.unpack_from(record)
    if gso & ~ECN not in (GSO_TCP4, GSO_TCP6) or not flags & NEEDS_CHECKSUM or not segment:
        return
    base = VNET.size
    tcp = base + start
    if tcp + TCP_HEADER > len(record) or not whole(0, tcp + TCP_HEADER):
        return
    ip = base + ETHERNET
    while ip + 4 < tcp and struct.unpack_from(">H", record, ip - 2)[0] in TAGGED:
        ip += VLAN_TAG
    payload = tcp + (record[tcp + 12] >> 4) * 4
    least = IP4_HEADER if gso & ~ECN == GSO_TCP4 else IP6_HEADER
    if tcp - ip < least or payload < tcp + TCP_HEADER or not whole(0, min(payload, len(record))):
        return
    for first, last in _runs(len(record) - payload, segment, lambda a, b: whole(payload + a, payload + b)):
        yield _part(record, ip, tcp, payload, segment, first, last)


def _runs(size: int, segment: int, whole: Whole) -> Iterator[tuple[int, int]]:
    """Where whole segments stand side by side: (first octet, octet behind the last)."""
    begin: int | None = None
    for start in range(0, size, segment):
        if whole(start, min(start + segment, size)):
            begin = start if begin is None else begin
        elif begin is not None:
            yield begin, start
            begin = None
    if begin is not None:
        yield begin, size


def _part(record: bytes, ip: int, tcp: int, payload: int, segment: int, first: int, last: int) -> bytes:
    head = bytearray(record[:payload])
    size = last - first
    flags, gso, length, _, start, offset = VNET.unpack_from(head)
    single = size <= segment
    VNET.pack_into(
        head, 0, flags, GSO_NONE if single else gso, 0 if single else length, 0 if single else segment, start, offset
    )
    if gso & ~ECN == GSO_TCP4:
        _set_ip4(head, ip, tcp, payload - ip + size, first // segment)
        addresses = bytes(head[ip + 12 : ip + 20])
    else:
        struct.pack_into(">H", head, ip + 4, payload - ip - IP6_HEADER + size)
        addresses = bytes(head[ip + 8 : ip + 40])
    sequence = struct.unpack_from(">I", head, tcp + 4)[0]
    struct.pack_into(">I", head, tcp + 4, (sequence + first) & 0xFFFFFFFF)
    if payload + last < len(record):
        head[tcp + 13] &= ~(FIN | PSH) & 0xFF
    if first:
        head[tcp + 13] &= ~CWR & 0xFF
    # CHECKSUM_PARTIAL: the field holds the sum of the pseudo-header, and the kernel adds the rest (virtio 1.2 §5.1.6.2).
    pseudo = addresses + struct.pack(">II", payload - tcp + size, TCP)
    struct.pack_into(">H", head, tcp + offset, _sum(pseudo))
    return bytes(head) + record[payload + first : payload + last]


def _set_ip4(head: bytearray, ip: int, tcp: int, total: int, later: int) -> None:
    identification = struct.unpack_from(">H", head, ip + 4)[0]
    struct.pack_into(">HH", head, ip + 2, total, (identification + later) & 0xFFFF)
    head[ip + 10 : ip + 12] = b"\0\0"
    struct.pack_into(">H", head, ip + 10, ~_sum(bytes(head[ip:tcp])) & 0xFFFF)


def _sum(data: bytes) -> int:
    """The ones' complement sum (RFC 1071)."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
