"""Tells nodes that run what a change of their segment means for them: names, routes and who is kept apart.

A node's script may run again at any time, so it is sent once more, without what its author wants it to start. A node that does not
answer is asked again until it does, or is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from federation_member.middleware.contract import HostsSegments, Printed
from federation_member.orders import leases
from federation_member.orders.leases import LIVE, Lease
from federation_member.orders.lending import Lending
from federation_member.orders.segments.plan import node_config, node_part
from federation_member.orders.segments.remote import Hands, Place, Said, Ssh
from federation_member.orders.segments.summary import control_way
from fedkit.errors import FedError
from fedkit.kits.installed import kit_named
from fedkit.protocol.lending import LeaseState
from fedkit.protocol.segments import NodeStatus, Operation, SegmentSpec
from fedkit.store import Database, Tx

log = structlog.get_logger()

AT_ONCE = 16  # nodes
LIMIT = 90.0  # seconds that a node's script may take
AGAIN = timedelta(seconds=15)
LOG = "/tmp/federate.again"  # noqa: S108  beside what the first run wrote
RUN = 'file=$(mktemp) && cat >"$file" && sh "$file"; status=$?; rm -f "$file"; exit $status'


class Reteller:
    """Looks after the nodes that are to be told, each by its own ssh server."""

    def __init__(self, db: Database, lending: Lending, hands: Hands) -> None:
        self._db = db
        self._lending = lending
        self._hands = hands

    async def look(self, lease_id: str) -> datetime | None:
        """Tell some of them; returns when to look again, None if there is nobody to tell."""
        found = await self._db.read(partial(_stale, lease_id=lease_id))
        if found is None:
            return None
        lease, nodes = found
        async with asyncio.TaskGroup() as group:
            told = {
                name: group.create_task(self._tell(lease, name, node)) for name, node in list(nodes.items())[:AT_ONCE]
            }
        done = {name for name, task in told.items() if task.result()}
        if done:
            await self._db.run(partial(self._note, lease_id=lease_id, version=lease.spec, done=done))
        now = self._lending.now()
        return now if done else now + AGAIN

    async def _tell(self, lease: Lease, name: str, node: Lease | None) -> bool:
        """Whether a node knows it now, or never needs to."""
        if node is None or node.state not in LIVE:
            return True
        assert lease.segment is not None
        host, port = control_way(node)
        if host is None and node.state is LeaseState.RUNNING and node.tunnel is None:
            log.warning("node_out_of_reach", lease=lease.id, node=name)  # and always will be
            return True
        if node.state is not LeaseState.RUNNING or node.instance is None or host is None or port is None:
            return False
        place = Place(host, port, node.instance.host_keys, lease.segment.control)
        return await _understood(lease, name, lambda script: self._hands.run(place, RUN, script))

    def _note(self, tx: Tx, lease_id: str, version: object, done: set[str]) -> None:
        """Remember who knows, unless there is something else to tell meanwhile."""
        lease = self._lending.locked(tx, lease_id)
        if lease is None or lease.segment is None or lease.spec != version:
            return
        segment = replace(lease.segment, stale=[name for name in lease.segment.stale if name not in done])
        self._lending.change(tx, lease, tell=False, segment=segment, due=self._lending.now())


class HostReteller(Reteller):
    """The same, by the middleware that runs the segment as a whole."""

    def __init__(self, db: Database, lending: Lending, host: HostsSegments) -> None:
        super().__init__(db, lending, Ssh())
        self._host = host

    async def _tell(self, lease: Lease, name: str, node: Lease | None) -> bool:
        info = None if lease.instance is None else lease.instance.segment
        status = next((one.status for one in info.nodes if one.name == name), None) if info is not None else None
        if status is NodeStatus.FAILED:
            return True
        return await _understood(lease, name, lambda script: self._host.operate(lease.id, Operation.RUN, name, script))


def _script(lease: Lease, name: str) -> str:
    assert isinstance(lease.spec, SegmentSpec)
    return kit_named(lease.spec.kit).node(replace(node_config(lease.spec, name), log=LOG))


async def _understood(lease: Lease, name: str, say: Callable[[str], Awaitable[Said | Printed]]) -> bool:
    """Whether a node did what it was told."""
    try:
        async with asyncio.timeout(LIMIT):
            said = await say(_script(lease, name))
    except (FedError, TimeoutError) as error:
        log.warning("node_not_told", lease=lease.id, node=name, reason=str(error))
        return False
    if said.status:
        log.warning("node_not_told", lease=lease.id, node=name, status=said.status, said=said.text[-200:])
    return said.status == 0


def _stale(conn: Connection, lease_id: str) -> tuple[Lease, dict[str, Lease | None]] | None:
    lease = leases.load(conn, lease_id)
    if lease is None or lease.segment is None or lease.state not in LIVE or not lease.segment.stale:
        return None
    children = leases.children(conn, lease_id)
    return lease, {name: children.get(lease.segment.child_id(node_part(name))) for name in lease.segment.stale}
