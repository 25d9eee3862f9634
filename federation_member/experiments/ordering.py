"""An experiment's segments as orders: everything about lenders, refusals, renewal and accounts is the order engine's."""

from __future__ import annotations

from datetime import datetime

from federation_member.experiments.errors import Why
from federation_member.experiments.model import Planned, Segment
from federation_member.orders.engine import Engine
from federation_member.orders.model import Order, OrderState, User, new_order
from federation_member.orders.scheduler import new_record
from federation_member.orders.store import load, load_attempt
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import LeaseChange
from fedkit.protocol.segments import SegmentGo
from fedkit.store import Tx

GOING = frozenset({OrderState.DELETING, OrderState.DELETED})
HELD = frozenset({OrderState.PENDING, OrderState.FULFILLED})


def open_order(
    tx: Tx, engine: Engine, owner: User, piece: Planned, *, experiment_id: str, order_id: str, now: datetime
) -> None:
    """Ask for a piece; orders of one experiment share its id as their batch."""
    order = new_order(order_id, owner, piece.spec, now, batch=experiment_id, location=piece.member)
    engine.store.add(tx, new_record(order))
    engine.scheduler.step(tx, order_id)


def give_back(tx: Tx, engine: Engine, order_id: str, reason: str) -> None:
    """Have whatever an order holds or may yet get be given back. Repeating is harmless."""
    record = load(tx.conn, order_id, lock=True)
    if record is not None and record.order.state not in GOING:
        engine.store.change(tx, record, state=OrderState.DELETING, code="", reason=reason, next_try=None)
        engine.scheduler.step(tx, order_id)


def go(tx: Tx, engine: Engine, order: Order, wanted: SegmentGo) -> None:
    """Tell the lender of a segment how it is to be; raises what a lender that is this member answers."""
    attempt = None if order.lease_id is None else load_attempt(tx.conn, order.lease_id)
    assert attempt is not None
    lender = Peer(attempt.attempt.fedid, attempt.attempt.address)
    engine.lenders.go(tx, lender, LeaseChange(lease_id=attempt.lease_id, segment=wanted))


def is_held(order: Order | None) -> bool:
    """Whether a lender holds it, promised or running."""
    return order is not None and order.state in HELD and order.lease_id is not None


def loss(segment: Segment) -> tuple[str, str] | None:
    """Code and reason by which a segment is lost for good; None while it runs or may yet be had."""
    order = segment.order
    if order is None or order.state in GOING:
        return Why.SEGMENT_GIVEN_BACK, f"{segment.testbed}: its order was deleted"
    refused = order.state is OrderState.OPEN and order.lease_id is None and order.code
    if refused or order.state is OrderState.CLOSED:
        return order.code or Why.SEGMENT_LOST, f"{segment.testbed}: {order.reason}"
    return None


def is_gone(segment: Segment) -> bool:
    """Whether every lender confirmed that nothing of it is left."""
    return segment.order is None or segment.order.state is OrderState.DELETED


def oldest(times: list[datetime | None]) -> datetime | None:
    """The first of these times, if there is any."""
    return min((time for time in times if time is not None), default=None)
