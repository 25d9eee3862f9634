"""The book of experiments. Every change of one is written together with its event; the caller holds the row's lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from federation_member.experiments import relay_book
from federation_member.experiments.errors import HasEnded
from federation_member.experiments.model import (
    ALIVE,
    FINAL,
    Event,
    Experiment,
    Extension,
    Party,
    Planned,
    Segment,
    State,
    Whole,
)
from federation_member.experiments.tables import attachments, barred, events, experiments, grants, segments
from federation_member.orders.leases import without_secrets
from federation_member.orders.model import User
from federation_member.orders.store import SPEC
from federation_member.orders.store import load as load_order
from federation_member.orders.tables import order_events, orders
from fedkit.identity.keys import PrivateKey
from fedkit.store import Tx

REASON_LENGTH = 1024
PARTIES: TypeAdapter[dict[str, Party]] = TypeAdapter(dict[str, Party])
HISTORY = 1000  # events that are shown
FORGOTTEN = 50  # experiments in one transaction
NEWS = 500  # order events that are read at once


def add(tx: Tx, experiment: Experiment, key: PrivateKey, planned: Sequence[tuple[Planned, str]]) -> None:
    """Write a new experiment, its pieces with their orders' ids, and its first event."""
    values = _columns(experiment) | {"private": key.pem}
    tx.conn.execute(insert(experiments).values(**values))
    for number, (piece, order_id) in enumerate(planned):
        add_segment(tx, experiment.id, number, piece, order_id)
    _add_event(tx, experiment)


def add_segment(tx: Tx, experiment_id: str, number: int, piece: Planned, order_id: str) -> None:
    """Write a new piece with its order's id."""
    row = {"experiment_id": experiment_id, "number": number, "testbed": piece.spec.testbed, "order_id": order_id}
    tx.conn.execute(insert(segments).values(**row))


def drop_segment(tx: Tx, experiment_id: str, number: int) -> None:
    """Forget a piece; its order has the experiment's id as its batch, so it is still looked after."""
    tx.conn.execute(delete(segments).where(segments.c.experiment_id == experiment_id, segments.c.number == number))


def change(tx: Tx, experiment: Experiment, now: datetime, **changes: Any) -> Experiment:
    """Write a change; one of state, code or reason makes an event. A reason that does not say what it is `about` is for few."""
    if "reason" in changes:
        changes = {"about": None} | changes | {"reason": changes["reason"][:REASON_LENGTH]}
    new = replace(experiment, **changes)
    if new == experiment:
        return experiment
    told = (new.state, new.code, new.reason) != (experiment.state, experiment.code, experiment.reason)
    new = replace(new, changed=now, events=new.events + told)
    tx.conn.execute(update(experiments).where(experiments.c.id == new.id).values(**_columns(new)))
    if told:
        _add_event(tx, new)
    return new


def note(
    tx: Tx, experiment: Experiment, now: datetime, code: str, reason: str, about: tuple[str, ...] | None = None
) -> Experiment:
    """Write an event that changes nothing."""
    noted = replace(experiment, events=experiment.events + 1)
    tx.conn.execute(update(experiments).where(experiments.c.id == noted.id).values(events=noted.events))
    _add_event(tx, replace(noted, changed=now, code=code, reason=reason[:REASON_LENGTH], about=about))
    return noted


def change_segment(tx: Tx, experiment_id: str, segment: Segment, **changes: Any) -> Segment:
    """Write a change of a segment, but for its order."""
    this = (segments.c.experiment_id == experiment_id, segments.c.number == segment.number)
    if "reason" in changes:
        changes["reason"] = changes["reason"][:REASON_LENGTH]
    tx.conn.execute(update(segments).where(*this).values(**changes))
    return replace(segment, **changes)


def load(conn: Connection, experiment_id: str, *, lock: bool = False) -> Experiment | None:
    """Read one; `lock` keeps others from changing it until the end of the transaction."""
    query = select(experiments).where(experiments.c.id == experiment_id)
    row = conn.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _experiment(row)


