"""What a member and a reverse tunnel server say to one another.

The server trusts a controller by its fedid (its configuration names who may grant leases). A lease here is the right of
one machine's key to hold ports; the member keeps it alive together with the machine's own lease.

| operation        | kind    | body        | answer      |
|------------------|---------|-------------|-------------|
| `tunnel.describe`| query   | Empty       | TunnelServer| host, port and host key for the machine's user data
| `tunnel.grant`   | command | Grant       | Granted     | idempotent by lease id; the `ssh` port is reserved at once
| `tunnel.revoke`  | command | Revoke      | Empty       | closes its connections, frees its ports
| `tunnel.reserve` | command | Reserve     | Granted     |
| `tunnel.free`    | command | Reserve     | Granted     |
| `tunnel.leases`  | query   | TunnelLeasesPage | TunnelLeases | for reconciliation
| `tunnel.changed` | command | Granted     | Empty       | server → controller: a port came up, went down, was added
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from fedkit.protocol import Body
from fedkit.protocol.lending import Name, SshKey, Tunnel, Uuid

PORTS_LIMIT = 1024  # of one lease: a segment of an experiment has a port for every node


class TunnelServer(Body):
    """Where machines dial, and what they must find there."""

    host: str = Field(max_length=253)
    port: int
    host_key: SshKey
    address: str = Field(description="numeric address of `host`, for machines without a resolver")


class Grant(Body):
    """Let the owner of this key hold up to `ports` ports until `expires`."""

    lease_id: Uuid
    public_key: SshKey
    ports: int = Field(ge=1, le=PORTS_LIMIT)
    expires: datetime
    reserve: list[Name] = Field(default_factory=lambda: ["ssh"], max_length=PORTS_LIMIT)


class Granted(Body):
    """The ports of a lease; a port stays with its name for the life of the lease."""

    lease_id: Uuid
    revision: int
    expires: datetime
    tunnels: list[Tunnel] = Field(max_length=PORTS_LIMIT)


class Revoke(Body):
    """End the lease."""

    lease_id: Uuid


class Reserve(Body):
    """Name one port of a lease."""

    lease_id: Uuid
    name: Name


class TunnelLeasesPage(Body):
    """Leases of the asking controller after `after`, in order of their ids."""

    after: str = Field(default="", max_length=36)
    max: int = Field(default=50, ge=1, le=200)


class TunnelLeases(Body):
    """A page of leases."""

    leases: list[Granted]
    complete: bool
