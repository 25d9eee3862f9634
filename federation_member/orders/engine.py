"""The order engine put together: both books, the wire, and the three queues that look after them.

    orders     scheduler.step(order)         woken by commits, due times, the directory
    leases     keeper.look(lease)            woken by commits, due times, the middleware
    renewals   renewal.look(lender)          woken by due times, a lender heard of again
    news       what changed around us        the directory, a peer, our own offer

Constructing registers with the mesh; entering fills the queues from the tables, so starting and recovering are one.
Leaving stops where it stands.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from federation_member.access.controller import Controller
from federation_member.middleware.contract import Middleware, MiddlewareError, abilities, hosts_segments
from federation_member.orders import leases
from federation_member.orders.borrowing import Borrowing
from federation_member.orders.candidates import Directory, KnownMember, OwnMember, Snapshot
from federation_member.orders.identities import Identities
from federation_member.orders.inspection import Inspection
from federation_member.orders.keeper import ACCOUNT, SWEEP, Keeper
from federation_member.orders.lenders import Lenders
from federation_member.orders.lending import Lending
from federation_member.orders.lending_wire import LendingWire
from federation_member.orders.model import OrderState
from federation_member.orders.picker import Picker
from federation_member.orders.progress import Progress
from federation_member.orders.renewal import Renewal, first_due
from federation_member.orders.scheduler import Scheduler, World
from federation_member.orders.segments.embedder import Embedder
from federation_member.orders.segments.hosted import Hosted
from federation_member.orders.segments.operate import Operator
from federation_member.orders.segments.plan import lent_kinds
from federation_member.orders.segments.remote import Hands
from federation_member.orders.store import OrderStore, due_before, last_event, waiting
from federation_member.orders.tables import orders
from federation_member.orders.tunnels import Tunnels
from federation_member.orders.workqueue import WorkQueue
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.kits.installed import installed
from fedkit.mesh.api import Mesh, Peer
from fedkit.protocol.lending import Ability, Offer
from fedkit.store import Database

log = structlog.get_logger()

ORDER_WORKERS, LEASE_WORKERS, RENEWAL_WORKERS = 4, 16, 8
OFFER_LIFE = timedelta(minutes=5)  # a middleware cannot tell that its images changed, so it is asked again
OFFER_LIMIT = 3.0  # seconds that anybody waits for the middleware to say what there is
SHARE_EVERY = 1.0  # seconds between two looks at what other processes on the same database have left to do
ROOM_PAUSE = timedelta(seconds=2)  # between two times that a lender's word of room is acted upon
PACE = timedelta(milliseconds=2)  # between two waiting orders that a change of the directory wakes
DIRECTORY, OFFER, USERS, PEER, ROOM = "directory", "offer", "users", "peer ", "room "  # keys of the queue of news


class Engine:
    """All parts of the order engine, and their life."""

    def __init__(
        self,
        db: Database,
        mesh: Mesh,
        directory: Directory,
        middleware: Middleware | None,
        access: Controller,
        identities: Identities,
        picker: Picker,
        clock: Clock,
        *,
        name: str,
        attributes: dict[str, str | int | float | bool],
        tunnel_server: Peer | None,
        worker: str,
        chance: random.Random,
        hands: Hands,
    ) -> None:
        self._db, self._mesh, self._directory, self._middleware, self._clock = db, mesh, directory, middleware, clock
        self._attributes = attributes
        self._listeners: list[Callable[[], None]] = []
        self._has_tunnels = tunnel_server is not None
        self._me = OwnMember(mesh.me.fedid, name, mesh.me.address, Offer(abilities=self._abilities()), clock())
        self._refreshing = asyncio.Lock()
        self._world = World(Snapshot((self._me,)))
        self._order_queue = WorkQueue("orders", self._look_at_order, clock, ORDER_WORKERS)
        self._news_queue = WorkQueue("news", self._look_at_news, clock, 1)
        self.tunnels = Tunnels(mesh, tunnel_server)
        host = hosts_segments(middleware)
        self.lending = Lending(
            mesh, self.tunnels, access, lambda: self._me, self._wake_lease, clock, hosted=host is not None
        )
        self._lease_queue: WorkQueue | None = None
        if middleware is not None:
            embedder = Embedder(db, self.lending, clock, hands)
            hosted = None if host is None else Hosted(db, self.lending, self.tunnels, middleware, host, clock)
            keeper = Keeper(db, self.lending, self.tunnels, middleware, embedder, hosted, clock, worker)
            self._lease_queue = WorkQueue("leases", keeper.look, clock, LEASE_WORKERS)
        self._access = access
        access.connect(lambda name: self._wake_lease(ACCOUNT + name, clock()))
        self._inspection = Inspection(db, access, middleware, lambda: self._me.offer)
        self.operator = Operator(db, self.lending, self._inspection.printed, lambda: self._me.offer, hands, host)
        self.lenders = Lenders(db, mesh, self.lending, self._inspection, self.operator, clock)
        self.store = OrderStore(clock, self._order_changed)
        self.progress = Progress(self.store, self.lenders, clock, self._wake_renewal)
        self.scheduler = Scheduler(
            self.store, self.progress, self.lenders, identities, picker, lambda: self._world, clock, chance
        )
        self._renewal = Renewal(db, self.lenders, identities, self.progress, self.scheduler, clock)
        self._renewal_queue = WorkQueue("renewals", self._renewal.look, clock, RENEWAL_WORKERS)
        self._requests: dict[str, asyncio.Future[None]] = {}
        self._register()

    def _register(self) -> None:
        borrowing = Borrowing(
            self.scheduler, self.progress, self.lenders, self._request_ended, self._world.silent.add, self._has_room
        )
        borrowing.serve(self._mesh)
        own = self._mesh.me.fedid
        self.lending.connect_own(lambda tx, view: borrowing.own_changed(tx, view, own), borrowing.lock_order_of)
        self.lending.turned_away.connect_own(lambda: self._has_room(own))
        LendingWire(self._db, self.lending, self.tunnels, self.offer).serve(self._mesh)
        self._inspection.serve(self._mesh)
        self.operator.serve(self._mesh)
        self._mesh.on_peer_alive(lambda peer: self._news_queue.wake(PEER + peer.fedid))
        self._directory.on_change(lambda: self._news_queue.wake(DIRECTORY))

    @property
    def queues(self) -> list[WorkQueue]:
        """All queues, for life and for tests that move the clock."""
        every = [self._order_queue, self._lease_queue, self._renewal_queue, self._news_queue]
        return [queue for queue in every if queue is not None]

    # Life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look after both books while the context is open."""
        async with AsyncExitStack() as stack:
            if self._middleware is not None:
                await self._middleware.start(lambda key: self._wake_lease(key, self._clock()))
                stack.push_async_callback(self._middleware.stop)
            await self._refresh_offer()
            self._picture()
            await self._db.run(self.lending.begin)
            await self._fill()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(queue.run()) for queue in self.queues]
                if not self._db.is_sqlite:
                    tasks.append(group.create_task(self._share_forever()))
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()

    async def _fill(self) -> None:
        for order_id, due in await self._db.read(waiting):
            self._order_queue.wake(order_id, due)
        for fedid in await self._renewal.all_due():
            self._renewal_queue.wake(fedid)
        for fedid, at in await self._db.read(first_due):
            self._renewal_queue.wake(fedid, at)
        if self._lease_queue is not None:
            self._lease_queue.wake(SWEEP)
            for lease_id, at in await self._db.read(leases.due):
                self._lease_queue.wake(lease_id, at)
        self._news_queue.wake(DIRECTORY)
        self._news_queue.wake(OFFER)

    async def _share_forever(self) -> None:
        """Take over what is due, whoever of the processes on this database wrote it, and tell of what they changed.

        They do not wake one another; this is so cheap that it needs not. What waits for an event is left to who hears it.
        """
        told = await self._db.read(last_event)
        while True:
            await asyncio.sleep(SHARE_EVERY)
            try:
                told = await self._share(told)
            except SQLAlchemyError:
                log.exception("others_not_looked_at")

    async def _share(self, told: int) -> int:
        now = self._clock()
        for order_id in await self._db.read(lambda conn: due_before(conn, now)):
            self._order_queue.wake(order_id)
        if self._lease_queue is not None:
            for lease_id in await self._db.read(lambda conn: leases.due_before(conn, now)):
                self._lease_queue.wake(lease_id)
        if self._mesh.connected:  # only who has the link can ask lenders elsewhere
            for fedid, at in await self._db.read(first_due):
                self._renewal_queue.wake(fedid, at)
        newest = await self._db.read(last_event)
        if newest != told:
            for callback in list(self._listeners):
                callback()
        return newest

    # What is woken by whom

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every change of an order, until the returned function is called."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def look_again(self) -> None:
        """Let every order that found nobody try again: its user may have more to show."""
        self._news_queue.wake(USERS)

    def _order_changed(self, order_id: str, due: datetime | None) -> None:
        if due is not None:
            self._order_queue.wake(order_id, due)
        for callback in list(self._listeners):
            callback()

    def _wake_lease(self, lease_id: str, at: datetime) -> None:
        if self._lease_queue is not None:
            self._lease_queue.wake(lease_id, at)

    def _wake_renewal(self, fedid: str, at: datetime) -> None:
        self._renewal_queue.wake(fedid, at)

    async def _look_at_order(self, order_id: str) -> datetime | None:
        return await self._db.run(lambda tx: self.scheduler.step(tx, order_id))

    # Requests whose end a caller waits for

    def expect(self, request_id: str) -> None:
        """Somebody will wait for the end of a request; to be called before its answer can come."""
        self._requests[request_id] = asyncio.get_running_loop().create_future()

    async def ended(self, request_id: str) -> None:
        """Wait for the end of an expected request; raises its error."""
        await self._requests[request_id]

    def forget(self, request_id: str) -> None:
        """Nobody waits for that request any more."""
        self._requests.pop(request_id, None)

    def _request_ended(self, request_id: str, error: FedError | None) -> None:
        future = self._requests.get(request_id)
        if future is not None and not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    # The world around us

    def members(self) -> tuple[KnownMember, ...]:
        """Everybody that we know of, ourselves first."""
        return self._world.snapshot.members

    async def offer(self) -> Offer:
        """What this member lends now, or lent when its cloud last answered in time."""
        await self._refresh_offer()
        return self._me.offer

    async def _look_at_news(self, key: str) -> datetime | None:
        if key == OFFER:
            await self._refresh_offer()
            self._news_queue.wake(DIRECTORY)
            return self._clock() + OFFER_LIFE
        if key == USERS:
            await self._wake_waiting()
            return None
        if key.startswith(ROOM):
            fedid = key.removeprefix(ROOM)
            changed = {fedid}
            self._world = replace(self._world, changed=self._world.changed | {fedid: self._clock()})
        elif key == DIRECTORY:
            changed = self._picture()
        else:
            changed = await self._heard_of(key.removeprefix(PEER))
        if changed:
            await self._wake_waiting()
        return None

    def _has_room(self, fedid: str) -> None:
        """A lender that turned us away says that there is room again; it is listened to now and then, not more often."""
        if any(member.fedid == fedid for member in self._world.snapshot.members):
            last = self._world.changed.get(fedid)
            self._news_queue.wake(ROOM + fedid, None if last is None else max(self._clock(), last + ROOM_PAUSE))

    async def _heard_of(self, fedid: str) -> set[str]:
        """A member speaks (again): what it could not say meanwhile is asked for."""
        self._world = replace(self._world, changed=self._world.changed | {fedid: self._clock()})
        self._world.silent.discard(fedid)
        self.tunnels.forget_description()
        for lender in await self._renewal.all_due(fedid):
            self._renewal_queue.wake(lender)
        return {fedid}

    def _abilities(self) -> list[Ability | str]:
        """What the middleware can do; and where machines have tunnels, that they are reached."""
        able = frozenset[Ability]() if self._middleware is None else abilities(self._middleware)
        if self._has_tunnels and Ability.ADDRESSES not in able:
            able |= {Ability.TUNNELS}
        return sorted(able)

    async def _refresh_offer(self) -> None:
        if self._middleware is None:
            return
        try:
            async with asyncio.timeout(OFFER_LIMIT), self._refreshing:
                flavours, images = await self._middleware.flavours(), await self._middleware.images()
        except (MiddlewareError, TimeoutError) as error:
            log.warning("offer_unknown", reason=str(error) or f"no answer within {OFFER_LIMIT:g} s")
            return
        offer = Offer(
            kinds=sorted(lent_kinds(self._middleware.kinds())),
            flavours=flavours,
            images=images,
            abilities=self._abilities(),
            attributes=self._attributes,
            kits=sorted(installed()),
        )
        self._me = OwnMember(self._me.fedid, self._me.name, self._me.address, offer, self._clock())
        self._directory.set_offer(offer)

    def _picture(self) -> set[str]:
        """Take a new picture of the members; return who differs from the last one."""
        others = [member for member in self._directory.members() if member.fedid != self._me.fedid]
        members: tuple[KnownMember, ...] = (self._me, *others)
        self._access.know(members)
        before = {member.fedid: _substance(member) for member in self._world.snapshot.members}
        changed = {member.fedid for member in members if before.get(member.fedid) != _substance(member)}
        if changed or len(before) != len(members):
            now = self._clock()
            times = self._world.changed | dict.fromkeys(changed, now)
            self._world = replace(self._world, snapshot=Snapshot(members), changed=times)
        return changed

    async def _wake_waiting(self) -> None:
        """Let every order that found nobody look again, oldest first, spread so that others are not held up."""
        query = select(orders.c.id).where(orders.c.state == OrderState.OPEN.value, orders.c.lease_id.is_(None))
        ids = await self._db.read(lambda conn: conn.execute(query.order_by(orders.c.created)).scalars().all())
        now = self._clock()
        for number, order_id in enumerate(ids):
            self._order_queue.wake(order_id, now + number * PACE)


def _substance(member: KnownMember) -> tuple[object, ...]:
    return (member.name, member.address, member.offer, member.alive)