def find(conn: Connection, wanted: str, owner: str) -> Experiment | None:
    """Read one by its id, or by the name that its owner gave it: the one that has not ended, else the newest."""
    found = load(conn, wanted)
    if found is not None:
        return found
    named = select(experiments).where(experiments.c.owner == owner, experiments.c.name == wanted)
    rows = [_experiment(row) for row in conn.execute(named.order_by(experiments.c.created.desc()))]
    return next((one for one in rows if one.state not in FINAL), rows[0] if rows else None)


def whole(conn: Connection, experiment: Experiment, *, lock: bool = False) -> Whole:
    """Read its segments with their orders; `lock` locks the orders, in the order of their ids."""
    query = select(segments).where(segments.c.experiment_id == experiment.id)
    rows = list(conn.execute(query.order_by(segments.c.order_id)))
    relays = relay_book.of_experiment(conn, experiment.id)
    found = []
    for row in rows:
        record = load_order(conn, row.order_id, lock=lock)
        ports = {relay.connector: relay for relay in relays if relay.testbed == row.testbed}
        order = relay_book.reached(None if record is None else record.order, ports)
        found.append(
            Segment(
                number=row.number,
                testbed=row.testbed,
                order_id=row.order_id,
                told_lease=row.told_lease,
                told=row.told,
                order=order,
                started=row.started,
                code=row.code,
                reason=row.reason,
                relays=ports,
            )
        )
    return Whole(experiment, tuple(sorted(found, key=lambda segment: segment.number)))


def of_owner(conn: Connection, owner: str, wanted: Sequence[str] | None = None) -> list[Experiment]:
    """All of a user's, or those of these ids, newest first."""
    query = select(experiments).where(experiments.c.owner == owner)
    if wanted is not None:
        query = query.where(experiments.c.id.in_(wanted))
    rows = conn.execute(query.order_by(experiments.c.created.desc(), experiments.c.id.desc()))
    return [_experiment(row) for row in rows]


def name_is_taken(conn: Connection, owner: str, name: str) -> bool:
    """Tell whether a user has one of that name which has not ended."""
    ended = [state.value for state in FINAL]
    same = (experiments.c.owner == owner, experiments.c.name == name, experiments.c.state.not_in(ended))
    return conn.execute(select(experiments.c.id).where(*same)).first() is not None


def unfinished(conn: Connection) -> list[str]:
    """The ids of all that have not ended."""
    states = [state.value for state in (*ALIVE, State.TERMINATING)]
    return list(conn.execute(select(experiments.c.id).where(experiments.c.state.in_(states))).scalars())


def news(conn: Connection, after: int) -> tuple[set[str], int]:
    """The ids of experiments whose orders have events after a number, and the number of the last event looked at."""
    query = (
        select(order_events.c.sequence, experiments.c.id)
        .join(orders, orders.c.id == order_events.c.order_id, isouter=True)
        .join(experiments, experiments.c.id == orders.c.batch, isouter=True)
        .where(order_events.c.sequence > after)
        .order_by(order_events.c.sequence)
        .limit(NEWS)
    )
    rows = list(conn.execute(query))
    touched = {row.id for row in rows if row.id is not None}
    return touched, rows[-1].sequence if rows else after


def forget(conn: Connection, before: datetime) -> int:
    """Forget some that ended before a time, with their keys and logs; tells how many."""
    ended = [state.value for state in FINAL]
    query = select(experiments.c.id).where(experiments.c.state.in_(ended), experiments.c.changed < before)
    ids = list(conn.execute(query.limit(FORGOTTEN).with_for_update(skip_locked=True)).scalars())
    for table in (events, segments, grants, barred, attachments):
        conn.execute(delete(table).where(table.c.experiment_id.in_(ids)))
    conn.execute(delete(experiments).where(experiments.c.id.in_(ids)))
    return len(ids)


def orders_of(conn: Connection, experiment_id: str) -> list[str]:
    """The ids of all orders that were ever made for an experiment, also of pieces that were then had elsewhere."""
    return list(
        conn.execute(select(orders.c.id).where(orders.c.batch == experiment_id).order_by(orders.c.id)).scalars()
    )


def since(conn: Connection, experiment: Experiment) -> datetime:
    """When an experiment came into the state that it is in."""
    its = events.c.experiment_id == experiment.id
    other = select(func.max(events.c.number)).where(its, events.c.state != experiment.state.value).scalar_subquery()
    first = select(func.min(events.c.number)).where(its, events.c.number > func.coalesce(other, 0)).scalar_subquery()
    found: datetime = conn.execute(select(events.c.at).where(its, events.c.number == first)).scalar_one()
    return found


