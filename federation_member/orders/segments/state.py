"""What a lender keeps with the lease of a segment: how it is to be, the keys of its portals, and what it came to.

Two keys open its nodes besides those of its users: the lender's own, by which it runs commands there, and one that it makes only to
give it away, sealed to whom the spec says; of that one it keeps the public half alone. Both are forgotten with the lease.

Everything else about it follows from its spec and from its children's leases. A portal stands for one state of its connection: when
that changes it is replaced, so each change has a number (`turns`) that goes into the id of the lease of the portal's machine; so has
each other part that was once taken away (growing.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import field, replace
from datetime import datetime
from typing import Self

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from federation_member.orders.segments.errors import UnusableSegment
from federation_member.orders.ssh_keys import new_key, public_half
from federation_member.usage.model import Sizes
from fedkit.identity.sealing import seal
from fedkit.protocol.lending import Instance, Spec
from fedkit.protocol.segments import (
    LOGIN,
    Connection,
    ConnectorSpec,
    Login,
    NodeStatus,
    PortalInfo,
    Refused,
    SegmentGo,
    SegmentInfo,
    SegmentSpec,
)


@dataclass(frozen=True)
class SegmentState:
    """One segment's own state, as it stands in its row."""

    salt: str
    """Part of its children's ids, so that nobody else can name one."""
    keys: dict[str, str] = field(default_factory=dict, repr=False)
    """The private key of each connector's portal, in OpenSSH's format."""
    started: bool = False
    connections: dict[str, Connection] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    sizes: Sizes = Sizes()
    """Of its machines together, as they were told last."""
    told: datetime | None = None
    control: str = field(default="", repr=False)
    """The lender's own private key for its nodes, in OpenSSH's format."""
    login: str = ""
    """The public half of the key that was given away; empty if nobody wants one."""
    credentials: str | None = None
    """Its private half, as `SegmentInfo.credentials` says it."""
    promised: int | None = None
    """The version of the spec that it was last said to be changeable to."""
    refused: Refused | None = None
    """The last change that was not made."""
    before: SegmentSpec | None = None
    """What it was like, while it is being changed: it is so again if the change fails."""
    stale: list[str] = field(default_factory=list)
    """Nodes that have not been told yet what the change means for them."""

    hosted: bool = False
    """Whether its lender's middleware runs it as a whole; else it is embedded by leases."""
    relayed: bool = False
    """Whether its lender has no ports for portals that wait, so that those hold ports of its borrower's."""

    delays: bool = False
    """Whether its portals see to delays and losses of links that cross: decided once, because its nodes are made accordingly."""

    @classmethod
    def begin(cls, spec: SegmentSpec, *, hosted: bool = False, relayed: bool = False, delays: bool = False) -> Self:
        """Of a segment that is accepted; its portals have keys from the start. Raises `UnusableKey`."""
        keys = {connector.name: new_key() for connector in spec.connectors}
        begun = cls(str(uuid.uuid4()), keys, control=new_key(), hosted=hosted, relayed=relayed, delays=delays)
        if spec.seal_to is None:
            return begun
        login = new_key()
        body = Login(testbed=spec.testbed, private_key=login).model_dump_json().encode()
        return replace(begun, login=public_half(login), credentials=seal(spec.seal_to, LOGIN, body))

    @property
    def entrants(self) -> list[str]:
        """The public keys by which its nodes are entered, besides those of its users."""
        return [key for key in (public_half(self.control) if self.control else "", self.login) if key]

    def without_keys(self) -> Self:
        """The state of a segment that has ended: nothing in it opens anything."""
        return replace(self, keys={}, control="", credentials=None, before=None)

    def child_id(self, part: str, counted: str | None = None) -> str:
        """The id of a child's lease: always the same for the same part at the same turn, which is counted under a name."""
        return str(uuid.uuid5(uuid.UUID(self.salt), f"{part} {self.turns.get(counted or part, 0)}"))

    def turned(self, names: Iterable[str]) -> Self:
        """The state in which what is counted under these names is another part than before."""
        return replace(self, turns=self.turns | {name: self.turns.get(name, 0) + 1 for name in names})

    def public_key(self, connector: str) -> str:
        """What the portal's peer must know of it."""
        return public_half(self.keys[connector])


STATE: TypeAdapter[SegmentState] = TypeAdapter(SegmentState)


def gone(spec: SegmentSpec, state: SegmentState, go: SegmentGo) -> SegmentState:
    """The state after the borrower's word; what was started stays so. Raises `UnusableSegment` for an unknown connector."""
    known = {connector.name: connector for connector in spec.connectors}
    unknown = sorted(one.connector for one in go.connections if one.connector not in known)
    if unknown:
        raise UnusableSegment(f"This segment has no connector {unknown[0]}.")
    wanted = {one.connector: _needed(known[one.connector], one, state) for one in go.connections}
    changed = [name for name in known if wanted.get(name) != state.connections.get(name)]
    return replace(state, started=state.started or go.start, connections=wanted).turned(changed)


def within(spec: SegmentSpec, go: SegmentGo) -> SegmentGo:
    """What is said of connectors that there are: one who wants others besides is told that they were refused."""
    if go.spec is None:
        return go
    there = {connector.name for connector in spec.connectors}
    return go.model_copy(update={"connections": [one for one in go.connections if one.connector in there]})


def first_info(spec: SegmentSpec, state: SegmentState) -> SegmentInfo:
    """What is told at once: the portals' public keys, and the credentials."""
    portals = [yet_to_come(connector.name, state) for connector in spec.connectors]
    return SegmentInfo(version=spec.version, portals=portals, credentials=state.credentials, relayed=state.relayed)


def promised(spec: Spec, segment: SegmentState | None) -> Instance | None:
    """What is told of a segment before anything of it runs; nothing of other kinds."""
    if segment is None or not isinstance(spec, SegmentSpec):
        return None
    return Instance(name=spec.name, segment=first_info(spec, segment))


def yet_to_come(connector: str, state: SegmentState) -> PortalInfo:
    """A portal that is not there yet, or not any more."""
    return PortalInfo(connector=connector, status=NodeStatus.STARTING, public_key=state.public_key(connector))


def _needed(connector: ConnectorSpec, connection: Connection, state: SegmentState) -> Connection:
    """What a portal makes use of; the passive one does not care where its peer is, and where it is reached here needs no relay."""
    if connector.active:
        return connection.model_copy(update={"relay": None})
    relay = connection.relay if state.relayed else None
    return Connection(connector=connection.connector, peer_key=connection.peer_key, relay=relay)
