"""The book of attached desktops, and what a step of the reconciler does about them, in its transaction.

    asked ── its lender promises the piece with a connector more ──► made: the piece is to have it, and its portal comes up
      ├─ its lender refuses, or the portal fails ──► failed: taken out of the piece, kept so that its desktop is told why
      └─ detached, or silent for LIFE ──► taken out, forgotten

While an extension is under way, what pieces are to be is the extension's alone: who comes or leaves waits until it is over.
The caller holds the experiment's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from federation_member.experiments import store
from federation_member.experiments.attaching import ALL, EACH, LIFE, Attachment, Told, joined, next_version, without
from federation_member.experiments.errors import TooManyAttachments, Why
from federation_member.experiments.failing import Loss
from federation_member.experiments.joining import info_of, spec_of
from federation_member.experiments.model import Experiment, Segment
from federation_member.experiments.ordering import respecify
from federation_member.experiments.tables import attachments
from federation_member.orders.model import OrderState
from federation_member.orders.store import load as load_order
from fedkit.protocol.segments import NodeStatus, PortalInfo, SegmentSpec
from fedkit.store import Tx


def listed(conn: Connection, experiment_id: str) -> list[Attachment]:
    """An experiment's, the oldest first."""
    query = select(attachments.c.content).where(attachments.c.experiment_id == experiment_id)
    found = [Attachment.model_validate_json(text) for text in conn.execute(query).scalars()]
    return sorted(found, key=lambda one: (one.created, one.id))


def told(conn: Connection, experiment_id: str, attachment: Attachment) -> tuple[Told, datetime] | None:
    """What its desktop is told, and until when it stays without being asked for again; None if it has just gone."""
    query = select(attachments.c.told, attachments.c.expires).where(*_is(experiment_id, attachment))
    row = conn.execute(query).one_or_none()
    return None if row is None else (Told.model_validate_json(row.told), row.expires)


def check_room(conn: Connection, experiment_id: str, user: str) -> None:
    """Raise `TooManyAttachments` if there can be no more of this user."""
    users = list(conn.execute(select(attachments.c.user).where(attachments.c.experiment_id == experiment_id)).scalars())
    if len(users) >= ALL or users.count(user) >= EACH:
        raise TooManyAttachments(
            f"An experiment has at most {ALL} desktops, and {EACH} of one user; detach one that is not needed."
        )


def add(tx: Tx, experiment_id: str, one: Attachment, told: Told, now: datetime) -> None:
    """Write a new one; raises `TooManyAttachments`."""
    check_room(tx.conn, experiment_id, one.user)
    row = {"experiment_id": experiment_id, "id": one.id, "user": one.user, "expires": now + LIFE}
    texts = {"content": one.model_dump_json(), "told": told.model_dump_json()}
    tx.conn.execute(insert(attachments).values(**row, **texts))


def renew(tx: Tx, experiment_id: str, attachment: Attachment, now: datetime) -> None:
    """Let it live on."""
    tx.conn.execute(update(attachments).where(*_is(experiment_id, attachment)).values(expires=now + LIFE))


def _save(tx: Tx, experiment_id: str, attachment: Attachment) -> None:
    content = attachment.model_dump_json()
    tx.conn.execute(update(attachments).where(*_is(experiment_id, attachment)).values(content=content))


def _is(experiment_id: str, attachment: Attachment) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return attachments.c.experiment_id == experiment_id, attachments.c.id == attachment.id


def leave(tx: Tx, experiment_id: str, attachment: Attachment) -> None:
    """It is to be taken out, by the next step."""
    _save(tx, experiment_id, attachment.model_copy(update={"leaving": True}))


def leave_all_of(tx: Tx, experiment_id: str, principal: str) -> None:
    """Those of somebody who is let in no more are to be taken out."""
    for one in listed(tx.conn, experiment_id):
        if one.principal == principal:
            leave(tx, experiment_id, one)


def drop_all(tx: Tx, experiment_id: str) -> None:
    """Forget them: their experiment ends."""
    tx.conn.execute(delete(attachments).where(attachments.c.experiment_id == experiment_id))


