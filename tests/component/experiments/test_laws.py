"""The law of experiments: whatever dies, is cut off or lost, in the end each is active, with all that is fatal to it running and joined,
or it has ended; what the clouds hold, what lenders' books hold and what borrowers' books hold is the same; and what ends leaves nothing,
at the tunnel server neither, by which members that have none are joined.

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

from federation_member.experiments.errors import NameTaken
from federation_member.experiments.failing import failure_action
from federation_member.experiments.joining import apart
from federation_member.experiments.model import FINAL, State, Whole
from federation_member.orders.model import OrderState
from tests.support.experiments import books_agree, line, nothing_left, sites, until
from tests.support.fake_tunnel_server import FakeTunnelServer
from tests.support.federation import USER, Federation, Member
from tests.support.memory_network import Deliveries, Packet
from tests.support.virtual_time import Crash, InlineDatabase, run

PEACE = 3600.0  # seconds: more than the longest back-off, lease and retry together
NAMES = ["h", "a", "b"]
ACTIONS = ["fatal", "nonfatal", "ignore"]

who = st.sampled_from(NAMES)
testbeds = st.sampled_from(["h.test", "a.test", "b.test", "anywhere"])
nodes = st.lists(st.tuples(testbeds, st.sampled_from(ACTIONS)), min_size=1, max_size=3)
step = st.one_of(
    st.tuples(st.just("make"), nodes),
    st.tuples(st.just("make"), nodes),
    st.tuples(st.just("terminate"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 1.0, 3.0, 30.0, 700.0])),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 5.0])),
    st.tuples(st.just("kill"), who),
    st.tuples(st.just("doom"), who, st.integers(0, 60)),
    st.tuples(st.just("cut"), who, who),
    st.tuples(st.just("heal")),
    st.tuples(st.just("lose"), who, st.integers(0, 9)),
    st.tuples(st.just("cloud"), who, st.booleans()),
)
steps = st.lists(step, min_size=4, max_size=14)
fates = st.lists(st.sampled_from(["pass"] * 8 + ["drop", "double", "late"]), min_size=1, max_size=40)


class Story:
    """Three members to which things happen, and the experiments of a user of the first."""

    def __init__(self, world: Federation, members: list[Member], chosen: list[str]) -> None:
        self.world = world
        self.members = dict(zip(NAMES, members, strict=True))
        self.chosen = chosen
        self.packets = self.made = 0
        world.network.faults = self._fate

    def _fate(self, packet: Packet) -> Deliveries:
        self.packets += 1
        later = {"pass": [0.0], "drop": [], "double": [0.0, 0.02], "late": [5.0]}
        return [(delay, packet) for delay in later[self.chosen[self.packets % len(self.chosen)]]]

    @property
    def home(self) -> Member:
        """Whose experiments they are."""
        return self.members["h"]

    async def tell(self, step: tuple[object, ...]) -> None:
        """Let one thing happen; what a dead member is asked is simply not done."""
        with suppress(Crash, NameTaken):
            await getattr(self, f"_{step[0]}")(*step[1:])

    async def _make(self, wanted: list[tuple[str, str]]) -> None:
        self.made += 1
        actions = {f"n{number}": {"failureaction": action} for number, (_place, action) in enumerate(wanted)}
        new = line(*(place for place, _action in wanted), name=f"e{self.made}", nodes=actions)
        await self.home.experiments.create(USER, new)

    async def _terminate(self, number: int) -> None:
        found = await self.home.experiments.page(USER)
        if found:
            await self.home.experiments.terminate(USER, found[number % len(found)].id)

    async def _wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _kill(self, name: str) -> None:
        await self.members[name].kill()
        await self.members[name].start()

    async def _doom(self, name: str, moments: int) -> None:
        """It dies before or after its n-th commit from now, and does nothing more until it is killed and started."""
        member, left = self.members[name], moments

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

    async def _lose(self, name: str, number: int) -> None:
        """A part of a segment that nothing else uses vanishes."""
        cloud = self.members[name].cloud
        machines = sorted(key for key in cloud.instances if not cloud.users_of(key))
        if machines:
            cloud.lose(machines[number % len(machines)])

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
        found = await self.home.experiments.page(USER)
        for experiment in found:
            whole = await self.home.experiments.get(USER, experiment.id)
            assert experiment.state in (State.ACTIVE, *FINAL), experiment
            if experiment.state is State.ACTIVE:
                assert_runs(whole)
        await books_agree(*self.members.values())
        for experiment in found:
            await self.home.experiments.terminate(USER, experiment.id)
            await until(self.home, experiment.id, *FINAL)
        await nothing_left(*self.members.values())
        await books_agree(*self.members.values())


def assert_runs(whole: Whole) -> None:
    """All that is fatal runs and is joined, and something does."""
    grave = [segment for segment in whole.segments if failure_action(segment) == "fatal"]
    assert all(one.order is not None and one.order.state is OrderState.FULFILLED for one in grave), whole
    assert apart(grave) == [], whole
    assert any(one.order is not None and one.order.state is OrderState.FULFILLED for one in whole.segments), whole


async def tell(folder: Path, chosen: list[str], happenings: list[tuple[object, ...]], closed: list[str]) -> None:
    """One whole story."""
    async with Federation(folder, virtual=True) as world:
        tunnels = FakeTunnelServer(world)
        async with sites(world, *NAMES, tunnels=tunnels, closed=closed) as members:
            story = Story(world, members, chosen)
            for step in happenings:
                await story.tell(step)
            await story.end()
            await story.check()
            await asyncio.sleep(PEACE)
            assert tunnels.rights == {}


@pytest.mark.timeout(1500)  # half a minute of computing; hypothesis would take a timeout for a failure of the law
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(chosen=fates, happenings=steps, closed=st.sampled_from([[], ["a"], ["a", "b"]]))
def test_each_is_whole_or_gone_and_the_books_agree(
    no_threads: None, chosen: list[str], happenings: list[tuple[object, ...]], closed: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(tell(Path(folder), chosen, happenings, closed))
