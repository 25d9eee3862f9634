"""Which leases a segment needs now: a pure function of what is asked for and of how far it is.

    substrate ─► network "network/link0"      verbatim, because frames of others pass it: portals', and those that are routed
    computer  ─► machine "node/a"             on its networks, with exactly its addresses; its script stands in its user data
    connector ─► machine "portal/ucbtunnel0"  on the crossing networks, as soon as all is known that its script must say

The same part has always the same id, so making one twice is harmless. A portal whose connection changed is another part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

from pydantic import ValidationError

from federation_member.orders.candidates import smallest
from federation_member.orders.segments.errors import UnusableSegment
from federation_member.orders.segments.lines import Lines, lines, node_shapes, portal_lines
from federation_member.orders.segments.state import SegmentState
from federation_member.orders.segments.wiring import Wiring, read
from fedkit.kits.contract import Kit
from fedkit.kits.installed import kit_named
from fedkit.node.script import NodeConfig
from fedkit.portal.script import PortalConfig, Relay
from fedkit.protocol.lending import ComputeSpec, Flavour, NetworkSpec, Offer
from fedkit.protocol.segments import Connection, ConnectorSpec, SegmentSpec
from fedkit.services.roles import ROLE
from fedkit.topology.model import Computer, FailureAction
from fedkit.topology.routes import DYNAMIC, MANUAL
from fedkit.topology.shaping import Shape

NODE = "node/"  # before a computer's name, in the name of its part
PARTS = frozenset({"compute", "network"})
LABEL_LIMIT = 63  # characters of a lease's name
NO_SHAPES: Mapping[str, Shape] = {}
_UNUSUAL = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Child:
    """A lease that is wanted. `make` says of what, once the leases that it `uses` run; it may raise an `InputError`."""

    id: str
    part: str
    uses: tuple[str, ...]
    make: Callable[[Offer], ComputeSpec | NetworkSpec]
    failure: FailureAction = "fatal"


def lent_kinds(kinds: Collection[str]) -> frozenset[str]:
    """What a member lends whose middleware makes these kinds: segments too, if it can make what they consist of."""
    return frozenset(kinds) | ({"segment"} if frozenset(kinds) >= PARTS else frozenset())


def check(spec: SegmentSpec, offer: Offer) -> None:
    """Raise `UnusableSegment`, `UnknownKit` or `BadDescription` for what can never be embedded in what is lent to its borrower."""
    kit_named(spec.kit)
    wiring = read(spec.description)
    wiring.check(spec.connectors)
    if wiring.computers:
        _image(offer, None)
    if spec.connectors:
        _portal_image(offer)
    _flavour(offer, None)


def plan(spec: SegmentSpec, state: SegmentState) -> list[Child]:
    """All that is wanted of a segment that was started: networks first, then nodes, then portals."""
    return list(_Planner(spec, state).children())


def network_part(substrate: str) -> str:
    """What a substrate's lease is called."""
    return f"network/{substrate}"


def node_part(name: str) -> str:
    """What a computer's lease is called."""
    return NODE + name


def portal_part(connector: str) -> str:
    """What a portal's lease is called."""
    return f"portal/{connector}"


class _Planner:
    def __init__(self, spec: SegmentSpec, state: SegmentState) -> None:
        self.spec = spec
        self.state = state
        self.wiring: Wiring = read(spec.description)
        self.ids = {name: state.child_id(network_part(name)) for name in self.wiring.networks}

    @cached_property
    def kit(self) -> Kit:
        """Found when a machine is to be made: most looks at a segment need none."""
        return kit_named(self.spec.kit)

    @cached_property
    def lines(self) -> Lines:
        """Likewise."""
        return lines(self.spec, self.state)

    def children(self) -> Iterator[Child]:
        for name, prefix in self.wiring.networks.items():
            yield Child(self.ids[name], network_part(name), (), partial(self._network, name, prefix))
        for name, computer in self.wiring.computers.items():
            part = node_part(name)
            uses = tuple(self.ids[plug.substrate] for plug in self.wiring.plugs[name])
            make = partial(self._node, computer)
            yield Child(self.state.child_id(part), part, uses, make, computer.failure_action)
        for connector in self.spec.connectors:
            config = portal_config(connector, self.state)
            if config is not None:
                part = portal_part(connector.name)
                uses = tuple(self.ids[crossing.substrate] for crossing in connector.crossings)
                child_id = self.state.child_id(part, connector.name)
                yield Child(child_id, part, uses, partial(self._portal, connector, config), connector.failure)

    def _network(self, name: str, prefix: str, _offer: Offer) -> NetworkSpec:
        return NetworkSpec(name=_label(name), cidr=prefix, verbatim=True)  # a portal may join it at any time

    def _node(self, computer: Computer, offer: Offer) -> ComputeSpec:
        plugs = self.wiring.plugs[computer.name]
        return _machine(
            name=_label(computer.name),
            image=_image(offer, computer.osid),
            flavour=_flavour(offer, computer.hardware),
            networks=[self.ids[plug.substrate] for plug in plugs],
            addresses={self.ids[plug.substrate]: plug.address for plug in plugs},
            carries_frames=bool(plugs),  # whoever experiments with a network administers it
            ssh_keys=[*self.spec.ssh_keys, *self.state.entrants],
            user_data=self.kit.node(started(self.spec, computer, node_shapes(self.wiring, computer.name, self.lines))),
        )

    def _portal(self, connector: ConnectorSpec, config: PortalConfig, offer: Offer) -> ComputeSpec:
        return _machine(
            name=_label(connector.name),
            image=_portal_image(offer),
            flavour=_flavour(offer, None),
            networks=[self.ids[crossing.substrate] for crossing in connector.crossings],
            carries_frames=True,
            user_data=self.kit.portal(replace(config, lines=portal_lines(connector, self.lines))),
        )


