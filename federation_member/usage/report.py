"""Adds spells up: for a span of time, for each member, project, user or kind, and for each day where that is asked for.

The database sums times, separately for each size, and we multiply: so everything is an exact integer of any length, though the
databases' own integers end at 2⁶³. Times are summed as seconds and microseconds for the same reason.

A day is a day in UTC. Each spell falls into a first day, a last day and whole days between, so one pass over the spells
does for all days:

    ──┊── lead ──┊── whole ──┊── whole ──┊── tail ──┊──
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Label,
    Row,
    Select,
    case,
    func,
    literal,
    select,
    type_coerce,
)

from federation_member.orders.tables import EPOCH, MICROSECOND
from federation_member.usage.model import By, Role, Sizes, Sum, lasting
from federation_member.usage.tables import usage

SECOND = 1_000_000  # microseconds
DAY = 86_400 * SECOND
COLUMNS: dict[By, Column[Any]] = {
    By.MEMBER: usage.c.member,
    By.PROJECT: usage.c.project,
    By.USER: usage.c.owner,
    By.KIND: usage.c.kind,
}


@dataclass(frozen=True)
class Question:
    """What is to be added up: spells from `begin` to before `end`, of one user or of all (None)."""

    role: Role
    begin: datetime
    end: datetime
    by: frozenset[By] = frozenset()
    user: str | None = None
    daily: bool = False

    @property
    def keys(self) -> tuple[By, ...]:
        """What sums are made for. Names of others' projects and users mean nothing without their member."""
        foreign = self.role is Role.LENT and self.by & {By.PROJECT, By.USER}
        wanted = self.by | {By.MEMBER} if foreign else self.by
        return tuple(key for key in By if key in wanted)


@dataclass(frozen=True)
class Line:
    """What one group used; `key` has a value for each of the question's keys, a member's being its fedid."""

    day: date | None
    key: tuple[str, ...]
    sum: Sum


def add_up(conn: Connection, question: Question, now: datetime) -> list[Line]:
    """Answer a question; what is still open counts until `now`."""
    sums: dict[tuple[date | None, tuple[str, ...]], Sum] = defaultdict(Sum)
    for query in (_ended(question), _open(question, now)):
        for row in conn.execute(query):
            key = tuple(getattr(row, COLUMNS[by].name) for by in question.keys)
            for day, part in _parts(row) if question.daily else [(None, _whole(row))]:
                sums[day, key] += part
    ordered = sorted(sums, key=lambda found: (found[0] or date.min, found[1]))
    return [Line(day, key, sums[day, key]) for day, key in ordered]


def _ended(question: Question) -> Select[Any]:
    t = usage.c
    return _sums(question, _micros(t.ended), _time(question.end)).where(t.ended > question.begin)


def _open(question: Question, now: datetime) -> Select[Any]:
    """What is open counts until now, but where its lender is silent, no longer than it promised to keep it."""
    t = usage.c
    limit = _time(min(question.end, now))
    ends = func.coalesce(_micros(t.until), limit)
    return _sums(question, ends, limit).where(t.ended.is_(None), ends > _time(question.begin), _micros(t.began) < limit)


def _sums(question: Question, ends: ColumnElement[int], limit: ColumnElement[int]) -> Select[Any]:
    """Sum the times of spells, cut at the borders."""
    t = usage.c
    start = _time(question.begin)
    began = case((_micros(t.began) < start, start), else_=_micros(t.began))
    ended = case((ends > limit, limit), else_=ends)
    times = _daily(began, ended) if question.daily else _seconds("time", ended - began)
    groups: list[ColumnElement[Any]] = [COLUMNS[key] for key in question.keys]
    groups += [t.vcpu, t.ram_mb, t.disk_gb, *(time for time in times if time.name in ("first", "last"))]
    where = [t.role == question.role.value, t.began < question.end]
    if question.user is not None:
        where.append(t.owner == question.user)
    named = [COLUMNS[key] for key in question.keys]
    query = select(*named, t.vcpu, t.ram_mb, t.disk_gb, func.count().label("spells"), *times)
    return query.where(*where).group_by(*groups)


def _daily(began: ColumnElement[int], ended: ColumnElement[int]) -> list[Label[Any]]:
    first = began // DAY
    last = (ended - 1) // DAY  # what ends at midnight ends with the day before
    lead = case((first == last, ended - began), else_=(first + 1) * DAY - began)
    return [first.label("first"), last.label("last"), *_seconds("lead", lead), *_seconds("tail", ended - last * DAY)]


def _seconds(name: str, time: ColumnElement[int]) -> list[Label[Any]]:
    return [func.sum(time // SECOND).label(name), func.sum(time % SECOND).label(f"{name}_rest")]


def _whole(row: Row[Any]) -> Sum:
    return lasting(row.time * SECOND + row.time_rest, _sizes(row))


def _parts(row: Row[Any]) -> Iterator[tuple[date, Sum]]:
    """What each day has of spells that all begin on one day and end on one day."""
    sizes = _sizes(row)
    yield _date(row.first), lasting(row.lead * SECOND + row.lead_rest, sizes)
    if row.first < row.last:
        for day in range(row.first + 1, row.last):
            yield _date(day), lasting(row.spells * DAY, sizes)
        yield _date(row.last), lasting(row.tail * SECOND + row.tail_rest, sizes)


def _sizes(row: Row[Any]) -> Sizes:
    return Sizes(row.vcpu, row.ram_mb, row.disk_gb)


def _date(days: int) -> date:
    return (EPOCH + timedelta(days=days)).date()


def _micros(column: Column[Any]) -> ColumnElement[int]:
    return type_coerce(column, BigInteger)


def _time(time: datetime) -> ColumnElement[int]:
    return literal((time - EPOCH) // MICROSECOND, BigInteger)


def total(lines: Iterable[Line]) -> Sum:
    """All of them together."""
    return sum((line.sum for line in lines), Sum())
