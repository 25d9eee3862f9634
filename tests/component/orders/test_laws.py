"""The law of the order engine: whatever dies, is cut off, lost or asked for, in the end every order that runs has exactly one
instance, no other instance exists, every book equals its cloud, and what uses another is where that is and went before it.

Hypothesis plays the users, the network, the clouds and the reaper, in virtual time. Then the world is left in peace.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation_member.errors import InUse, UnknownReference, Why
from federation_member.middleware.contract import UnusableSpec
from federation_member.orders.model import AttemptState, NewOrder, Order, OrderState, OrderType
from federation_member.orders.service import OrderService
from federation_member.orders.store import FINAL
from fedkit.errors import FedError
from fedkit.protocol.lending import references
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, Member, attachment, machine, public_ip, snapshot, volume
from tests.support.memory_network import Deliveries, Packet
from tests.support.virtual_time import Crash, InlineDatabase, run

CANNOT_BE = {
    Why.APART,
    UnusableSpec.code,
}  # why an order may still be open: its machine and its volume, or two attachments
PEACE = 3600.0  # seconds: more than the longest back-off, lease and retry together
NAMES = ["a", "b", "c"]

fates = st.lists(st.sampled_from(["pass"] * 6 + ["drop", "double", "late", "very late"]), min_size=1, max_size=40)
who = st.sampled_from(NAMES)
leases = st.sampled_from([300, 7 * 86400])  # seconds; a long one does not end by itself before we look
orders = st.tuples(st.just("order"), who, st.sampled_from(["", "vcpu >= 4"]), st.sampled_from(list(OrderType)), leases)
users = st.sampled_from(["attachment", "public_ip", "snapshot", "copy"])
step = st.one_of(
    orders,
    orders,
    st.tuples(st.just("volume"), who, st.sampled_from(list(OrderType)), leases),
    st.tuples(st.just("use"), users, st.integers(0, 9), st.integers(0, 9), st.sampled_from(list(OrderType))),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.1, 1.0, 3.0, 30.0, 400.0])),
    st.tuples(st.just("kill"), who),
    st.tuples(st.just("doom"), who, st.integers(0, 30)),
    st.tuples(st.just("cut"), who, who),
    st.tuples(st.just("heal")),
    st.tuples(st.just("lose"), who),
    st.tuples(st.just("cloud"), who, st.booleans()),
)
steps = st.lists(step, min_size=5, max_size=20)


class Story:
    """Three members to which things happen."""

    def __init__(self, world: Federation, chosen: list[str]) -> None:
        self.world = world
        self.chosen = chosen
        self.packets = 0
        self.made: list[tuple[str, Order]] = []  # at whose
        self.members: dict[str, Member] = {}
        world.network.faults = self._fate

    def _fate(self, packet: Packet) -> Deliveries:
        self.packets += 1
        match self.chosen[self.packets % len(self.chosen)]:
            case "drop":
                return []
            case "double":
                return [(0.0, packet), (0.02, packet)]
            case "late":
                return [(0.5, packet)]
            case "very late":
                return [(30.0, packet)]
        return [(0.0, packet)]

    async def begin(self) -> None:
        """`a` has only small machines."""
        for name in NAMES:
            self.members[name] = await self.world.add(name, Cloud(flavours=[SMALL]) if name == "a" else None)

    async def tell(self, step: tuple[object, ...]) -> None:
        """Let one thing happen; what a dead member is asked is simply not done, nor what cannot be."""
        with suppress(Crash, InUse, UnknownReference):
            await getattr(self, f"_{step[0]}")(*step[1:])

    async def _order(self, name: str, requirements: str, kind: OrderType, lease: int) -> None:
        await self._place(name, machine(requirements=requirements, type=kind, lease_seconds=lease))

    async def _place(self, name: str, new: NewOrder) -> None:
        self.made += [(name, order) for order in await self.members[name].orders.create(USER, new, None)]

    async def _volume(self, name: str, kind: OrderType, lease: int) -> None:
        await self._place(name, volume(type=kind, lease_seconds=lease))

    def _pick(self, kind: str, number: int, name: str | None = None) -> tuple[str, str] | None:
        found = [(whose, order.id) for whose, order in self.made if order.spec.kind == kind and name in (None, whose)]
        return found[number % len(found)] if found else None

    async def _use(self, what: str, number: int, other: int, kind: OrderType) -> None:
        used = self._pick("snapshot" if what == "copy" else "compute", number)
        if used is None:
            return
        name, order_id = used
        disk = self._pick("volume", other, name)
        if what == "copy":
            await self._place(name, machine(image=f"snapshot:{order_id}", type=kind))
        elif what == "public_ip":
            await self._place(name, public_ip(order_id, type=kind))
        elif what == "snapshot":
            await self._place(name, snapshot(order_id, type=kind))
        elif disk is not None:
            await self._place(name, attachment(order_id, disk[1], type=kind))

    async def _delete(self, number: int) -> None:
        if self.made:
            name, order = self.made[number % len(self.made)]
            await self.members[name].orders.delete(USER, order.id)

    async def _wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _kill(self, name: str) -> None:
        await self.members[name].kill()
        await self.members[name].start()

    async def _doom(self, name: str, moments: int) -> None:
        """It dies before or after its n-th commit from now, and does nothing more until it is killed and started."""
        member = self.members[name]
        left = moments

        def on_commit(_moment: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                member.middleware.dead = True
                raise Crash

        assert isinstance(member.db, InlineDatabase)
        member.db.on_commit = on_commit

    async def _cut(self, one: str, other: str) -> None:
        if one != other:
            self.world.network.cut(self.members[one].address, self.members[other].address)

    async def _heal(self) -> None:
        for one in NAMES:
            for other in NAMES:
                self.world.network.heal(self.members[one].address, self.members[other].address)

    async def _lose(self, name: str) -> None:
        cloud = self.members[name].cloud
        if cloud.instances:
            cloud.lose(min(cloud.instances))

    async def _cloud(self, name: str, down: bool) -> None:
        self.members[name].cloud.down = down

    async def end(self) -> None:
        """Everything is repaired; then nothing happens for long."""
        await self._heal()
        self.chosen = ["pass"]
        for name in NAMES:
            self.members[name].cloud.down = False
            await self._kill(name)
        await asyncio.sleep(PEACE)

    async def check(self) -> None:
        """The law."""
        running: dict[str, str] = {}
        for name in NAMES:
            service = self.members[name].orders
            found, _more = await service.page(USER, state=None, kind=None, batch=None, after=None, limit=100)
            for order in found:
                why = await service.why(USER, order.id)
                ended = why.order.state in (OrderState.FULFILLED, OrderState.CLOSED, OrderState.DELETED)
                assert ended or why.order.code in CANNOT_BE, why
                if why.order.state is OrderState.FULFILLED:
                    await self._check_used(service, why.order)
                if why.order.state is OrderState.FULFILLED:
                    running[str(why.order.lease_id)] = str(why.order.member)
                open_attempts = {a.lease_id for a in why.attempts if a.state not in FINAL}
                expected = {why.order.lease_id} if why.order.state is OrderState.FULFILLED else set()
                assert open_attempts == expected, why
                assert all(a.state is not AttemptState.ASKED for a in why.attempts), why
                assert all(event.reason for event in why.events)
        existing = {key: member.name for member in self.members.values() for key in member.cloud.instances}
        assert existing == running
        for member in self.members.values():
            assert await member.book() == set(member.cloud.instances)
            assert member.cloud.misdeeds == []

    async def _check_used(self, service: OrderService, order: Order) -> None:
        """What a running order uses runs at the same member, as this very lease; but a snapshot outlives its machine."""
        (lender,) = (member for member in self.members.values() if member.name == order.member)
        leases = references(lender.cloud.instances[str(order.lease_id)].spec)
        if order.spec.kind != "snapshot":
            used = [await service.get(USER, order_id) for order_id in references(order.spec)]
            assert all(one.state is OrderState.FULFILLED and one.member == order.member for one in used), (order, used)
            assert {one.lease_id for one in used} == leases.keys()


async def tell(folder: Path, chosen: list[str], happenings: list[tuple[object, ...]]) -> None:
    """One whole story."""
    async with Federation(folder, virtual=True) as world:
        story = Story(world, chosen)
        await story.begin()
        for step in happenings:
            await story.tell(step)
        await story.end()
        await story.check()


@pytest.mark.timeout(1500)  # half a minute of computing; hypothesis would take a timeout for a failure of the law
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(chosen=fates, happenings=steps)
def test_one_instance_for_each_order_that_runs_and_no_other(
    chosen: list[str], happenings: list[tuple[object, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(tell(Path(folder), chosen, happenings))


def test_errors_are_ours() -> None:
    """A crash must not be mistaken for a refusal."""
    assert not issubclass(Crash, FedError)
