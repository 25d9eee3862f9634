"""Makes a segment true at its lender where the middleware runs segments as a whole (the capability `HostsSegments`).

    accepted ── started ──► start_segment, again at every change ── all nodes settled ──► running
        │                        └─ a node fails whose loss is fatal, or the whole ──► failing
        └─ failing, releasing ──► delete ──► failed, released

Level-triggered: what is wanted follows from the lease alone, and the middleware makes it so. One tunnel serves the whole: every node
and every portal that waits for its peer has a port of the segment's own lease, by a name that follows from its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from federation_member.access import grants
from federation_member.errors import Why
from federation_member.middleware.contract import (
    Account,
    HostsSegments,
    Middleware,
    MiddlewareError,
    NodeRequest,
    Owned,
    PortalRequest,
    SegmentRequest,
    Status,
    Unavailable,
    WireEnd,
)
from federation_member.orders import leases
from federation_member.orders.leases import ENDED, LIVE, Lease
from federation_member.orders.lending import Lending
from federation_member.orders.segments.growing import parts_of, undone
from federation_member.orders.segments.lines import Lines, lines, node_shapes, portal_lines
from federation_member.orders.segments.plan import chosen, node_part, portal_config, started
from federation_member.orders.segments.retelling import HostReteller
from federation_member.orders.segments.shares import mounts
from federation_member.orders.segments.state import SegmentState, yet_to_come
from federation_member.orders.segments.ways import way_to
from federation_member.orders.segments.wiring import Wiring, read
from federation_member.orders.tunnels import Tunnels
from federation_member.usage.model import Sizes
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.kits.contract import Kit
from fedkit.kits.installed import kit_named
from fedkit.mesh.errors import MeshError
from fedkit.protocol.lending import Flavour, Instance, LeaseState, Offer, Tunnel
from fedkit.protocol.segments import NodeInfo, NodeStatus, PortalInfo, SegmentInfo, SegmentSpec
from fedkit.store import Database, Tx

log = structlog.get_logger()

PATIENCE = timedelta(seconds=60)  # how long a middleware or tunnel server may be unavailable before a segment fails
SOON = timedelta(seconds=0.5)  # until what was unavailable is tried again
LOOK_EVERY = timedelta(seconds=30)  # at one that runs, should no news of it come
MAKING_LIMIT, ENDING_LIMIT = timedelta(minutes=10), timedelta(minutes=3)  # of one call


class Hosted:
    """Looks at leases of segments."""

    def __init__(
        self,
        db: Database,
        lending: Lending,
        tunnels: Tunnels,
        middleware: Middleware,
        host: HostsSegments,
        clock: Clock,
    ) -> None:
        self._db = db
        self._lending = lending
        self._tunnels = tunnels
        self._middleware = middleware
        self._host = host
        self._reteller = HostReteller(db, lending, host)
        self._clock = clock

    async def look(self, lease: Lease) -> datetime | None:
        """Do what the segment needs now; return when to look again."""
        assert lease.segment is not None
        if lease.state not in LIVE:
            return await self._end(lease)
        if not lease.segment.started:
            return lease.expires
        if lease.tunnel is not None and lease.tunnel.revision == 0:
            return await self._wait(lease, "the tunnel server does not answer, so nobody could reach the nodes")
        try:
            async with asyncio.timeout(MAKING_LIMIT.total_seconds()):
                owned = await self._host.start_segment(lease.id, await self._request(lease))
        except (Unavailable, MeshError) as error:
            return await self._wait(lease, error.message)
        except FedError as error:
            return await self._fail(lease, error.code, error.message)
        except TimeoutError:
            return await self._fail(lease, Why.MIDDLEWARE_TIMEOUT, f"not made within {MAKING_LIMIT}")
        due = await self._db.run(lambda tx: self._made(tx, lease.id, owned))
        told = await self._reteller.look(lease.id) if lease.segment.stale else None
        return due if told is None or due is None else min(due, told)

    async def _request(self, lease: Lease) -> SegmentRequest:
        offer, grant = await self._db.read(
            lambda conn: (self._lending.offer_to(conn, lease), grants.load(conn, lease.id))
        )
        access = await self._tunnels.access(lease)
        account = Account(lease.account, None if grant is None else grant.account.certificate)
        request = wanted(lease, offer)
        return replace(request, account=account, tunnel=access, trusted_ca=None if grant is None else grant.authority)

    def _made(self, tx: Tx, lease_id: str, owned: Owned) -> datetime | None:
        """Tell what came of it, if that is news."""
        lease = self._lending.locked(tx, lease_id)
        now = self._clock()
        if lease is None or lease.state not in LIVE or lease.segment is None or lease.instance is None:
            return None if lease is None else now
        if owned.status is Status.FAILED:
            return self._failing(tx, lease, Why.LEASE_LOST, owned.reason or "the segment ended at its lender").due
        if owned.status is Status.CREATING or owned.instance.segment is None:
            return now + SOON
        assert isinstance(lease.spec, SegmentSpec)
        wiring = read(lease.spec.description)
        info = _told(lease.spec, lease.segment, owned.instance.segment, lease.tunnels)
        if failed := next((node for node in info.nodes if _is_fatal(node, wiring)), None):
            return self._lose(tx, lease, failed.name, MiddlewareError.code, f"{failed.name}: {failed.reason}")
        instance = Instance(name=lease.instance.name, user=owned.instance.user, segment=info)
        offer = self._lending.offer_to(tx.conn, lease)
        segment = replace(lease.segment, sizes=_sizes(info, wiring, offer))
        if info.version == lease.spec.version:
            segment = replace(segment, before=None)  # the change, if there was one, is over
        again = min(now + LOOK_EVERY, lease.expires)
        if lease.state is LeaseState.ACCEPTED:
            self._lending.made(tx, lease, instance=instance, segment=segment)
        elif (instance, segment) != (lease.instance, lease.segment):
            self._lending.change(tx, lease, instance=instance, segment=segment, due=again)
        elif lease.due is None or lease.due <= now:
            leases.save(tx, lease, now, quiet=True, due=again)
        return again

    async def _end(self, lease: Lease) -> datetime | None:
        try:
            async with asyncio.timeout(ENDING_LIMIT.total_seconds()):
                await self._middleware.delete(lease.id)
        except (FedError, TimeoutError) as error:
            log.warning("segment_not_deleted", lease=lease.id, reason=str(error))
            return self._clock() + timedelta(seconds=5)
        return await self._db.run(lambda tx: self._ended(tx, lease.id))

    def _ended(self, tx: Tx, lease_id: str) -> datetime | None:
        lease = self._lending.locked(tx, lease_id)
        if lease is None or lease.state in ENDED:
            return None
        return self._lending.end(tx, lease).due

    async def _wait(self, lease: Lease, reason: str) -> datetime | None:
        if self._clock() - lease.changed < PATIENCE or lease.state is LeaseState.RUNNING:
            log.warning("segment_waits", lease=lease.id, reason=reason)
            return self._clock() + SOON
        return await self._fail(lease, Unavailable.code, reason)

    async def _fail(self, lease: Lease, code: str, reason: str) -> datetime | None:
        def write(tx: Tx) -> datetime | None:
            fresh = self._lending.locked(tx, lease.id)
            if fresh is None or fresh.state not in LIVE:
                return None if fresh is None else self._clock()
            return self._lose(tx, fresh, None, code, reason)

        return await self._db.run(write)

    def _lose(self, tx: Tx, lease: Lease, node: str | None, code: str, reason: str) -> datetime | None:
        """A node is lost, or the whole cannot be made so: what a change brought costs no more than the change."""
        assert lease.segment is not None
        assert isinstance(lease.spec, SegmentSpec)
        before = lease.segment.before
        if before is None or (node is not None and node_part(node) in parts_of(before)):
            return self._failing(tx, lease, code, reason).due
        log.warning("segment_not_changed", lease=lease.id, code=code, reason=reason)
        spec, segment = undone(lease.spec, lease.segment, code, reason)
        changed = self._lending.change(tx, lease, tell=False, spec=spec, segment=segment, due=self._clock())
        self._lending.change_ways(tx, changed, lease.spec)
        return changed.due

    def _failing(self, tx: Tx, lease: Lease, code: str, reason: str) -> Lease:
        log.warning("segment_failed", lease=lease.id, code=code, reason=reason)
        return self._lending.change(tx, lease, state=LeaseState.FAILING, code=code, reason=reason, due=self._clock())


def wanted(lease: Lease, offer: Offer) -> SegmentRequest:
    """What the middleware is asked for; raises an `InputError`."""
    spec, state = lease.spec, lease.segment
    assert isinstance(spec, SegmentSpec)
    assert state is not None
    wiring, kit, seen_to = read(spec.description), kit_named(spec.kit), lines(spec, state)
    return SegmentRequest(
        account=Account(lease.account),
        wires=wiring.networks,
        nodes=tuple(_nodes(spec, kit, wiring, offer, seen_to)),
        portals=tuple(_portals(spec, kit, state, offer, seen_to)),
        hosts={host.ip4: tuple(host.names) for host in spec.hosts},
        ssh_keys=(*spec.ssh_keys, *state.entrants),
    )


def _nodes(spec: SegmentSpec, kit: Kit, wiring: Wiring, offer: Offer, seen_to: Lines) -> Iterator[NodeRequest]:
    for name, computer in wiring.computers.items():
        plugs = wiring.plugs[name]
        shapes = node_shapes(wiring, name, seen_to)
        image, flavour = chosen(offer, computer)
        config = started(spec, computer)
        yield NodeRequest(
            name=name,
            image=image,
            flavour=flavour,
            way=way_to(name),
            ends=tuple(WireEnd(plug.substrate, plug.address, shapes[plug.address]) for plug in plugs),
            routes=tuple(config.routes),
            forwards=config.forwards,
            startup=config.startup,
            script="" if kit.is_plain(config) else kit.node(config),
            mounts=mounts(spec, name),
        )


def _portals(spec: SegmentSpec, kit: Kit, state: SegmentState, offer: Offer, seen_to: Lines) -> Iterator[PortalRequest]:
    for connector in spec.connectors:
        config = portal_config(connector, state)
        if config is not None:
            image, flavour = chosen(offer, None)
            wires = tuple(crossing.substrate for crossing in connector.crossings)
            config = replace(config, tunnel=way_to(connector.name), lines=portal_lines(connector, seen_to))
            yield PortalRequest(connector.name, image, flavour, wires, kit.portal(config))


def _told(spec: SegmentSpec, state: SegmentState, made: SegmentInfo, tunnels: tuple[Tunnel, ...]) -> SegmentInfo:
    """What the middleware says, with the ports and keys that only the lender knows."""
    ports = {tunnel.name: tunnel for tunnel in tunnels}
    portals = {portal.connector: portal for portal in made.portals}
    settled = {node.name for node in made.nodes if node.status is not NodeStatus.STARTING}
    is_changed = settled >= read(spec.description).computers.keys() and not state.stale
    return SegmentInfo(
        version=spec.version if state.before is None or is_changed else state.before.version,
        promised=state.promised,
        refused=state.refused,
        nodes=[_reached(node, ports) for node in made.nodes],
        portals=[
            _joined(portals[one.name], ports, state, dials=one.active or state.relayed)
            if one.name in portals
            else yet_to_come(one.name, state)
            for one in spec.connectors
        ],
        credentials=state.credentials,
        relayed=state.relayed,
    )


def _reached(node: NodeInfo, ports: Mapping[str, Tunnel]) -> NodeInfo:
    port = ports.get(way_to(node.name))
    return node if port is None else node.model_copy(update={"host": port.host, "port": port.port})


def _joined(portal: PortalInfo, ports: Mapping[str, Tunnel], state: SegmentState, *, dials: bool) -> PortalInfo:
    """A portal; one that `dials` its peer or a relay is reached by no port of ours."""
    port = None if dials else ports.get(way_to(portal.connector))
    reached = {} if port is None else {"host": port.address or port.host, "port": port.port}
    is_up = dials or (port is not None and port.up)
    # Who asked the portal itself knows best.
    is_joined = portal.joined if "joined" in portal.model_fields_set else is_up
    joined = portal.status is NodeStatus.RUNNING and is_joined
    return portal.model_copy(update={"public_key": state.public_key(portal.connector), "joined": joined} | reached)


def _is_fatal(node: NodeInfo, wiring: Wiring) -> bool:
    computer = wiring.computers.get(node.name)
    return node.status is NodeStatus.FAILED and computer is not None and computer.failure_action == "fatal"


def _sizes(info: SegmentInfo, wiring: Wiring, offer: Offer) -> Sizes:
    """What its nodes hold together; a stopped one holds its disk alone, and of the portals nobody is told."""
    held: list[tuple[NodeStatus, Flavour]] = [
        (node.status, chosen(offer, wiring.computers[node.name])[1])
        for node in info.nodes
        if node.name in wiring.computers and node.status in (NodeStatus.RUNNING, NodeStatus.STOPPED)
    ]
    running = [flavour for status, flavour in held if status is NodeStatus.RUNNING]
    return Sizes(
        sum(one.vcpu for one in running), sum(one.ram_mb for one in running), sum(one.disk_gb for _, one in held)
    )
