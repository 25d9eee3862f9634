"""What accounts say, on both databases: against the plainest way to add up, and at the borders."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest

from federation_member.usage import book
from federation_member.usage.model import By, Party, Role, Sizes, Sum, follow
from federation_member.usage.report import Line, Question, add_up, total
from fedkit.migrations import upgrade
from fedkit.protocol.lending import SPELL_LIMIT, LeaseState, LeaseView, Spell
from fedkit.store import Database, Tx
from tests.component.usage import readings

START = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)
NOW = START + timedelta(days=40)
HOUR = timedelta(hours=1)
ALICE = Party("b" * 40, "fm.b.test", "physics", "alice", "compute")
MACHINE = Sizes(2, 1536, 10)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """A migrated database."""
    async with Database(database_url) as database:
        upgrade(database.engine, "federation_member.migrations")
        yield database


def lease_id(number: int) -> str:
    """The id of a lease."""
    return f"00000000-0000-4000-8000-{number:012d}"


def spell(number: int, began: datetime, ended: datetime | None, sizes: Sizes = MACHINE) -> Spell:
    """What a lender tells."""
    return Spell(number=number, vcpu=sizes.vcpu, ram_mb=sizes.ram_mb, disk_gb=sizes.disk_gb, began=began, ended=ended)


def view(*spells: Spell, lease: int = 1, expires: datetime = NOW) -> LeaseView:
    """A lender's word of a lease."""
    last_two = list(spells[-2:])
    return LeaseView(lease_id=lease_id(lease), state=LeaseState.RUNNING, revision=1, expires=expires, spells=last_two)


async def tell(db: Database, *views: LeaseView, party: Party = ALICE) -> None:
    """Have the borrower hear these, one after the other."""

    def write(tx: Tx) -> None:
        for told in views:
            book.borrowed(tx, party, told)

    await db.run(write)


async def ask(db: Database, question: Question, now: datetime = NOW) -> list[Line]:
    """Add up."""
    return await db.read(lambda conn: add_up(conn, question, now))


async def borrowed(db: Database, begin: datetime, end: datetime) -> Sum:
    """All that was borrowed in a span."""
    return total(await ask(db, Question(Role.BORROWED, begin, end)))


def hours(amount: Sum) -> float:
    """For how long, in hours."""
    return amount.hours()["hours"]


async def test_sums_are_those_of_the_plainest_way(db: Database) -> None:
    chance = random.Random(4)
    parties = [
        Party(member * 40, f"fm.{member}", project, user, kind)
        for member in "bc"
        for project in ("physics", "art")
        for user in ("alice", "bob")
        for kind in ("compute", "volume")
    ]

    def fill(tx: Tx) -> None:
        for number in range(400):
            spells: tuple[Spell, ...] = ()
            party, time = chance.choice(parties), START + chance.random() * timedelta(days=30)
            for _ in range(chance.randint(1, 6)):
                holds = chance.choice([None, Sizes(), MACHINE, Sizes(4, 4096, 20), Sizes(disk_gb=7)])
                time += chance.choice(
                    [timedelta(microseconds=chance.randint(0, 10**6)), chance.random() * 3 * 24 * HOUR]
                )
                before, spells = spells, follow(spells, holds, time)
                book.lent(tx, lease_id(number), party, before, spells)

    await db.run(fill)
    spells = await db.read(lambda conn: readings.from_book(conn, "lent"))
    assert spells == await db.read(readings.from_audit_log)
    for begin, end in [(START, NOW), (START + timedelta(days=3, microseconds=7), START + timedelta(days=9))]:
        for daily in (False, True):
            lines = await ask(db, Question(Role.LENT, begin, end, frozenset(By), daily=daily))
            expected = readings.add_up(spells, begin, end, daily=daily)
            found = {(line.day, *line.key): Fraction(line.sum.ram_mb, 1024 * 3_600_000_000) for line in lines}
            assert found == {key: amounts[2] for key, amounts in expected.items()}


async def test_spells_are_cut_at_the_borders_to_the_microsecond(db: Database) -> None:
    await tell(db, view(spell(1, START, START + HOUR)))
    micro = timedelta(microseconds=1)
    assert (await borrowed(db, START - HOUR, START)).time == 0
    assert (await borrowed(db, START - HOUR, START + micro)).time == 1
    assert (await borrowed(db, START + HOUR - micro, NOW)).time == 1
    assert (await borrowed(db, START + HOUR, NOW)).time == 0
    assert await borrowed(db, START + HOUR / 4, START + HOUR / 2) == Sum(
        900_000_000, 2 * 900_000_000, 1536 * 900_000_000, 10 * 900_000_000
    )


async def test_days_are_those_of_utc(db: Database) -> None:
    midnight = START.replace(hour=0, minute=0) + timedelta(days=1)
    await tell(db, view(spell(1, START, midnight)), view(spell(1, START, midnight + 25 * HOUR), lease=2))
    lines = await ask(db, Question(Role.BORROWED, START, NOW, daily=True))
    assert [(line.day, hours(line.sum)) for line in lines] == [
        (date(2026, 3, 1), 3.0),
        (date(2026, 3, 2), 24.0),
        (date(2026, 3, 3), 1.0),
    ]


