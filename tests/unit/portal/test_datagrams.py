"""Datagrams: nobody else's, none twice; bursts put together; and what can be had of one with holes."""

from __future__ import annotations

import random
import struct
from contextlib import suppress

from hypothesis import assume, given
from hypothesis import strategies as st

from fedkit.portal.errors import Violation
from fedkit.portal.frames import GSO_TCP4, GSO_TCP6, NEEDS_CHECKSUM, NO_OFFLOAD, RECORD, VNET, is_sound, join
from fedkit.portal.planes.bursts import MOST_OPEN, Bursts
from fedkit.portal.planes.salvage import records, tcp_parts
from fedkit.portal.planes.sealing import KEY, OVERHEAD, SALT, WINDOW, Opened, Opener, Sealer, Secret

SECRET = Secret(3, bytes(range(KEY)), bytes(SALT))
OTHER = Secret(3, bytes(KEY), bytes(SALT))


def sealed(sealer: Sealer, plain: bytes, index: int = 0, count: int = 1) -> bytes:
    out = memoryview(bytearray(OVERHEAD + len(plain)))
    assert sealer.seal_into(out, 0, index, count, plain) == len(out)
    return bytes(out)


@given(st.binary(max_size=1500))
def test_what_is_sealed_opens_once(plain: bytes) -> None:
    opener, datagram = Opener(SECRET), sealed(Sealer(SECRET, 0), plain)
    assert opener.open(memoryview(datagram)) == Opened(0, 0, 1, 0, plain)
    assert opener.open(memoryview(datagram)) is None
    assert Opener(OTHER).open(memoryview(datagram)) is None


@given(st.integers(0), st.integers(1, 255))
def test_a_changed_octet_spoils_it(where: int, change: int) -> None:
    datagram = bytearray(sealed(Sealer(SECRET, 0), b"frame"))
    datagram[where % len(datagram)] ^= change
    assert Opener(SECRET).open(memoryview(datagram)) is None


@given(st.binary(min_size=12, max_size=64))
def test_a_strangers_octets(data: bytes) -> None:
    assert Opener(SECRET).open(memoryview(data)) is None


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=60))
def test_none_is_taken_twice_and_the_recent_ones_once(order: list[int]) -> None:
    sealer, opener = Sealer(SECRET, 0), Opener(SECRET)
    taken: set[int] = set()
    for number in order:
        sealer.counter = number
        opened = opener.open(memoryview(sealed(sealer, b"")))
        fresh = number not in taken and number > max(taken, default=-1) - WINDOW
        assert (opened is not None) == fresh
        if opened is not None:
            taken.add(opened.counter)


def test_keys_are_renewed() -> None:
    sealer = Sealer(SECRET, 0)
    assert not sealer.is_old(3599)
    assert sealer.is_old(3601)
    sealer.counter = 2**32
    assert sealer.is_old(1)


# Bursts.

frames = st.lists(
    st.binary(min_size=1, max_size=400).map(lambda frame: (7, NO_OFFLOAD + frame)), min_size=1, max_size=12
)


def cut(data: bytes, size: int, begin: int) -> list[Opened]:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return [Opened(0, index, len(pieces), begin + index, piece) for index, piece in enumerate(pieces)]


def passed(bursts: Bursts, pieces: list[Opened]) -> list[tuple[int, bytes]]:
    return [(tag, bytes(record)) for piece in pieces for found in bursts.add(piece) for tag, record in found]


@given(frames, st.integers(10, 300), st.randoms(use_true_random=False))
def test_a_burst_arrives_in_whatever_order(said: list[tuple[int, bytes]], size: int, chance: random.Random) -> None:
    pieces = cut(join(said), size, 1000)
    assume(len(pieces) < 256)
    chance.shuffle(pieces)
    assert passed(Bursts(), pieces) == said


