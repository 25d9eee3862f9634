"""Experiments to test with, and their portals, which dial in as real ones do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, select

from federation_member.access.controller import Controller
from federation_member.access.world import World
from federation_member.credentials.identities import HomeIdentities
from federation_member.experiments.joining import RELAYED
from federation_member.experiments.model import FINAL, Experiment, NewExperiment, State, Whole
from federation_member.experiments.service import Experiments
from federation_member.middleware.contract import ComputeRequest
from federation_member.orders.candidates import KnownMember
from federation_member.orders.leases import ENDED
from federation_member.orders.picker import RoundRobinPicker
from federation_member.orders.segments.ways import way_to
from federation_member.orders.service import OrderService
from federation_member.orders.ssh_keys import public_half
from federation_member.orders.store import FINAL as FINAL_ATTEMPTS
from federation_member.orders.tables import leases, order_attempts
from fedkit.clock import now
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.node import MeshNode
from fedkit.portal.script import TUNNEL
from fedkit.protocol.lending import Offer
from fedkit.store import Database
from fedkit.topology import topdl
from tests.support.fake_middleware import Cloud
from tests.support.fake_tunnel_server import FakeTunnelServer
from tests.support.federation import USER, Federation, Member
from tests.support.policies import EVERYTHING
from tests.support.segments import wired
from tests.support.virtual_time import Crash, InlineDatabase

PATIENCE = 1200.0  # seconds of virtual time
PASSIVE = "\nHOST=''\n"
VIA_RELAY = re.compile("^RELAY_HOST=[^']", re.MULTILINE)


def line(*testbeds: str, **changes: Any) -> NewExperiment:
    """Computers n0, n1, … in a row, one at each testbed."""
    wires: list[tuple[str, ...]] = [(f"n{number}", f"n{number + 1}") for number in range(len(testbeds) - 1)]
    attributes = {f"n{number}": {"testbed": testbed} for number, testbed in enumerate(testbeds)}
    for name, more in changes.pop("nodes", {}).items():
        attributes[name] = attributes.get(name, {}) | more
    topology = wired(*(wires or [("n0",)]), **attributes)
    return NewExperiment(**{"name": "line", "description": topdl.write(topology).decode()} | changes)


class Nobody:
    """A directory of nobody."""

    def members(self) -> list[KnownMember]:
        """None."""
        return []

    def on_change(self, callback: Callable[[], None]) -> None:
        """It never does."""

    def set_offer(self, offer: Offer) -> None:
        """Nobody hears it."""


def idle_experiments(db: Database, mesh: MeshNode, key: PrivateKey) -> Experiments:
    """Those of a member that knows nobody, and where nothing works on them."""
    access = Controller(World(key, mesh.me.address), now)
    identities = HomeIdentities(key, now)
    orders = OrderService(db, mesh, Nobody(), None, access, identities, RoundRobinPicker(), now, name="site-a.test")
    return Experiments(db, orders.engine, identities, now)


class Portals:
    """Whoever waits for a partner opens its tunnel, or that of its relay, as soon as it runs, while the context is open."""

    def __init__(self, world: Federation, tunnels: FakeTunnelServer) -> None:
        self._world = world
        self._tunnels = tunnels

    async def __aenter__(self) -> None:
        self._life = asyncio.create_task(self._dial())

    async def __aexit__(self, *exc: object) -> None:
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)

    async def _dial(self) -> None:
        while True:
            for member in self._world.members:
                for key, request in list(member.cloud.instances.items()):
                    if isinstance(request, ComputeRequest):
                        await self._dial_by(request.spec.user_data or "", key, TUNNEL)
                for key, segment in list(member.cloud.segments.items()):
                    for portal in segment.portals:
                        if (key, portal.name) not in member.cloud.broken:
                            await self._dial_by(portal.script, key, way_to(portal.name))
            await asyncio.sleep(1)

    async def _dial_by(self, script: str, key: str, name: str) -> None:
        if PASSIVE not in script:
            return
        if VIA_RELAY.search(script) is None:
            await self._open(key, name)
            return
        for relayed, right in list(self._tunnels.rights.items()):
            if right.public_key == portal_key(script):
                await self._open(relayed, RELAYED)

    async def _open(self, key: str, name: str) -> None:
        right = self._tunnels.rights.get(key)
        if right is not None and name not in right.up:
            right.ports[name] = right.ports.get(name) or 30000 + len(self._tunnels.rights)
            await self._tunnels.come_up(key, name)


def portal_key(script: str) -> str:
    """The public half of the key that a portal is told in its script."""
    private = script.partition("PRIVATE_KEY='")[2].partition("'")[0]
    return public_half(private + "\n")


@asynccontextmanager
async def sites(
    world: Federation,
    *names: str,
    tunnels: FakeTunnelServer | None = None,
    hosts: bool = False,
    closed: Collection[str] = (),
    **lends: str,
) -> AsyncIterator[list[Member]]:
    """Members whose machines have tunnels, but for those that are `closed`; `lends` are policies by name.

    `hosts`: clouds that run segments as a whole.
    """
    tunnels = tunnels or FakeTunnelServer(world)
    await tunnels.start()
    try:
        members = [
            await world.add(
                name,
                Cloud(hosts=hosts),
                lends=lends.get(name, EVERYTHING),
                tunnel_server=None if name in closed else tunnels.peer,
            )
            for name in names
        ]
        await asyncio.sleep(1)  # everybody knows what everybody lends
        async with Portals(world, tunnels):
            yield members
    finally:
        await tunnels.stop()


async def nothing_left(*members: Member) -> None:
    """No cloud has anything, and no lender's book says otherwise."""
    for member in members:
        assert (member.cloud.instances, member.cloud.segments) == ({}, {}), member.name
        assert await member.book() == set(), member.name
        assert member.cloud.misdeeds == [], member.name


