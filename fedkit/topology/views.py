"""Parties of one experiment: what each of them sees and reaches, while some of it is shared by all.

    attacker: deter/attack       a ── wire1 ── r ── wire2 ── d       defender: ucb/defend
                                               └─ wire3 ── s         r, s: at testbeds of no party, shared

A substrate with a party's computer is that party's; one with shared computers alone is shared. None is two parties', so whatever goes
from one to another passes a shared computer, and that one drops it: what comes in from a party's substrate neither goes to one of
another party's, nor claims to come from there, nor leaves over one.

A view is what one may know. It is built of what may be told, not by leaving out what may not: of a shared computer that is
its name, testbed, image, hardware and its ends on substrates that one sees, so what its author wrote into it about others is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Interface, IPv4Network, collapse_addresses

from fedkit.errors import InputError
from fedkit.topology.model import (
    Attribute,
    Attributes,
    Computer,
    Interface,
    OperatingSystem,
    Service,
    Substrate,
    Topology,
)
from fedkit.topology.routes import NextHop, routes_of
from fedkit.topology.services import BadService

HIDE_HOSTS = "hide_hosts"  # the service whose attribute `hosts` names computers that other testbeds are not told of
MASTER = "seer_master"  # the service with which all controllers are on one network, and one node commands all
_CONTROLLING = frozenset({MASTER, "local_seer_control"})
_TOLD_OF_ENDS = frozenset({"ip4_address", "ip4_netmask", "loss"})

Routes = Mapping[str, Sequence[NextHop]]


class PartiesMeet(InputError):
    """A link or LAN, or an address, that two parties would share."""

    code = "topology.parties_meet"


@dataclass(frozen=True)
class Sides:
    """Which party each testbed is of: `ucb` stands for all of `ucb/…` that no party has by their full names."""

    party_of: tuple[tuple[str, str], ...] = ()  # testbed, party

    def __bool__(self) -> bool:
        return bool(self.party_of)

    @cached_property
    def _parties(self) -> Mapping[str, str]:
        return dict(self.party_of)

    def of(self, testbed: str | None) -> str | None:
        """The party of a testbed; None if it is shared."""
        return None if testbed is None else self._parties.get(testbed) or self._parties.get(testbed.partition("/")[0])

    def of_substrates(self, topology: Topology) -> dict[str, frozenset[str]]:
        """The parties on each substrate."""
        found: dict[str, frozenset[str]] = {}
        for name, ends in topology.ends.items():
            parties = (self.of(end.testbed) for end, _ in ends if isinstance(end, Computer))
            found[name] = frozenset(party for party in parties if party is not None)
        return found


def check_sides(topology: Topology, sides: Sides) -> None:
    """Raise `PartiesMeet` where parties cannot be kept apart."""
    for name, parties in sides.of_substrates(topology).items():
        if len(parties) > 1:
            who = [
                f"{end.name} of {sides.of(end.testbed)}"
                for end, _ in topology.ends[name]
                if isinstance(end, Computer) and sides.of(end.testbed)
            ]
            raise PartiesMeet(
                f"{name} joins {', '.join(who[:5])} directly; put a node between them whose testbed is of no party."
            )
    _check_prefixes(topology, sides)
    for service in topology.services:
        _check_service(service, sides)
    _check_control(topology, sides)


def _check_control(topology: Topology, sides: Sides) -> None:
    """A master and its controllers share a network, and who is root in the master commands all that they see."""
    masters = [service for service in topology.services if service.name == MASTER]
    if not masters:
        return
    to_all = any(service.import_all or service.get("importall") for service in masters)
    named = {name for service in topology.services if service.name in _CONTROLLING for name in service.exporters}
    named |= {name for service in masters for name in service.importers}
    testbeds = [str(computer.testbed) for computer in topology.computers]
    seen = [testbed for testbed in testbeds if to_all or named & {testbed, testbed.partition("/")[0]}]
    who = {sides.of(testbed): testbed for testbed in seen}
    if len(who) > 1:
        told = ", ".join(f"{testbed} ({party or 'shared'})" for party, testbed in who.items())
        raise PartiesMeet(
            f"With {MASTER} the controllers of {told} would be on one network, and who is root in the master would command "
            "all that they see; leave it out."
        )


def _check_service(service: Service, sides: Sides) -> None:
    """What one party exports is not for another."""
    everybody = [testbed for testbed, _party in sides.party_of]
    importers = everybody if service.import_all or service.get("importall") else service.importers
    for exporter in service.exporters:
        strangers = (one for one in importers if sides.of(one) not in {None, sides.of(exporter)})
        stranger = next(strangers, None) if sides.of(exporter) else None
        if stranger is not None:
            raise PartiesMeet(
                f"The service {service.name} exports from {exporter} of {sides.of(exporter)} to {stranger} of {sides.of(stranger)}; "
                "export it from a testbed that is of no party."
            )


def _check_prefixes(topology: Topology, sides: Sides) -> None:
    """Addresses tell parties apart, so no two of them, nor a party and what is shared, may have one network."""
    parties = sides.of_substrates(topology)
    networks = [(net, name) for name, nets in _networks(topology).items() for net in nets]
    networks.sort(key=lambda pair: (pair[0].network_address, pair[0].prefixlen))
    around: list[tuple[IPv4Network, str]] = []
    for network, name in networks:
        while around and around[-1][0].broadcast_address < network.network_address:
            around.pop()
        if around and parties[around[-1][1]] != parties[name]:
            raise PartiesMeet(
                f"{around[-1][1]} and {name} have addresses of one network, {around[-1][0]}, and belong to different parties; "
                "give them different ones."
            )
        around.append((network, name))


def _networks(topology: Topology) -> dict[str, frozenset[IPv4Network]]:
    """The networks of each substrate."""
    return {
        name: frozenset(
            IPv4Interface(f"{interface.ip4}/{interface.netmask}").network
            for _, interface in ends
            if interface.ip4 and interface.netmask
        )
        for name, ends in topology.ends.items()
    }


# What one sees


def hidden_hosts(topology: Topology) -> frozenset[str]:
    """The computers of which other testbeds are not told (`hide_hosts`); raises `BadService` for one that is not there."""
    testbeds = {computer.name: str(computer.testbed) for computer in topology.computers}
    hidden = set()
    for service in topology.services:
        if service.name == HIDE_HOSTS:
            names = _hosts(service)
            strange = [name for name in names or [""] if not _exports(service, testbeds.get(name))]
            if strange:
                where = f" of {', '.join(service.exporters)}" if service.exporters else ""
                raise BadService(
                    f"{HIDE_HOSTS} hides {strange[0][:80]!r}, which is no computer{where}; write hosts=NAME,NAME."
                )
            hidden.update(names)
    return frozenset(hidden)


def _hosts(service: Service) -> list[str]:
    said = (attribute.value for attribute in service.attributes if attribute.name == "hosts")
    return [name for text in said for name in text.replace(",", " ").split()]


def _exports(service: Service, testbed: str | None) -> bool:
    if testbed is None:
        return False
    return not service.exporters or testbed in service.exporters or testbed.partition("/")[0] in service.exporters


def seen_by(topology: Topology, sides: Sides, parties: Collection[str]) -> Topology:
    """What these parties may know of a topology."""
    hidden = hidden_hosts(topology)
    kept = within(topology, sides, parties)
    own = {computer.name for computer in kept.computers if sides.of(computer.testbed) is not None}
    elements = tuple(
        computer if computer.name in own else _shared(computer)
        for computer in kept.computers
        if computer.name in own or computer.name not in hidden
    )
    there = {name for computer in elements for interface in computer.interfaces for name in interface.substrates}
    parties_on = sides.of_substrates(kept)
    substrates = tuple(
        substrate if parties_on[substrate.name] else _shared_substrate(substrate, topology)
        for substrate in kept.substrates
        if substrate.name in there
    )
    services = tuple(found for service in topology.services if (found := _service(service, sides, parties)))
    return Topology(substrates, elements, services=services, routing=topology.routing)


def within(topology: Topology, sides: Sides, parties: Collection[str]) -> Topology:
    """The part that these parties may use: their computers and substrates, and the shared ones."""
    allowed = frozenset(parties)
    visible = {name for name, on in sides.of_substrates(topology).items() if on <= allowed}
    elements = tuple(
        replace(computer, interfaces=tuple(i for i in computer.interfaces if visible.issuperset(i.substrates)))
        for computer in topology.computers
        if sides.of(computer.testbed) in {None, *allowed}
    )
    return replace(
        topology, elements=elements, substrates=tuple(one for one in topology.substrates if one.name in visible)
    )


def _shared(computer: Computer) -> Computer:
    said = {"testbed": computer.testbed, "type": computer.hardware}
    osid = computer.osid
    return Computer(
        name=computer.name,
        interfaces=tuple(_shared_end(interface) for interface in computer.interfaces),
        os=() if osid is None else (OperatingSystem(attributes=(Attribute("osid", osid),)),),
        attributes=tuple(Attribute(name, value) for name, value in said.items() if value is not None),
    )


def _shared_end(interface: Interface) -> Interface:
    told: Attributes = tuple(one for one in interface.attributes if one.name in _TOLD_OF_ENDS)
    return replace(interface, attributes=told)


def _shared_substrate(substrate: Substrate, topology: Topology) -> Substrate:
    kind = Attribute("kind", topology.kind_of(substrate))
    return Substrate(substrate.name, substrate.capacity, substrate.latency, (kind,))


def _service(service: Service, sides: Sides, parties: Collection[str]) -> Service | None:
    """A service that these parties alone export, as it concerns them."""
    if not service.exporters or any(sides.of(testbed) not in parties for testbed in service.exporters):
        return None
    importers = tuple(testbed for testbed in service.importers if sides.of(testbed) in parties)
    return replace(service, importers=importers)


# What one reaches


@dataclass(frozen=True)
class Ban:
    """What enters a computer where it has `address` may neither go to `network` nor come from it."""

    address: str
    network: str


@dataclass(frozen=True)
class Reach:
    """The routes of all computers, and what shared ones drop, so that parties stay apart whatever they send."""

    routes: Routes
    bans: Mapping[str, tuple[Ban, ...]]


def reach_of(topology: Topology, sides: Sides, routed: Topology | None = None) -> Reach:
    """Routes as `routes_of` has them, over the `routed` part (else all) of a topology, but for each party over nothing that is another's.

    A shared computer goes to what is shared over what is shared. Where that is impossible it may go over substrates of one party, but not
    if there is a choice between parties: then what is one's would pass the other.
    """
    over = topology if routed is None else routed
    if not sides:
        return Reach(routes_of(over), {})
    common = routes_of(within(over, sides, ()))
    ways = {party: routes_of(within(over, sides, (party,))) for _testbed, party in sides.party_of}
    routes = {}
    for computer in topology.computers:
        name, party = computer.name, sides.of(computer.testbed)
        routes[name] = tuple(ways[party].get(name, ()) if party else _of_shared(name, common, ways))
    return Reach(routes, _bans(topology, sides, routes, ways))


def _of_shared(name: str, common: Routes, ways: Mapping[str, Routes]) -> Iterator[NextHop]:
    told = {hop.destination for hop in common.get(name, ())}
    yield from common.get(name, ())
    found = [hop for routes in ways.values() for hop in routes.get(name, ()) if hop.destination not in told]
    choices = Counter(hop.destination for hop in found)
    yield from (hop for hop in found if choices[hop.destination] == 1)


def _bans(
    topology: Topology, sides: Sides, routes: Routes, ways: Mapping[str, Routes]
) -> Mapping[str, tuple[Ban, ...]]:
    """At each shared computer's ends on a party's substrate: the networks of others, and what is reached over theirs."""
    on = sides.of_substrates(topology)
    foreign: dict[str, list[IPv4Network]] = {party: [] for party in ways}
    for substrate, networks in _networks(topology).items():
        for party in ways:
            if on[substrate] - {party}:
                foreign[party] += networks
    found: dict[str, list[Ban]] = {}
    for computer in topology.computers:
        if sides.of(computer.testbed) is None:
            for interface in (one for one in computer.interfaces if one.ip4):
                for party in frozenset().union(*(on[name] for name in interface.substrates)):
                    mine = {hop.destination for hop in ways[party].get(computer.name, ())}
                    over = [
                        IPv4Network(hop.destination) for hop in routes[computer.name] if hop.destination not in mine
                    ]
                    bans = found.setdefault(computer.name, [])
                    bans += [Ban(str(interface.ip4), str(n)) for n in collapse_addresses([*foreign[party], *over])]
    return {name: tuple(bans) for name, bans in found.items() if bans}
