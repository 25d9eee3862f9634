"""What a segment's borrower is told of it: the sum of its children."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from federation_member.orders.leases import LIVE, Lease
from federation_member.orders.segments.plan import NODE, Child, portal_part
from federation_member.orders.segments.state import SegmentState, yet_to_come
from federation_member.usage.model import Sizes, sizes_of
from fedkit.portal.script import TUNNEL
from fedkit.protocol.lending import LeaseState, Power
from fedkit.protocol.segments import ConnectorSpec, NodeInfo, NodeStatus, PortalInfo, SegmentInfo, SegmentSpec

SSH, SSH_PORT = "ssh", 22  # the name of the tunnel that every machine has, and where it leads to
REASON_LIMIT = 512  # characters of one node's


@dataclass(frozen=True)
class Summary:
    """How a segment is as a whole. `failed` is the child by which it fails, if there is one."""

    info: SegmentInfo
    sizes: Sizes
    user: str | None
    runs: bool
    failed: Lease | None


def summarize(spec: SegmentSpec, state: SegmentState, wanted: list[Child], children: Mapping[str, Lease]) -> Summary:
    """Put together what the leases in `children` (by id) say of what is `wanted`."""
    pairs = [(child, children.get(child.id)) for child in wanted]
    by_part = {child.part: lease for child, lease in pairs}
    nodes = {part.removeprefix(NODE): lease for part, lease in by_part.items() if part.startswith(NODE)}
    settled = all(
        lease is not None and (lease.state is LeaseState.RUNNING or lease.state not in LIVE) for _child, lease in pairs
    )
    is_changed = settled and not state.stale
    info = SegmentInfo(
        version=spec.version if state.before is None or is_changed else state.before.version,
        promised=state.promised,
        refused=state.refused,
        nodes=[_node(name, lease) for name, lease in nodes.items()],
        portals=[_portal(one, state, by_part.get(portal_part(one.name))) for one in spec.connectors],
        credentials=state.credentials,
        relayed=state.relayed,
    )
    running = [lease for _child, lease in pairs if lease is not None and lease.state is LeaseState.RUNNING]
    users = (lease.instance.user for lease in nodes.values() if lease is not None and lease.instance is not None)
    failed = (
        lease for child, lease in pairs if lease is not None and lease.state not in LIVE and child.failure == "fatal"
    )
    return Summary(info, _sum(running), next(users, None), settled, next(failed, None))


def way_to(lease: Lease) -> tuple[str | None, int | None]:
    """Host and port at which a machine's ssh server is reached from everywhere: by its tunnel, or itself."""
    ssh = next((one for one in lease.tunnels if one.name == SSH), None)
    if ssh is not None:
        return ssh.host, ssh.port
    public = None if lease.instance is None else lease.instance.public_address
    return public, SSH_PORT if public else None


def control_way(lease: Lease) -> tuple[str | None, int | None]:
    """The same for the lender itself, who may be near a machine that nobody else reaches."""
    host, port = way_to(lease)
    if host is not None or lease.tunnel is not None or lease.instance is None:
        return host, port
    return lease.instance.address, SSH_PORT if lease.instance.address else None


def _node(name: str, lease: Lease | None) -> NodeInfo:
    instance = None if lease is None else lease.instance
    host, port = (None, None) if lease is None else way_to(lease)
    return NodeInfo(
        name=name,
        status=_status(lease),
        reason="" if lease is None else lease.reason[:REASON_LIMIT],
        address=None if instance is None else instance.address,
        host=host,
        port=port,
        user=None if instance is None else instance.user,
        host_keys=[] if instance is None else instance.host_keys,
    )


def _portal(connector: ConnectorSpec, state: SegmentState, lease: Lease | None) -> PortalInfo:
    """A portal; it is reached by its machine's tunnel, and counts as joined while that is held, or else the machine runs."""
    if lease is None:
        return yet_to_come(connector.name, state)
    status = _status(lease)
    host_keys = lease.instance.host_keys if lease.instance is not None else []
    tunnel = None if connector.active else next((one for one in lease.tunnels if one.name == TUNNEL), None)
    return PortalInfo(
        connector=connector.name,
        status=status,
        reason=lease.reason[:REASON_LIMIT],
        public_key=state.public_key(connector.name),
        host_key=host_keys[0] if host_keys else None,
        host=None if tunnel is None else tunnel.address or tunnel.host,
        port=None if tunnel is None else tunnel.port,
        joined=status is NodeStatus.RUNNING
        and (connector.active or state.relayed or (tunnel is not None and tunnel.up)),
    )


def _status(lease: Lease | None) -> NodeStatus:
    if lease is None or lease.state is LeaseState.ACCEPTED:
        return NodeStatus.STARTING
    if lease.state is not LeaseState.RUNNING:
        return NodeStatus.FAILED
    power = lease.instance.power if lease.instance is not None else None
    return NodeStatus.RUNNING if power in (None, Power.RUNNING) else NodeStatus.STOPPED


def _sum(leases: list[Lease]) -> Sizes:
    sizes = [sizes_of(lease.spec, lease.flavour, lease.instance) for lease in leases]
    return Sizes(sum(one.vcpu for one in sizes), sum(one.ram_mb for one in sizes), sum(one.disk_gb for one in sizes))