async def test_what_runs_is_counted_until_now_but_no_longer_than_its_lender_promised(db: Database) -> None:
    await tell(db, view(spell(1, START, None), expires=START + 3 * HOUR))
    question = Question(Role.BORROWED, START, NOW)
    assert hours(total(await ask(db, question, START + 2 * HOUR))) == 2
    assert hours(total(await ask(db, question, START + 9 * HOUR))) == 3
    await tell(db, view(spell(1, START, None), expires=START + 8 * HOUR))  # it was renewed
    assert hours(total(await ask(db, question, START + 9 * HOUR))) == 8
    assert hours(await borrowed(db, START, START + HOUR)) == 1
    assert (await borrowed(db, START + 8 * HOUR, NOW)).time == 0


async def test_sums_have_no_end(db: Database) -> None:
    """What a lender may say at most, for a year, a thousand times, is more than a database's integers hold."""
    year = timedelta(days=365)
    largest = Sizes(SPELL_LIMIT, SPELL_LIMIT, SPELL_LIMIT)
    await tell(db, *(view(spell(1, START, START + year, largest), lease=number) for number in range(1000)))
    amount = await borrowed(db, START, START + year)
    assert amount.vcpu == 1000 * SPELL_LIMIT * (year // timedelta(microseconds=1)) > 2**63


async def test_late_and_repeated_words_change_nothing(db: Database) -> None:
    first, second = spell(1, START, START + HOUR), spell(2, START + HOUR, None, Sizes(disk_gb=10))
    ended = second.model_copy(update={"ended": START + 2 * HOUR})
    third = spell(3, START + 2 * HOUR, START + 3 * HOUR)
    said = [view(spell(1, START, None)), view(first, second), view(first, ended), view(ended, third)]
    await tell(db, *said, *said, *reversed(said))
    assert hours(await borrowed(db, START, NOW)) == 3
    await tell(db, *(told.model_copy(update={"lease_id": lease_id(2)}) for told in reversed(said)))
    assert hours(await borrowed(db, START, NOW)) == 6


async def test_a_lender_cannot_unsay_what_it_said(db: Database) -> None:
    await tell(db, view(spell(1, START, START + HOUR)))
    await tell(db, view(spell(1, START - HOUR, START + HOUR)), view(spell(1, START, START + 5 * HOUR)))
    await tell(db, view(spell(1, START, START + HOUR, Sizes(64, 1, 1))))
    assert await borrowed(db, START - HOUR, NOW) == Sum(*(part * 3_600_000_000 for part in (1, 2, 1536, 10)))


async def test_words_of_forgotten_orders_count_for_who_had_the_lease(db: Database) -> None:
    await tell(db, view(spell(1, START, START + HOUR)))
    late = view(spell(1, START, START + HOUR), spell(2, START + HOUR, START + 2 * HOUR))

    def hear(tx: Tx) -> None:
        book.borrowed_before(tx, "c" * 40, late.model_copy(update={"spells": [spell(2, START, NOW)]}))  # not its lender
        book.borrowed_before(tx, ALICE.member, late)
        book.borrowed_before(tx, ALICE.member, view(spell(1, START, NOW), lease=9))  # never had

    await db.run(hear)
    lines = await ask(db, Question(Role.BORROWED, START, NOW, frozenset(By)))
    assert [(line.key, hours(line.sum)) for line in lines] == [
        ((ALICE.member, ALICE.project, ALICE.user, ALICE.kind), 2.0)
    ]


async def test_names_of_others_are_told_apart_by_member(db: Database) -> None:
    def write(tx: Tx) -> None:
        for number, member in enumerate("bc"):
            party = Party(member * 40, f"fm.{member}", "physics", "alice", "compute")
            book.lent(tx, lease_id(number), party, (), (spell(1, START, START + HOUR),))

    await db.run(write)
    lines = await ask(db, Question(Role.LENT, START, NOW, frozenset({By.USER})))
    assert [line.key for line in lines] == [("b" * 40, "alice"), ("c" * 40, "alice")]
    assert len(await ask(db, Question(Role.LENT, START, NOW, frozenset({By.KIND})))) == 1


async def test_spells_are_forgotten_when_they_ended_long_ago(db: Database) -> None:
    await tell(db, view(spell(1, START, START + HOUR)), view(spell(1, START, START + 2 * HOUR), lease=2))
    await tell(db, view(spell(1, START, None), lease=3))
    assert await db.run(lambda tx: book.forget(tx.conn, START + HOUR + timedelta(seconds=1), 10)) == 1
    assert {read.lease for read in await db.read(lambda conn: readings.from_book(conn, "borrowed"))} == {
        lease_id(2),
        lease_id(3),
    }


def test_a_clock_that_goes_back_makes_no_negative_spell() -> None:
    spells = follow((), MACHINE, START)
    spells = follow(spells, None, START - HOUR)
    assert spells == (spell(1, START, START),)
    spells = follow(spells, MACHINE, START - HOUR)
    assert spells[-1] == spell(2, START, None)
    assert follow(spells, MACHINE, START + HOUR) is spells
    assert follow((), None, START) == ()