def die_after(member: Member, commits: int) -> None:
    """After so many commits none of a member's succeeds any more, and its cloud hears nothing of it."""
    left = commits

    def on_commit(moment: str) -> None:
        nonlocal left
        if moment == "before":
            left -= 1
        if left < 0:
            member.middleware.dead = True
            raise Crash

    assert isinstance(member.db, InlineDatabase)
    member.db.on_commit = on_commit


async def until(
    member: Member, wanted: str, *states: State, where: Callable[[Experiment], bool] = lambda experiment: True
) -> Whole:
    """Wait until an experiment is in one of these states (and `where` holds)."""
    for _ in range(int(PATIENCE)):
        whole = await member.experiments.get(USER, wanted)
        if whole.experiment.state in states and where(whole.experiment):
            return whole
        assert whole.experiment.state not in FINAL, whole.experiment.reason
        await asyncio.sleep(1)
    raise AssertionError(f"{wanted} is {whole.experiment.state}, not {states}: {whole.experiment.reason}")


async def books_agree(*members: Member) -> None:
    """What the clouds own, what their lenders' books hold and what the borrowers' books hold is the same, before long."""
    for _ in range(int(PATIENCE)):
        problem = await _disagreement(members)
        if not problem:
            return
        await asyncio.sleep(1)
    raise AssertionError(problem)


async def _disagreement(members: Sequence[Member]) -> str:
    lent: set[str] = set()
    borrowed: set[str] = set()
    for member in members:
        owned = {one.key for one in await member.middleware.list_owned()}
        embedded, plain, awaited = await member.db.read(_open)
        if owned - embedded != plain:  # a segment is its parts, unless the cloud makes it as a whole
            return f"{member.name} owns {owned ^ plain} or holds it, and not both"
        lent |= embedded
        borrowed |= awaited
    return f"{lent ^ borrowed} is lent or borrowed, and not both" if lent != borrowed else ""


def _open(conn: Connection) -> tuple[set[str], set[str], set[str]]:
    """Of a member's books: leases of segments, other leases, and what lenders may hold for its orders."""
    kinds = {
        row.id: row.kind
        for row in conn.execute(
            select(leases.c.id, leases.c.kind).where(leases.c.state.not_in([state.value for state in ENDED]))
        )
    }
    segments = {lease_id for lease_id, kind in kinds.items() if kind == "segment"}
    attempts = select(order_attempts.c.lease_id).where(
        order_attempts.c.state.not_in([one.value for one in FINAL_ATTEMPTS])
    )
    return segments, set(kinds) - segments, set(conn.execute(attempts).scalars())
