"""The program that delays links, with pairs of sockets for its taps."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from federation_member.middleware.containers.nodes import wire
from fedkit.portal.line import APIECE

SIZE, FITS = 1000, 16  # octets of a frame, and how many of them are to fit
DELAYS = {"to": 0.2, "back": 0.0}


def pair() -> tuple[socket.socket, socket.socket]:
    """One to hold, and one to hand over; messages stay whole."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


@pytest.fixture
async def hand() -> AsyncIterator[socket.socket]:
    """Where interfaces are handed over."""
    ours, theirs = pair()
    with theirs:
        carrying = asyncio.create_task(wire.carry(theirs))
        with ours:
            yield ours
        await carrying


def give(hand: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Hand an interface over; returns the node's end, and the bridge's."""
    (inside, one), (outside, other) = pair(), pair()
    with one, other:
        socket.send_fds(hand, [json.dumps(DELAYS).encode()], [one.fileno(), other.fileno()])
    return inside, outside


async def passes(inside: socket.socket, outside: socket.socket, frames: int) -> int:
    """How many frames of a burst come out."""
    loop = asyncio.get_running_loop()
    for number in range(frames):
        inside.send(number.to_bytes(2).ljust(SIZE))
    found = [int.from_bytes((await loop.sock_recv(outside, 2 * SIZE))[:2])]
    inside.send(frames.to_bytes(2).ljust(SIZE))  # after them, when there is room again
    while found[-1] != frames:
        found.append(int.from_bytes((await loop.sock_recv(outside, 2 * SIZE))[:2]))
    return len(found) - 1


async def delete(inside: socket.socket, outside: socket.socket) -> None:
    """Have an interface go as taps do, with an error: so does a socket that is closed while something waits in it."""
    arrived = asyncio.Event()
    asyncio.get_running_loop().add_reader(outside, arrived.set)
    inside.send(bytes(SIZE))
    await arrived.wait()
    asyncio.get_running_loop().remove_reader(outside)
    outside.close()
    with suppress(ConnectionResetError):
        while await asyncio.get_running_loop().sock_recv(inside, 1):
            pass
    inside.close()


async def test_the_more_interfaces_there_are_the_less_waits_in_each(
    hand: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "ALL", 2 * FITS * (SIZE + APIECE))
    monkeypatch.setattr(wire, "LEAST", 0)
    first = give(hand)
    assert await passes(*first, 2 * FITS) == FITS
    second = give(hand)
    await passes(*second, 1)  # it is there
    assert await passes(*first, 2 * FITS) == FITS // 2
    await delete(*second)
    assert await passes(*first, 2 * FITS) == FITS
    await delete(*first)
