"""What users ask of what runs already: another power or other rules, a machine's console, how much they may have where.

A change is told to its lender exactly once, and waited for as long as a person likes to wait; after that the order shows what is
wanted. Questions go to the lenders and are bounded in time each: who does not answer costs nobody else's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Connection

from federation_member.directory.errors import UnknownMember
from federation_member.errors import NotAllowed, NotRunning, NotYet, UnknownOrder
from federation_member.orders.candidates import KnownMember, peer
from federation_member.orders.engine import Engine
from federation_member.orders.identities import Identities, Shown
from federation_member.orders.model import Order, OrderState, User
from federation_member.orders.progress import missing_of
from federation_member.orders.store import Record, load, load_attempt
from fedkit.errors import FedError, RemoteError
from fedkit.mesh.api import Peer
from fedkit.mesh.errors import LinkDown, NoAnswer, PeerUnreachable
from fedkit.protocol.lending import (
    Ability,
    LeaseChange,
    LeaseConsole,
    LeaseView,
    Power,
    QuotaGet,
    QuotaView,
    Rules,
)
from fedkit.store import Database, Tx

PATIENCE = 10.0  # seconds that somebody waits for a change
QUOTA_PATIENCE = 8.0  # seconds that a member has to tell a quota, under all of a user's names


class OrderChange(BaseModel):
    """How what an order holds is to be from now on; what is not named stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    power: Power | None = Field(default=None, description="of a machine")
    rules: Rules | None = Field(default=None, description="of a network or public address: all that is let through")

    @model_validator(mode="after")
    def _says_something(self) -> OrderChange:
        if self.power is None and self.rules is None:
            raise ValueError("name a power or rules")
        return self


@dataclass(frozen=True)
class QuotaAt:
    """What a user may have at a member, or why that is not known."""

    member: str
    fedid: str
    view: QuotaView | None
    code: str = ""
    reason: str = ""