def go_on(
    tx: Tx, experiment: Experiment, segments: Sequence[Segment], now: datetime
) -> tuple[Experiment, tuple[Segment, ...]]:
    """Do what the attachments need now; returns the pieces as they are to be."""
    there = listed(tx.conn, experiment.id)
    if experiment.extension is not None or not there:
        return experiment, tuple(segments)
    over = _over(tx.conn, experiment.id, now)
    gone = [one for one in there if one.leaving or one.id in over]
    for one in gone:
        tx.conn.execute(delete(attachments).where(*_is(experiment.id, one)))
        how = "was detached" if one.leaving else f"was not heard of for {LIFE}, and is detached"
        experiment = store.note(tx, experiment, now, "", f"{one.name} {how}", (one.testbed,))
    failed = []
    for one in there:
        if one not in gone and not one.code and (problem := _problem(one, segments)) is not None:
            failed.append(one.model_copy(update={"code": problem.code, "reason": problem.reason}))
            _save(tx, experiment.id, failed[-1])
            reason = f"{one.name} cannot be attached: {problem.reason}"
            experiment = store.note(tx, experiment, now, problem.code, reason, (one.testbed,))
    changed = [_take_out(tx, segment, [*gone, *failed]) for segment in segments]
    waiting = [one for one in there if _waits(one) and one not in gone and one.id not in {lost.id for lost in failed}]
    changed += [_ask(tx, experiment, one, waiting) for one in segments]
    return experiment, store.whole(tx.conn, experiment).segments if any(changed) else tuple(segments)


def asked(conn: Connection, experiment: Experiment, segments: Sequence[Segment]) -> dict[int, SegmentSpec]:
    """What lenders are to promise, by the number of the piece."""
    if experiment.extension is not None:
        return {}
    waiting = [one for one in listed(conn, experiment.id) if _waits(one)]
    found = {}
    for segment in segments:
        new = [one for one in waiting if one.testbed == segment.testbed]
        if new and segment.order is not None:
            spec = joined(spec_of(segment.order), new)
            found[segment.number] = spec.model_copy(update={"version": new[0].asked})
    return found


def due(conn: Connection, experiment: Experiment) -> datetime | None:
    """When one is over; not while an extension is under way, whose end is looked at."""
    if experiment.extension is not None:
        return None
    query = select(func.min(attachments.c.expires)).where(attachments.c.experiment_id == experiment.id)
    found: datetime | None = conn.execute(query).scalar_one()
    return found


def _over(conn: Connection, experiment_id: str, now: datetime) -> set[str]:
    its = (attachments.c.experiment_id == experiment_id, attachments.c.expires <= now)
    return set(conn.execute(select(attachments.c.id).where(*its)).scalars())


def portal_of(attachment: Attachment, segments: Sequence[Segment]) -> PortalInfo | None:
    """The portal that waits for a desktop, as its lender tells of it; None if it does not run."""
    segment = next((one for one in segments if one.testbed == attachment.testbed), None)
    if segment is None or segment.order is None or segment.order.state is not OrderState.FULFILLED:
        return None
    return next((one for one in info_of(segment.order).portals if one.connector == attachment.connector), None)


def _waits(one: Attachment) -> bool:
    """Whether its lender has not promised it yet."""
    return not (one.made or one.code or one.leaving)


def _ask(tx: Tx, experiment: Experiment, segment: Segment, waiting: Sequence[Attachment]) -> bool:
    """Have a piece promised with those that wait; tells whether it was, so that the piece is to be another now."""
    new = [one for one in waiting if one.testbed == segment.testbed]
    record = load_order(tx.conn, segment.order_id) if new else None
    if record is None:
        return False
    spec, promised = spec_of(record.order), info_of(segment.order).promised  # a version may have been written just now
    versions = {one.asked or 0 for one in new}
    if len(versions) > 1 or max(versions) <= spec.version:
        version = next_version(experiment, spec, new)
        for one in new:
            _save(tx, experiment.id, one.model_copy(update={"asked": version}))
        return False
    if promised not in versions:
        return False
    respecify(tx, segment, joined(spec, new).model_copy(update={"version": promised}))
    for one in new:
        _save(tx, experiment.id, one.model_copy(update={"made": True}))
    return True


def _problem(one: Attachment, segments: Sequence[Segment]) -> Loss | None:
    """Why it cannot be."""
    segment = next((segment for segment in segments if segment.testbed == one.testbed), None)
    if segment is None or segment.order is None or segment.code:
        return Loss(Why.SEGMENT_LOST, f"{one.testbed} was lost")
    info, portal = info_of(segment.order), portal_of(one, segments)
    if info.refused is not None and info.refused.version == one.asked and info.version < info.refused.version:
        return Loss(info.refused.code, info.refused.reason)
    if one.made and portal is not None and portal.status is NodeStatus.FAILED:
        return Loss(Why.PORTAL_FAILED, portal.reason or "its portal failed")
    return None


def _take_out(tx: Tx, segment: Segment, gone: Sequence[Attachment]) -> bool:
    """Have a piece be without them; tells whether it had anything of them."""
    spec = None if segment.order is None or not gone else without(spec_of(segment.order), gone)
    if spec is not None:
        respecify(tx, segment, spec)
    return spec is not None
