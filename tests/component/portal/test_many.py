"""Fifty crossings on one connection stay apart; services are forwarded where both ends agree; a rate is kept."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.component.portal.test_planes import FRAMES
from tests.component.portal.world import SIDES, World, eventually, hears, inside, lacks, raw_socket

pytestmark = pytest.mark.skipif(lacks() is not None, reason=str(lacks()))

MANY = tuple(range(1, 51))
NOT_HEARD = 0.5  # seconds


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """Two sites with as many crossings as the test says."""
    world = World(tmp_path, tags=getattr(request, "param", (3,)))
    try:
        world.build()
        world.keys()
        yield world
    finally:
        world.close()


@pytest.mark.parametrize("world", [MANY], indirect=True, ids=["50"])
def test_fifty_crossings(world: World) -> None:
    for side in SIDES:
        world.start(side, world.config(side))
    world.joined("superframes")
    for tag in MANY:
        eventually(partial(world.pings, "a", tag), f"a ping by crossing {tag}")
    frame = FRAMES["no-ip"]
    with (
        raw_socket(world.ns("host-a"), "eth7") as here,
        raw_socket(world.ns("host-b"), "eth7") as there,
        raw_socket(world.ns("host-b"), "eth8") as elsewhere,
    ):
        here.send(frame)
        assert hears(there, frame, 20)
        assert not hears(elsewhere, frame, NOT_HEARD)


def test_services_are_forwarded_where_both_ends_agree(world: World) -> None:
    """One that the connecting end wants, one that the waiting end wants, and one that is not permitted."""
    forwards = {"a": [(7001, 8001), (7003, 8003)], "b": [(7002, 8002)]}
    permits = {"a": ["127.0.0.1:8002"], "b": ["127.0.0.1:8001"]}
    for side in SIDES:
        path = world.config(side, permit=permits[side])
        tables = [
            f'[[forward]]\nlisten = "127.0.0.1:{here}"\nto = "127.0.0.1:{there}"' for here, there in forwards[side]
        ]
        path.write_text("\n".join([path.read_text(), *tables]))
        world.start(side, path)
    world.joined("superframes")
    for side, other, port in (("a", "b", 1), ("b", "a", 2)):
        with inside(world.ns(f"portal-{other}")):
            server = socket.create_server(("127.0.0.1", 8000 + port))
        with server, eventually(partial(connected, world, side, 7000 + port), "a service") as client:
            conn, _ = server.accept()
            with conn:
                client.sendall(b"question")
                assert conn.recv(100) == b"question"
    refused = connected(world, "a", 7003)
    assert refused is not None
    with refused:
        assert refused.recv(100) == b""


def connected(world: World, side: str, port: int) -> socket.socket | None:
    """A connection to a service there, if one listens."""
    try:
        with inside(world.ns(f"portal-{side}")):
            return socket.create_connection(("127.0.0.1", port), timeout=20)
    except ConnectionRefusedError:
        return None
