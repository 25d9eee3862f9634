"""Members in one process: real books, real mesh nodes on a network in memory, clouds in memory.

    async with Federation(tmp_path) as world:
        a, b = await world.add("a"), await world.add("b")
        order = (await a.orders.create(USER, machine(), None))[0]
        await a.until(order.id, OrderState.FULFILLED)

With `virtual=True` it runs on the loop of `tests/support/virtual_time.py`; `in_virtual_time` puts a test there.

`member.kill()` abandons everything of a member as `kill -9` would: nothing is finished or said; what was not committed
is gone. `member.start()` begins again on the same database and cloud.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, cast

from sqlalchemy import select

from federation_member.access import audit
from federation_member.access.controller import Controller
from federation_member.access.world import Policy, World
from federation_member.accounts import store as accounts
from federation_member.accounts.service import Accounts
from federation_member.credentials.identities import HomeIdentities
from federation_member.credentials.revoking import Revoking
from federation_member.credentials.service import Credentials
from federation_member.directory.revocations import Revocations
from federation_member.experiments.service import Experiments
from federation_member.middleware.contract import Middleware
from federation_member.orders import leases
from federation_member.orders.candidates import KnownMember
from federation_member.orders.leases import held
from federation_member.orders.model import NewOrder, Order, OrderState, User
from federation_member.orders.picker import RoundRobinPicker
from federation_member.orders.segments.remote import Ssh
from federation_member.orders.service import OrderService
from federation_member.orders.tables import orders
from fedkit.clock import Clock, now
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Peer
from fedkit.mesh.node import MeshNode
from fedkit.migrations import upgrade
from fedkit.policy.revocation import RevocationList
from fedkit.protocol.lending import (
    AttachmentSpec,
    ComputeSpec,
    NetworkSpec,
    Offer,
    PublicIpSpec,
    SnapshotSpec,
    VolumeSpec,
)
from fedkit.store import Database, Tx
from tests.support.fake_middleware import Cloud, FakeMiddleware
from tests.support.hands import FakeHands
from tests.support.memory_network import MemoryNetwork
from tests.support.policies import EVERYTHING
from tests.support.virtual_time import InlineDatabase
from tests.support.virtual_time import clock as virtual_clock
from tests.support.virtual_time import run as run_in_virtual_time

P = ParamSpec("P")

USER = User("project", "alice")
PATIENCE = 20.0  # seconds until a test that waits for something gives up


def machine(**changes: Any) -> NewOrder:
    """An order of one machine; `changes` go to the spec or to the order."""
    own = {name: changes.pop(name) for name in list(changes) if name in NewOrder.model_fields}
    return NewOrder(spec=ComputeSpec(**{"image": "debian"} | changes), **own)


def network(**changes: Any) -> NewOrder:
    """An order of one network."""
    return NewOrder(spec=NetworkSpec(cidr="10.8.0.0/24"), **changes)


def volume(size_gb: int = 10, **changes: Any) -> NewOrder:
    """An order of one volume."""
    return NewOrder(spec=VolumeSpec(size_gb=size_gb), **changes)


def attachment(machine: str, volume: str, **changes: Any) -> NewOrder:
    """An order to have one volume in one machine."""
    return NewOrder(spec=AttachmentSpec(machine=machine, volume=volume), **changes)


def public_ip(machine: str, **changes: Any) -> NewOrder:
    """An order of a public address for one machine."""
    return NewOrder(spec=PublicIpSpec(machine=machine), **changes)


def snapshot(machine: str, **changes: Any) -> NewOrder:
    """An order to keep the disk of one machine."""
    return NewOrder(spec=SnapshotSpec(machine=machine), **changes)


class TestClock:
    """The real (or the loop's virtual) time, moved forward by a test."""

    __test__ = False

    def __init__(self, base: Clock) -> None:
        self.base = base
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return self.base() + self.ahead


@dataclass(frozen=True)
class Entry:
    """A member as the directory of another sees it; a value, since pictures of the members keep it."""

    fedid: str
    name: str
    address: str
    offer: Offer
    alive: bool = True
    last_seen: datetime = field(default_factory=lambda: datetime.now(UTC))


class FakeDirectory:
    """What one member knows of the others: the federation's list, as far as the test lets it see."""

    def __init__(self, federation: Federation, name: str) -> None:
        self._federation = federation
        self._name = name
        self._callbacks: list[Callable[[], None]] = []

    def members(self) -> list[KnownMember]:
        return list(self._federation.entries.values())

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def set_offer(self, offer: Offer) -> None:
        entry = self._federation.entries[self._name]
        if entry.offer != offer:
            self._federation.entries[self._name] = replace(entry, offer=offer)
            self._federation.tell()

    def tell(self) -> None:
        for callback in self._callbacks:
            callback()


class Member:
    """One member, its database and its cloud."""

    def __init__(self, federation: Federation, name: str, url: str, cloud: Cloud, policy: str) -> None:
        self.federation = federation
        self.name = f"{name}.test"
        self.address = f"fm.{name}.test"
        self.key = PrivateKey.generate()
        self.url = url
        self.cloud = cloud
        self.policy = policy
        self.tunnel_server: Peer | None = None
        self.real: Callable[[], Middleware] | None = None  # makes one that is more than memory
        self.hands = FakeHands()
        self.running = False
        self.users: dict[str, tuple[str, ...]] = {"alice": ("project",), "bob": ("project",)}

    @property
    def peer(self) -> Peer:
        """It, as one to talk to."""
        return Peer(self.key.fedid, self.address)

    async def start(self) -> None:
        """Start, or start again."""
        self.db = InlineDatabase(self.url) if self.federation.virtual else Database(self.url)
        await self.db.__aenter__()
        upgrade(self.db.engine, "federation_member.migrations")
        link = self.federation.network.link(self.address)
        clock = self.federation.clock
        self.mesh = MeshNode(self.key, self.address, self.db, link, clock, chance=random.Random(1))
        self.directory = FakeDirectory(self.federation, self.name)
        self.middleware = cast(FakeMiddleware, self.real()) if self.real else FakeMiddleware(self.cloud)
        self.world = World(self.key, self.address)
        self.world.set_policy(Policy.parse(self.policy, self.name), clock())
        self.access = Controller(self.world, clock)
        self.orders = OrderService(
            self.db,
            self.mesh,
            self.directory,
            self.middleware,
            self.access,
            HomeIdentities(self.key, clock),
            RoundRobinPicker(),
            clock,
            name=self.name,
            tunnel_server=self.tunnel_server,
            chance=random.Random(self.federation.chance.random()),
            hands=Ssh() if self.real else self.hands,
        )
        identities = HomeIdentities(self.key, clock)
        self.experiments = Experiments(self.db, self.orders.engine, identities, clock)
        self.revocations = Revocations(self.mesh, clock)
        self.revocations.on_revoked(self.orders.revoked)
        revoking = Revoking(self.db, self.mesh, self.key, None, clock, self.revocations.take)
        self.credentials = Credentials(self.db, revoking, clock, self.orders.look_again)
        self.accounts = Accounts(self.db, clock, on_change=self.credentials.look)
        for name, projects in self.users.items():
            await self.register(name, *projects)
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live(ready))
        await asyncio.wait([self._life, ready], return_when=asyncio.FIRST_COMPLETED)
        if self._life.done():
            self._life.result()
        self.running = True

    async def _live(self, ready: asyncio.Future[None]) -> None:
        async with self.mesh, self.orders, self.experiments.running(), self.credentials.running():
            ready.set_result(None)
            await asyncio.Event().wait()

    async def register(self, name: str, *projects: str) -> None:
        """Give somebody an account, with a key that the member keeps, unless they have one."""
        key = PrivateKey.generate()

        def write(tx: Tx) -> None:
            if accounts.add_account(tx, name, "-", self.federation.clock(), operator=False):
                accounts.set_key(tx, name, key.public, key, self.federation.clock())
                accounts.set_projects(tx, name, projects)

        await self.db.run(write)

    async def set_policy(self, policy: str) -> None:
        """Let another policy be in force, as its operator does."""
        self.policy = policy
        self.world.set_policy(Policy.parse(policy, self.name), self.federation.clock())
        await self.db.run(self.access.note_policy)

    async def audit(self, kind: str) -> list[audit.Entry]:
        """What its audit log has of a kind, oldest first."""
        newest = await self.db.read(lambda conn: audit.page(conn, before=None, limit=1000, kind=audit.Kind(kind)))
        return newest[::-1]

    async def revoke(self, listing: RevocationList) -> None:
        """Let it hear of an issuer's revocation list."""
        await self.db.run(lambda tx: self.orders.revoked(tx, listing))

    async def lease(self, lease_id: str) -> leases.Lease:
        """A lease of its book."""
        lease = await self.db.read(lambda conn: leases.load(conn, lease_id))
        assert lease is not None
        return lease

    async def stop(self) -> None:
        """Stop in order."""
        if self.running:
            self.running = False
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
            self.accounts.close()
            await self.db.close()

    async def kill(self) -> None:
        """Die: no transaction that has not begun to commit will, and nobody is told anything."""

        async def dead(_function: Any) -> Any:
            raise asyncio.CancelledError

        self.middleware.dead = True
        self.db.run = self.db.read = dead  # type: ignore[method-assign, assignment]
        await self.stop()

    async def order(self, order_id: str) -> Order:
        """An order of `USER`."""
        return await self.orders.get(USER, order_id)

    async def until(
        self, order_id: str, state: OrderState, where: Callable[[Order], bool] = lambda order: True
    ) -> Order:
        """Wait until an order is in a state (and `where` holds)."""
        news = asyncio.Event()
        stop = self.orders.on_event(news.set)
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    news.clear()
                    order = await self.order(order_id)
                    if order.state is state and where(order):
                        return order
                    await news.wait()
        except TimeoutError:
            why = await self.orders.why(USER, order_id)
            raise AssertionError(f"{order_id} is {why.order.state}, not {state}: {why}") from None
        finally:
            stop()

    async def book(self) -> set[str]:
        """Keys that its lease book holds."""
        return set(await self.db.read(held))

    async def open_orders(self) -> int:
        """How many of its orders have not ended."""
        ended = [OrderState.CLOSED.value, OrderState.DELETED.value]
        query = select(orders.c.id).where(orders.c.state.not_in(ended))
        return len(await self.db.read(lambda conn: conn.execute(query).all()))


