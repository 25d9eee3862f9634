"""Experiments with a kit that is not the federation's, in virtual time; a real one is in test_strangers_kit.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from federation_member.experiments.errors import NoWay
from federation_member.experiments.extending import LargerDescription
from federation_member.experiments.model import NewExperiment, State, Whole
from federation_member.experiments.planning import plan
from federation_member.experiments.preview import preview
from federation_member.orders import engine
from federation_member.orders.candidates import OwnMember
from federation_member.orders.segments.growing import grown
from federation_member.orders.segments.state import SegmentState
from fedkit.clock import now
from fedkit.kits import installed
from fedkit.kits.contract import Kit
from fedkit.kits.errors import UnknownKit
from fedkit.kits.federation import Federation as FederationKit
from fedkit.node.script import NodeConfig
from fedkit.portal.script import PortalConfig
from fedkit.protocol.lending import Offer
from fedkit.protocol.segments import FEDERATION_KIT, SegmentGo, SegmentSpec
from fedkit.services.arrange import Arranged
from fedkit.topology import topdl
from tests.support.experiments import PASSIVE, line, nothing_left, sites, until
from tests.support.federation import USER, Federation, in_virtual_time
from tests.support.segments import piece, wired
from tests.unit.orders.test_embedder import OFFER

MEMBERS = {"one": "home.test", "two": "away.test"}


class Strings(Kit):
    """Tin cans."""

    name = "strings"

    def portal(self, config: PortalConfig) -> str:
        """A can."""
        return f"#!/bin/sh\n# can\n{'' if config.host else PASSIVE}"

    def node(self, config: NodeConfig) -> str:
        """An ear."""
        return f"#!/bin/sh\n# ear of {config.name}\n"


@pytest.fixture
def _strings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both kits are installed."""
    points = [EntryPoint(name, f"{kit.__module__}:{kit.__qualname__}", installed.GROUP) for name, kit in KITS.items()]
    monkeypatch.setattr(installed, "entry_points", lambda group: points)
    installed.kit_named.cache_clear()
    yield
    installed.kit_named.cache_clear()


KITS = {FEDERATION_KIT: FederationKit, "strings": Strings}
pytestmark = pytest.mark.usefixtures("_strings")


def strung(**changes: object) -> NewExperiment:
    """n0 at one, n1 at two."""
    return line("one", "two", **{"members": MEMBERS, "kit": "strings"} | changes)


def specs(whole: Whole) -> dict[str, SegmentSpec]:
    """What was asked for at each testbed."""
    orders = [segment.order for segment in whole.segments]
    return {one.spec.testbed: one.spec for one in orders if one is not None and isinstance(one.spec, SegmentSpec)}


@pytest.mark.parametrize("hosts", [False, True])
@in_virtual_time
async def test_another_kit_makes_all_of_an_experiment(world: Federation, hosts: bool) -> None:
    async with sites(world, "home", "away", hosts=hosts) as (home, away):
        whole, _, _ = await home.experiments.create(USER, strung())
        whole = await until(home, whole.experiment.id, State.ACTIVE)
        assert whole.experiment.kit == "strings"
        assert {spec.kit for spec in specs(whole).values()} == {"strings"}
        for member, name in ((home, "n0"), (away, "n1")):
            hosted = member.cloud.segments.values()
            scripts = [node.script for one in hosted for node in one.nodes]
            scripts += [portal.script for one in hosted for portal in one.portals]
            scripts += [getattr(getattr(one, "spec", None), "user_data", "") for one in member.cloud.instances.values()]
            assert sorted(filter(None, map(_second, scripts))) == ["# can", f"# ear of {name}"]
        places = {f"n{number}": {"testbed": "two" if number else "one"} for number in range(4)}
        larger = topdl.write(wired(("n0", "n1"), ("n2", "n3"), **places)).decode()
        await home.experiments.extend(USER, whole.experiment.id, LargerDescription(description=larger))
        whole = await until(home, whole.experiment.id, State.ACTIVE, where=lambda one: one.extension is None)
        assert {spec.kit for spec in specs(whole).values()} == {"strings"}
        await home.experiments.terminate(USER, whole.experiment.id)
        await until(home, whole.experiment.id, State.TERMINATED)
        await nothing_left(home, away)


def _second(script: str) -> str:
    lines = script.split("\n")
    return lines[1] if len(lines) > 1 else ""


@in_virtual_time
async def test_a_kit_that_nobody_has_costs_nothing(world: Federation) -> None:
    async with sites(world, "home", "away") as (home, _):
        with pytest.raises(UnknownKit, match="did you mean strings"):
            await home.experiments.create(USER, strung(kit="string"))
        assert await home.experiments.page(USER) == []
        shown = await preview(strung(kit="string"), home.orders.engine.members())
        assert [problem.code for problem in shown.errors] == [UnknownKit.code]


@in_virtual_time
async def test_a_member_without_the_kit_is_not_asked(world: Federation) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "installed", lambda: {FEDERATION_KIT: FederationKit()})
        await world.add("bare")
    async with sites(world, "home") as (home,):
        new = strung(members={"one": "home.test", "two": "bare.test"})
        whole, _, _ = await home.experiments.create(USER, new)
        await asyncio.sleep(60)
        ended = (await home.experiments.get(USER, whole.experiment.id)).experiment
        assert ended.state is State.FAILED
        assert "bare.test has no federation kit strings; it has federation" in ended.reason
        await nothing_left(home)


@pytest.mark.parametrize("kit", KITS)
def test_only_a_kit_that_can_is_given_a_relay(kit: str) -> None:
    """Where neither of two members has a tunnel server."""
    at = [OwnMember(name * 40, f"{name}.test", f"fm.{name}.test", Offer(), now()) for name in "xy"]
    new = strung(members={"one": "x.test", "two": "y.test"}, kit=kit)
    topology = topdl.read(new.description.encode())
    if kit == FEDERATION_KIT:
        assert plan(new, Arranged(topology), at, relay=True)
    else:
        with pytest.raises(NoWay, match="or their kit does not"):
            plan(new, Arranged(topology), at, relay=True)


def test_what_runs_keeps_its_kit() -> None:
    spec = piece(("a", "b"))
    other = piece(("a", "b"), version=2, kit="strings")
    _, state = grown(spec, SegmentState.begin(spec), SegmentGo(spec=other), OFFER)
    assert state.refused is not None
    assert "the kit that it has cannot be changed" in state.refused.reason
