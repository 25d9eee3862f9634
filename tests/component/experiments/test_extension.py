"""More is added to an experiment that runs: all of it or nothing, and what there is stays as it is. All in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from federation_member.errors import NotAllowed
from federation_member.experiments.errors import NotContained, NotExtensible
from federation_member.experiments.extending import LargerDescription
from federation_member.experiments.joining import info_of
from federation_member.experiments.model import NewExperiment, State, Whole
from federation_member.middleware.contract import NoQuota
from fedkit.protocol.segments import NodeStatus
from fedkit.topology import topdl
from tests.support.experiments import nothing_left, sites, until
from tests.support.federation import USER, Federation, Member, in_virtual_time
from tests.support.policies import NOTHING
from tests.support.segments import wired

TWO = {"n0": "h.test", "n1": "a.test"}


def text(*wires: tuple[str, ...], **testbeds: str) -> str:
    """A description of computers on wires, each at its testbed."""
    return topdl.write(wired(*wires, **{name: {"testbed": place} for name, place in testbeds.items()})).decode()


def lan(**testbeds: str) -> str:
    """Computers on one LAN."""
    return text(tuple(testbeds), **testbeds)


async def active(h: Member, **testbeds: str) -> Whole:
    """An experiment of one LAN that is active."""
    await h.experiments.create(USER, NewExperiment(name="exp", description=lan(**testbeds)))
    return await until(h, "exp", State.ACTIVE)


async def extended(h: Member, description: str, **more: Any) -> Whole:
    """Extend it, and wait until that is over."""
    await h.experiments.extend(USER, "exp", LargerDescription(description=description, **more))
    for _ in range(1200):
        whole = await h.experiments.get(USER, "exp")
        if whole.experiment.extension is None and whole.experiment.state is State.ACTIVE:
            return whole
        await asyncio.sleep(0.5)
    raise AssertionError(f"{whole.experiment.state}: {whole.experiment.reason}")


def nodes(whole: Whole) -> dict[str, NodeStatus]:
    """Its nodes by name."""
    return {node.name: node.status for segment in whole.segments for node in info_of(segment.order).nodes}


def machines(*members: Member) -> dict[str, str]:
    """The machines of nodes, by their names, as the clouds know them."""
    found = ((key, one.spec) for member in members for key, one in member.cloud.instances.items())
    return {spec.name: key for key, spec in found if spec.kind == "compute" and spec.name.startswith("n")}


async def last_words(h: Member) -> list[str]:
    """The last lines of the log."""
    return [event.reason for event in await h.experiments.log(USER, "exp")][-4:]


@in_virtual_time
async def test_nodes_come_at_testbeds_that_there_are_and_at_new_ones(world: Federation) -> None:
    async with sites(world, "h", "a", "b") as (h, a, b):
        await active(h, **TWO)
        before = machines(h, a)
        whole = await extended(h, lan(**TWO, n2="b.test", n3="a.test"))
        assert nodes(whole) == dict.fromkeys(("n0", "n1", "n2", "n3"), NodeStatus.RUNNING)
        assert [segment.testbed for segment in whole.segments] == ["h.test", "a.test", "b.test"]
        after = machines(h, a, b)
        assert {name: after[name] for name in before} == before
        assert set(after) == {"n0", "n1", "n2", "n3"}
        told = [script for member in (h, a) for _place, script in member.hands.asked]
        assert len(told) == 2  # n0 and n1
        assert all("10.1.1.4 n2" in script for script in told)
        topology = await h.experiments.topology(USER, "exp")
        assert {computer.name for computer in topology.computers} == set(after)
        assert "what was added runs" in await last_words(h)
        whole = await extended(h, lan(**TWO, n2="b.test", n3="a.test", n4="b.test"))  # and once more
        assert len(nodes(whole)) == 5
        await h.experiments.terminate(USER, "exp")
        await until(h, "exp", State.TERMINATED)
        await nothing_left(h, a, b)


@pytest.mark.parametrize(
    ("description", "word"),
    [
        (lan(n0="h.test"), "n1 is missing"),
        (lan(n0="a.test", n1="a.test"), "n0 would go from h.test to a.test"),
        (lan(n1="a.test", n0="h.test"), "n0 on wire1: is 10.1.1.2/255.255.255.0, would be 10.1.1.3"),
        (text(("n0", "n1"), ("n1", "n2"), **TWO, n2="b.test"), "n1 on wire2: is not on it"),
    ],
)
@in_virtual_time
async def test_what_would_change_what_runs_is_refused_and_named(world: Federation, description: str, word: str) -> None:
    async with sites(world, "h", "a", "b") as (h, a, _b):
        await active(h, **TWO)
        made = [*h.cloud.made, *a.cloud.made]
        with pytest.raises(NotContained, match=word.replace("/", ".")):
            await h.experiments.extend(USER, "exp", LargerDescription(description=description))
        await asyncio.sleep(60)
        assert [*h.cloud.made, *a.cloud.made] == made


@in_virtual_time
async def test_a_refusal_at_one_testbed_changes_nothing_anywhere(world: Federation) -> None:
    async with sites(world, "h", "a", "b", b=NOTHING) as (h, a, b):
        await active(h, **TWO)
        made = [*h.cloud.made, *a.cloud.made]
        whole = await extended(h, lan(**TWO, n2="b.test", n3="a.test"))
        assert set(nodes(whole)) == {"n0", "n1"}
        assert [*h.cloud.made, *a.cloud.made, *b.cloud.made] == made
        assert any(NotAllowed.code == event.code for event in await h.experiments.log(USER, "exp"))
        more = LargerDescription(description=lan(**TWO, n2="b.test"))
        await h.experiments.extend(USER, "exp", more)
        with pytest.raises(NotExtensible):  # one at a time
            await h.experiments.extend(USER, "exp", more)


@pytest.mark.parametrize("full", ["a", "b"])
@in_virtual_time
async def test_a_cloud_without_room_undoes_all_of_it(world: Federation, full: str) -> None:
    async with sites(world, "h", "a", "b") as (h, a, b):
        await active(h, **TWO)
        before = machines(h, a)
        cloud = {"a": a, "b": b}[full].cloud
        cloud.refusal, cloud.refused_kinds = NoQuota("It is full."), frozenset({"compute"})
        whole = await extended(h, lan(**TWO, n2="b.test", n3="a.test"))
        await asyncio.sleep(120)
        assert set(nodes(await h.experiments.get(USER, "exp"))) == {"n0", "n1"}
        assert machines(h, a, b) == before
        assert b.cloud.instances == {}
        assert await b.book() == set()
        assert any("It is full." in line for line in await last_words(h)), await last_words(h)
        cloud.refusal = None
        whole = await extended(h, lan(**TWO, n2="b.test", n3="a.test"))
        assert set(nodes(whole)) == {"n0", "n1", "n2", "n3"}
        await h.experiments.terminate(USER, "exp")
        await until(h, "exp", State.TERMINATED)
        await nothing_left(h, a, b)


@in_virtual_time
async def test_it_may_end_while_it_is_extended(world: Federation) -> None:
    async with sites(world, "h", "a", "b") as (h, a, b):
        await active(h, **TWO)
        b.cloud.gate.clear()
        await h.experiments.extend(USER, "exp", LargerDescription(description=lan(**TWO, n2="b.test")))
        await asyncio.sleep(10)
        await h.experiments.terminate(USER, "exp")
        b.cloud.gate.set()
        await until(h, "exp", State.TERMINATED)
        await nothing_left(h, a, b)


@pytest.mark.parametrize("after", [0.2, 1.0, 3.0])
@in_virtual_time
async def test_a_home_that_dies_on_the_way_goes_on(world: Federation, after: float) -> None:
    async with sites(world, "h", "a", "b") as (h, a, b):
        await active(h, **TWO)
        await h.experiments.extend(USER, "exp", LargerDescription(description=lan(**TWO, n2="b.test", n3="a.test")))
        await asyncio.sleep(after)
        await h.kill()
        await h.start()
        for _ in range(600):
            whole = await h.experiments.get(USER, "exp")
            if whole.experiment.extension is None and whole.experiment.state is State.ACTIVE:
                break
            await asyncio.sleep(1)
        assert set(nodes(whole)) == {"n0", "n1", "n2", "n3"}
        assert [member.cloud.misdeeds for member in (h, a, b)] == [[], [], []]
