"""Who uses whom, in the borrower's book: one rule for everything that an order may need of other orders.

    machine ──► its networks, the snapshot that it boots      attachment ──► its machine, its volume
    public address ──► its machine                            snapshot ──► the machine, while it is being made

Whoever uses another goes to the same lender under the same name, as soon as that runs; it is ended by their lender before
that ends; and what is used cannot be deleted by its user. A snapshot that has been made uses nothing any more: it outlives its
machine. A machine uses the snapshot that it was booted from for as long as it lives, because its disk may be a copy on write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, insert, select

from federation_member.errors import Why
from federation_member.orders.model import NOUNS, AttemptState, Order, OrderState, User
from federation_member.orders.store import FINAL, load, load_attempt, load_many
from federation_member.orders.tables import order_attempts, order_uses, orders
from federation_member.orders.turns import user_of
from fedkit.protocol.lending import AnySpec, references, with_references

ALIVE = frozenset({OrderState.OPEN, OrderState.PENDING, OrderState.FULFILLED})
WAITS = {
    "compute": Why.WAITS_FOR_MACHINE,
    "network": Why.WAITS_FOR_NETWORK,
    "volume": Why.WAITS_FOR_VOLUME,
    "snapshot": Why.WAITS_FOR_SNAPSHOT,
}


@dataclass(frozen=True)
class Place:
    """Where an order may go; the fields but `spec` are None where it uses nothing."""

    spec: AnySpec  # as a lender understands it
    fedid: str | None = None  # of the only member
    member: str | None = None  # its name
    name: User | None = None  # the only name to ask under
    since: datetime | None = None  # what its lender said earlier was of other things


@dataclass(frozen=True)
class Obstacle:
    """Why an order can go nowhere now, or (`final`) never."""

    code: str
    reason: str
    final: bool = False


def add(conn: Connection, order_id: str, used: Iterable[str]) -> None:
    """Note what a new order uses."""
    rows = [{"order_id": order_id, "used_id": used_id} for used_id in used]
    if rows:
        conn.execute(insert(order_uses), rows)


def users_of(conn: Connection, order_id: str) -> list[Order]:
    """Orders that use this one and may still hold something by it."""
    joined = select(orders).join(order_uses, order_uses.c.order_id == orders.c.id)
    return load_many(conn, joined.where(order_uses.c.used_id == order_id, _uses()).order_by(orders.c.created))


def names_of(orders: Iterable[Order]) -> str:
    """Name orders to a person."""
    return ", ".join(f"{NOUNS[order.spec.kind]} {order.id}" for order in orders)


def users_of_each(conn: Connection, order_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The ids of those that use each of these orders."""
    query = select(order_uses).join(orders, order_uses.c.order_id == orders.c.id)
    found: dict[str, tuple[str, ...]] = {}
    for row in conn.execute(query.where(order_uses.c.used_id.in_(order_ids), _uses()).order_by(orders.c.created)):
        found[row.used_id] = (*found.get(row.used_id, ()), row.order_id)
    return found


def _uses() -> ColumnElement[bool]:
    """Of an order that names another: it may still hold something by it."""
    unfinished = [state.value for state in AttemptState if state not in FINAL]
    attempts = order_attempts.c
    holds = select(attempts.lease_id).where(attempts.order_id == orders.c.id, attempts.state.in_(unfinished)).exists()
    ended = orders.c.state.in_([OrderState.CLOSED.value, OrderState.DELETED.value])
    made_snapshot = and_(orders.c.kind == "snapshot", orders.c.instance.is_not(None))
    return and_(~ended | holds, ~made_snapshot)


def place(conn: Connection, order: Order) -> Place | Obstacle:
    """Say where an order has to go because of what it uses, or what it must wait for."""
    needed = references(order.spec)
    if not needed:
        return Place(order.spec)
    used: list[Order] = []
    for order_id, kind in needed.items():
        found = load(conn, order_id)
        if found is None or found.order.state is not OrderState.FULFILLED:
            return _obstacle(order_id, kind, None if found is None else found.order.state)
        used.append(found.order)
    return _apart(used) or _together(conn, order, used)


def _obstacle(order_id: str, kind: str, state: OrderState | None) -> Obstacle:
    which = f"the {NOUNS[kind]} {order_id}"
    if state in ALIVE:
        return Obstacle(WAITS[kind], f"waits for {which}, which is {state.value}")
    return Obstacle(Why.USED_ENDED, f"uses {which}, which is {state.value if state else 'gone'}", final=True)


def _apart(used: list[Order]) -> Obstacle | None:
    if len({order.member_fedid for order in used}) == 1:
        return None
    where = ", ".join(f"{names_of([order])} at {order.member}" for order in used)
    return Obstacle(Why.APART, f"what it uses is at different members: {where}")


def _together(conn: Connection, order: Order, used: list[Order]) -> Place | Obstacle:
    names = {one.id: _held_as(conn, one) for one in used}
    known = {name for name in names.values() if name is not None}
    if len(known) > 1:
        whom = ", ".join(f"{names_of([one])} as {name.project}/{name.name}" for one in used if (name := names[one.id]))
        return Obstacle(Why.APART, f"what it uses is lent under different names: {whom}")
    leases = {one.id: str(one.lease_id) for one in used}
    return Place(
        spec=with_references(order.spec, leases),
        fedid=used[0].member_fedid,
        member=used[0].member,
        name=next(iter(known), None),
        since=max(one.changed for one in used),
    )


def _held_as(conn: Connection, order: Order) -> User | None:
    attempt = None if order.lease_id is None else load_attempt(conn, order.lease_id)
    return None if attempt is None or not attempt.attempt.name else user_of(attempt.attempt.name)
