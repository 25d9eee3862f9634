"""Records on the wire, what a peer may tell the kernel, and what waits to be sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.portal.errors import Violation
from fedkit.portal.frames import (
    ETHERNET,
    GSO_TCP4,
    GSO_UDP,
    LARGEST,
    MTU,
    NEEDS_CHECKSUM,
    NO_OFFLOAD,
    RECORD,
    VNET,
    is_sound,
    join,
    split,
)
from fedkit.portal.outbox import LEAST, MOST, PACKET, Outbox

records = st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(min_size=1, max_size=200)), max_size=20)


@given(records)
def test_what_is_joined_is_split(said: list[tuple[int, bytes]]) -> None:
    assert [(tag, bytes(record)) for tag, record in split(memoryview(join(said)))] == said


@given(st.binary(max_size=300))
def test_octets_of_a_stranger_are_records_or_a_violation(data: bytes) -> None:
    try:
        found = [(tag, bytes(record)) for tag, record in split(memoryview(data))]
    except Violation:
        return
    assert join(found) == data


@pytest.mark.parametrize("size", [0, LARGEST + 1, 0xFFFFFFFF])
def test_lengths_out_of_bounds(size: int) -> None:
    with pytest.raises(Violation):
        list(split(memoryview(RECORD.pack(size, 3) + bytes(100))))


def record(size: int, *header: int) -> memoryview:
    return memoryview((VNET.pack(*header) if header else NO_OFFLOAD) + bytes(size))


def test_plain_frames_fit_a_wire() -> None:
    assert is_sound(record(ETHERNET + MTU))
    assert is_sound(record(ETHERNET + 8 + MTU))  # with two tags
    assert not is_sound(record(ETHERNET + 8 + MTU + 1))
    assert not is_sound(record(ETHERNET - 1))
    assert not is_sound(memoryview(b"\0" * 5))


def test_super_frames_stay_within_reason() -> None:
    assert is_sound(record(60_000, NEEDS_CHECKSUM, GSO_TCP4, 66, 1448, 34, 16))
    assert is_sound(record(60_000, NEEDS_CHECKSUM, GSO_UDP, 42, 1400, 34, 6))
    assert not is_sound(record(60_000, NEEDS_CHECKSUM, GSO_TCP4, 66, 1, 34, 16))  # sixty thousand frames out of one
    assert not is_sound(record(60_000, 0, GSO_TCP4, 66, 1448, 34, 16))
    assert not is_sound(record(60_000, NEEDS_CHECKSUM, GSO_TCP4, 66, 1448, 60_000, 16))  # a sum behind the end
    assert not is_sound(record(60_000, NEEDS_CHECKSUM, 3, 66, 1448, 34, 6))  # UFO, which kernels have unlearnt
    assert not is_sound(record(60_000, 0xF0, GSO_TCP4, 66, 1448, 34, 16))


@given(st.binary(max_size=100))
def test_any_header_gets_an_answer(data: bytes) -> None:
    assert is_sound(memoryview(data)) in (True, False)


def fill(outbox: Outbox, size: int) -> int:
    """Commit records of this size until there is no room; return how many."""
    count = 0
    while (room := outbox.room()) is not None:
        room[:size] = bytes([count % 256]) * size
        outbox.commit(7, size)
        count += 1
    return count


def empty(outbox: Outbox) -> list[bytes]:
    found = []
    while (packet := outbox.next()) is not None:
        found += [bytes(record) for _, record in split(packet.records)]
        outbox.done(packet)
    return found


@given(st.integers(1, LARGEST))
def test_an_outbox_is_short_keeps_its_order_and_drops_at_its_tail(size: int) -> None:
    size = max(size, 2000)
    outbox = Outbox()
    count = fill(outbox, size)
    assert LEAST - PACKET <= outbox.size <= LEAST + PACKET
    found = empty(outbox)
    assert found == [bytes([number % 256]) * size for number in range(count)]
    assert outbox.size == 0
    assert outbox.room() is not None


def test_what_may_wait_follows_what_the_line_takes() -> None:
    fast = Outbox()
    for turn in range(100):
        fill(fast, 60_000)
        empty(fast)
        fast.drained(turn * 0.0011)
    assert LEAST < fill(fast, 60_000) * 60_000 <= MOST + PACKET
    for turn in range(100):
        fill(fast, 60_000)
        empty(fast)
        fast.drained(1 + turn * 0.2)
    assert fill(fast, 60_000) * 60_000 <= LEAST + PACKET
