"""The lender's side of a machine's tunnels, or those of a hosted segment: its right at the reverse tunnel server follows its lease.

    lease accepted ── tunnel.grant (same transaction) ──► server: key, ports, ssh port reserved
    granted, tunnel.changed ──► ports of the lease, told to its borrower
    lease ended ── tunnel.revoke (same transaction)

The machine's key is made here and forgotten as soon as the machine has it. A grant outlasts the lease by `SPARE`, so that
it is repeated once in an hour and not with every renewal; it is the revocation that ends it.

Others of this member may have ports kept besides (`PortHolder`), under ids that stand in no book of leases.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

import structlog

from federation_member.middleware.contract import TunnelAccess
from federation_member.orders.leases import Lease, TunnelLease
from federation_member.orders.segments.ways import ways
from federation_member.orders.ssh_keys import new_key, public_half
from fedkit.errors import RemoteError
from fedkit.mesh.api import Mesh, Peer
from fedkit.protocol import Empty
from fedkit.protocol.lending import ComputeSpec
from fedkit.protocol.segments import SegmentSpec
from fedkit.protocol.tunnel import Grant, Granted, Reserve, Revoke, TunnelServer
from fedkit.store import Tx

log = structlog.get_logger()

SPARE = timedelta(hours=1)


class PortHolder(Protocol):
    """Who has ports kept that are no lease's; what it does not know is nobody's any more."""

    def granted(self, tx: Tx, granted: Granted) -> None:
        """The server's last word of them."""

    def refused(self, tx: Tx, lease_id: str, error: RemoteError) -> None:
        """The server did not grant them, or not again."""


class Tunnels:
    """Talks to the tunnel server that this member uses; `server` None: machines here have no tunnels."""

    def __init__(self, mesh: Mesh, server: Peer | None) -> None:
        self._mesh = mesh
        self.server = server
        self.others: PortHolder | None = None
        self._described: TunnelServer | None = None

    def is_server(self, peer: Peer) -> bool:
        """Tell whether `peer` is our tunnel server."""
        return self.server is not None and peer.fedid == self.server.fedid

    def begin(self, expires: datetime) -> TunnelLease | None:
        """Make the key of a new machine."""
        if self.server is None:
            return None
        private = new_key()
        return TunnelLease(self.server, private, public_half(private), expires + SPARE)

    def grant(self, tx: Tx, lease: Lease) -> None:
        """Have the server accept the machine's key."""
        if lease.tunnel is not None and isinstance(lease.spec, ComputeSpec | SegmentSpec):
            names = ["ssh"] if isinstance(lease.spec, ComputeSpec) else ways(lease.spec)
            body = Grant(
                lease_id=lease.id,
                public_key=lease.tunnel.public_key,
                ports=lease.spec.tunnel_ports if isinstance(lease.spec, ComputeSpec) else len(names),
                expires=lease.tunnel.expires,
                reserve=names,
            )
            self.grant_at(tx, lease.tunnel.server, body)

    def revoke(self, tx: Tx, lease: Lease) -> None:
        """Have the server forget the machine's key and ports."""
        if lease.tunnel is not None:
            self.revoke_at(tx, lease.tunnel.server, lease.id)

    def grant_at(self, tx: Tx, server: Peer, body: Grant) -> None:
        """Have a server accept a key, or go on accepting it."""
        self._mesh.enqueue(tx, server, "tunnel.grant", body)

    def revoke_at(self, tx: Tx, server: Peer, lease_id: str) -> None:
        """Have a server forget a key and its ports."""
        self._mesh.enqueue(tx, server, "tunnel.revoke", Revoke(lease_id=lease_id))

    def reserve(self, tx: Tx, lease: Lease, tunnel: TunnelLease, name: str) -> None:
        """Have the server keep a port under this name."""
        self._mesh.enqueue(tx, tunnel.server, "tunnel.reserve", Reserve(lease_id=lease.id, name=name))

    def free(self, tx: Tx, lease: Lease, tunnel: TunnelLease, name: str) -> None:
        """Have the server give the port of this name back."""
        self._mesh.enqueue(tx, tunnel.server, "tunnel.free", Reserve(lease_id=lease.id, name=name))

    async def access(self, lease: Lease) -> TunnelAccess | None:
        """Return what the machine needs to dial the server; raises the mesh's errors while that cannot be asked."""
        if lease.tunnel is None:
            return None
        server = await self.describe(lease.tunnel.server)
        return TunnelAccess(server.host, server.address, server.port, server.host_key, lease.tunnel.private_key)

    async def describe(self, server: Peer) -> TunnelServer:
        """Where machines dial, and what they must find there; raises the mesh's errors."""
        if self._described is None:
            self._described = await self._mesh.ask(server, "tunnel.describe", Empty(), TunnelServer)
        return self._described

    def forget_description(self) -> None:
        """Ask the server again before the next machine: it may have another host key or address now."""
        self._described = None
