"""A segment: the piece of an experiment that one testbed runs, with the portals that join it to the others.

It is lent like a machine, by a lease of kind `segment`, in two steps: `lease.create` obtains access and promises it (state
`accepted`, nothing runs), `lease.change` with a `SegmentGo` starts it. So a refusal anywhere costs nothing anywhere.

    controller ── lease.create ──► access granted everywhere, or nothing happens
               ── lease.change, start ──► nodes and portals come up; each portal makes keys of its own
    lender     ── lease.changed, SegmentInfo ──► public keys, and where the passive portals are reached
    controller ── lease.change, connections ──► each portal is told its partner's; they connect, no other secret ever travels
"""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fedkit.identity.sealing import PUBLIC_PATTERN
from fedkit.protocol import Body

DESCRIPTION_LIMIT = 8 * 1024 * 1024  # characters of topdl; 10,000 computers take about that
NODES_LIMIT = 20_000
ROUTES_LIMIT = 4096  # of one node
CONNECTORS_LIMIT = 256  # of one piece
SETTINGS_LIMIT = 64 * 1024  # characters; a machine's user data have to hold them
SSH_KEYS_LIMIT = 30  # a machine has two more: its lender's, and the one that the lender gives away
COMMAND_LIMIT = 16 * 1024  # characters
OPERATED_LIMIT = 64  # nodes that one request may have say something
RUN_LIMIT = 60.0  # seconds that a request to run something may take, all its nodes together
NodeName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_()-][A-Za-z0-9_().-]*$")]
WireName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
FEDERATION_KIT = "federation"  # the one that every member has
KitName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
TestbedName = Annotated[str, StringConstraints(min_length=1, max_length=257)]
Address = Annotated[str, StringConstraints(pattern=r"^\d{1,3}(\.\d{1,3}){3}$")]
PublicKey = Annotated[str, StringConstraints(max_length=4096, pattern=r"^(ssh-|ecdsa-|sk-)[^\n\r]+$")]

Measure = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None


class CrossingSpec(Body):
    """One cut substrate at a connector; both ends of a way use the same tag for it."""

    substrate: WireName
    tag: int = Field(ge=0, le=4094)
    stands_for: list[NodeName] = Field(default_factory=list, max_length=NODES_LIMIT)
    ip4: list[Address] = Field(default_factory=list, max_length=NODES_LIMIT, description="of those, on this substrate")


class ConnectorSpec(Body):
    """A portal of this piece and what crosses there.

    The active end connects. The passive one is reached by a port of its lender's tunnel server or, where its lender has none, of its
    borrower's, if that offers to `relay`.
    """

    name: NodeName
    peer: TestbedName
    active: bool
    relay: bool = Field(
        default=False,
        exclude_if=operator.not_,  # where nothing is relayed nobody need know the word
        description="of a passive end: who asks has a port for it where its lender has none",
    )
    failure: Literal["fatal", "ignore"] = Field(
        default="fatal",
        exclude_if=lambda action: action == "fatal",  # who lends no such portal need not know the word
        description="what the loss of its machine means for the piece",
    )
    crossings: list[CrossingSpec] = Field(min_length=1, max_length=4095)


class Host(Body):
    """A line of everybody's hosts file."""

    ip4: Address
    names: list[NodeName] = Field(min_length=1, max_length=16)


class Route(Body):
    """A way to a network beyond those that a node is on itself."""

    destination: Annotated[str, StringConstraints(pattern=r"^\d{1,3}(\.\d{1,3}){3}/\d{1,2}$")]
    via: Address = Field(description="of a neighbour that forwards")


class Ban(Body):
    """What enters a node where it has that address may neither go to the network nor claim to come from there."""

    address: Address
    network: Annotated[str, StringConstraints(pattern=r"^\d{1,3}(\.\d{1,3}){3}/\d{1,2}$")]


class SegmentSpec(Body):
    """A piece. It starts when its borrower says so (`SegmentGo.start`)."""

    kind: Literal["segment"] = "segment"
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "segment"
    testbed: TestbedName = Field(description="what its experimenter calls the place: name or name/subname")
    version: int = Field(default=1, ge=1, description="one that was changed has a greater one")
    description: str = Field(max_length=DESCRIPTION_LIMIT, description="topdl 1.0 of the piece, addresses included")
    routing: str | None = Field(default=None, max_length=32, description="Static, Session, Manual, …")
    connectors: list[ConnectorSpec] = Field(default_factory=list, max_length=CONNECTORS_LIMIT)
    hosts: list[Host] = Field(
        default_factory=list, max_length=NODES_LIMIT, description="of the whole, as this piece may see it"
    )
    routes: dict[NodeName, Annotated[list[Route], Field(max_length=ROUTES_LIMIT)]] = Field(
        default_factory=dict,
        max_length=NODES_LIMIT,
        description="of its nodes, over the topology of the whole; none: nobody forwards",
    )
    apart: dict[NodeName, Annotated[list[Ban], Field(max_length=ROUTES_LIMIT)]] = Field(
        default_factory=dict, max_length=NODES_LIMIT, description="how nodes keep apart the parties that share them"
    )
    ssh_keys: list[PublicKey] = Field(
        default_factory=list, max_length=SSH_KEYS_LIMIT, description="who may enter its nodes"
    )
    settings: dict[NodeName, Annotated[str, StringConstraints(max_length=SETTINGS_LIMIT)]] = Field(
        default_factory=dict,
        max_length=NODES_LIMIT,
        description="what services tell its nodes: `client.conf` of docs/federation-kit.md",
    )
    seal_to: str | None = Field(
        default=None, pattern=PUBLIC_PATTERN, description="X25519 key of whoever may read the lender's credentials"
    )
    requirements: str = Field(default="", max_length=4096)
    kit: KitName = Field(
        default=FEDERATION_KIT,
        exclude_if=lambda kit: kit == FEDERATION_KIT,  # who offers no other need not know the word
        description="by which its portals and nodes are made what they are",
    )

    @property
    def waits(self) -> bool:
        """Whether one of its portals waits for its peer, and nobody but its lender can let it be reached from outside."""
        return any(not connector.active and not connector.relay for connector in self.connectors)


