"""What somebody sees of an experiment: all of it, or what its parties may know. Every output goes through here.

Who has a party's role sees and operates the pieces of its testbeds, sees of shared pieces how far they are, and of everything else
not even that it is there. Texts that others wrote (lenders' reasons, lines of the log) may name anything, so one is told only
if it concerns nobody else: an event says which testbeds it is about, and one that does not say is for those who see everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from federation_member.experiments.model import Event, Experiment, Party, Segment, Whole
from federation_member.experiments.serving import NOBODYS, serve
from federation_member.orders.model import Order
from federation_member.orders.wishes import NOTHING
from fedkit.kits.installed import kit_named
from fedkit.protocol.lending import Instance
from fedkit.protocol.segments import ConnectorSpec, CrossingSpec, NodeInfo, PortalInfo, SegmentInfo, SegmentSpec
from fedkit.topology import topdl
from fedkit.topology.model import Topology
from fedkit.topology.services import parse_service, write_service
from fedkit.topology.views import Sides, seen_by

UNTOLD = "it happened outside of your view"
KEPT = 16  # descriptions of views


def sides_of(parties: Mapping[str, Party]) -> Sides:
    """Which party each testbed is of."""
    return Sides(tuple((testbed, name) for name, party in parties.items() for testbed in party.testbeds))


def topology_of(experiment: Experiment) -> Topology:
    """An experiment's topology, all of it."""
    services = tuple(map(parse_service, experiment.services))
    return replace(topdl.read(experiment.description.encode()), routing=experiment.routing, services=services)


@dataclass(frozen=True)
class View:
    """What somebody may know who has the roles of these parties; None: everything."""

    parties: frozenset[str] | None = None

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self.parties is None

    def topology(self, experiment: Experiment, *, services: bool = False) -> Topology:
        """An experiment's topology, as it was described, or with what its services brought."""
        whole = topology_of(experiment)
        if services:
            whole = serve(whole, kit_named(experiment.kit), experiment.owner.name, [], NOBODYS).topology
        return whole if self.parties is None else seen_by(whole, sides_of(experiment.parties), self.parties)

    def whole(self, whole: Whole) -> Whole:
        """An experiment with its pieces."""
        if self.parties is None:
            return whole
        experiment = whole.experiment
        sides = sides_of(experiment.parties)
        text, services = _described(experiment.description, experiment.services, sides, self.parties)
        shown = (
            segment if sides.of(segment.testbed) in self.parties else _shared(segment, text)
            for segment in whole.segments
            if sides.of(segment.testbed) in {None, *self.parties}
        )
        return Whole(self._experiment(replace(experiment, description=text, services=services)), tuple(shown))

    def operated(self, whole: Whole) -> Whole:
        """The same with the pieces alone that one may operate."""
        if self.parties is None:
            return whole
        sides = sides_of(whole.experiment.parties)
        own = tuple(segment for segment in whole.segments if sides.of(segment.testbed) in self.parties)
        return self.whole(Whole(whole.experiment, own))

    def events(self, experiment: Experiment, events: Iterable[Event]) -> list[Event]:
        """Lines of its log; of what is not to be known, that the whole went from one state to another."""
        if self.parties is None:
            return list(events)
        told: list[Event] = []
        before = None
        for event in events:
            if self._tells(experiment, event.about):
                told.append(event)
            elif event.state is not before:
                told.append(replace(event, code="", reason=UNTOLD, about=None))
            before = event.state
        return told

    def _tells(self, experiment: Experiment, about: tuple[str, ...] | None) -> bool:
        sides = sides_of(experiment.parties)
        return about is not None and self.parties is not None and all(sides.of(one) in self.parties for one in about)

    def _experiment(self, experiment: Experiment) -> Experiment:
        assert self.parties is not None
        parties = {name: party for name, party in experiment.parties.items() if name in self.parties}
        seen = replace(experiment, parties=parties, extension=None)
        return seen if self._tells(experiment, experiment.about) else replace(seen, code="", reason=UNTOLD, about=None)


@lru_cache(maxsize=KEPT)
def _described(
    description: str, services: tuple[str, ...], sides: Sides, parties: frozenset[str]
) -> tuple[str, tuple[str, ...]]:
    """What these parties may know of a description and its services."""
    whole = replace(topdl.read(description.encode()), services=tuple(map(parse_service, services)))
    seen = seen_by(whole, sides, parties)
    return topdl.write(seen).decode(), tuple(map(write_service, seen.services))


@lru_cache(maxsize=KEPT)
def _read(description: str) -> Topology:
    return topdl.read(description.encode())


def _shared(segment: Segment, text: str) -> Segment:
    """A shared piece, of which `text` describes what is seen."""
    order = None if segment.order is None else _shared_order(segment.order, text)
    return Segment(segment.number, segment.testbed, segment.order_id, None, None, order, code=segment.code)


def _shared_order(order: Order, text: str) -> Order:
    assert isinstance(order.spec, SegmentSpec)
    seen = _read(text)
    connectors = [told for one in order.spec.connectors if (told := _connector(one, seen)) is not None]
    spec = SegmentSpec(
        name=order.spec.name,
        testbed=order.spec.testbed,
        description=_piece(seen, order.spec.testbed),
        routing=order.spec.routing,
        connectors=connectors,
        kit=order.spec.kit,
    )
    return replace(
        order,
        reason="",
        spec=spec,
        lease_id=None,
        instance=None if order.instance is None else _instance(order.instance, spec, seen),
        tunnels=(),
        handle=None,
        wishes=NOTHING,
        rules=None,
    )


def _connector(connector: ConnectorSpec, seen: Topology) -> ConnectorSpec | None:
    """A shared piece's portal, with what crosses there of what is seen."""
    crossings = [
        CrossingSpec(substrate=crossing.substrate, tag=crossing.tag)
        for crossing in connector.crossings
        if crossing.substrate in seen.ends
    ]
    return connector.model_copy(update={"crossings": crossings}) if crossings else None


def _piece(seen: Topology, testbed: str) -> str:
    """What is seen of one testbed's piece."""
    own = tuple(computer for computer in seen.computers if computer.testbed == testbed)
    used = {name for computer in own for interface in computer.interfaces for name in interface.substrates}
    substrates = tuple(substrate for substrate in seen.substrates if substrate.name in used)
    return topdl.write(Topology(substrates, own)).decode()


def _instance(instance: Instance, spec: SegmentSpec, seen: Topology) -> Instance:
    """How far a shared piece is, without where and how its nodes are entered."""
    info = instance.segment or SegmentInfo()
    names = {computer.name for computer in seen.computers}
    connectors = {connector.name for connector in spec.connectors}
    nodes = [NodeInfo(name=node.name, status=node.status) for node in info.nodes if node.name in names]
    portals = [
        PortalInfo(connector=portal.connector, status=portal.status, joined=portal.joined)
        for portal in info.portals
        if portal.connector in connectors
    ]
    return Instance(name=instance.name, segment=SegmentInfo(nodes=nodes, portals=portals))
