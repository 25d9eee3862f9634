"""Two whole members on one PostgreSQL: one of them has the link, both serve users and work; what one leaves the other takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from federation_member.orders import keeper
from federation_member.orders.model import OrderState, User
from federation_member.orders.service import OrderService
from federation_member.service import Member, open_member
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import LeaseRelease
from tests.component.member.conftest import PASSWORD, make_config
from tests.support.databases import MISSING, Postgres
from tests.support.fake_middleware import Cloud, FakeMiddleware
from tests.support.federation import machine
from tests.support.memory_network import MemoryLink, MemoryNetwork

ALICE = User("physics", "alice")
PATIENCE = 60.0  # seconds; only a hang reaches it


class SecondLink(MemoryLink):
    """A link to a server that lets in one component of a name: it comes up when the other is gone."""

    async def run(self) -> None:
        while self._address in self._network.links:  # noqa: ASYNC110 - the server tells nobody either
            await asyncio.sleep(0.05)
        await super().run()


class Process:
    """One process of the member: its own link, API and engine; the cloud is everybody's."""

    def __init__(
        self, folder: Path, host: str, url: str, network: MemoryNetwork, cloud: Cloud, link: type[MemoryLink]
    ) -> None:
        config = make_config(folder)
        store, api = config.store.model_copy(update={"url": url}), config.api.model_copy(update={"listen": f"{host}:0"})
        self._config = config.model_copy(update={"store": store, "api": api})
        self.network = network
        self._link = link(network, self._config.xmpp.address)
        self.middleware = FakeMiddleware(cloud)
        self.member: Member

    @property
    def orders(self) -> OrderService:
        return self.member.orders

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with open_member(self._config, self._link, self.middleware) as self.member:
            database = self.member.mesh._db
            run = database.run
            try:
                yield
            finally:
                database.run = run  # type: ignore[method-assign]

    def die(self) -> None:
        """Nothing that it began comes to an end: its cloud does not answer it any more, its transactions do not begin."""

        async def dead(_function: Any) -> Any:
            await asyncio.Event().wait()

        self.middleware.dead = True
        self.member.mesh._db.run = dead  # type: ignore[method-assign, assignment]
        self._link.set_up(False)
        del self.network.links[self._link.address]


@pytest.fixture
async def two(
    tmp_path: Path, postgres: Postgres | None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Process, Process, Cloud]]:
    """The first has the link."""
    if postgres is None:
        pytest.skip(MISSING)
    monkeypatch.setattr(keeper, "CLAIM", timedelta(seconds=2))  # nobody needs to wait for longer here
    shared = (postgres.url(), MemoryNetwork(), Cloud())
    one, two = Process(tmp_path, "127.0.0.1", *shared, MemoryLink), Process(tmp_path, "127.0.0.2", *shared, SecondLink)
    async with AsyncExitStack() as stack:
        for process in (one, two):
            await stack.enter_async_context(process.running())
        await one.member.accounts.add("alice", "physics", PASSWORD)
        yield one, two, shared[2]


async def until(true: Callable[[], Any]) -> None:
    """Wait until something has become true."""
    async with asyncio.timeout(PATIENCE):
        while not await true():  # noqa: ASYNC110 - what is waited for is another process's to signal
            await asyncio.sleep(0.02)


async def test_both_take_orders_and_hear_of_each_other_s(two: tuple[Process, Process, Cloud]) -> None:
    one, other, cloud = two
    news = asyncio.Event()
    stop = one.orders.on_event(news.set)
    ids = [(await process.orders.create(ALICE, machine(), None))[0].id for process in (one, other) for _ in range(3)]
    for order_id in ids:
        await until(lambda id_=order_id: is_in(one, id_, OrderState.FULFILLED))  # type: ignore[misc]
    assert len(cloud.instances) == len(cloud.made) == len(ids)
    news.clear()
    await other.orders.delete(ALICE, ids[0])
    async with asyncio.timeout(PATIENCE):
        await news.wait()
    stop()


async def test_what_a_killed_one_was_at_is_taken_over(two: tuple[Process, Process, Cloud]) -> None:
    one, other, cloud = two
    cloud.gate.clear()
    order = (await one.orders.create(ALICE, machine(), None))[0]
    await until(lambda: is_in(other, order.id, OrderState.PENDING))
    await asyncio.sleep(0.1)  # it is talking to its cloud now
    one.die()
    cloud.gate.set()
    await until(lambda: is_in(other, order.id, OrderState.FULFILLED))
    await until(lambda: connected(other))
    assert len(cloud.instances) == len(cloud.made) == 1


async def test_who_has_the_link_sends_what_the_other_writes(two: tuple[Process, Process, Cloud]) -> None:
    one, other, _cloud = two
    lender = Peer("b" * 40, "fm.site-b.test")
    body = LeaseRelease(lease_id=str(uuid4()))
    mesh = other.member.mesh
    assert not mesh.connected
    await mesh._db.run(lambda tx: mesh.enqueue(tx, lender, "lease.release", body))
    await until(lambda: has_sent(one, lender))


async def has_sent(process: Process, peer: Peer) -> bool:
    return any(packet.target == peer.address for packet in process.network.packets)


async def is_in(process: Process, order_id: str, state: OrderState) -> bool:
    return (await process.orders.get(ALICE, order_id)).state is state


async def connected(process: Process) -> bool:
    return process.member.mesh.connected
