"""Decides what an experiment needs next; a level-triggered reconciler over the order engine.

    made, an order changed, due, restarted ──► step(tx, id): read experiment and orders, do what is to be done, write

All segments are promised before any is started, so a refusal anywhere costs nothing anywhere. From then on each lender is told what
it does not know yet: that its segment is to start, and of each portal's partner what that partner's lender said last, or our tunnel
server of a relay (relays.py). What was told
stands beside the segment, with the lease that it was told of: a segment that is had anew elsewhere is told everything.

A segment that is lost (failing.py) is asked of others if its place is not fixed; if none has it, its failure action says what follows.
Nothing is waited for without end: `START_LIMIT` for a segment to run, `JOIN_LIMIT` for the portals to join the first time, and at
the end `CONFIRM_LIMIT` for silent lenders, whose leases have ended by themselves then.

A step is a function of the tables, in one transaction; it may be run at any time, twice, or after a crash.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from federation_member.experiments import attachments, growth, store
from federation_member.experiments.attaching import keys_of
from federation_member.experiments.errors import Why
from federation_member.experiments.failing import Loss, breakage, failure_action, fatal, look_by, loss
from federation_member.experiments.joining import wanted
from federation_member.experiments.model import ALIVE, FINAL, Experiment, Segment, State
from federation_member.experiments.ordering import elsewhere, give_back, go, is_held, oldest, open_order, unconfirmed
from federation_member.experiments.outlook import SETTLED, Outlook, asking, listed, outlook
from federation_member.experiments.relays import Relays
from federation_member.orders.engine import Engine
from federation_member.orders.model import LEASE_SECONDS, Order
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.protocol.segments import SegmentGo
from fedkit.store import Tx

WARNING = timedelta(minutes=15)  # before an experiment ends, its log says so
JOIN_LIMIT = timedelta(minutes=15)  # until all portals have found one another for the first time
SETTLE = timedelta(seconds=15)  # a portal that comes and goes is told of so often at most
CONFIRM_LIMIT = timedelta(seconds=LEASE_SECONDS + 60)  # a lender's clock may differ a little
WANTED_ENDS = frozenset({"", Why.ENDED})  # codes of an end that is no failure

Losses = Mapping[int, Loss]


class Reconciler:
    """Steps experiments."""

    def __init__(self, engine: Engine, relays: Relays, clock: Clock) -> None:
        self._engine = engine
        self._relays = relays
        self._clock = clock

    def step(self, tx: Tx, experiment_id: str) -> datetime | None:
        """Do what the experiment needs now; return when it must be looked at next (None: when something happens)."""
        experiment = store.load(tx.conn, experiment_id, lock=True)
        if experiment is None or experiment.state in FINAL:
            return None
        again = None
        if experiment.state in ALIVE:
            experiment, again = self._go_on(tx, experiment)
        if experiment.state is State.TERMINATING:
            return self._wind_up(tx, experiment)
        until = experiment.valid_until
        return oldest([again, until, until - WARNING if until is not None and not experiment.warned else None])

    def end(
        self, tx: Tx, experiment: Experiment, code: str, reason: str, about: tuple[str, ...] | None = None
    ) -> Experiment:
        """Begin to give everything back."""
        changes = {"state": State.TERMINATING, "code": code, "reason": reason, "about": about}
        return store.change(tx, experiment, self._clock(), **changes)

    def _go_on(self, tx: Tx, experiment: Experiment) -> tuple[Experiment, datetime | None]:
        now, until = self._clock(), experiment.valid_until
        if until is not None and until <= now:
            reason = f"its validity ended at {until:%Y-%m-%d %H:%M:%S} UTC"
            return self.end(tx, experiment, Why.ENDED, reason, ()), None
        experiment, segments = self._mend(tx, experiment)
        if experiment.extension is not None:
            experiment = growth.go_on(tx, self._engine, experiment, segments, now)
            segments = store.whole(tx.conn, experiment).segments
        experiment, segments = attachments.go_on(tx, experiment, segments, now)
        segments, insist_due = growth.insist(tx, experiment, segments, now)
        goes, segments = growth.told(experiment, segments), growth.established(experiment, segments)
        losses = {one.number: found for one in segments if (found := loss(one, now)) is not None}
        end = fatal(segments, losses)
        if end is not None:
            return self.end(tx, experiment, *end), None
        experiment = self._warn(tx, experiment)
        asked = [one.testbed for one in segments if one.number not in losses and not is_held(one.order)]
        if experiment.state is State.ALLOCATING and asked:
            return self._become(tx, experiment, asking(asked)), None
        relays_due = self._relays.follow(tx, experiment.id, goes)
        known = {one.number for one in segments}
        told = [one for one in self._tell(tx, goes, experiment) if one.number in known]
        experiment, due = self._judge(tx, experiment, told, losses)
        return experiment, oldest(
            [due, growth.due(experiment.extension), relays_due, attachments.due(tx.conn, experiment), insist_due]
        )

    def _become(self, tx: Tx, experiment: Experiment, new: Outlook) -> Experiment:
        changes = {"state": new.state, "code": new.code, "reason": new.reason, "about": new.about}
        return store.change(tx, experiment, self._clock(), **changes)

    def _warn(self, tx: Tx, experiment: Experiment) -> Experiment:
        until = experiment.valid_until
        if until is None or experiment.warned or until - WARNING > self._clock():
            return experiment
        reason = f"it ends at {until:%Y-%m-%d %H:%M:%S} UTC unless it is renewed"
        noted = store.note(tx, experiment, self._clock(), Why.ENDS_SOON, reason, ())
        return store.change(tx, noted, self._clock(), warned=True)

    # What is lost

    def _mend(self, tx: Tx, experiment: Experiment) -> tuple[Experiment, tuple[Segment, ...]]:
        """Give up every segment that broke, and ask others for it where that is possible."""
        segments = store.whole(tx.conn, experiment, lock=True).segments
        broken = [(one, found) for one in segments if (found := breakage(one, self._clock())) is not None]
        for segment, found in broken:
            experiment = self._give_up(tx, experiment, segment, found)
        return experiment, store.whole(tx.conn, experiment).segments if broken else segments

    def _give_up(self, tx: Tx, experiment: Experiment, segment: Segment, found: Loss) -> Experiment:
        piece = elsewhere(tx, segment)
        give_back(tx, self._engine, segment.order_id, found.reason)
        if piece is None:
            store.change_segment(tx, experiment.id, segment, code=found.code, reason=found.reason)
            return experiment
        now, order_id = self._clock(), str(uuid.uuid4())
        store.change_segment(tx, experiment.id, segment, order_id=order_id, told_lease=None, told=None, started=None)
        owner = experiment.owner
        open_order(tx, self._engine, owner, piece, experiment_id=experiment.id, order_id=order_id, now=now)
        if failure_action(segment) == "ignore":
            return experiment
        reason = f"{segment.testbed}: {found.reason}; others are asked for it"
        return store.note(tx, experiment, now, found.code, reason, (segment.testbed,))

    # What lenders are told

    def _tell(self, tx: Tx, segments: Sequence[Segment], experiment: Experiment) -> list[Segment]:
        """Tell each lender what it was not told yet; returns the segments with what was told."""
        asked = {**growth.asked(experiment), **attachments.asked(tx.conn, experiment, segments)}
        goes = wanted(segments, asked, keys_of(attachments.listed(tx.conn, experiment.id)))
        return [
            segment
            if segment.order is None
            else self._tell_one(tx, segment, segment.order, goes[segment.number], experiment.id)
            for segment in segments
        ]

    def _tell_one(self, tx: Tx, segment: Segment, order: Order, wish: SegmentGo, experiment_id: str) -> Segment:
        text = wish.model_dump_json()
        if not is_held(order) or (segment.told_lease, segment.told) == (order.lease_id, text):
            return segment
        is_same = segment.told_lease == order.lease_id and not _is_told_to_change(segment.told, wish)
        started = segment.started if is_same else self._clock()
        new = {"told_lease": order.lease_id, "told": text, "started": started}
        told = store.change_segment(tx, experiment_id, segment, **new)
        try:
            go(tx, self._engine, order, wish)
        except FedError as error:  # a lender that is this member; others are heard of later
            give_back(tx, self._engine, order.id, error.message)
            return store.change_segment(tx, experiment_id, told, code=error.code, reason=error.message)
        return told

    # How far it is

    def _judge(
        self, tx: Tx, experiment: Experiment, segments: Sequence[Segment], losses: Losses
    ) -> tuple[Experiment, datetime | None]:
        now, was = self._clock(), experiment.state
        join_by = (store.since(tx.conn, experiment) if was is State.JOINING else now) + JOIN_LIMIT
        new = outlook(was, segments, losses, overdue=join_by <= now)
        was_active = was in SETTLED and store.was_in(tx.conn, experiment.id, State.ACTIVE)
        if new.hopeless and not was_active:
            reason = f"not joined within {JOIN_LIMIT}: {new.reason}"
            return self.end(tx, experiment, Why.NOT_JOINED, reason, new.about), None
        due = oldest(
            [
                *(look_by(one, now) for one in segments),
                join_by if new.state is State.JOINING and join_by > now else None,
            ]
        )
        settled = experiment.changed + SETTLE
        is_same = (new.state, new.code, new.reason) == (was, experiment.code, experiment.reason)
        if was_active and new.state in SETTLED and not is_same and now < settled:
            return experiment, oldest([due, settled])
        return self._become(tx, experiment, new), due

    # Its end

    def _wind_up(self, tx: Tx, experiment: Experiment) -> datetime | None:
        self._relays.follow(tx, experiment.id, ())
        attachments.drop_all(tx, experiment.id)
        for order_id in store.orders_of(tx.conn, experiment.id):
            give_back(tx, self._engine, order_id, "its experiment ends")
        silent = unconfirmed(tx, self._engine, experiment.id)
        over = store.since(tx.conn, experiment) + CONFIRM_LIMIT
        if silent and self._clock() < over:
            return over
        if unconfirmed(tx, self._engine, experiment.id, own=True):
            return None
        if silent:
            reason = f"{listed(silent)} did not confirm; what it lent has ended there by itself"
            experiment = store.note(tx, experiment, self._clock(), Why.UNCONFIRMED, reason)
        state = State.TERMINATED if experiment.code in WANTED_ENDS else State.FAILED
        ended: dict[str, Any] = {"state": state, "extension": None}
        if not experiment.code:
            reason = "every lender confirmed that nothing is left"
            ended |= {"reason": f"{listed(silent)} did not confirm, and every lease has ended" if silent else reason}
            ended |= {"about": None if silent else ()}
        store.change(tx, experiment, self._clock(), **ended)
        store.forget_secrets(tx, experiment.id)
        return None


def _is_told_to_change(before: str | None, wish: SegmentGo) -> bool:
    """Whether a lender is told another shape of its piece than it was told last."""
    if wish.spec is None or wish.promise:
        return False
    told = None if before is None else SegmentGo.model_validate_json(before)
    return told is None or told.promise or told.spec is None or told.spec.version != wish.spec.version