def was_in(conn: Connection, experiment_id: str, state: State) -> bool:
    """Tell whether an experiment has ever been in a state."""
    this = (events.c.experiment_id == experiment_id, events.c.state == state.value)
    return conn.execute(select(events.c.number).where(*this).limit(1)).first() is not None


def key_of(conn: Connection, experiment_id: str) -> PrivateKey:
    """The experiment's own key; raises `HasEnded` if it has been destroyed."""
    pem = conn.execute(select(experiments.c.private).where(experiments.c.id == experiment_id)).scalar_one()
    if not pem:
        raise HasEnded("The experiment has ended, and its key was destroyed.")
    return PrivateKey.from_pem(bytes(pem))


def forget_secrets(tx: Tx, experiment_id: str) -> None:
    """Destroy the key of an experiment that has ended, and all that followed from it: what its services told its nodes."""
    tx.conn.execute(update(experiments).where(experiments.c.id == experiment_id).values(private=b""))
    tx.conn.execute(update(segments).where(segments.c.experiment_id == experiment_id).values(told=None))
    for row in tx.conn.execute(select(orders.c.id, orders.c.spec).where(orders.c.batch == experiment_id)).all():
        spec = without_secrets(SPEC.validate_json(row.spec)).model_dump_json()
        tx.conn.execute(update(orders).where(orders.c.id == row.id).values(spec=spec))


def history(conn: Connection, experiment_id: str, after: int = 0) -> list[Event]:
    """The newest events after that of a number, oldest first."""
    this = (events.c.experiment_id == experiment_id, events.c.number > after)
    query = select(events).where(*this).order_by(events.c.number.desc())
    rows = list(conn.execute(query.limit(HISTORY)))
    return [
        Event(row.number, row.at, State(row.state), row.code, row.reason, _lines(row.about)) for row in reversed(rows)
    ]


def _add_event(tx: Tx, experiment: Experiment) -> None:
    tx.conn.execute(
        insert(events).values(
            experiment_id=experiment.id,
            number=experiment.events,
            at=experiment.changed,
            state=experiment.state.value,
            code=experiment.code,
            reason=experiment.reason,
            about=_text(experiment.about),
        )
    )


def _columns(experiment: Experiment) -> dict[str, Any]:
    return {
        "id": experiment.id,
        "name": experiment.name,
        "owner": experiment.owner.name,
        "project": experiment.owner.project,
        "state": experiment.state.value,
        "code": experiment.code,
        "reason": experiment.reason,
        "fedid": experiment.fedid,
        "description": experiment.description,
        "routing": experiment.routing,
        "services": "\n".join(experiment.services),
        "portals": experiment.portals,
        "created": experiment.created,
        "changed": experiment.changed,
        "valid_until": experiment.valid_until,
        "warned": experiment.warned,
        "events": experiment.events,
        "parties": PARTIES.dump_json(dict(experiment.parties)).decode(),
        "about": _text(experiment.about),
        "extension": None if experiment.extension is None else experiment.extension.model_dump_json(),
        "kit": experiment.kit,
    }


def _experiment(row: Row[Any]) -> Experiment:
    return Experiment(
        id=row.id,
        name=row.name,
        owner=User(row.project, row.owner),
        state=State(row.state),
        code=row.code,
        reason=row.reason,
        fedid=row.fedid,
        description=row.description,
        routing=row.routing,
        services=tuple(row.services.splitlines()),
        portals=row.portals,
        created=row.created,
        changed=row.changed,
        valid_until=row.valid_until,
        warned=row.warned,
        events=row.events,
        parties=PARTIES.validate_json(row.parties),
        about=_lines(row.about),
        extension=None if row.extension is None else Extension.model_validate_json(row.extension),
        kit=row.kit,
    )


def _text(about: tuple[str, ...] | None) -> str | None:
    return None if about is None else "\n".join(about)


def _lines(about: str | None) -> tuple[str, ...] | None:
    return None if about is None else tuple(about.splitlines())