@given(frames, st.integers(10, 300), st.sets(st.integers(0, 200), min_size=1))
def test_what_a_hole_does_not_touch_arrives(said: list[tuple[int, bytes]], size: int, holes: set[int]) -> None:
    data = join(said)
    pieces = [
        None if index in holes else data[start : start + size] for index, start in enumerate(range(0, len(data), size))
    ]
    if pieces[-1] is None and len(pieces) > 1 and pieces[0] is None:
        return
    found = [(tag, bytes(record)) for tag, record in records(pieces, size)]
    assert all(record in said for record in found)
    start = reached = 0
    for tag, record in said:  # up to the first record whose length is lost, each that is whole
        end = start + RECORD.size + len(record)
        if any(index in holes for index in range(start // size, (start + RECORD.size - 1) // size + 1)):
            break
        if not any(index in holes for index in range(start // size, (end - 1) // size + 1)):
            assert (tag, record) in found
            reached += 1
        start = end
    assert len(found) == reached


def test_bursts_that_wait_are_few_and_given_up() -> None:
    bursts, said = Bursts(), [(7, NO_OFFLOAD + bytes(300))]
    for number in range(MOST_OPEN * 3):
        assert passed(bursts, cut(join(said), 100, number * 10)[1:]) == []
    assert bursts.waiting
    assert bursts.tick() == []
    assert len(bursts.tick()) == MOST_OPEN
    assert not bursts.waiting
    assert bursts.lost == MOST_OPEN * 3
    assert passed(bursts, cut(join(said), 100, 0)[:1]) == []


# Super-frames with holes.


def ones(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


def super_frame(ip6: bool, payload: bytes, segment: int, flags: int = 0x18, tagged: bool = False) -> bytes:
    """As a tap hands it out: TCP without options, the pseudo-header summed."""
    tag = bytes.fromhex("81000005") if tagged else b""
    ethernet = bytes(12) + tag + (b"\x86\xdd" if ip6 else b"\x08\x00")
    size = 20 + len(payload)
    if ip6:
        addresses = bytes(range(32))
        ip = struct.pack(">IHBB", 6 << 28, size, 6, 64) + addresses
    else:
        addresses = bytes(range(8))
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size, 65535, 0x4000, 64, 6, 0) + addresses
        ip = ip[:10] + struct.pack(">H", ~ones(ip) & 0xFFFF) + ip[12:]
    pseudo = ones(addresses + struct.pack(">II", size, 6))
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 2**32 - 1000, 5, 0x50, flags, 100, pseudo, 0)
    start = len(ethernet) + len(ip)
    kind = GSO_TCP6 if ip6 else GSO_TCP4
    return VNET.pack(NEEDS_CHECKSUM, kind, start + 20, segment, start, 16) + ethernet + ip + tcp + payload


def segments(record: bytes, ip6: bool) -> list[bytes]:
    """Cut a super-frame as the kernel does where it leaves: each with sums of its own."""
    _, gso, _, segment, start, offset = VNET.unpack_from(record)
    frame = record[VNET.size :]
    head, payload = frame[: start + 20], frame[start + 20 :]
    step = segment if gso else max(len(payload), 1)
    out = []
    for index, begin in enumerate(range(0, len(payload), step)):
        piece, one = payload[begin : begin + step], bytearray(head)
        ip = start - (40 if ip6 else 20)
        if ip6:
            struct.pack_into(">H", one, ip + 4, 20 + len(piece))
            addresses = bytes(one[ip + 8 : ip + 40])
        else:
            struct.pack_into(">H", one, ip + 2, 40 + len(piece))
            struct.pack_into(">H", one, ip + 4, (struct.unpack_from(">H", one, ip + 4)[0] + index) & 0xFFFF)
            one[ip + 10 : ip + 12] = b"\0\0"
            struct.pack_into(">H", one, ip + 10, ~ones(bytes(one[ip:start])) & 0xFFFF)
            addresses = bytes(one[ip + 12 : ip + 20])
        struct.pack_into(">I", one, start + 4, (struct.unpack_from(">I", one, start + 4)[0] + begin) & 0xFFFFFFFF)
        if begin + step < len(payload):
            one[start + 13] &= ~0x09 & 0xFF
        if begin:
            one[start + 13] &= ~0x80 & 0xFF
        pseudo = struct.pack(">H", ones(addresses + struct.pack(">II", 20 + len(piece), 6)))
        assert gso or bytes(one[start + offset : start + offset + 2]) == pseudo, "the kernel goes on from this sum"
        one[start + offset : start + offset + 2] = pseudo
        out.append(bytes(one) + piece)
    return out


@given(
    st.booleans(), st.booleans(), st.binary(min_size=1, max_size=3000), st.integers(48, 1460), st.sampled_from([0x18, 0x99]),
    st.sets(st.integers(0, 60)),
)  # fmt: skip
def test_of_a_super_frame_all_but_the_touched_segments_arrive(
    ip6: bool, tagged: bool, payload: bytes, segment: int, flags: int, lost: set[int]
) -> None:
    record = super_frame(ip6, payload, segment, flags, tagged)
    octets = {octet for hole in lost for octet in range(hole * 100, hole * 100 + 100)}
    parts = list(tcp_parts(record, lambda a, b: octets.isdisjoint(range(a, b))))
    assert all(is_sound(memoryview(part)) for part in parts)
    head = len(record) - len(payload)
    expected = [
        one
        for number, one in enumerate(segments(record, ip6))
        if octets.isdisjoint(range(head + number * segment, min(head + (number + 1) * segment, len(record))))
    ]
    if not octets.isdisjoint(range(head)):
        expected = []
    assert [one for part in parts for one in segments(part, ip6)] == expected


@given(st.binary(min_size=VNET.size, max_size=200))
def test_any_record_with_holes_is_survived(record: bytes) -> None:
    list(tcp_parts(record, lambda a, b: b < 150))


@given(st.lists(st.binary(min_size=1, max_size=120), min_size=1, max_size=6), st.data())
def test_a_burst_of_nonsense_with_holes_is_survived(said: list[bytes], data: st.DataObject) -> None:
    head = VNET.pack(NEEDS_CHECKSUM, GSO_TCP4, 0, 10, 34, data.draw(st.integers(0, 0xFFFF)))
    whole = join([(3, record) for record in (*said, head + bytes(data.draw(st.integers(34, 200))) + b"\x50" * 60)])
    size = data.draw(st.integers(1, 60))
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    lost = data.draw(st.sets(st.integers(0, len(pieces) - 1)))
    with suppress(Violation):
        list(records([None if index in lost else piece for index, piece in enumerate(pieces)], size))
