"""Lines that are late and lossy: order, lateness, bounds, and of which frames how many."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkit.portal.counts import Counts
from fedkit.portal.frames import LARGEST, NEEDS_CHECKSUM, NO_OFFLOAD, VNET, is_sound
from fedkit.portal.line import ALL, APIECE, LEAST, MOST, Line, LineShape, Outgoing, share
from fedkit.portal.loops import ETHERTYPE, FRAME, GROUP, ID, MAGIC
from fedkit.portal.planes.contract import PlaneName, Traffic
from tests.support.virtual_time import run
from tests.unit.portal.test_datagrams import segments, super_frame

Gaps = st.lists(st.integers(0, 40), min_size=1, max_size=60)  # ms between frames
LONG = 100.0  # seconds
THE_SAME = random.Random(1).random  # one that every run has


@dataclass
class End:
    """The far end of a line: what came, and when."""

    counts: Counts = field(default_factory=Counts)
    came: list[tuple[float, bytes]] = field(default_factory=list)

    def line(self, delay: float, loss: float, chance: Callable[[], float] = THE_SAME) -> Line:
        """One that ends here."""
        return Line(asyncio.get_running_loop(), LineShape(delay, loss), self.counts, self._take, chance)

    def _take(self, records: Sequence[bytes]) -> None:
        self.came += [(asyncio.get_running_loop().time(), record) for record in records]


def record(number: int, size: int = 60) -> bytes:
    """A frame that is known by its number."""
    return NO_OFFLOAD + number.to_bytes(4, "big").ljust(size, b"\0")


@given(Gaps, st.integers(0, 100), st.sampled_from([0.0, 0.3]), st.integers())
def test_what_is_not_lost_comes_in_order_and_never_early(gaps: list[int], delay: int, loss: float, seed: int) -> None:
    end, went = End(), []

    async def scenario() -> None:
        line, buffer = end.line(delay / 1000, loss, random.Random(seed).random), bytearray(100)
        for number, gap in enumerate(gaps):
            await asyncio.sleep(gap / 1000)
            frame = record(number)
            buffer[: len(frame)] = frame
            went.append((asyncio.get_running_loop().time(), frame))
            line.take(memoryview(buffer)[: len(frame)])
            buffer[:] = bytes(100)  # the place is somebody else's at once
        await asyncio.sleep(LONG)

    run(scenario())
    came = [frame for _, frame in end.came]
    assert came == [frame for _, frame in went if frame in set(came)]
    assert len(came) + end.counts.lost == len(went)
    assert loss or not end.counts.lost
    left = {frame: moment for moment, frame in went}
    for moment, frame in end.came:
        due = left[frame] + delay / 1000
        assert due <= moment < due + 1e-6, "in a time without other work, to the point"


@pytest.mark.parametrize("loss", [0.01, 0.2, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_the_part_that_was_asked_for_is_lost(loss: float, seed: int) -> None:
    end, count = End(), 10_000

    async def scenario() -> None:
        line = end.line(0, loss, random.Random(seed).random)
        for number in range(count):
            line.take(memoryview(record(number)))
        await asyncio.sleep(1)

    run(scenario())
    deviation = (count * loss * (1 - loss)) ** 0.5
    assert abs(end.counts.lost - count * loss) < 5 * deviation
    assert end.counts.lost + len(end.came) == count


@pytest.mark.parametrize(("loss", "expected"), [(0.0, 100), (1.0, 0)])
def test_none_or_all(loss: float, expected: int) -> None:
    end = End()

    async def scenario() -> None:
        line = end.line(0.01, loss)
        for number in range(100):
            line.take(memoryview(record(number)))
        await asyncio.sleep(1)

    run(scenario())
    assert (len(end.came), end.counts.lost) == (expected, 100 - expected)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([60, 1514, 60_000]))
def test_what_waits_is_bounded_and_the_first_stay(size: int) -> None:
    end, frame = End(), record(0, size)
    count = MOST // (len(frame) + APIECE)

    async def scenario() -> None:
        line = end.line(1.0, 0)
        for _ in range(count + 50):
            line.take(memoryview(frame))
        assert end.counts.dropped == 50
        await asyncio.sleep(0.9)
        assert not end.came
        await asyncio.sleep(0.2)
        assert len(end.came) == count
        line.take(memoryview(frame))  # there is room again
        await asyncio.sleep(2)

    run(scenario())
    assert (len(end.came), end.counts.dropped) == (count + 1, 50)


def test_all_lines_of_a_portal_share_what_there_is() -> None:
    rooms = [share(count) for count in (0, 1, 4, 10, 8190)]
    assert rooms[:3] == [MOST] * 3
    assert 10 * rooms[3] <= ALL
    assert rooms == sorted(rooms, reverse=True)
    assert rooms[4] == LEAST


def test_what_is_dropped_in_the_end_comes_never() -> None:
    end = End()

    async def scenario() -> None:
        line = end.line(0.01, 0)
        line.take(memoryview(record(1)))
        line.clear()
        await asyncio.sleep(1)
        line.take(memoryview(record(2)))
        await asyncio.sleep(1)

    run(scenario())
    assert [frame for _, frame in end.came] == [record(2)]
    assert end.counts.dropped == 1


@given(
    st.booleans(), st.booleans(), st.binary(min_size=1, max_size=4000), st.integers(48, 1460), st.floats(0.01, 1),
    st.integers(),
)  # fmt: skip
def test_of_a_super_frame_segments_are_lost_one_by_one(
    ip6: bool, tagged: bool, payload: bytes, segment: int, loss: float, seed: int
) -> None:
    whole, end = super_frame(ip6, payload, segment, 0x18, tagged), End()

    async def scenario() -> None:
        end.line(0, loss, random.Random(seed).random).take(memoryview(whole))
        await asyncio.sleep(1)

    run(scenario())
    assert all(is_sound(memoryview(part)) for _, part in end.came)
    expected, came = segments(whole, ip6), [one for _, part in end.came for one in segments(part, ip6)]
    assert len(came) + end.counts.lost == len(expected)
    assert came == [one for one in expected if one in set(came)]
    assert end.counts.refused == 0


@given(st.binary(max_size=120), st.integers(0, 0xFF), st.integers(0, 0xFFFF))
def test_any_frame_of_a_stranger_is_survived(data: bytes, gso: int, start: int) -> None:
    end, nonsense = End(), VNET.pack(NEEDS_CHECKSUM, gso, 0, 100, start, 16) + data

    async def scenario() -> None:
        end.line(0, 0.5).take(memoryview(nonsense))
        await asyncio.sleep(1)

    run(scenario())
    assert end.came or end.counts.lost or end.counts.refused


class Wire:
    """A plane that keeps what it is given."""

    name = PlaneName.SUPERFRAMES

    def __init__(self, superframes: bool = True, rooms: int = 1000) -> None:
        self.superframes = superframes
        self.traffic = Traffic()
        self.sent: list[bytes] = []
        self._rooms, self._free = rooms, rooms
        self._buffer = memoryview(bytearray(LARGEST if superframes else 1600))

    def room(self) -> memoryview | None:
        return self._buffer if self._free else None

    def commit(self, tag: int, size: int) -> None:
        self._free -= 1
        self.sent.append(bytes(self._buffer[:size]))

    def flush(self) -> None:
        self._free = self._rooms


def put(outgoing: Outgoing, *records: bytes) -> None:
    for one in records:
        room = outgoing.room()
        assert room is not None
        room[: len(one)] = one
        outgoing.commit(3, len(one))
    outgoing.flush()


def test_beacons_overtake() -> None:
    beacon = NO_OFFLOAD + (GROUP + bytes(6) + ETHERTYPE + MAGIC + bytes(ID)).ljust(FRAME, b"\0")
    wire = Wire()

    async def scenario() -> None:
        outgoing = Outgoing(asyncio.get_running_loop(), 3, LineShape(1.0, 0), Counts(), lambda: 0.0)
        assert outgoing.use(wire) is outgoing
        put(outgoing, record(1), beacon)
        assert wire.sent == [beacon]
        await asyncio.sleep(2)

    run(scenario())
    assert wire.sent == [beacon, record(1)]


def test_nothing_waits_for_a_plane_to_come_back() -> None:
    one, other, counts = Wire(), Wire(), Counts()

    async def scenario() -> None:
        outgoing = Outgoing(asyncio.get_running_loop(), 3, LineShape(1.0, 0), counts, lambda: 0.0)
        outgoing.use(one)
        put(outgoing, record(1))
        assert outgoing.use(None) is None
        outgoing.use(other)
        put(outgoing, record(2))
        outgoing.use(one)  # a better way to the same end
        await asyncio.sleep(2)

    run(scenario())
    assert (one.sent, other.sent, counts.dropped) == ([record(2)], [], 1)


def test_a_plane_that_is_full_is_flushed_and_takes_the_rest() -> None:
    wire, counts = Wire(rooms=2), Counts()

    async def scenario() -> None:
        outgoing = Outgoing(asyncio.get_running_loop(), 3, LineShape(1.0, 0), counts, lambda: 0.0)
        outgoing.use(wire)
        put(outgoing, *(record(number) for number in range(7)))
        await asyncio.sleep(2)

    run(scenario())
    assert (len(wire.sent), counts.dropped) == (7, 0)


def test_what_a_plane_cannot_take_is_not_offered() -> None:
    wide, narrow, counts = Wire(), Wire(superframes=False), Counts()

    async def scenario() -> None:
        outgoing = Outgoing(asyncio.get_running_loop(), 3, LineShape(1.0, 0), counts, lambda: 0.0)
        outgoing.use(wide)
        put(outgoing, record(1, 60_000))
        outgoing.use(narrow)
        put(outgoing, record(2))
        await asyncio.sleep(2)

    run(scenario())
    assert (wide.sent, narrow.sent, counts.dropped) == ([], [record(2)], 1)