class Operations:
    """One member's users' way to what lenders hold for them."""

    def __init__(self, db: Database, engine: Engine, identities: Identities) -> None:
        self._db = db
        self._engine = engine
        self._identities = identities

    # Changes

    async def modify(self, user: User, order_id: str, wanted: OrderChange) -> Order:
        """Have a lender change what it lent, and return the order as it is then, or as it is to be.

        Raises `UnknownOrder`, `NotRunning`, `NotYet`, `Cannot` or what else the lender answered.
        """
        news = asyncio.Event()
        stop = self._engine.listen(news.set)
        asked = await self._db.run(lambda tx: self._ask_change(tx, user, order_id, wanted))
        try:
            async with asyncio.timeout(PATIENCE):
                if isinstance(asked, str):
                    await self._answered(asked)
                return await self._until_so(user, order_id, wanted, news)
        except TimeoutError:
            return await self._order(user, order_id)
        except NotYet:
            order = await self._order(user, order_id)
            if not _is_so(order, wanted):
                raise
            return order  # only the answer was lost: its lender has told of the change since
        finally:
            stop()
            if isinstance(asked, str):
                self._engine.forget(asked)

    def _ask_change(self, tx: Tx, user: User, order_id: str, wanted: OrderChange) -> LeaseView | str:
        order = own(load(tx.conn, order_id, lock=True), user).order
        lender, lease_id = _lender_of(tx.conn, order)
        body = LeaseChange(lease_id=lease_id, power=wanted.power, rules=wanted.rules)
        asked = self._engine.lenders.change(tx, lender, body)
        if isinstance(asked, str):
            tx.after_commit(lambda: self._engine.expect(asked))
        return asked

    async def _order(self, user: User, order_id: str) -> Order:
        return await self._db.read(lambda conn: own(load(conn, order_id), user).order)

    async def _answered(self, request_id: str) -> None:
        try:
            await self._engine.ended(request_id)
        except RemoteError as error:
            if error.code == NoAnswer.code:
                raise NotYet("The lender has not answered yet; look at the order again in a while.") from error
            if error.code in (PeerUnreachable.code, LinkDown.code):
                raise PeerUnreachable(f"The lender cannot be reached now: {error.message}") from error
            raise

    async def _until_so(self, user: User, order_id: str, wanted: OrderChange, news: asyncio.Event) -> Order:
        while True:
            news.clear()
            order = await self._order(user, order_id)
            if order.state is not OrderState.FULFILLED:
                raise NotRunning(f"The order is {order.state.value} now: {order.reason}")
            if not order.wishes:
                if order.code and not _is_so(order, wanted):
                    raise RemoteError(order.code, order.reason, http=409)
                return order
            await news.wait()

    # Questions

    async def console(self, user: User, order_id: str) -> str:
        """The end of what an order's machine wrote; raises as the lender does, or as the mesh if it cannot be reached."""

        def find(conn: Connection) -> tuple[Peer, str]:
            return _lender_of(conn, own(load(conn, order_id), user).order)

        lender, lease_id = await self._db.read(find)
        console = await self._engine.lenders.console(lender, LeaseConsole(lease_id=lease_id))
        return console.text

    async def quota(self, user: User, member: str | None = None) -> list[QuotaAt]:
        """What a user may have at each member that tells, or at one; raises `UnknownMember`."""
        members = self._engine.members()
        if member is None:
            wanted = [one for one in members if Ability.QUOTA in one.offer.abilities]
        else:
            wanted = [one for one in members if member in (one.name, one.address, one.fedid)]
            if not wanted:
                raise UnknownMember(f"No member is called {member[:80]}; `fed members` names those that there are.")
        return list(await asyncio.gather(*(self._quota_at(one, user) for one in wanted)))

    async def _quota_at(self, member: KnownMember, user: User) -> QuotaAt:
        try:
            async with asyncio.timeout(QUOTA_PATIENCE):
                return QuotaAt(member.name, member.fedid, await self._ask_quota(member, user))
        except TimeoutError:
            return QuotaAt(member.name, member.fedid, None, NoAnswer.code, f"{member.name} did not answer in time.")
        except FedError as error:
            return QuotaAt(member.name, member.fedid, None, error.code, error.message)

    async def _ask_quota(self, member: KnownMember, user: User) -> QuotaView:
        """Ask under each of the user's names in turn, with what they keep of what a refusal names, until one is allowed."""
        names = await self._db.read(lambda conn: self._identities.names(conn, user))
        refusal: FedError | None = None
        for name in names:
            added: Sequence[Shown] = ()
            for _ in range(2):
                try:
                    return await self._ask_quota_as(member, name, added)
                except FedError as error:
                    if error.code != NotAllowed.code:
                        raise
                    refusal = refusal or error
                    added = await self._complete(name, error)
                    if not added:
                        break
        assert refusal is not None
        raise refusal

    async def _complete(self, name: User, refusal: FedError) -> Sequence[Shown]:
        missing = missing_of(refusal.details)
        return await self._db.read(lambda conn: self._identities.complete(conn, name, missing))

    async def _ask_quota_as(self, member: KnownMember, name: User, added: Sequence[Shown]) -> QuotaView:
        identity = await self._db.run(lambda tx: self._identities.of(tx, name))
        shown = [credential.text for credential in (*identity.credentials, *added)]
        body = QuotaGet(name=identity.name, principal=identity.principal, credentials=shown)
        return await self._engine.lenders.quota(peer(member), body)


def own(record: Record | None, user: User) -> Record:
    """The user's own order; raises `UnknownOrder`."""
    if record is None or record.order.owner.name != user.name:
        raise UnknownOrder("You have no such order.")
    return record


def _lender_of(conn: Connection, order: Order) -> tuple[Peer, str]:
    """Who holds what an order runs, and under which lease; raises `NotRunning`."""
    attempt = None if order.lease_id is None else load_attempt(conn, order.lease_id)
    if order.state is not OrderState.FULFILLED or attempt is None:
        raise NotRunning(f"The order is {order.state.value}; only what runs can be changed or looked at.")
    return Peer(attempt.attempt.fedid, attempt.attempt.address), attempt.lease_id


def _is_so(order: Order, wanted: OrderChange) -> bool:
    power = order.instance.power if order.instance else None
    return wanted.power in (None, power) and wanted.rules in (None, list(order.rules or ()))
