"""An extension under way: what a step of the reconciler does about it, in its transaction.

    asked ── every lender promises, new ones and those that have pieces ──► made ── all of it runs ──► part of the experiment
       └─ one refuses, or is silent ──► dropped            └─ one fails ──► undone: everything is as it was

Until it is made, what there is knows nothing of it. While it is made, a new piece that is lost costs the extension alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from federation_member.experiments import store
from federation_member.experiments.errors import Why
from federation_member.experiments.failing import Loss, loss
from federation_member.experiments.joining import info_of, spec_of
from federation_member.experiments.model import Experiment, Extension, Segment
from federation_member.experiments.ordering import give_back, is_held, respecify
from federation_member.orders.engine import Engine
from federation_member.orders.model import OrderState
from fedkit.protocol.segments import SegmentSpec
from fedkit.store import Tx

ASK_LIMIT = timedelta(minutes=5)  # until every lender has promised
MAKE_LIMIT = timedelta(hours=1)  # until all of it runs
INSIST = timedelta(minutes=1)  # until a lender that could not make a change is asked for it again


def go_on(tx: Tx, engine: Engine, experiment: Experiment, segments: Sequence[Segment], now: datetime) -> Experiment:
    """Do what the extension needs now."""
    extension = experiment.extension
    if extension is None:
        return experiment
    problem = _problem(extension, segments, now)
    if problem is not None:
        return _undo(tx, engine, experiment, extension, segments, problem, now)
    if not extension.is_made and _is_promised(extension, segments):
        for segment in segments:
            if segment.number in extension.specs:
                respecify(tx, segment, extension.specs[segment.number])
        made = extension.model_copy(update={"is_made": True, "since": now})
        experiment = store.change(tx, experiment, now, extension=made)
        return store.note(tx, experiment, now, "", "every lender promised what is added; it is made")
    if extension.is_made and _is_there(extension, segments):
        larger = {name: getattr(extension, name) for name in ("description", "routing", "services")}
        experiment = store.change(tx, experiment, now, extension=None, **larger)
        return store.note(tx, experiment, now, "", "what was added runs")
    return experiment


def due(extension: Extension | None) -> datetime | None:
    """When an extension is given up."""
    return None if extension is None else extension.since + (MAKE_LIMIT if extension.is_made else ASK_LIMIT)


def insist(
    tx: Tx, experiment: Experiment, segments: Sequence[Segment], now: datetime
) -> tuple[tuple[Segment, ...], datetime | None]:
    """Ask again for changes that lenders made and had to undo, under another version; returns the pieces, and when to look again.

    So a piece that loses something (a desktop, or what was not added after all) does so in the end, whatever failed meanwhile.
    """
    undone = [] if experiment.extension is not None else [(one, spec) for one in segments if (spec := _undone(one))]
    later = [one.started + INSIST for one, _ in undone if one.started is not None and one.started + INSIST > now]
    if not undone or later:
        return tuple(segments), min(later, default=None)
    for segment, spec in undone:
        respecify(tx, segment, spec.model_copy(update={"version": spec.version + 1}))
    return store.whole(tx.conn, experiment).segments, None


def _undone(segment: Segment) -> SegmentSpec | None:
    """What a piece is to be and, as its lender says, cannot be; None if there is nothing like that."""
    order, info = segment.order, info_of(segment.order)
    if order is None or not is_held(order) or info.refused is None:
        return None
    spec = spec_of(order)
    return spec if info.version < spec.version == info.refused.version else None


def established(experiment: Experiment, segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The pieces that an experiment consists of already."""
    added = () if experiment.extension is None else experiment.extension.added
    return tuple(segment for segment in segments if segment.number not in added)


def told(experiment: Experiment, segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The pieces whose lenders are told how they are to be."""
    is_asked = experiment.extension is not None and not experiment.extension.is_made
    return established(experiment, segments) if is_asked else tuple(segments)


def asked(experiment: Experiment) -> Mapping[int, SegmentSpec]:
    """What lenders are to promise, by the number of the piece."""
    extension = experiment.extension
    return {} if extension is None or extension.is_made else extension.specs


def _problem(extension: Extension, segments: Sequence[Segment], now: datetime) -> Loss | None:
    """Why the extension cannot be."""
    for segment in segments:
        if segment.number in extension.added and (found := loss(segment, now)) is not None:
            return found
        wanted, refused = extension.specs.get(segment.number), info_of(segment.order).refused
        if wanted is not None and refused is not None and refused.version == wanted.version:
            return Loss(refused.code, f"{segment.testbed}: {refused.reason}", (segment.testbed,))
    limit = due(extension)
    if limit is not None and limit <= now:
        silent = [one.testbed for one in segments if not _is_one_there(extension, one)]
        return Loss(Why.NOT_EXTENDED, f"not within {limit - extension.since}: {', '.join(silent[:5])}")
    return None


def _is_promised(extension: Extension, segments: Sequence[Segment]) -> bool:
    def is_one(segment: Segment) -> bool:
        wanted = extension.specs.get(segment.number)
        return is_held(segment.order) and (wanted is None or info_of(segment.order).promised == wanted.version)

    return all(is_one(one) for one in segments if one.number in extension.specs or one.number in extension.added)


def _is_there(extension: Extension, segments: Sequence[Segment]) -> bool:
    return all(_is_one_there(extension, segment) for segment in segments)


def _is_one_there(extension: Extension, segment: Segment) -> bool:
    runs = segment.order is not None and segment.order.state is OrderState.FULFILLED
    wanted = extension.specs.get(segment.number)
    if wanted is not None:
        return runs and info_of(segment.order).version == wanted.version
    return runs or segment.number not in extension.added


def _undo(
    tx: Tx,
    engine: Engine,
    experiment: Experiment,
    extension: Extension,
    segments: Sequence[Segment],
    problem: Loss,
    now: datetime,
) -> Experiment:
    for segment in segments:
        if segment.number in extension.added:
            give_back(tx, engine, segment.order_id, "what it belongs to was not added")
            store.drop_segment(tx, experiment.id, segment.number)
        elif extension.is_made and segment.number in extension.before:
            version = extension.specs[segment.number].version + 1
            respecify(tx, segment, extension.before[segment.number].model_copy(update={"version": version}))
    experiment = store.change(tx, experiment, now, extension=None)
    return store.note(tx, experiment, now, problem.code, f"not extended, it is as it was: {problem.reason}")
