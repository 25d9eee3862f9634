"""The home member dies at every step, a lender vanishes in the middle: it goes on, or leaves nothing. All in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from federation_member.experiments.model import State
from fedkit.errors import FedError
from tests.support.experiments import die_after, line, nothing_left, sites, until
from tests.support.federation import USER, Federation, in_virtual_time
from tests.support.virtual_time import Crash


@pytest.mark.parametrize("commits", [0, 1, 2, 5, 11, 22])
@in_virtual_time
async def test_a_home_that_dies_while_it_is_made_goes_on(world: Federation, commits: int) -> None:
    async with sites(world, "h", "a", "b") as (h, a, b):
        die_after(h, commits)
        with suppress(Crash):
            await h.experiments.create(USER, line("a.test", "b.test"))
            await asyncio.sleep(20)
        await h.kill()
        await asyncio.sleep(5)
        await h.start()
        if await h.experiments.page(USER):
            await until(h, "line", State.ACTIVE)
            assert [len(member.cloud.instances) for member in (a, b)] == [3, 3]
            await h.experiments.terminate(USER, "line")
            await until(h, "line", State.TERMINATED)
        await nothing_left(h, a, b)


@pytest.mark.parametrize("commits", [0, 2, 5, 11])
@in_virtual_time
async def test_a_home_that_dies_while_it_ends_leaves_nothing(world: Federation, commits: int) -> None:
    async with sites(world, "h", "a", "b") as (h, a, b):
        await h.experiments.create(USER, line("a.test", "b.test"))
        await until(h, "line", State.ACTIVE)
        die_after(h, commits)
        with suppress(Crash, FedError):
            await h.experiments.terminate(USER, "line")
            await asyncio.sleep(20)
        await h.kill()
        await h.start()
        await h.experiments.terminate(USER, "line")
        await until(h, "line", State.TERMINATED)
        await nothing_left(h, a, b)


@in_virtual_time
async def test_a_lender_that_is_started_anew_keeps_the_experiment(world: Federation) -> None:
    async with sites(world, "h", "a", "b") as (h, a, b):
        await h.experiments.create(USER, line("a.test", "b.test"))
        await asyncio.sleep(1)
        await b.kill()
        await asyncio.sleep(5)
        await b.start()
        await until(h, "line", State.ACTIVE)
        assert [len(member.cloud.instances) for member in (a, b)] == [3, 3]


@in_virtual_time
async def test_a_lender_that_vanishes_is_given_up_and_so_is_the_rest(world: Federation) -> None:
    async with sites(world, "h", "a", "b") as (h, a, b):
        await h.experiments.create(USER, line("a.test", "b.test"))
        await until(h, "line", State.ACTIVE)
        world.network.cut(h.address, b.address)
        await asyncio.sleep(1200)
        assert a.cloud.instances == b.cloud.instances == {}
        world.network.heal(h.address, b.address)
        whole = await until(h, "line", State.FAILED)
        assert "b.test" in whole.experiment.reason
        await nothing_left(h, a, b)
