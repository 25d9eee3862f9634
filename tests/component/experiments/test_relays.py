"""Pieces at members that nobody reaches are joined by a port at the home's own tunnel server. All in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from federation_member.experiments.errors import NoWay, Why
from federation_member.experiments.extending import LargerDescription
from federation_member.experiments.joining import info_of
from federation_member.experiments.model import State, Whole
from federation_member.experiments.relays import LIFE
from federation_member.middleware.contract import ComputeRequest
from fedkit.errors import FedError
from fedkit.protocol.segments import PortalInfo
from tests.component.experiments.test_extension import text
from tests.support.experiments import PASSIVE, die_after, line, nothing_left, portal_key, sites, until
from tests.support.fake_tunnel_server import FakeTunnelServer, Right
from tests.support.federation import USER, Federation, Member, in_virtual_time
from tests.support.virtual_time import Crash

CLOSED = ("a", "b")


def relays(tunnels: FakeTunnelServer, *members: Member) -> dict[str, Right]:
    """The rights of the tunnel server that no machine has."""
    machines = {key for member in members for cloud in [member.cloud] for key in (*cloud.instances, *cloud.segments)}
    return {key: right for key, right in tunnels.rights.items() if key not in machines}


def scripts(*members: Member) -> list[str]:
    """What portals were told."""
    found = []
    for member in members:
        specs = [one.spec for one in member.cloud.instances.values() if isinstance(one, ComputeRequest)]
        found += [spec.user_data or "" for spec in specs if "PEER_KEY=" in (spec.user_data or "")]
        found += [portal.script for segment in member.cloud.segments.values() for portal in segment.portals]
    return found


def waiting(whole: Whole) -> list[PortalInfo]:
    """The portals that were reached by the way of a relay."""
    return [portal for one in whole.segments for portal in info_of(one.order).portals if portal.host is not None]


async def ended(h: Member, *members: Member) -> None:
    """It was terminated, and nothing of it is left."""
    await h.experiments.terminate(USER, "line")
    await until(h, "line", State.TERMINATED)
    await nothing_left(h, *members)


@pytest.mark.parametrize("hosts", [False, True])
@in_virtual_time
async def test_two_that_nobody_reaches_are_joined_by_a_port_of_the_home_s(world: Federation, hosts: bool) -> None:
    tunnels = FakeTunnelServer(world)
    async with sites(world, "h", *CLOSED, tunnels=tunnels, hosts=hosts, closed=CLOSED) as (h, a, b):
        await h.experiments.create(USER, line("a.test", "b.test"))
        whole = await until(h, "line", State.ACTIVE)
        (right,) = relays(tunnels, h).values()
        (passive,), (active,) = (
            [script for script in scripts(a, b) if (PASSIVE in script) is is_passive] for is_passive in (True, False)
        )
        assert (right.public_key, right.limit, list(right.ports)) == (portal_key(passive), 1, ["portal"])
        assert "RELAY_HOST=192.0.2.7\nRELAY_PORT=2222\n" in passive
        assert f"PORT={right.ports['portal']}\n" in active
        (portal,) = waiting(whole)
        assert (portal.port, portal.joined) == (right.ports["portal"], True)
        await ended(h, a, b)
        assert tunnels.rights == {}


@in_virtual_time
async def test_without_a_tunnel_server_at_home_they_cannot_be_joined(world: Federation) -> None:
    async with sites(world, "h", *CLOSED, closed=("h", *CLOSED)) as (h, _a, _b):
        with pytest.raises(NoWay, match="this member has none"):
            await h.experiments.create(USER, line("a.test", "b.test"))


@in_virtual_time
async def test_a_piece_that_waits_may_go_to_whoever_lends_it(world: Federation) -> None:
    async with sites(world, "h", *CLOSED, closed=CLOSED) as (h, a, b):
        h.cloud.kinds = frozenset({"volume"})
        await h.stop()
        await h.start()
        await asyncio.sleep(1)
        await h.experiments.create(USER, line("somewhere", "b.test"))
        whole = await until(h, "line", State.ACTIVE)
        assert all(segment.order and segment.order.member in ("a.test", "b.test") for segment in whole.segments)
        assert len(waiting(whole)) == 1
        await ended(h, a, b)


@in_virtual_time
async def test_who_has_ports_of_its_own_is_reached_by_those(world: Federation) -> None:
    tunnels = FakeTunnelServer(world)
    async with sites(world, "h", *CLOSED, tunnels=tunnels, closed=["b"]) as (h, a, b):
        await h.experiments.create(USER, line("left", "b.test", members={"left": "a.test"}))
        await until(h, "line", State.ACTIVE)
        assert relays(tunnels, h, a, b) == {}
        await ended(h, a, b)


@in_virtual_time
async def test_a_server_that_forgot_it_has_another_port(world: Federation) -> None:
    tunnels = FakeTunnelServer(world)
    async with sites(world, "h", *CLOSED, tunnels=tunnels, closed=CLOSED) as (h, a, b):
        await h.experiments.create(USER, line("a.test", "b.test"))
        await until(h, "line", State.ACTIVE)
        ((forgotten, right),) = relays(tunnels, h).items()
        for _ in range(3):  # the server has said more of it than it will say of the next
            await tunnels.come_up(forgotten, "portal")
        await asyncio.sleep(1)
        del tunnels.rights[forgotten]  # its time was over before it heard of its renewal
        await asyncio.sleep(LIFE.total_seconds() / 2 + 60)
        (new,) = relays(tunnels, h).values()
        assert new.ports["portal"] != right.ports["portal"]
        (portal,) = waiting(await h.experiments.get(USER, "line"))
        assert portal.port == new.ports["portal"]
        await ended(h, a, b)


@in_virtual_time
async def test_a_refusal_is_told_and_asked_again(world: Federation) -> None:
    tunnels = FakeTunnelServer(world, ports=0)
    async with sites(world, "h", *CLOSED, tunnels=tunnels, closed=CLOSED) as (h, a, b):
        await h.experiments.create(USER, line("a.test", "b.test"))
        await until(h, "line", State.JOINING, where=lambda found: "no_port_left" in found.reason)
        tunnels.give(20000)
        await until(h, "line", State.ACTIVE)
        await ended(h, a, b)
        assert tunnels.rights == {}


@in_virtual_time
async def test_it_is_not_waited_for_without_end(world: Federation) -> None:
    tunnels = FakeTunnelServer(world, ports=0)
    async with sites(world, "h", *CLOSED, tunnels=tunnels, closed=CLOSED) as (h, a, b):
        await h.experiments.create(USER, line("a.test", "b.test"))
        found = (await until(h, "line", State.FAILED)).experiment
        assert found.code == Why.NOT_JOINED
        assert "Every port of this server is in use" in found.reason
        await nothing_left(h, a, b)


@in_virtual_time
async def test_a_relay_that_is_away_is_missed_and_found_again(world: Federation) -> None:
    tunnels = FakeTunnelServer(world)
    async with sites(world, "h", *CLOSED, tunnels=tunnels, closed=CLOSED) as (h, a, b):
        await tunnels.stop()
        await h.experiments.create(USER, line("a.test", "b.test"))
        found = (await until(h, "line", State.JOINING)).experiment
        assert "it has not answered yet" in found.reason
        await tunnels.start()
        await until(h, "line", State.ACTIVE)
        ((relay, right),) = relays(tunnels, h).items()
        right.public_key, key = "", right.public_key  # so its portal does not dial in again
        await tunnels.go_down(relay, "portal")
        await until(h, "line", State.JOINING)
        right.public_key = key
        await until(h, "line", State.ACTIVE)
        await ended(h, a, b)


@in_virtual_time
async def test_it_is_kept_as_long_as_the_experiment_and_no_longer(world: Federation) -> None:
    tunnels = FakeTunnelServer(world)
    async with sites(world, "h", *CLOSED, tunnels=tunnels, closed=CLOSED) as (h, a, b):
        until_then = world.clock() + timedelta(hours=2)
        await h.experiments.create(USER, line("a.test", "b.test", valid_until=until_then))
        await until(h, "line", State.ACTIVE)
        ((relay, right),) = relays(tunnels, h).items()
        for _ in range(17):
            await asyncio.sleep(400)
            assert world.clock() < right.expires <= world.clock() + LIFE
            assert list(relays(tunnels, h)) == [relay]
        await asyncio.sleep(400)
        await until(h, "line", State.TERMINATED)
        assert tunnels.rights == {}
        await nothing_left(h, a, b)


@in_virtual_time
async def test_a_piece_that_is_had_anew_has_a_relay_anew(world: Federation) -> None:
    tunnels = FakeTunnelServer(world)
    async with sites(world, "h", *CLOSED, tunnels=tunnels, closed=CLOSED) as (h, a, b):
        h.cloud.kinds = frozenset({"volume"})
        await h.stop()
        await h.start()
        await asyncio.sleep(1)
        await h.experiments.create(USER, line("somewhere", "b.test"))
        whole = await until(h, "line", State.ACTIVE)
        first = {"a.test": a, "b.test": b}[str(whole.segments[0].order and whole.segments[0].order.member)]
        (before,) = relays(tunnels, h)
        first.cloud.lose(next(key for key, one in first.cloud.instances.items() if one.spec.name == "n0"))
        await until(h, "line", State.STARTING)
        await until(h, "line", State.ACTIVE)
        (after,) = relays(tunnels, h)
        assert before != after
        await ended(h, a, b)
        assert tunnels.rights == {}


@in_virtual_time
async def test_an_extension_leaves_the_relays_that_there_are_alone(world: Federation) -> None:
    tunnels = FakeTunnelServer(world)
    async with sites(world, "h", *CLOSED, "c", tunnels=tunnels, closed=[*CLOSED, "c"]) as (h, a, b, c):
        here = {"n0": "a.test", "n1": "b.test"}
        await h.experiments.create(USER, line("a.test", "b.test"))
        await until(h, "line", State.ACTIVE)
        (before,) = relays(tunnels, h)
        described = text(("n0", "n1"), ("n1", "n2"), **here, n2="c.test")
        with suppress(FedError):  # n1 would be on another network
            await h.experiments.extend(USER, "line", LargerDescription(description=described))
        await h.experiments.extend(
            USER,
            "line",
            LargerDescription(description=text(("n0", "n1"), ("n2", "n3"), **here, n2="a.test", n3="c.test")),
        )
        await until(h, "line", State.ACTIVE, where=lambda found: found.extension is None)
        found = relays(tunnels, h)
        assert before in found
        assert len(found) == 2
        await ended(h, a, b, c)
        assert tunnels.rights == {}


@pytest.mark.parametrize("commits", [3, 9, 15, 21])
@in_virtual_time
async def test_a_home_that_dies_goes_on_with_its_relays(world: Federation, commits: int) -> None:
    tunnels = FakeTunnelServer(world)
    async with sites(world, "h", *CLOSED, tunnels=tunnels, closed=CLOSED) as (h, a, b):
        die_after(h, commits)
        with suppress(Crash):
            await h.experiments.create(USER, line("a.test", "b.test"))
            await asyncio.sleep(20)
        await h.kill()
        await asyncio.sleep(5)
        await h.start()
        await until(h, "line", State.ACTIVE)
        assert len(relays(tunnels, h)) == 1
        die_after(h, commits - 3)
        with suppress(Crash, FedError):
            await h.experiments.terminate(USER, "line")
            await asyncio.sleep(20)
        await h.kill()
        await h.start()
        await ended(h, a, b)
        assert tunnels.rights == {}
