"""Two ends of the plane of datagrams, over real sockets of this machine; no root, no taps."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fedkit.portal.frames import LARGEST, NO_OFFLOAD
from fedkit.portal.planes.datagrams import Datagrams, udp_socket
from fedkit.portal.planes.sealing import KEY, SALT, Secret

HERE = "127.0.0.1"


@dataclass
class End:
    """One end, and what it was given."""

    sock: socket.socket
    got: list[tuple[int, bytes]] = field(default_factory=list)
    answers: int = 0
    plane: Datagrams = field(init=False)

    def start(self, peer: tuple[str, int] | None) -> None:
        """Read the socket."""
        loop = asyncio.get_running_loop()
        self.plane = Datagrams(loop, self.sock, peer, self._deliver, self._answered)

    def _deliver(self, tag: int, record: memoryview) -> None:
        self.got.append((tag, bytes(record)))

    def _answered(self) -> None:
        self.answers += 1

    def send(self, tag: int, record: bytes) -> None:
        """As a crossing does."""
        room = self.plane.room()
        assert room is not None
        room[: len(record)] = record
        self.plane.commit(tag, len(record))


def secret(epoch: int = 0) -> Secret:
    return Secret(epoch, os.urandom(KEY), os.urandom(SALT))


@asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[End, End]]:
    """The first knows where the second is, the second learns it; both have keys."""
    ends = End(udp_socket(HERE, 0)), End(udp_socket(HERE, 0))
    ends[0].start(ends[1].sock.getsockname())
    ends[1].start(None)
    for one, other in (ends, ends[::-1]):
        key = secret()
        one.plane.send_with(key)
        other.plane.receive_with(key)
    try:
        yield ends
    finally:
        for end in ends:
            end.plane.close()
            end.sock.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 30 s")


async def test_records_of_every_size_arrive_both_ways() -> None:
    async with two_ends() as (one, other):
        said = [(7, NO_OFFLOAD + bytes([size % 256]) * size) for size in (1, 60, 1400, 1500, 9000, LARGEST - 10)]
        for end, far in ((one, other), (other, one)):
            for tag, record in said:
                end.send(tag, record)
                end.plane.flush()
            await until(lambda far=far: len(far.got) == len(said))  # type: ignore[misc]
            assert sorted(far.got) == sorted(said)


async def test_probes_bring_it_to_life() -> None:
    async with two_ends() as (one, other):
        for _ in range(4):
            one.plane.probe()
            other.plane.probe()
            await asyncio.sleep(0.02)
        await until(lambda: one.plane.health.alive)
        assert one.answers
        assert one.plane.health.delay is not None


async def test_new_keys_and_the_ones_before() -> None:
    async with two_ends() as (one, other):
        for epoch in range(1, 5):
            key = secret(epoch)
            other.plane.receive_with(key)
            one.send(7, NO_OFFLOAD + b"with the old one")
            one.plane.flush()
            one.plane.send_with(key)
            one.send(7, NO_OFFLOAD + b"with the new one")
            one.plane.flush()
            await until(lambda epoch=epoch: len(other.got) == 2 * epoch)  # type: ignore[misc]
        assert other.plane.traffic.spoilt == 0


async def test_a_peer_that_moves_is_followed_and_a_stranger_is_not() -> None:
    async with two_ends() as (one, other):
        one.send(7, NO_OFFLOAD + b"here")
        one.plane.flush()
        await until(lambda: len(other.got) == 1)
        assert other.plane.peer == one.sock.getsockname()
        with udp_socket(HERE, 0) as stranger:
            stranger.sendto(os.urandom(200), other.sock.getsockname())
            stranger.sendto(b"", other.sock.getsockname())
            await until(lambda: other.plane.traffic.spoilt >= 1)
        assert other.plane.peer == one.sock.getsockname()
        moved = End(udp_socket(HERE, 0))
        moved.start(other.sock.getsockname())
        moved.plane._sealer = one.plane._sealer
        moved.send(7, NO_OFFLOAD + b"from elsewhere")
        moved.plane.flush()
        await until(lambda: len(other.got) == 2)
        assert other.plane.peer == moved.sock.getsockname()
        moved.plane.close()
        moved.sock.close()
