"""What an experiment goes through, from its description to its end. All in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from federation_member.experiments.model import State
from tests.support.experiments import Portals, line, until
from tests.support.fake_tunnel_server import FakeTunnelServer
from tests.support.federation import USER, Federation, Member, in_virtual_time


@asynccontextmanager
async def sites(world: Federation, *names: str) -> AsyncIterator[list[Member]]:
    """Members whose machines have tunnels."""
    tunnels = FakeTunnelServer(world)
    await tunnels.start()
    try:
        members = [await world.add(name, tunnel_server=tunnels.peer) for name in names]
        await asyncio.sleep(1)  # everybody knows what everybody lends
        async with Portals(world, tunnels):
            yield members
    finally:
        await tunnels.stop()


async def nothing_left(*members: Member) -> None:
    """No cloud has anything, and no lender's book says otherwise."""
    for member in members:
        assert member.cloud.instances == {}, member.name
        assert await member.book() == set(), member.name
        assert member.cloud.misdeeds == [], member.name


@in_virtual_time
async def test_it_comes_up_at_three_members_is_joined_and_leaves_nothing(world: Federation) -> None:
    async with sites(world, "h", "a", "b") as (h, a, b):
        made, _grant, _key = await h.experiments.create(USER, line("h.test", "a.test", "b.test"))
        assert made.experiment.state is State.ALLOCATING
        whole = await until(h, made.experiment.id, State.ACTIVE)
        assert [segment.order and segment.order.member for segment in whole.segments] == ["h.test", "a.test", "b.test"]
        assert [len(member.cloud.instances) for member in (h, a, b)] == [3, 5, 3]  # nodes, networks, portals
        await h.experiments.terminate(USER, "line")
        await until(h, made.experiment.id, State.TERMINATED)
        await nothing_left(h, a, b)
        told = dict.fromkeys(event.state for event in await h.experiments.log(USER, "line"))
        told.pop(State.JOINING, None)  # the portals may be joined before the last word of the nodes comes
        assert list(told) == [
            State.ALLOCATING,
            State.STARTING,
            State.ACTIVE,
            State.TERMINATING,
            State.TERMINATED,
        ]
