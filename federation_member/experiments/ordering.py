"""An experiment's segments as orders: everything about lenders, refusals, renewal and accounts is the order engine's."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import update

from federation_member.experiments.failing import GOING
from federation_member.experiments.model import Planned, Segment
from federation_member.experiments.store import orders_of
from federation_member.orders.engine import Engine
from federation_member.orders.model import AttemptState, Order, OrderState, User, new_order
from federation_member.orders.progress import lender_of
from federation_member.orders.requirements import MAX_LENGTH
from federation_member.orders.scheduler import new_record
from federation_member.orders.store import load, load_attempt, load_attempts
from federation_member.orders.tables import orders
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import LeaseChange
from fedkit.protocol.segments import SegmentGo, SegmentSpec
from fedkit.store import Tx

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


def respecify(tx: Tx, segment: Segment, spec: SegmentSpec) -> None:
    """Let a piece's order say what the piece is to be from now on."""
    tx.conn.execute(update(orders).where(orders.c.id == segment.order_id).values(spec=spec.model_dump_json()))


def is_held(order: Order | None) -> bool:
    """Whether a lender holds it, promised or running."""
    return order is not None and order.state in HELD and order.lease_id is not None


def elsewhere(tx: Tx, segment: Segment) -> Planned | None:
    """A lost segment as it may be asked of others than who had it last; None if its place is fixed, or unknown who had it."""
    order = segment.order
    if order is None or order.location is not None:
        return None
    assert isinstance(order.spec, SegmentSpec)
    held = [
        attempt.attempt for attempt in load_attempts(tx.conn, order.id) if attempt.state is not AttemptState.REFUSED
    ]
    clauses = [order.spec.requirements] if order.spec.requirements else []
    requirements = " && ".join([*clauses, *(f'fedid != "{fedid}"' for fedid in {one.fedid: None for one in held})])
    if not held or len(requirements) > MAX_LENGTH:
        return None
    return Planned(order.spec.model_copy(update={"requirements": requirements}), None)


def unconfirmed(tx: Tx, engine: Engine, experiment_id: str, *, own: bool = False) -> list[str]:
    """The names of the members that have not confirmed yet that nothing of an experiment is left; or of us alone."""
    members = [
        attempt.attempt.member
        for order_id in orders_of(tx.conn, experiment_id)
        for attempt in load_attempts(tx.conn, order_id)
        if not attempt.final and (not own or engine.lenders.is_own(lender_of(attempt)))
    ]
    return list(dict.fromkeys(members))


def oldest(times: list[datetime | None]) -> datetime | None:
    """The first of these times, if there is any."""
    return min((time for time in times if time is not None), default=None)