class Federation:
    """Members, the network between them, and the time."""

    def __init__(self, folder: Path, urls: Iterator[str] | None = None, *, virtual: bool = False) -> None:
        self.folder = folder
        self.network = MemoryNetwork()
        self.virtual = virtual
        self.clock = TestClock(virtual_clock if virtual else now)
        self.chance = random.Random(1)
        self.members: list[Member] = []
        self.entries: dict[str, Entry] = {}
        self._urls = urls
        self._look_again = 0.5 if virtual else 0.01  # seconds; virtual ones cost computing only

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with AsyncExitStack() as stack:
            for member in self.members:
                stack.push_async_callback(member.stop)

    async def add(
        self,
        name: str,
        cloud: Cloud | None = None,
        *,
        lends: str = EVERYTHING,
        tunnel_server: Peer | None = None,
        real: Callable[[], Middleware] | None = None,
    ) -> Member:
        """Start a member that everybody knows; it lends to all unless told otherwise."""
        url = next(self._urls) if self._urls else f"sqlite:///{self.folder / name}.db"
        member = Member(self, name, url, cloud or Cloud(), lends)
        member.tunnel_server = tunnel_server
        member.real = real
        self.members.append(member)
        self.entries[member.name] = Entry(member.key.fedid, member.name, member.address, Offer())
        await member.start()
        return member

    def tell(self) -> None:
        """Tell all members that the list changed."""
        for member in self.members:
            if member.running:
                member.directory.tell()

    def advance(self, seconds: float) -> None:
        """Move the time forward."""
        self.clock.ahead += timedelta(seconds=seconds)
        for member in self.members:
            if member.running:
                for queue in (*member.orders.engine.queues, member.experiments.queue):
                    queue.recheck()

    async def settle(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition holds that no event tells of."""
        async with asyncio.timeout(PATIENCE):
            while not (  # noqa: ASYNC110
                await result if asyncio.iscoroutine(result := condition()) else result
            ):
                await asyncio.sleep(self._look_again)


def in_virtual_time(
    test: Callable[Concatenate[Federation, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[Federation, P], None]:
    """Make an ordinary test of a coroutine function whose first argument, `world`, is a federation in virtual time."""

    @wraps(test)
    def run(world: Federation, *args: P.args, **kwargs: P.kwargs) -> None:
        async def scenario() -> None:
            async with world:
                await test(world, *args, **kwargs)

        run_in_virtual_time(scenario())

    return cast(Callable[Concatenate[Federation, P], None], run)