class Relay(Body):
    """A port of a tunnel server, which lets a portal hold it: `ssh -R NAME:0:…` as `tunnel`, by the portal's own key."""

    host: str = Field(max_length=253, description="numeric, where it is known")
    port: int = Field(ge=1, le=65535)
    host_key: PublicKey
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Connection(Body):
    """What a portal must know of its partner. An active one is told where; a passive one only by whom it will be entered.

    A passive one whose lender has no ports (`SegmentInfo.relayed`) comes up once it is told of a `relay`.
    """

    connector: NodeName
    peer_key: PublicKey
    host: str | None = Field(default=None, max_length=253)
    port: int | None = Field(default=None, ge=1, le=65535)
    host_key: PublicKey | None = None
    relay: Relay | None = Field(default=None, exclude_if=operator.not_)


class SegmentGo(Body):
    """How a segment is to be from now on; connections are named all, each time.

    `spec` changes the piece: it may gain and lose nodes, networks and connectors, and what stays in it stays as it is. With `promise`
    nothing is changed yet; the lender only says whether it can be (`SegmentInfo.promised`, `refused`).
    """

    start: bool = True
    connections: list[Connection] = Field(default_factory=list, max_length=CONNECTORS_LIMIT)
    spec: SegmentSpec | None = None
    promise: bool = False


class NodeStatus(StrEnum):
    """How far a node or portal is."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"


class NodeInfo(Body):
    """A node, as its borrower may see it."""

    name: NodeName
    status: NodeStatus
    reason: str = Field(default="", max_length=512)
    address: str | None = Field(
        default=None, max_length=64, description="inside the lender's intranet, for the control way"
    )
    host: str | None = Field(
        default=None, max_length=253, description="where its ssh server is reached from everywhere"
    )
    port: int | None = Field(default=None, ge=1, le=65535)
    user: str | None = Field(default=None, max_length=64)
    host_keys: list[str] = Field(default_factory=list, max_length=8)


class PortalInfo(Body):
    """A portal: its own public key, where it is reached if it is the passive end, and whether it is joined.

    Where a relay is needed the lender knows of neither: `joined` says then that its end is ready.
    """

    connector: NodeName
    status: NodeStatus
    reason: str = Field(default="", max_length=512)
    public_key: PublicKey | None = None
    host_key: PublicKey | None = None
    host: str | None = Field(default=None, max_length=253)
    port: int | None = Field(default=None, ge=1, le=65535)
    joined: bool = False
    plane: str | None = Field(
        default=None,
        pattern="^[a-z0-9]{1,32}$",
        exclude_if=operator.not_,
        description="by which it is joined, as it says itself; so are the next two",
    )
    delay_ms: Measure = Field(default=None, exclude_if=operator.not_, description="there and back, the least")
    mbps: Measure = Field(default=None, exclude_if=operator.not_, description="both ways together, of late")


class Refused(Body):
    """A change that the lender cannot make, or made and had to undo."""

    version: int
    code: str = Field(max_length=128)
    reason: str = Field(max_length=512)


class SegmentInfo(Body):
    """A segment as it is now."""

    version: int = Field(default=1, description="of the spec that all of it has come to be like")
    promised: int | None = Field(default=None, description="the version that it can be changed to")
    refused: Refused | None = Field(default=None, description="the last one")
    nodes: list[NodeInfo] = Field(default_factory=list, max_length=NODES_LIMIT)
    portals: list[PortalInfo] = Field(default_factory=list, max_length=CONNECTORS_LIMIT)
    credentials: str | None = Field(
        default=None,
        max_length=4096,
        description="`Login`, sealed (fedkit/identity/sealing.py) to the spec's `seal_to`",
    )
    relayed: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="its lender has no ports: whoever waits here needs a relay of its borrower's",
    )


class Login(Body):
    """What a lender gives away: who has it enters every node of the segment, as root."""

    testbed: TestbedName
    user: str = Field(default="root", max_length=64)
    private_key: str = Field(max_length=4096, description="OpenSSH's format")


LOGIN = "fedmesh segment login 1"  # what it is sealed for


class Operation(StrEnum):
    """What can be done to a node of a running segment."""

    REBOOT = "reboot"
    STOP = "stop"
    START = "start"
    RUN = "run"
    CONSOLE = "console"


RUNS = frozenset({Operation.RUN, Operation.REBOOT})  # what takes as long as a machine does


class Operate(Body):
    """Do that to these nodes (none named: all) of a segment; `command` belongs to `run`."""

    lease_id: str = Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    operation: Operation
    nodes: list[NodeName] = Field(default_factory=list, max_length=NODES_LIMIT)
    command: str = Field(default="", max_length=COMMAND_LIMIT)


class Operated(Body):
    """What came of it, node by node: what it printed (its end), or why not."""

    output: dict[NodeName, str]
    failed: dict[NodeName, str] = Field(default_factory=dict)
    status: dict[NodeName, int] = Field(default_factory=dict, description="with which `run` ended; 128 + a signal")
