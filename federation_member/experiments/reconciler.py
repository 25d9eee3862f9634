"""Decides what an experiment needs next; a level-triggered reconciler over the order engine.

    made, an order changed, due, restarted ──► step(tx, id): read experiment and orders, do what is to be done, write

All segments are promised before any is started, so a refusal anywhere costs nothing anywhere. From then on each lender is told what
it does not know yet: that its segment is to start, and of each portal's partner what that partner's lender said last. What was told
stands beside the segment, with the lease that it was told of: a segment that is had anew elsewhere is told everything.

A step is a function of the tables, in one transaction; it may be run at any time, twice, or after a crash.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from federation_member.experiments import store
from federation_member.experiments.errors import Why
from federation_member.experiments.joining import ailing, apart, wanted
from federation_member.experiments.model import ALIVE, FINAL, Experiment, Segment, State, Whole
from federation_member.experiments.ordering import give_back, go, is_gone, is_held, loss, oldest
from federation_member.orders.engine import Engine
from federation_member.orders.model import OrderState
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.store import Tx

WARNING = timedelta(minutes=15)  # before an experiment ends, its log says so
NAMED = 5  # testbeds, portals or nodes that a reason names
WANTED_ENDS = frozenset({"", Why.ENDED})  # codes of an end that is no failure


class Reconciler:
    """Steps experiments."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def step(self, tx: Tx, experiment_id: str) -> datetime | None:
        """Do what the experiment needs now; return when it must be looked at next (None: when something happens)."""
        experiment = store.load(tx.conn, experiment_id, lock=True)
        if experiment is None or experiment.state in FINAL:
            return None
        if experiment.state in ALIVE:
            experiment = self._go_on(tx, store.whole(tx.conn, experiment, lock=True))
        if experiment.state is State.TERMINATING:
            self._wind_up(tx, experiment)
            return None
        until = experiment.valid_until
        return oldest([until, until - WARNING if until is not None and not experiment.warned else None])

    def end(
        self, tx: Tx, experiment: Experiment, code: str, reason: str, about: tuple[str, ...] | None = None
    ) -> Experiment:
        """Begin to give everything back."""
        changes = {"state": State.TERMINATING, "code": code, "reason": reason, "about": about}
        return store.change(tx, experiment, self._clock(), **changes)

    def _go_on(self, tx: Tx, whole: Whole) -> Experiment:
        experiment, segments = whole.experiment, whole.segments
        until = experiment.valid_until
        if until is not None and until <= self._clock():
            return self.end(tx, experiment, Why.ENDED, f"its validity ended at {until:%Y-%m-%d %H:%M:%S} UTC", ())
        lost = next((found for found in map(loss, segments) if found is not None), None)
        if lost is not None:
            return self.end(tx, experiment, *lost)
        experiment = self._warn(tx, experiment)
        if experiment.state is State.ALLOCATING and not all(is_held(segment.order) for segment in segments):
            return self._become(tx, experiment, State.ALLOCATING, _asked(segments))
        try:
            self._tell(tx, segments, experiment.id)
        except FedError as error:
            return self.end(tx, experiment, error.code, error.message)
        return self._become(tx, experiment, *_state_of(segments))

    def _become(self, tx: Tx, experiment: Experiment, state: State, reason: str) -> Experiment:
        return store.change(tx, experiment, self._clock(), state=state, code="", reason=reason)

    def _warn(self, tx: Tx, experiment: Experiment) -> Experiment:
        until = experiment.valid_until
        if until is None or experiment.warned or until - WARNING > self._clock():
            return experiment
        reason = f"it ends at {until:%Y-%m-%d %H:%M:%S} UTC unless it is renewed"
        noted = store.note(tx, experiment, self._clock(), Why.ENDS_SOON, reason, ())
        return store.change(tx, noted, self._clock(), warned=True)

    def _tell(self, tx: Tx, segments: tuple[Segment, ...], experiment_id: str) -> None:
        """Tell each lender what it was not told yet; raises what a lender that is this member answers."""
        goes = wanted(segments)
        for segment in segments:
            order = segment.order
            if order is None or order.lease_id is None or not is_held(order):
                continue
            text = goes[segment.number].model_dump_json()
            if (segment.told_lease, segment.told) != (order.lease_id, text):
                store.told(tx, experiment_id, segment.number, order.lease_id, text)
                go(tx, self._engine, order, goes[segment.number])

    def _wind_up(self, tx: Tx, experiment: Experiment) -> None:
        segments = store.whole(tx.conn, experiment, lock=True).segments
        for segment in segments:
            give_back(tx, self._engine, segment.order_id, "its experiment ends")
        if not all(map(is_gone, store.whole(tx.conn, experiment).segments)):
            return
        if experiment.code in WANTED_ENDS:
            reason = experiment.reason if experiment.code else "every lender confirmed that nothing is left"
            store.change(tx, experiment, self._clock(), state=State.TERMINATED, reason=reason, about=())
        else:
            store.change(tx, experiment, self._clock(), state=State.FAILED)


def _state_of(segments: tuple[Segment, ...]) -> tuple[State, str]:
    """How far an experiment is whose segments were all told to start."""
    starting = [s for s in segments if s.order is None or s.order.state is not OrderState.FULFILLED]
    if starting:
        told = [f"{s.testbed}: {s.order.reason}" for s in starting[:NAMED] if s.order is not None]
        return State.STARTING, "; ".join(told)
    missing = apart(segments)
    if missing:
        return State.JOINING, f"waits for the portals {_list(missing)}"
    told = ailing(segments)
    return State.ACTIVE, "; ".join(["everything runs and is joined"] if not told else told[:NAMED])


def _asked(segments: tuple[Segment, ...]) -> str:
    return f"asks for {_list([segment.testbed for segment in segments if not is_held(segment.order)])}"


def _list(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
