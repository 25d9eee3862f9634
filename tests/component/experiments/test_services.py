"""Services of experiments, from their description to what lenders tell nodes. In virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from federation_member.experiments.extending import LargerDescription
from federation_member.experiments.model import NewExperiment, Segment, State, Whole
from federation_member.orders.segments.plan import node_config
from fedkit.errors import FedError
from fedkit.node.kit.conf import Conf, read
from fedkit.protocol.segments import NodeInfo, Route, SegmentSpec
from fedkit.services.errors import UnknownService, UnusableService
from fedkit.topology import topdl
from fedkit.topology.model import Topology
from fedkit.topology.views import PartiesMeet
from tests.support.experiments import line, sites, until
from tests.support.federation import USER, Federation, in_virtual_time
from tests.support.segments import KEY, wired

ALL = [
    "project_export:one:two:project=TIED",
    "local_seer_control:one,two",
    "seer_master:one:two",
    "hide_hosts:two::hosts=n1",
]
MEMBERS = {"one": "home.test", "two": "away.test"}


def served(*services: str, **changes: Any) -> NewExperiment:
    """n0 at one, n1 and n2 at two, in a row."""
    wanted: dict[str, Any] = {"members": MEMBERS, "services": list(services), "ssh_keys": [f"{KEY} owner"]}
    return line("one", "two", "two", **wanted | changes)


def specs(whole: Whole) -> dict[str, SegmentSpec]:
    """What was asked for at each testbed."""
    orders = [segment.order for segment in whole.segments]
    return {one.spec.testbed: one.spec for one in orders if one is not None and isinstance(one.spec, SegmentSpec)}


def confs(whole: Whole) -> dict[str, Conf]:
    """What each node is told."""
    return {name: read(text) for spec in specs(whole).values() for name, text in spec.settings.items()}


@in_virtual_time
async def test_services_reach_nodes(world: Federation) -> None:
    async with sites(world, "home", "away") as (home, _):
        whole, _, _ = await home.experiments.create(USER, served(*ALL))
        whole = await until(home, whole.experiment.id, State.ACTIVE)
        told = confs(whole)
        assert sorted(told) == ["control", "control1", "master", "n0", "n1", "n2"]
        assert told["n0"].exports[0].path == told["n2"].shares[0].path == "/proj/tied"
        assert list(told["n2"].accounts) == [USER.name]
        assert told["n2"].keys == {USER.name: [f"{KEY} owner"]}
        assert list(told["master"].children) == ["control", "control1"]
        assert list(told["control1"].children) == ["n2"]  # n1 is hidden
        nodes = {node.name for segment in whole.segments for node in _nodes(segment)}
        assert nodes == set(told)
        one, two = specs(whole)["one"], specs(whole)["two"]
        routed = two.model_copy(update={"routes": {"n2": [Route(destination="10.1.1.0/24", via="10.1.2.2")]}})
        assert [name for name in ("n1", "n2", "control1") if node_config(routed, name).forwards] == ["n1"]
        assert node_config(two, "n2").settings == two.settings["n2"]
        assert "n1" not in {name for host in one.hosts for name in host.names}
        topology = await home.experiments.topology(USER, whole.experiment.id, services=True)
        pieces = [topdl.read(spec.description.encode()) for spec in (one, two)]
        assert _addresses(topology) == {name: found for piece in pieces for name, found in _addresses(piece).items()}
        described = await home.experiments.topology(USER, whole.experiment.id)
        assert list(_addresses(described)) == ["n0", "n1", "n2"]


def _addresses(topology: Topology) -> dict[str, list[str | None]]:
    return {computer.name: [interface.ip4 for interface in computer.interfaces] for computer in topology.computers}


def _nodes(segment: Segment) -> list[NodeInfo]:
    order = segment.order
    info = None if order is None or order.instance is None else order.instance.segment
    return [] if info is None else info.nodes


@in_virtual_time
async def test_mistakes_cost_nothing(world: Federation) -> None:
    refused: dict[str, type[FedError]] = {
        "teleport:one": UnknownService,
        "SMB:one:two": UnusableService,
        "seer_master:one:two": UnusableService,
    }
    async with sites(world, "home", "away") as (home, _):
        for service, error in refused.items():
            with pytest.raises(error):
                await home.experiments.create(USER, served(service))
        assert await home.experiments.page(USER) == []
        parties = {"a": {"testbeds": ["one"]}, "b": {"testbeds": ["two"]}}
        meeting = line(
            "one", "hall", "two", members=MEMBERS | {"hall": "home.test"}, parties=parties, services=ALL[1:3]
        )
        with pytest.raises(PartiesMeet):
            await home.experiments.create(USER, meeting)


@in_virtual_time
async def test_an_extension_keeps_secrets(world: Federation) -> None:
    """What services told before stays, so the secrets do."""
    async with sites(world, "home", "away") as (home, _):
        whole, _, _ = await home.experiments.create(USER, served(ALL[0]))
        await until(home, whole.experiment.id, State.ACTIVE)
        places = {f"n{number}": {"testbed": "two" if number else "one"} for number in range(5)}
        larger = topdl.write(wired(("n0", "n1"), ("n1", "n2"), ("n3", "n4"), **places)).decode()
        whole = await home.experiments.extend(USER, whole.experiment.id, LargerDescription(description=larger))
        whole = await until(home, whole.experiment.id, State.ACTIVE, where=lambda one: one.extension is None)
        told = confs(whole)
        assert sorted(told) == ["n0", "n1", "n2", "n3", "n4"]
        assert len({share.password for conf in told.values() for share in (*conf.exports, *conf.shares)}) == 1
