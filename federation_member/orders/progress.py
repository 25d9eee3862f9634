"""What an order becomes when a lender says something, or falls silent.

Pure bookkeeping inside the caller's transaction; what to do *next* is the scheduler's. Messages may come late, twice or in the wrong
order: a view older than the last one seen is ignored, and a view of a lease that we have given up only matters by
what its lender still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from federation_member.errors import UnknownLease, Why
from federation_member.orders.identities import Shown
from federation_member.orders.lenders import Lenders
from federation_member.orders.model import Access, AttemptState, Handle, Order, OrderState, OrderType
from federation_member.orders.store import HELD, MISSING, AttemptRecord, OrderStore, Record
from federation_member.orders.turns import user_of
from federation_member.orders.wishes import DONE, NOTHING, wishes_of
from federation_member.usage import book
from federation_member.usage.model import Party
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import ComputeSpec, Instance, LeaseState, LeaseView, Power
from fedkit.store import Tx

RENEWALS_PER_LEASE = 3
FRESH_MARGIN = timedelta(hours=8)  # a lender is shown a fresh credential so long before the one that it has ends
FRESH_PAUSE = timedelta(minutes=1)
MISSING_SIZE = 32 * 1024  # characters of all that a lender says is missing
ENDED = frozenset({LeaseState.FAILED, LeaseState.RELEASED})
ENDING = frozenset({LeaseState.FAILING, LeaseState.RELEASING})  # its lender is removing what it made
NOTHING_HELD: dict[str, Any] = {
    "lease_id": None,
    "member": None,
    "member_fedid": None,
    "lease_expires": None,
    "instance": None,
    "tunnels": (),
    "handle": None,
    "wishes": NOTHING,
}


def lender_of(record: AttemptRecord) -> Peer:
    """The member that an attempt was made at."""
    return Peer(record.attempt.fedid, record.attempt.address)


class Progress:
    """Applies what lenders say to attempts and their orders; `renew(fedid, at)` has a lender's leases renewed."""

    def __init__(
        self, store: OrderStore, lenders: Lenders, clock: Clock, renew: Callable[[str, datetime], None]
    ) -> None:
        self._store = store
        self._lenders = lenders
        self._clock = clock
        self._renew = renew

    def view(self, tx: Tx, record: Record, attempt: AttemptRecord, view: LeaseView) -> Record:
        """Apply a lender's view of a lease."""
        self._account(tx, record, attempt, view)
        if view.revision < attempt.revision:
            return record
        held = attempt.state in HELD
        if view.state in ENDED:
            return self._ended(tx, record, attempt, view) if not attempt.final else record
        if held and view.state in ENDING:
            self._note(tx, attempt, view, AttemptState.RELEASING)
            return self._gone(tx, record, attempt, view)
        if not held:
            self._note(tx, attempt, view, attempt.state)
            if attempt.final and view.state not in ENDING:  # refused or given up, yet the lender has it
                self.release(tx, attempt, attempt.attempt.code, attempt.attempt.reason)
            return record
        if view.state is LeaseState.RUNNING:
            return self._running(tx, record, attempt, view)
        state = attempt.state if attempt.state is AttemptState.RUNNING else AttemptState.ACCEPTED
        self._note(tx, attempt, view, state)
        if record.order.lease_id == attempt.lease_id and record.order.state is OrderState.OPEN:
            return self._store.change(
                tx,
                record,
                state=OrderState.PENDING,
                code="",
                reason=f"{attempt.attempt.member} accepted and is making it",
                order={"lease_expires": view.expires, "instance": _promised(view)},
            )
        if record.order.lease_id == attempt.lease_id and record.order.state is OrderState.PENDING:
            reason = f"{attempt.attempt.member} is making it: {view.reason}" if view.reason else None
            return self._store.change(tx, record, reason=reason, order={"instance": _promised(view)})
        return record

    def refused(self, tx: Tx, record: Record, attempt: AttemptRecord, refusal: FedError) -> Record:
        """The candidate said no; it holds nothing."""
        if attempt.state is not AttemptState.ASKED:
            return record
        code, reason = refusal.code, refusal.message
        values = {"code": code, "reason": reason, "access": Access(missing=missing_of(refusal.details))}
        self._store.change_attempt(tx.conn, attempt.lease_id, AttemptState.REFUSED, **values)
        return self._lost(tx, record, attempt, code, reason)

    def abandon(self, tx: Tx, record: Record, attempt: AttemptRecord, code: str, reason: str) -> Record:
        """The lender is silent: go on without it, and have removed whatever it made or will make."""
        if attempt.state not in HELD:
            return record
        self.release(tx, attempt, code, reason, AttemptState.NO_ANSWER)
        return self._lost(tx, record, attempt, code, reason)

    def withdraw(self, tx: Tx, record: Record, attempt: AttemptRecord) -> Record:
        """What was said of the user was taken back here: do without what they got by it, whether its lender knows or not."""
        if attempt.state not in HELD:
            return record
        reason = "what was said of its user here was taken back"
        self.release(tx, attempt, Why.REVOKED, reason)
        return self._lost(tx, record, attempt, Why.REVOKED, reason)

    def forgotten(self, tx: Tx, record: Record, attempt: AttemptRecord) -> Record:
        """The lender does not know the lease (any more)."""
        if attempt.final:
            return record
        code, reason = UnknownLease.code, f"{attempt.attempt.member} does not know the lease any more"
        self._store.change_attempt(tx.conn, attempt.lease_id, AttemptState.FAILED, code=code, reason=reason)
        return self._lost(tx, record, attempt, code, reason) if attempt.state in HELD else record

    def release(
        self,
        tx: Tx,
        attempt: AttemptRecord,
        code: str,
        reason: str,
        state: AttemptState = AttemptState.RELEASING,
    ) -> None:
        """Have the lender take back whatever it holds under this attempt."""
        self._store.change_attempt(tx.conn, attempt.lease_id, state, code=code, reason=reason)
        view = self._lenders.release(tx, lender_of(attempt), attempt.lease_id)
        if view is None:
            return
        book.borrowed_before(tx, attempt.attempt.fedid, view)
        if view.state in ENDED:
            self._note(tx, attempt, view, AttemptState.RELEASED)

    def _running(self, tx: Tx, record: Record, attempt: AttemptRecord, view: LeaseView) -> Record:
        self._note(tx, attempt, view, AttemptState.RUNNING)
        if record.order.lease_id != attempt.lease_id:
            return record
        reason = f"{_how(view)} at {attempt.attempt.member}{_reachable(record.order, view)}"
        fields = {
            "lease_expires": view.expires,
            "instance": view.instance,
            "tunnels": tuple(view.tunnels),
            "handle": _handle(view),
            "wishes": wishes_of(view),
            "rules": tuple(view.rules),
        }
        return self._store.change(
            tx,
            record,
            state=OrderState.FULFILLED,
            code=view.code,
            reason=f"{reason}; {view.reason}" if view.code else reason,
            order=fields,
            failures=0,
            next_try=None,
        )

    def _ended(self, tx: Tx, record: Record, attempt: AttemptRecord, view: LeaseView) -> Record:
        if attempt.state not in HELD:
            self._note(tx, attempt, view, AttemptState.RELEASED)
            return record
        self._note(tx, attempt, view, AttemptState.FAILED)
        return self._gone(tx, record, attempt, view)

    def _gone(self, tx: Tx, record: Record, attempt: AttemptRecord, view: LeaseView) -> Record:
        """The lender ended, or is ending, what the order still counted on."""
        code, reason = view.code or Why.LEASE_ENDED, view.reason or "its lender ended the lease"
        self._store.change_attempt(tx.conn, attempt.lease_id, code=code, reason=reason)
        return self._lost(tx, record, attempt, code, reason)

    def _lost(self, tx: Tx, record: Record, attempt: AttemptRecord, code: str, reason: str) -> Record:
        """The order's lease is gone: back to the candidates, or to the end of a one-time order."""
        order = record.order
        if order.lease_id != attempt.lease_id:
            return record
        if order.state is OrderState.FULFILLED:
            what = f"lost at {attempt.attempt.member}: {reason}"
            if order.type is OrderType.ONE_TIME:
                return self._store.change(
                    tx, record, state=OrderState.CLOSED, code=code, reason=what, order=NOTHING_HELD, next_try=None
                )
            return self._store.change(
                tx, record, state=OrderState.OPEN, code=code, reason=what, order=NOTHING_HELD, round=record.round + 1
            )
        if order.state is OrderState.PENDING:
            what = f"{attempt.attempt.member}: {reason}"
            return self._store.change(tx, record, state=OrderState.OPEN, code=code, reason=what, order=NOTHING_HELD)
        return self._store.change(tx, record, order=NOTHING_HELD)

    def _account(self, tx: Tx, record: Record, attempt: AttemptRecord, view: LeaseView) -> None:
        """Note what the lender says of who used how much, also in a late view."""
        owner = user_of(attempt.attempt.name) if attempt.attempt.name else record.order.owner
        lender = lender_of(attempt)
        party = Party(lender.fedid, lender.address, owner.project, owner.name, record.order.spec.kind)
        book.borrowed(tx, party, view)

    def _note(self, tx: Tx, attempt: AttemptRecord, view: LeaseView, state: AttemptState) -> None:
        now = self._clock()
        values: dict[str, Any] = {"revision": view.revision, "heard": now, "expires": view.expires}
        if view.proof is not None:
            values["access"] = Access(proof=view.proof.model_dump(mode="json"))
        if state in HELD:
            due = values["sync_due"] = next_sync(attempt.seconds, attempt.fresh_due, now)
            tx.after_commit(lambda: self._renew(attempt.attempt.fedid, due))
        self._store.change_attempt(tx.conn, attempt.lease_id, state, **values)


