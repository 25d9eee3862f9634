"""Decides what an order needs next; a level-triggered reconciler.

    made, answered, changed, due, directory changed ──► step(tx, id): read the row, do the one next thing, write

A step is a function of the tables and of the directory's picture, inside the transaction of whatever caused it: a refusal and the
next candidate's request are one commit. So it may be run at any time, twice, or after a crash. Own middleware comes first (its
refusal is known at once, and the same step goes on), then the candidates that the picker ranks.

A member whose policy refuses is asked again at once under the user's next identity (`turns.py`), before anybody else is.

When all have refused, the order stays open, its reason naming each refusal, and is tried again (a new *round*) after a growing
pause that stands in its row. If a member appears, comes back or changes its offer, it alone is asked at once.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from federation_member.errors import Why
from federation_member.orders.candidates import KnownMember, Snapshot, is_at, peer
from federation_member.orders.identities import Identities, Shown
from federation_member.orders.lenders import Lenders
from federation_member.orders.model import Attempt, AttemptState, Order, OrderState, Sent, User
from federation_member.orders.picker import Picker
from federation_member.orders.progress import NOTHING_HELD, Progress, fresh_due
from federation_member.orders.store import (
    HELD,
    AttemptRecord,
    OrderStore,
    Record,
    forget_rounds,
    load,
    load_attempt,
    load_attempts,
)
from federation_member.orders.turns import Turn, next_turn
from federation_member.orders.uses import Obstacle, Place, names_of, place, users_of
from federation_member.orders.wishes import with_rules
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.protocol.lending import AnySpec, LeaseCreate
from fedkit.store import Tx

FIRST_PAUSE = 5.0  # seconds after the first round that found nobody; doubles with each
LONGEST_PAUSE = 600.0
ENDED = frozenset({OrderState.CLOSED, OrderState.DELETED})
NAMED_REFUSALS = 8

Judgement = Callable[[Tx, Record, AttemptRecord], Record]


@dataclass(frozen=True)
class World:
    """What is known of the members now. Replaced as a whole by the engine.

    `changed` tells since when a member is as it is; `silent` names those that left an order without an answer and
    were not heard of since: they are only asked where nobody else can be.
    """

    snapshot: Snapshot
    changed: dict[str, datetime] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)  # lives on through all pictures; added to from any thread


class Scheduler:
    """Steps orders; `world` returns the present picture of the members and may be called from any thread."""

    def __init__(
        self,
        store: OrderStore,
        progress: Progress,
        lenders: Lenders,
        identities: Identities,
        picker: Picker,
        world: Callable[[], World],
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._store = store
        self._progress = progress
        self._lenders = lenders
        self._identities = identities
        self._picker = picker
        self._world = world
        self._clock = clock
        self._chance = chance

    def step(self, tx: Tx, order_id: str) -> datetime | None:
        """Do what the order needs now; return when it must be looked at next (None: when something happens)."""
        record = load(tx.conn, order_id, lock=True)
        return None if record is None else self._go_on(tx, record)

    def _go_on(self, tx: Tx, record: Record) -> datetime | None:
        more = True
        while more:
            record, more = self._advance(tx, record)
        due = self._due(record)
        if due != record.due:
            self._store.change(tx, record, due=due)
        return due

    def heard(self, tx: Tx, lease_id: str, fedid: str, judge: Judgement) -> bool:
        """Apply what a lender said of one of its leases, then step the order; False if we know no such lease."""
        found = load_attempt(tx.conn, lease_id)
        if found is None or found.attempt.fedid != fedid:
            return False
        record = load(tx.conn, found.attempt.order_id, lock=True)
        attempt = load_attempt(tx.conn, lease_id)  # again, now that nobody else can change it
        assert record is not None
        if attempt is not None:
            self._go_on(tx, judge(tx, record, attempt))
        return True

    def _advance(self, tx: Tx, record: Record) -> tuple[Record, bool]:
        """Do one thing; return the record, and whether there may be more to do at once."""
        state = record.order.state
        if state is OrderState.DELETING:
            return self._finish_deleting(tx, record), False
        if state in ENDED:
            return record, False
        until = record.order.valid_until
        if until is not None and until <= self._clock():
            return self._close(tx, record, until), False
        if state is OrderState.OPEN and record.order.lease_id is None:
            return self._find_lender(tx, record)
        return record, False

    def _due(self, record: Record) -> datetime | None:
        order = record.order
        if order.state in ENDED or order.state is OrderState.DELETING:
            return None
        times = [order.valid_until]
        if order.state is OrderState.OPEN and order.lease_id is None:
            begins = order.valid_from if order.valid_from and order.valid_from > self._clock() else None
            times += [record.next_try or begins]
        return min((time for time in times if time is not None), default=None)

    # Ending

    def _close(self, tx: Tx, record: Record, until: datetime) -> Record:
        reason = f"its validity ended at {_when(until)}"
        for attempt in load_attempts(tx.conn, record.order.id):
            if attempt.state in HELD:
                self._progress.release(tx, attempt, Why.VALIDITY_ENDED, reason)
        return self._store.change(
            tx,
            record,
            state=OrderState.CLOSED,
            code=Why.VALIDITY_ENDED,
            reason=reason,
            order=NOTHING_HELD,
            next_try=None,
        )

    def _finish_deleting(self, tx: Tx, record: Record) -> Record:
        for attempt in load_attempts(tx.conn, record.order.id):
            if attempt.state in HELD:
                self._progress.release(tx, attempt, "", "the order is being deleted")
        awaited = [attempt.attempt for attempt in load_attempts(tx.conn, record.order.id) if not attempt.final]
        users = users_of(tx.conn, record.order.id)
        if not awaited and not users:
            reason = "every lender confirmed that nothing is left"
            return self._store.change(tx, record, state=OrderState.DELETED, code="", reason=reason, order=NOTHING_HELD)
        if awaited:
            last = {attempt.fedid: attempt for attempt in awaited}  # several may be under way at one member
            return self._store.change(tx, record, reason=f"waits for {'; '.join(map(_awaited, last.values()))}")
        return self._store.change(tx, record, reason=f"waits for what uses it: {names_of(users)}")

    # Finding a lender

    def _find_lender(self, tx: Tx, record: Record) -> tuple[Record, bool]:
        now = self._clock()
        if record.order.valid_from is not None and record.order.valid_from > now:
            reason = f"waits for its validity, from {_when(record.order.valid_from)}"
            return self._store.change(tx, record, reason=reason), False
        placed = place(tx.conn, record.order)
        if isinstance(placed, Obstacle):
            return self._held_up(tx, record, placed), False
        if record.next_try is not None and record.next_try <= now:
            record = self._store.change(tx, record, round=record.round + 1, next_try=None)
            forget_rounds(tx.conn, record.order.id, record.round - 1)
        try:
            names = self._identities.names(tx.conn, record.order.owner)
        except FedError as error:
            return self._store.change(tx, record, code=error.code, reason=error.message, next_try=None), False
        names = names if placed.name is None else (placed.name,)
        attempts = [a for a in load_attempts(tx.conn, record.order.id) if a.round == record.round]
        world = self._world()
        fitting = [m for m in world.snapshot.fitting(placed.spec, record.order.location) if is_at(m, placed.fedid)]
        turns = {m.fedid: self._turn(tx, m, names, attempts, world, placed.since) for m in fitting}
        candidates = [m for m in fitting if turns[m.fedid] is not None]
        if not candidates:
            return self._give_up_for_now(tx, record, attempts, fitting, placed), False
        chosen = self._choose(record.order, candidates, attempts, world)
        turn = turns[chosen.fedid]
        assert turn is not None
        return self._ask(tx, record, chosen, placed.spec, turn, len(attempts))

    def _choose(
        self, order: Order, candidates: list[KnownMember], attempts: list[AttemptRecord], world: World
    ) -> KnownMember:
        """The member asked last, if it may be asked anew; else our own, else the one that is ranked first."""
        last = attempts[-1].attempt.fedid if attempts else None
        preferred = [m for m in candidates if m.fedid == last] or [
            m for m in candidates if self._lenders.is_own(peer(m))
        ]
        if preferred:
            return preferred[0]
        speaking = [m for m in candidates if m.fedid not in world.silent]
        return self._picker.rank(order, speaking or candidates)[0]

    def _held_up(self, tx: Tx, record: Record, obstacle: Obstacle) -> Record:
        """It waits for what it uses, or ends, because that has ended for good."""
        state = OrderState.CLOSED if obstacle.final else None
        return self._store.change(tx, record, state=state, code=obstacle.code, reason=obstacle.reason, next_try=None)

    def _turn(
        self,
        tx: Tx,
        member: KnownMember,
        names: tuple[User, ...],
        attempts: list[AttemptRecord],
        world: World,
        since: datetime | None,
    ) -> Turn | None:
        """How a member may be asked now, if it may; what it said before it, or what is used, changed counts no more."""
        if not member.alive or self._lenders.silent(peer(member)):
            return None
        asked = [a for a in attempts if a.attempt.fedid == member.fedid]
        for changed in (world.changed.get(member.fedid), since):
            if changed is not None:
                asked = [a for a in asked if a.attempt.started >= changed]

        def complete(name: User, missing: Sequence[Sequence[str]]) -> tuple[Shown, ...]:
            asked_last = attempts[-1].attempt.fedid == member.fedid  # whoever else refused was completed in its turn
            return self._identities.complete(tx.conn, name, missing) if asked_last else ()

        return next_turn(names, asked, complete)

    def _ask(
        self, tx: Tx, record: Record, member: KnownMember, spec: AnySpec, turn: Turn, number: int
    ) -> tuple[Record, bool]:
        now = self._clock()
        order = record.order
        identity = self._identities.of(tx, turn.name)
        shown = (*identity.credentials, *turn.added)
        kept = {credential.id for credential in turn.added}
        attempt = AttemptRecord(
            Attempt(
                lease_id=str(uuid.UUID(int=self._chance.getrandbits(128), version=4)),
                order_id=order.id,
                member=member.name,
                fedid=member.fedid,
                address=member.address,
                state=AttemptState.ASKED,
                code="",
                reason="",
                started=now,
                changed=now,
                expires=None,
                name=identity.name,
                sent=tuple(Sent(c.id, c.statement, c.id in kept) for c in shown),
            ),
            record.round,
            revision=0,
            seconds=order.lease_seconds,
            heard=now,
            number=number,
            fresh_due=fresh_due(shown, now),
        )
        self._store.add_attempt(tx.conn, attempt)
        body = LeaseCreate(
            lease_id=attempt.lease_id,
            name=identity.name,
            principal=identity.principal,
            credentials=[credential.text for credential in shown],
            spec=with_rules(spec, order.rules),  # as they were changed, if it is made anew
            seconds=order.lease_seconds,
        )
        fields = {"lease_id": attempt.lease_id, "member": member.name, "member_fedid": member.fedid}
        try:
            view = self._lenders.create(tx, peer(member), body)
        except FedError as refusal:
            return self._progress.refused(tx, record, attempt, refusal), True
        if view is not None:
            record = self._store.change(tx, record, order=fields)
            return self._progress.view(tx, record, attempt, view), False
        if record.failures > 0:  # later rounds are told by their outcome alone
            return self._store.change(tx, record, order=fields), False
        return self._store.change(tx, record, code="", reason=f"asks {member.name}", order=fields), False

    def _give_up_for_now(
        self, tx: Tx, record: Record, attempts: list[AttemptRecord], fitting: list[KnownMember], placed: Place
    ) -> Record:
        """Say why nobody can be asked; what somebody offers is asked for again after a pause, the rest when that changes."""
        if not fitting:
            reason = self._why_none(placed, record.order.location)
            return self._store.change(tx, record, code=Why.UNMET_REQUIREMENTS, reason=reason, next_try=None)
        code, reason = self._refusals(attempts, fitting)
        if record.next_try is not None:
            return self._store.change(tx, record, code=code, reason=reason)
        pause = min(FIRST_PAUSE * 2 ** min(record.failures, 20), LONGEST_PAUSE) * self._chance.uniform(0.8, 1.2)
        again = self._clock() + timedelta(seconds=pause)
        return self._store.change(tx, record, code=code, reason=reason, next_try=again, failures=record.failures + 1)

    def _why_none(self, placed: Place, location: str | None) -> str:
        snapshot = self._world().snapshot
        if placed.member is None:
            return snapshot.why_none(placed.spec, location)
        there = [m for m in snapshot.members if is_at(m, placed.fedid)]
        if there and not any(is_at(member, location) for member in there):
            return f"what it uses is at {placed.member}, and it may only be at {location}"
        return snapshot.why_none(placed.spec, placed.member)

    def _refusals(self, attempts: list[AttemptRecord], fitting: list[KnownMember]) -> tuple[str, str]:
        last = {a.attempt.fedid: a.attempt for a in attempts}
        told = []
        for member in fitting[:NAMED_REFUSALS]:
            attempt = last.get(member.fedid)
            if attempt is not None:
                told.append(f"{member.name}: {attempt.reason or attempt.code}")
            elif not member.alive:
                told.append(f"{member.name}: not heard of since {_when(member.last_seen)}")
            else:
                told.append(f"{member.name}: does not answer")
        more = "; …" if len(fitting) > NAMED_REFUSALS else ""
        codes = {attempt.code for attempt in last.values()}
        return codes.pop() if len(codes) == 1 else Why.REFUSED_BY_ALL, "; ".join(told) + more


def new_record(order: Order) -> Record:
    """The record of an order that nothing has been done for yet."""
    return Record(order, round=1, failures=0, next_try=None, due=None)


def _awaited(attempt: Attempt) -> str:
    ends = f" (its lease ends by itself at {_when(attempt.expires)})" if attempt.expires else ""
    return f"{attempt.member} to confirm{ends}"


def _when(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC")
