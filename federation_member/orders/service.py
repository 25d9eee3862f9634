"""What users ask of the order engine; the web's only way in.

A user sees its own orders: somebody else's is as unknown as one that never was. Everything here is one transaction, so it has happened
when it returns; only a tunnel is waited for, because its port is the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, and_, insert, or_, select
from sqlalchemy.exc import IntegrityError

from federation_member.access.controller import Controller
from federation_member.errors import (
    IdempotencyConflict,
    InUse,
    NotRunning,
    NotYourProject,
    TunnelNotYet,
    UnknownNetwork,
    UnknownReference,
    UnusableCursor,
)
from federation_member.middleware.contract import Middleware
from federation_member.orders import uses
from federation_member.orders.candidates import Directory, requirement_of
from federation_member.orders.engine import Engine
from federation_member.orders.identities import Identities
from federation_member.orders.model import (
    NOUNS,
    Explanation,
    NewOrder,
    Order,
    OrderEvent,
    OrderKind,
    OrderState,
    User,
    new_order,
)
from federation_member.orders.operations import Operations, OrderChange, QuotaAt
from federation_member.orders.operations import own as _own
from federation_member.orders.picker import Picker
from federation_member.orders.scheduler import new_record
from federation_member.orders.segments.remote import Hands, Ssh
from federation_member.orders.store import (
    last_event,
    load,
    load_attempts,
    load_many,
    read_events,
)
from federation_member.orders.tables import (
    EPOCH,
    MICROSECOND,
    order_events,
    order_requests,
    orders,
)
from fedkit.clock import Clock, now
from fedkit.errors import RemoteError
from fedkit.mesh.api import Mesh, Peer
from fedkit.policy.revocation import RevocationList
from fedkit.protocol.lending import ComputeSpec, LeaseView, Offer, TunnelClose, TunnelOpen, references
from fedkit.store import Database, Tx

HISTORY = 1000  # events that an explanation shows
TUNNEL_PATIENCE = 10.0  # seconds
_CURSOR = re.compile(r"(\d{1,18})\.([0-9a-f-]{36})\Z")


class OrderService:
    """The order engine of one member; `async with` lets it work. Construct it before the mesh starts, enter it within its life."""

    def __init__(
        self,
        db: Database,
        mesh: Mesh,
        directory: Directory,
        middleware: Middleware | None,
        access: Controller,
        identities: Identities,
        picker: Picker,
        clock: Clock = now,
        *,
        name: str,
        attributes: dict[str, str | int | float | bool] | None = None,
        tunnel_server: Peer | None = None,
        worker: str = "member",
        chance: random.Random | None = None,
        hands: Hands | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._identities = identities
        self.engine = Engine(
            db,
            mesh,
            directory,
            middleware,
            access,
            identities,
            picker,
            clock,
            name=name,
            attributes=attributes or {},
            tunnel_server=tunnel_server,
            worker=worker,
            chance=chance or random.SystemRandom(),
            hands=hands or Ssh(),
        )

        self._operations = Operations(db, self.engine, identities)

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(self.engine.running())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def offer(self) -> Offer:
        """What this member lends now."""
        return await self.engine.offer()

    def revoked(self, tx: Tx, listing: RevocationList) -> None:
        """Take in an issuer's revocation list: what was lent on what it names ends at once. Repeating is harmless."""
        self.engine.lending.revoke(tx, listing)

    # Orders

    async def create(self, user: User, new: NewOrder, idempotency_key: str | None) -> list[Order]:
        """Make `new.count` orders, or return those that the same key made before.

        Raises `NotYourProject`, `UnusableRequirements`, `UnknownRequirement`, `UnknownReference` or `IdempotencyConflict`.
        """
        requirement_of(new.spec)
        user = User(user.project if new.project is None else new.project, user.name)
        try:
            return await self._db.run(lambda tx: self._create(tx, user, new, idempotency_key))
        except IntegrityError:  # another process made it with the same key at the same moment
            return await self._db.run(lambda tx: self._create(tx, user, new, idempotency_key))

    def _create(self, tx: Tx, user: User, new: NewOrder, key: str | None) -> list[Order]:
        batch = str(uuid.uuid4())
        if key is not None:
            known = self._remember(tx, user, new, key, batch)
            if known is not None:
                query = select(orders).where(orders.c.batch == known).order_by(orders.c.created, orders.c.id)
                return _shown(tx.conn, load_many(tx.conn, query))
        self._check_project(tx, user, new)
        used = self._check_used(tx, user, new)
        made = sorted(str(uuid.uuid4()) for _ in range(new.count))
        for order_id in made:
            self.engine.store.add(tx, new_record(self._new_order(user, new, batch, order_id)))
            uses.add(tx.conn, order_id, used)
            self.engine.scheduler.step(tx, order_id)
        return _shown(tx.conn, [record.order for order_id in made if (record := load(tx.conn, order_id))])

    def _remember(self, tx: Tx, user: User, new: NewOrder, key: str, batch: str) -> str | None:
        """Return the batch that this key made before; else note the key for `batch`."""
        digest = hashlib.sha256(new.model_dump_json().encode()).hexdigest()
        t = order_requests.c
        query = select(t.body_hash, t.batch).where(t.owner == user.name, t.key == key)
        row = tx.conn.execute(query).one_or_none()
        if row is None:
            values = {"project": "", "owner": user.name, "key": key, "body_hash": digest, "batch": batch}
            tx.conn.execute(insert(order_requests).values(id=batch, created=self._clock(), **values))
            return None
        if row.body_hash != digest:
            raise IdempotencyConflict("This Idempotency-Key came with another request before; choose a new key.")
        return str(row.batch)

    def _check_project(self, tx: Tx, user: User, new: NewOrder) -> None:
        if new.project is None:
            return
        projects = [name.project for name in self._identities.names(tx.conn, user)]
        if new.project not in projects:
            raise NotYourProject(f"You are not in project {new.project}; yours: {', '.join(projects) or 'none'}.")

    @staticmethod
    def _check_used(tx: Tx, user: User, new: NewOrder) -> list[str]:
        """Lock what a new order uses, so that it cannot be deleted meanwhile."""
        needed = references(new.spec)
        for order_id in sorted(needed):
            kind, noun = needed[order_id], NOUNS[needed[order_id]]
            unknown = UnknownNetwork if kind == "network" else UnknownReference
            record = load(tx.conn, order_id, lock=True)
            if record is None or record.order.owner.name != user.name or record.order.spec.kind != kind:
                raise unknown(f"You have no {noun} order {order_id}.")
            if record.order.state not in uses.ALIVE:
                raise unknown(f"The {noun} {order_id} is {record.order.state.value}.")
        return sorted(needed)

    def _new_order(self, user: User, new: NewOrder, batch: str, order_id: str) -> Order:
        return new_order(
            order_id,
            user,
            new.spec,
            self._clock(),
            batch=batch,
            order_type=new.type,
            location=new.location,
            valid_from=new.valid_from,
            valid_until=new.valid_until,
            lease_seconds=new.lease_seconds,
        )

    async def get(self, user: User, order_id: str) -> Order:
        """One order; raises `UnknownOrder`."""
        return await self._db.read(lambda conn: _get(conn, user, order_id))

    async def page(
        self,
        user: User,
        *,
        state: OrderState | None,
        kind: OrderKind | None,
        batch: str | None,
        after: str | None,
        limit: int,
    ) -> tuple[list[Order], str | None]:
        """A page of orders, newest first, and the cursor of the next; raises `UnusableCursor`."""
        t = orders.c
        where: list[Any] = [t.owner == user.name, t.kind != "segment"]  # those are shown with their experiments
        where += [t.state == state.value] if state else []
        where += [t.kind == kind.value] if kind else []
        where += [t.batch == batch] if batch else []
        if after is not None:
            created, order_id = _parse_cursor(after)
            where.append(or_(t.created < created, and_(t.created == created, t.id < order_id)))
        query = select(orders).where(*where).order_by(t.created.desc(), t.id.desc()).limit(limit + 1)
        found = await self._db.read(lambda conn: _shown(conn, load_many(conn, query)))
        more = len(found) > limit
        found = found[:limit]
        return found, _cursor(found[-1]) if more and found else None

    async def delete(self, user: User, order_id: str) -> Order:
        """Start to give back what the order holds; raises `UnknownOrder` or `InUse`."""
        return await self._db.run(lambda tx: self._delete(tx, user, order_id))

    def _delete(self, tx: Tx, user: User, order_id: str) -> Order:
        record = _own(load(tx.conn, order_id, lock=True), user)
        if record.order.state in (OrderState.DELETING, OrderState.DELETED):
            return record.order
        users = [order for order in uses.users_of(tx.conn, order_id) if order.state in uses.ALIVE]
        if users:
            ids = [order.id for order in users]
            raise InUse(f"It is in use; delete first: {uses.names_of(users)}.", users=ids)
        self.engine.store.change(
            tx, record, state=OrderState.DELETING, code="", reason="is being deleted", next_try=None
        )
        self.engine.scheduler.step(tx, order_id)
        return _get(tx.conn, user, order_id)

    async def why(self, user: User, order_id: str) -> Explanation:
        """Why an order is where it is; raises `UnknownOrder`."""

        def read(conn: Any) -> Explanation:
            record = _own(load(conn, order_id), user)
            (order,) = _shown(conn, [record.order])
            events = read_events(conn, [order_events.c.order_id == order_id], HISTORY)
            attempts = tuple(attempt.attempt for attempt in load_attempts(conn, order_id))
            return Explanation(order, attempts, tuple(events), record.next_try)

        return await self._db.read(read)

    def look_again(self) -> None:
        """Something changed of what users may show lenders: let the orders that found nobody try anew."""
        self.engine.look_again()

    # Events

    async def events(self, user: User, after: int, limit: int) -> list[OrderEvent]:
        """At most `limit` of this user's events after the sequence number `after`."""
        t = order_events.c
        where = [t.sequence > after, t.owner == user.name]
        return await self._db.read(lambda conn: read_events(conn, where, limit))

    async def last_event(self) -> int:
        """The newest sequence number."""
        return await self._db.read(last_event)

    def on_event(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when there are new events, until the returned function is called."""
        return self.engine.listen(callback)

    # What runs

    async def modify(self, user: User, order_id: str, wanted: OrderChange) -> Order:
        """See `Operations.modify`."""
        return await self._operations.modify(user, order_id, wanted)

    async def console(self, user: User, order_id: str) -> str:
        """See `Operations.console`."""
        return await self._operations.console(user, order_id)

    async def quota(self, user: User, member: str | None = None) -> list[QuotaAt]:
        """See `Operations.quota`."""
        return await self._operations.quota(user, member)

    # Tunnels

    async def open_tunnel(self, user: User, order_id: str, name: str) -> Order:
        """Reserve a public port under a name, and return the order with it.

        Raises `UnknownOrder`, `NotRunning`, `NoTunnel`, `TunnelNotYet`, or what the lender answered.
        """

        def ask(tx: Tx, lender: Peer, lease_id: str) -> LeaseView | str:
            return self.engine.lenders.open_tunnel(tx, lender, TunnelOpen(lease_id=lease_id, name=name))

        return await self._with_tunnel(user, order_id, name, ask, there=True)

    async def close_tunnel(self, user: User, order_id: str, name: str) -> Order:
        """Give the port back; raises as `open_tunnel` does."""

        def ask(tx: Tx, lender: Peer, lease_id: str) -> LeaseView | str:
            return self.engine.lenders.close_tunnel(tx, lender, TunnelClose(lease_id=lease_id, name=name))

        return await self._with_tunnel(user, order_id, name, ask, there=False)

    async def _with_tunnel(
        self,
        user: User,
        order_id: str,
        name: str,
        ask: Callable[[Tx, Peer, str], LeaseView | str],
        *,
        there: bool,
    ) -> Order:
        """Ask the lender, and wait until the tunnel of that name is `there` or not."""
        news = asyncio.Event()
        stop = self.engine.listen(news.set)
        asked = await self._db.run(lambda tx: self._ask_tunnel(tx, user, order_id, ask))
        try:
            async with asyncio.timeout(TUNNEL_PATIENCE):
                if isinstance(asked, str):
                    await self.engine.ended(asked)
                return await self._await_tunnel(user, order_id, name, news, there=there)
        except TimeoutError as error:
            raise TunnelNotYet("The tunnel server has not answered yet; look at the order again in a while.") from error
        finally:
            stop()
            if isinstance(asked, str):
                self.engine.forget(asked)

    def _ask_tunnel(
        self, tx: Tx, user: User, order_id: str, ask: Callable[[Tx, Peer, str], LeaseView | str]
    ) -> LeaseView | str:
        order = _own(load(tx.conn, order_id, lock=True), user).order
        if order.state is not OrderState.FULFILLED or not isinstance(order.spec, ComputeSpec):
            raise NotRunning(f"The order is {order.state.value}; tunnels need a running machine.")
        attempt = next(a.attempt for a in load_attempts(tx.conn, order_id) if a.lease_id == order.lease_id)
        asked = ask(tx, Peer(attempt.fedid, attempt.address), attempt.lease_id)
        if isinstance(asked, str):
            tx.after_commit(lambda: self.engine.expect(asked))
        return asked

    async def _await_tunnel(self, user: User, order_id: str, name: str, news: asyncio.Event, *, there: bool) -> Order:
        while True:
            news.clear()
            order = await self.get(user, order_id)
            if any(tunnel.name == name for tunnel in order.tunnels) == there:
                return order
            if order.state is not OrderState.FULFILLED:
                raise NotRunning(f"The order is {order.state.value} now: {order.reason}")
            if order.code and f"tunnel {name}:" in order.reason:
                raise RemoteError(order.code, order.reason, http=409)
            await news.wait()


def _get(conn: Connection, user: User, order_id: str) -> Order:
    return _shown(conn, [_own(load(conn, order_id), user).order])[0]


def _shown(conn: Connection, orders: list[Order]) -> list[Order]:
    """The same with what people want to see besides: who uses each."""
    users = uses.users_of_each(conn, [order.id for order in orders])
    return [replace(order, used_by=users.get(order.id, ())) for order in orders]


def _cursor(order: Order) -> str:
    return f"{(order.created - EPOCH) // MICROSECOND}.{order.id}"


def _parse_cursor(text: str) -> tuple[datetime, str]:
    match = _CURSOR.match(text)
    if match is None:
        raise UnusableCursor("This cursor was not made here; begin without one.")
    try:
        return EPOCH + int(match[1]) * MICROSECOND, match[2]
    except OverflowError as error:
        raise UnusableCursor("This cursor was not made here; begin without one.") from error