def _promised(view: LeaseView) -> Instance | None:
    """What is to be known of a segment before it runs; of anything else, nothing."""
    return view.instance if view.instance is not None and view.instance.segment is not None else None


def _how(view: LeaseView) -> str:
    """What it does at its lender, and what it is about to do."""
    power = None if view.instance is None else view.instance.power
    does = "runs" if power in (None, Power.RUNNING) else f"is {power}"
    return does if view.wanted_power is None else f"{does}, is being {DONE[view.wanted_power]}"


def _reachable(order: Order, view: LeaseView) -> str:
    """Where machines have public addresses, none has a tunnel, and its user should know why."""
    address = None if view.instance is None else view.instance.public_address
    if not isinstance(order.spec, ComputeSpec) or address is None or view.tunnels:
        return ""
    return f", reachable at its public address {address} without a tunnel"


def next_sync(seconds: int, fresh_due: datetime | None, now: datetime) -> datetime:
    """When a lease of so many seconds is renewed next, its lender being shown fresh credentials at `fresh_due`."""
    regular = now + renewal_pause(seconds)
    return min(regular, fresh_due) if fresh_due is not None and fresh_due > now else regular


def fresh_due(shown: Iterable[Shown], now: datetime) -> datetime | None:
    """When a lender that was shown these must be shown fresh ones: well before the first ends, and not again at once."""
    ends = min((credential.expires for credential in shown), default=now)
    if ends <= now:
        return None
    return max(ends - FRESH_MARGIN, now + (ends - now) / 2, now + FRESH_PAUSE)


def missing_of(details: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    """The sets of statements that a lender names; a lender that names nonsense names nothing."""
    try:
        sets = MISSING.validate_python(details.get("missing", ()))
    except ValidationError:
        return ()
    return sets if sum(len(text) for wanted in sets for text in wanted) <= MISSING_SIZE else ()


def _handle(view: LeaseView) -> Handle | None:
    if view.allocation is None:
        return None
    return Handle(view.allocation, tuple(view.certificates), tuple(view.credentials))


def renewal_pause(seconds: int) -> timedelta:
    """How long after each renewal a lease of so many seconds is renewed again."""
    return timedelta(seconds=seconds / RENEWALS_PER_LEASE)
