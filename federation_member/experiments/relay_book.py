"""The book of relays: ports of our own tunnel server that portals of closed sites hold, and what that adds to their lenders' words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from federation_member.experiments.model import RelayPort
from federation_member.experiments.tables import relays
from federation_member.orders.model import Order
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import Tunnel
from fedkit.protocol.segments import PortalInfo, SegmentSpec
from fedkit.protocol.tunnel import TunnelServer
from fedkit.store import Tx


def of_experiment(conn: Connection, experiment_id: str) -> list[RelayPort]:
    """All of an experiment's."""
    query = select(relays).where(relays.c.experiment_id == experiment_id).order_by(relays.c.id)
    return [_relay(row) for row in conn.execute(query)]


def load(conn: Connection, relay_id: str, *, lock: bool = False) -> RelayPort | None:
    """Read one; `lock` keeps others from changing it until the end of the transaction."""
    query = select(relays).where(relays.c.id == relay_id)
    row = conn.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _relay(row)


def add(tx: Tx, relay: RelayPort) -> None:
    """Write a new one."""
    tx.conn.execute(
        insert(relays).values(
            id=relay.id,
            experiment_id=relay.experiment_id,
            testbed=relay.testbed,
            connector=relay.connector,
            public_key=relay.public_key,
            server_fedid=relay.server.fedid,
            server_address=relay.server.address,
            expires=relay.expires,
            revision=0,
            reason="",
        )
    )


def change(tx: Tx, relay_id: str, **columns: Any) -> None:
    """Write a change of these columns alone, so that whoever writes others at the same time is not undone."""
    tx.conn.execute(update(relays).where(relays.c.id == relay_id).values(**columns))


def remove(tx: Tx, relay_id: str) -> None:
    """Forget one that is revoked."""
    tx.conn.execute(delete(relays).where(relays.c.id == relay_id))


def reached(order: Order | None, ports: Mapping[str, RelayPort]) -> Order | None:
    """A piece with what its lender cannot know: where portals that use relays are reached, and whether they are there."""
    if order is None or order.instance is None or order.instance.segment is None or not order.instance.segment.relayed:
        return order
    assert isinstance(order.spec, SegmentSpec)
    waiting = {connector.name for connector in order.spec.connectors if not connector.active}
    info = order.instance.segment
    portals = [
        _reached(portal, ports.get(portal.connector)) if portal.connector in waiting else portal
        for portal in info.portals
    ]
    segment = info.model_copy(update={"portals": portals})
    return replace(order, instance=order.instance.model_copy(update={"segment": segment}))


def _reached(portal: PortalInfo, relay: RelayPort | None) -> PortalInfo:
    port = None if relay is None or relay.public_key != portal.public_key else relay.port
    if port is None:
        return portal.model_copy(update={"host": None, "port": None, "joined": False})
    where = {"host": port.address or port.host, "port": port.port}
    return portal.model_copy(update=where | {"joined": portal.joined and port.up})


def _relay(row: Row[Any]) -> RelayPort:
    return RelayPort(
        id=row.id,
        experiment_id=row.experiment_id,
        testbed=row.testbed,
        connector=row.connector,
        public_key=row.public_key,
        server=Peer(row.server_fedid, row.server_address),
        expires=row.expires,
        revision=row.revision,
        port=None if row.port is None else Tunnel.model_validate_json(row.port),
        described=None if row.described is None else TunnelServer.model_validate_json(row.described),
        reason=row.reason,
        retry=row.retry,
    )
