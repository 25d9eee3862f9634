"""The law of accounting: whatever crashes, is cut off, lost or repeated in a day, in the end the lender's book, the borrower's book and
the lender's audit log, each read by itself, come to the same, to the microsecond.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation_member.access import audit
from federation_member.orders.model import NewOrder, OrderType, User
from federation_member.usage.model import By, Role
from federation_member.usage.report import Line, Question, add_up
from fedkit.errors import FedError
from fedkit.protocol.lending import Power, VolumeSpec
from tests.component.usage import readings
from tests.component.usage.readings import Amounts, Read
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, Member, machine, network
from tests.support.memory_network import Deliveries, Packet
from tests.support.virtual_time import Crash, InlineDatabase, clock, run

NAMES = ["a", "b", "c"]
USERS = [USER, User("project", "bob")]
HOUR = 3600.0
DAY = 24 * HOUR
EVERYTHING = frozenset(By)
LONG_LEASE = 7 * 86400  # seconds: outlives everything that is cut here
POWERS = [Power.RUNNING, Power.STOPPED, Power.PAUSED]


class Day:
    """Three members and a day full of accidents, all drawn from one seed."""

    def __init__(self, world: Federation, seed: int, leases: Sequence[int]) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.leases = leases  # seconds; short ones are renewed all day, and end while a member is away
        self.members: dict[str, Member] = {}
        self.made: list[tuple[Member, User, str]] = []
        self.calm = False
        world.network.faults = self._fate

    def _fate(self, packet: Packet) -> Deliveries:
        if self.calm or self.chance.random() < 0.7:
            return [(0.0, packet)]
        return self.chance.choice([[], [(0.0, packet), (0.02, packet)], [(0.5, packet)], [(30.0, packet)]])

    async def begin(self) -> None:
        """`a` has only small machines, so that its users' large ones are elsewhere."""
        for name in NAMES:
            self.members[name] = await self.world.add(name, Cloud(flavours=[SMALL]) if name == "a" else None)

    async def pass_by(self, happenings: int) -> None:
        """Let that many things happen in a day."""
        doings = [self._order] * 6 + [self._delete] * 4 + [self._power] * 8
        doings += [self._kill, self._doom, self._cut, self._heal, self._lose, self._outage]
        for _ in range(happenings):
            await asyncio.sleep(self.chance.expovariate(happenings / DAY))
            with suppress(Crash, FedError):
                await self.chance.choice(doings)(self.members[self.chance.choice(NAMES)])

    async def _order(self, member: Member) -> None:
        requirements = self.chance.choice(["", "vcpu >= 4"])
        lease = self.chance.choice(self.leases)
        changes: dict[str, Any] = {
            "type": self.chance.choice(list(OrderType)),
            "lease_seconds": lease,
            "count": self.chance.randint(1, 4),
        }
        new = self.chance.choice(
            [
                machine(requirements=requirements, **changes),
                machine(requirements=requirements, **changes),
                network(**changes),
                NewOrder(spec=VolumeSpec(size_gb=self.chance.randint(1, 50)), **changes),
            ]
        )
        user = self.chance.choice(USERS)
        self.made += [(member, user, order.id) for order in await member.orders.create(user, new, None)]

    async def _delete(self, _member: Member) -> None:
        if self.made:
            owner, user, order_id = self.made.pop(self.chance.randrange(len(self.made)))
            await owner.orders.delete(user, order_id)

    async def _power(self, member: Member) -> None:
        """A machine is stopped, paused or started: in its cloud, as its user's wish makes it be."""
        keys = sorted(key for key, request in member.cloud.instances.items() if request.spec.kind == "compute")
        if keys:
            member.cloud.become(self.chance.choice(keys), self.chance.choice(POWERS))

    async def _kill(self, member: Member) -> None:
        await member.kill()
        await asyncio.sleep(self.chance.choice([0.0, 1.0, 60.0, HOUR]))
        await member.start()

    async def _doom(self, member: Member) -> None:
        """It dies before or after its n-th commit from now, and lies there for a while."""
        left = self.chance.randrange(30)

        def on_commit(_moment: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                member.middleware.dead = True
                raise Crash

        assert isinstance(member.db, InlineDatabase)
        member.db.on_commit = on_commit
        await asyncio.sleep(self.chance.choice([10.0, 600.0]))
        await self._kill(member)

    async def _cut(self, member: Member) -> None:
        other = self.members[self.chance.choice(NAMES)]
        if other is not member:
            self.world.network.cut(member.address, other.address)

    async def _heal(self, _member: Member) -> None:
        for one in self.members.values():
            for other in self.members.values():
                self.world.network.heal(one.address, other.address)

    async def _lose(self, member: Member) -> None:
        if member.cloud.instances:
            member.cloud.lose(self.chance.choice(sorted(member.cloud.instances)))

    async def _outage(self, member: Member) -> None:
        member.cloud.down = not member.cloud.down

    async def end(self) -> None:
        """Everything is repaired; what was on its way arrives."""
        self.calm = True
        for member in self.members.values():
            member.cloud.down = False
        await self._heal(self.members["a"])
        for member in self.members.values():
            await member.kill()
            await member.start()
        await asyncio.sleep(HOUR)


def compare(day: Day, begin: datetime) -> Iterator[str]:
    """The law; yields what is wrong."""
    end = clock()
    lent: dict[str, set[Read]] = {}
    borrowed: dict[str, set[Read]] = {}
    for name, member in day.members.items():
        with member.db.engine.connect() as conn:
            lent[name], borrowed[name] = readings.from_book(conn, "lent"), readings.from_book(conn, "borrowed")
            logged = readings.from_audit_log(conn)
            verified = audit.verify(conn)
            for daily in (False, True):
                expected = readings.add_up(logged, begin, end, daily=daily)
                found = _as_read(add_up(conn, Question(Role.LENT, begin, end, EVERYTHING, daily=daily), end))
                if found != expected:
                    yield f"{name}'s sums (daily: {daily}) are not those of its log: {found} != {expected}"
                expected = readings.add_up(borrowed[name], begin, end, daily=daily)
                found = _as_read(add_up(conn, Question(Role.BORROWED, begin, end, EVERYTHING, daily=daily), end))
                if found != expected:
                    yield f"{name}'s sums of what it borrowed (daily: {daily}): {found} != {expected}"
        if verified.broken_at is not None:
            yield f"{name}'s log is broken"
        if lent[name] != logged:
            yield f"{name} lent {lent[name] ^ logged}, or did not"
    for lender in day.members.values():
        for borrower in day.members.values():
            mine = {s for s in lent[lender.name[0]] if s.who[0] == borrower.key.fedid}
            theirs = {s for s in borrowed[borrower.name[0]] if s.who[0] == lender.key.fedid}
            if {_nameless(s) for s in mine} != {_nameless(s) for s in theirs}:
                yield f"{lender.name} and {borrower.name} do not agree: {mine ^ theirs}"
    for spells in lent.values():
        yield from _gaps(spells)


def _nameless(spell: Read) -> tuple[object, ...]:
    return (spell.lease, spell.number, spell.who[1:], spell.sizes, spell.began, spell.ended)


def _gaps(spells: set[Read]) -> Iterator[str]:
    """Within a lease, each spell begins when the one before ended, and differs from it."""
    for spell in spells:
        before = next((s for s in spells if (s.lease, s.number) == (spell.lease, spell.number - 1)), None)
        if spell.number > 1 and (before is None or before.ended != spell.began or before.sizes == spell.sizes):
            yield f"{spell} does not follow {before}"


def _as_read(lines: list[Line]) -> dict[tuple[object, ...], Amounts]:
    hour = 3_600_000_000
    return {
        (line.day, *line.key): (
            Fraction(line.sum.time, hour),
            Fraction(line.sum.vcpu, hour),
            Fraction(line.sum.ram_mb, 1024 * hour),
            Fraction(line.sum.disk_gb, hour),
        )
        for line in lines
    }


async def live(folder: Path, seed: int, happenings: int, leases: Sequence[int] = (3600, LONG_LEASE, LONG_LEASE)) -> int:
    """One day; returns how many spells it had."""
    async with Federation(folder, virtual=True) as world:
        day = Day(world, seed, leases)
        begin = clock()
        await day.begin()
        await day.pass_by(happenings)
        await day.end()
        assert list(compare(day, begin)) == []
        assert list(compare(day, begin + timedelta(hours=7, microseconds=1))) == []
        books = [member.db.engine.connect() for member in day.members.values()]
        count = sum(len(readings.from_book(conn, "lent")) for conn in books)
        for conn in books:
            conn.close()
        return count


@pytest.mark.timeout(1500)
@settings(max_examples=1, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_three_readings_of_a_day_with_crashes_come_to_the_same(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(live(Path(folder), seed, happenings=60))


@pytest.mark.timeout(1500)
def test_a_day_of_many_leases(tmp_path: Path) -> None:
    """Enough that every kind of accident happens to every kind of lease."""
    assert run(live(tmp_path, seed=20261122, happenings=100, leases=[LONG_LEASE])) > 10