def node_config(spec: SegmentSpec, name: str) -> NodeConfig:
    """What a computer is told of the whole, but for what its author wants it to run."""
    return NodeConfig(
        name,
        {host.ip4: host.names for host in spec.hosts},
        [(route.destination, route.via) for route in spec.routes.get(name, ())],
        apart=[(ban.address, ban.network) for ban in spec.apart.get(name, ())],
        networks=_dynamic(spec, name),
        settings=spec.settings.get(name, ""),
        forwards=forwards(spec, name),
    )


def forwards(spec: SegmentSpec, name: str) -> bool:
    """Whether a node passes on what is for others: between the experiment's wires, never to or from those of its services."""
    return (bool(spec.routes) or spec.routing == MANUAL) and len(_own(spec, name)) > 1


def _dynamic(spec: SegmentSpec, name: str) -> list[str]:
    """The networks over which a node's routing daemons, if it has any, find the ways."""
    networks = read(spec.description).networks
    return [networks[wire] for wire in _own(spec, name)] if spec.routing in DYNAMIC else []


def _own(spec: SegmentSpec, name: str) -> list[str]:
    """The wires of the experiment that a node is on, without those of its services."""
    wiring = read(spec.description)
    return [plug.substrate for plug in wiring.plugs[name] if wiring.substrates[plug.substrate].get(ROLE) is None]


def started(spec: SegmentSpec, computer: Computer, shapes: Mapping[str, Shape] = NO_SHAPES) -> NodeConfig:
    """All that a node is told when it comes up; `shapes` of its interfaces, by address, unless others see to them."""
    return replace(node_config(spec, computer.name), startup=computer.startup or "", shapes=shapes)


def portal_config(connector: ConnectorSpec, state: SegmentState) -> PortalConfig | None:
    """What a portal is told; None as long as not all of it is known."""
    connection = state.connections.get(connector.name)
    if connection is None or not _is_known(connector, connection, state):
        return None
    relay = connection.relay
    return PortalConfig(
        tags=tuple(crossing.tag for crossing in connector.crossings),
        private_key=state.keys[connector.name],
        peer_key=connection.peer_key,
        host=connection.host,
        port=connection.port,
        host_key=connection.host_key,
        relay=None if relay is None else Relay(relay.host, relay.port, relay.host_key, relay.name),
    )


def chosen(offer: Offer, computer: Computer | None) -> tuple[str, Flavour]:
    """Image and flavour of a node, or (None) of a portal; raises `UnusableSegment`."""
    image = _portal_image(offer) if computer is None else _image(offer, computer.osid)
    name = _flavour(offer, None if computer is None else computer.hardware)
    return image, next(flavour for flavour in offer.flavours if flavour.name == name)


def _is_known(connector: ConnectorSpec, connection: Connection, state: SegmentState) -> bool:
    """Whether all is known that the portal's script must say."""
    if connector.active:
        return None not in (connection.host, connection.port, connection.host_key)
    return connection.relay is not None or not (connector.relay and state.relayed)


def _machine(**fields: object) -> ComputeSpec:
    try:
        return ComputeSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UnusableSegment(f"{fields['name']} cannot be a machine: {first['loc']} {first['msg']}.") from error


def _image(offer: Offer, wanted: str | None) -> str:
    """The image that is asked for if it is on offer, else the first one."""
    names = [image.name for image in offer.images]
    if wanted in names:
        return str(wanted)
    if not names:
        raise UnusableSegment("This member lends you no image, so no machine of a segment can be made.")
    return names[0]


def _portal_image(offer: Offer) -> str:
    """The first image that is marked for portals."""
    if offer.portal_image is None:
        raise UnusableSegment(
            "This member lends you no image that portals run in, so no segment can be joined to others; its operator marks one "
            "with `portal = true`."
        )
    return offer.portal_image.name


def _flavour(offer: Offer, wanted: str | None) -> str:
    """The flavour that is called as the hardware asked for, if it is on offer, else the smallest one."""
    names = [flavour.name for flavour in offer.flavours]
    if wanted in names:
        return str(wanted)
    if not names:
        raise UnusableSegment("This member lends you no flavour, so no machine of a segment can be made.")
    return smallest(offer.flavours).name


def _label(name: str) -> str:
    """A name as leases have them."""
    return _UNUSUAL.sub("-", name.lower()).strip("-")[:LABEL_LIMIT].strip("-") or "part"
