"""The member's end of a segment's program that has more to do than to answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from federation_member.middleware.containers.nodes import client
from federation_member.middleware.containers.nodes.host import CONTROL


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[socket.socket]:
    """A program whose queue is full."""
    with ExitStack() as stack:
        program = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        program.bind(str(tmp_path / CONTROL))
        program.listen(0)
        while True:
            caller = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            caller.setblocking(False)
            try:
                caller.connect(str(tmp_path / CONTROL))
            except BlockingIOError:
                break
        yield program


async def test_nobody_else_waits_for_a_program_that_is_busy(tmp_path: Path, busy: socket.socket) -> None:
    looking = asyncio.create_task(client.look(tmp_path))
    watch = client.Watch(tmp_path, lambda: None)
    assert watch.alive
    await asyncio.sleep(0.3)
    assert not looking.done()
    asked: set[bytes] = set()
    busy.settimeout(60)
    while len(asked) < 2:
        connection, _ = await asyncio.to_thread(busy.accept)
        with connection:
            connection.settimeout(5)
            try:
                asked.add(await asyncio.to_thread(connection.recv, 100))
            except TimeoutError:  # one of those who fill the queue
                continue
            connection.sendall(b'{"nodes": {}}\n')
    assert asked == {b'{"do": "look"}\n', b'{"do": "watch"}\n'}
    assert await looking == {}
    watch.close()


async def test_a_watch_that_is_closed_dials_no_more(tmp_path: Path, busy: socket.socket) -> None:
    client.Watch(tmp_path, lambda: None).close()
    assert not client.Watch(tmp_path / "..", lambda: None).alive
