"""Lenders that never start, never join, lie, or are never heard of again; joins that come and go. All in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from federation_member.experiments.errors import Why
from federation_member.experiments.extending import LargerDescription
from federation_member.experiments.failing import START_LIMIT
from federation_member.experiments.joining import info_of
from federation_member.experiments.model import Event, State
from federation_member.orders.leases import Lease
from federation_member.orders.segments import embedder
from federation_member.orders.segments.errors import NOT_MADE
from federation_member.orders.segments.plan import Child
from federation_member.orders.segments.state import SegmentState
from federation_member.orders.segments.summary import Summary, summarize
from fedkit.portal.script import TUNNEL
from fedkit.protocol.segments import NodeStatus, SegmentInfo, SegmentSpec
from tests.component.experiments.test_extension import active, extended, lan
from tests.support.experiments import books_agree, line, nothing_left, sites, until
from tests.support.fake_tunnel_server import FakeTunnelServer
from tests.support.federation import USER, Federation, Member, in_virtual_time
from tests.support.policies import NOTHING

TUNNELS = "tunnel.dmz.test"
NONFATAL = {"n1": {"failureaction": "nonfatal"}}
HOURS = 2 * 3600.0


async def log(member: Member, wanted: str = "line") -> list[Event]:
    """What happened to an experiment."""
    return await member.experiments.log(USER, wanted)


@in_virtual_time
async def test_a_piece_that_is_lost_while_it_runs_is_had_elsewhere_and_its_partners_are_told(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        await h.experiments.create(USER, line("left", "a.test"))
        whole = await until(h, "line", State.ACTIVE)
        assert [segment.order and segment.order.member for segment in whole.segments] == ["h.test", "a.test"]
        h.cloud.lose(next(key for key, one in h.cloud.instances.items() if one.spec.name == "n0"))
        await until(h, "line", State.STARTING)
        whole = await until(h, "line", State.ACTIVE)
        assert [segment.order and segment.order.member for segment in whole.segments] == ["a.test", "a.test"]
        assert h.cloud.instances == {}
        assert any("others are asked for it" in event.reason for event in await log(h))
        await books_agree(h, a)
        a.cloud.lose(next(key for key, one in a.cloud.instances.items() if one.spec.name == "n0"))
        await until(h, "line", State.FAILED, State.TERMINATING)  # nobody is left who has not lost it
        await until(h, "line", State.FAILED)
        await nothing_left(h, a)


@in_virtual_time
async def test_an_experiment_of_which_nothing_is_had_has_failed(world: Federation) -> None:
    async with sites(world, "h", "a", a=NOTHING) as (h, a):
        nodes = {"n0": {"failureaction": "ignore"}, "n1": {"failureaction": "nonfatal"}}
        await h.experiments.create(USER, line("a.test", "a.test", nodes=nodes))
        await until(h, "line", State.FAILED)
        await nothing_left(h, a)


@pytest.mark.parametrize("action", ["fatal", "nonfatal"])
@in_virtual_time
async def test_a_node_that_is_being_made_for_ever_has_failed_in_the_end(world: Federation, action: str) -> None:
    async with sites(world, "h", "a") as (h, a):
        a.cloud.slow_start = True
        await h.experiments.create(USER, line("h.test", "a.test", nodes={"n1": {"failureaction": action}}))
        for _ in range(int(HOURS / 10)):
            await asyncio.sleep(10)
            for key, request in list(a.cloud.instances.items()):
                if request.spec.name != "n1" and key not in a.cloud.started:
                    a.cloud.finish(key)
        found = (await h.experiments.get(USER, "line")).experiment
        if action == "fatal":
            assert (found.state, found.code) == (State.FAILED, NOT_MADE)
            await nothing_left(h, a)
        else:
            assert (found.state, found.code) == (State.ACTIVE, Why.INCOMPLETE)
            assert "n1 failed: not made within" in found.reason


@pytest.mark.parametrize("nodes", [{}, NONFATAL])
@in_virtual_time
async def test_portals_that_never_join_are_not_waited_for_without_end(world: Federation, nodes: dict[str, Any]) -> None:
    async with sites(world, "h", "a") as (h, a):
        world.network.faults = lambda packet: [] if packet.source == TUNNELS and not packet.reply else [(0.0, packet)]
        await h.experiments.create(USER, line("h.test", "a.test", nodes=nodes))
        await until(h, "line", State.JOINING)
        if nodes:
            found = (await until(h, "line", State.ACTIVE)).experiment
            assert found.code == Why.INCOMPLETE
            assert "not joined: h.test/" in found.reason
        else:
            assert (await until(h, "line", State.FAILED)).experiment.code == Why.NOT_JOINED
            await nothing_left(h, a)


Lie = Callable[[SegmentInfo], SegmentInfo]


@pytest.mark.parametrize(
    "lie",
    [
        lambda info: info.model_copy(update={"nodes": []}),
        lambda info: info.model_copy(update={"nodes": [*info.nodes, info.nodes[0].model_copy(update={"name": "x"})]}),
        lambda info: info.model_copy(
            update={"nodes": [one.model_copy(update={"status": NodeStatus.FAILED}) for one in info.nodes]}
        ),
        lambda info: info.model_copy(
            update={"portals": [one.model_copy(update={"public_key": "ssh-rsa no"}) for one in info.portals]}
        ),
    ],
    ids=["no nodes", "a node too many", "failed, yet running", "no key"],
)
@in_virtual_time
async def test_a_lender_that_lies_is_done_without(world: Federation, monkeypatch: pytest.MonkeyPatch, lie: Lie) -> None:

    def told(spec: SegmentSpec, state: SegmentState, wanted: list[Child], children: dict[str, Lease]) -> Summary:
        summary = summarize(spec, state, wanted, children)
        return replace(summary, info=lie(summary.info)) if spec.testbed == "a.test" else summary

    monkeypatch.setattr(embedder, "summarize", told)
    async with sites(world, "h", "a") as (h, a):
        await h.experiments.create(USER, line("h.test", "a.test"))
        whole = await until(h, "line", State.FAILED, State.TERMINATING)
        assert whole.experiment.code in (Why.SEGMENT_NONSENSE, Why.SEGMENT_LOST)
        assert "a.test" in whole.experiment.reason
        await until(h, "line", State.FAILED)
        await nothing_left(h, a)


@in_virtual_time
async def test_a_lender_that_goes_back_to_what_was_is_done_without(
    world: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    lies = asyncio.Event()

    def told(spec: SegmentSpec, state: SegmentState, wanted: list[Child], children: dict[str, Lease]) -> Summary:
        summary = summarize(spec, state, wanted, children)
        is_lie = lies.is_set() and spec.testbed == "a.test"
        nodes = summary.info.nodes[:1]
        return (
            replace(summary, info=summary.info.model_copy(update={"version": 1, "nodes": nodes})) if is_lie else summary
        )

    monkeypatch.setattr(embedder, "summarize", told)
    async with sites(world, "h", "a") as (h, a):
        await active(h, n0="h.test", n1="a.test")
        await extended(h, lan(n0="h.test", n1="a.test", n2="a.test"))
        lies.set()
        await asyncio.sleep((START_LIMIT / 2).total_seconds())
        assert (await h.experiments.get(USER, "exp")).experiment.state in (State.ACTIVE, State.JOINING)
        await asyncio.sleep(START_LIMIT.total_seconds())
        whole = await until(h, "exp", State.FAILED)
        assert whole.experiment.code == Why.SEGMENT_NONSENSE
        await nothing_left(h, a)


@in_virtual_time
async def test_a_node_that_is_never_told_of_a_change_costs_nothing_but_the_change(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        await active(h, n0="h.test", n1="a.test")
        whole = await h.experiments.get(USER, "exp")
        a.hands.silent = {str(node.host) for segment in whole.segments for node in info_of(segment.order).nodes}
        larger = LargerDescription(description=lan(n0="h.test", n1="a.test", n2="a.test"))
        await h.experiments.extend(USER, "exp", larger)
        await asyncio.sleep(5 * START_LIMIT.total_seconds())
        whole = await h.experiments.get(USER, "exp")
        assert (whole.experiment.state, whole.experiment.extension) == (State.ACTIVE, None)
        assert any("not extended" in event.reason for event in await h.experiments.log(USER, "exp"))
        assert [node.name for segment in whole.segments for node in info_of(segment.order).nodes] == ["n0", "n1"]


@in_virtual_time
async def test_a_lender_that_is_never_heard_of_again_does_not_hold_up_the_end(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        await h.experiments.create(USER, line("h.test", "a.test"))
        await until(h, "line", State.ACTIVE)
        world.network.cut(h.address, a.address)
        await h.experiments.terminate(USER, "line")
        await asyncio.sleep(300)
        assert (await h.experiments.get(USER, "line")).experiment.state is State.TERMINATING
        whole = await until(h, "line", State.TERMINATED)
        assert "a.test did not confirm" in whole.experiment.reason
        assert Why.UNCONFIRMED in [event.code for event in await log(h)]
        await nothing_left(h, a)  # what it lent ended with its lease
        world.network.heal(h.address, a.address)
        await books_agree(h, a)


@in_virtual_time
async def test_a_join_that_comes_and_goes_is_told_of_now_and_then(world: Federation) -> None:
    tunnels = FakeTunnelServer(world)
    async with sites(world, "h", "a", tunnels=tunnels) as (h, _a):
        await h.experiments.create(USER, line("h.test", "a.test"))
        await until(h, "line", State.ACTIVE)
        before = len(await log(h))
        await asyncio.sleep(0.3)  # not when the portals dial
        portals = [(key, right) for key, right in tunnels.rights.items() if TUNNEL in right.ports]
        for _ in range(20):
            for key, right in portals:
                await tunnels.go_down(key, TUNNEL)
                right.up.add(TUNNEL)  # so that nobody else dials for it
            await asyncio.sleep(3)
            for key, _right in portals:
                await tunnels.come_up(key, TUNNEL)
            await asyncio.sleep(3)
        told = (await log(h))[before:]
        assert State.JOINING in [event.state for event in told]
        assert len(told) <= 120 / 15 + 1
        await asyncio.sleep(60)
        assert (await h.experiments.get(USER, "line")).experiment.state is State.ACTIVE
