"""A day's worth of accidents in an hour, with real threads and on both databases: the books agree here too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from federation_member.orders.model import OrderState
from federation_member.usage.model import By, Role
from federation_member.usage.report import Question, add_up
from fedkit.protocol.lending import Power
from tests.component.usage import readings
from tests.component.usage.readings import Read
from tests.support.databases import MISSING, Postgres
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, Member, machine


@pytest.fixture(params=["sqlite", "postgresql"])
async def world(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres | None) -> AsyncIterator[Federation]:
    """An empty federation whose members use SQLite or PostgreSQL."""
    urls: Iterator[str] | None = None
    if request.param == "postgresql":
        if postgres is None:
            pytest.skip(MISSING)
        urls = iter(postgres.migrated, "")
    async with Federation(tmp_path, urls) as federation:
        yield federation


async def book(member: Member, role: str) -> set[Read]:
    """What a member's book says."""
    return await member.db.read(lambda conn: readings.from_book(conn, role))


def times(spells: set[Read]) -> set[tuple[object, ...]]:
    """Spells without the other side's name, which differs."""
    return {(spell.lease, spell.number, spell.who[1:], spell.sizes, spell.began, spell.ended) for spell in spells}


async def test_both_books_and_the_log_agree_whatever_dies(world: Federation) -> None:
    a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")
    wanted = machine(requirements="vcpu >= 4", count=4, lease_seconds=3600)
    orders = [*await a.orders.create(USER, wanted, None), *await a.orders.create(USER, machine(), None)]
    held = [await a.until(order.id, OrderState.FULFILLED) for order in orders]
    first, second, third, fourth, _own = [str(order.lease_id) for order in held]
    world.advance(600)
    b.cloud.become(first, Power.STOPPED)
    b.cloud.become(second, Power.PAUSED)
    await world.settle(lambda: _begun(b, first, 2))  # a stop begins another spell, a pause does not
    await a.kill()  # the borrower does not hear of what follows
    b.cloud.become(first, Power.RUNNING)
    b.cloud.lose(third)
    await world.settle(lambda: _begun(b, first, 3))
    await b.kill()
    world.advance(600)
    b.cloud.instances.pop(fourth)  # while nobody looks
    await b.start()
    await a.start()
    await a.orders.delete(USER, orders[-1].id)
    await a.until(orders[-1].id, OrderState.DELETED)
    await world.settle(lambda: _agree(a, b, {(first, 3), (second, 1)}))
    lent = await book(b, "lent")
    assert lent == await b.db.read(readings.from_audit_log)
    assert [spell.sizes for spell in sorted(lent, key=lambda s: s.number) if spell.lease == first] == [
        (4, 4096, 20),
        (0, 0, 20),
        (4, 4096, 20),
    ]
    assert times(await book(a, "lent")) <= times(await book(a, "borrowed"))  # its own machine is told on both sides
    now = world.clock()
    begin = min(spell.began for spell in lent)
    question = Question(Role.LENT, begin, now, frozenset(By))
    found = {line.key: line.sum.time for line in await b.db.read(lambda conn: add_up(conn, question, now))}
    expected = {key[1:]: hours[0] for key, hours in readings.add_up(lent, begin, now).items()}
    assert {key: value / 3_600_000_000 for key, value in found.items()} == pytest.approx(
        {key: float(value) for key, value in expected.items()}, abs=1e-9
    )


async def _begun(member: Member, lease: str, number: int) -> bool:
    return any((spell.lease, spell.number) == (lease, number) for spell in await book(member, "lent"))


async def _agree(a: Member, b: Member, left: set[tuple[str, int]]) -> bool:
    """Both know the same, and nothing else is open."""
    lent, borrowed = await book(b, "lent"), await book(a, "borrowed")
    theirs = {spell for spell in borrowed if spell.who[0] == b.key.fedid}
    return {(s.lease, s.number) for s in lent if s.ended is None} == left and times(lent) == times(theirs)
