"""From a description to what is asked of lenders: every piece as a `SegmentSpec`, and the member that it goes to.

    read ─► place what names no testbed ─► carry out its services ─► split ─► a spec for each piece

What a piece must know of the whole is put into its spec here: names, addresses and routes (parting.py), and for every way to another
piece a connector. Both ends of a crossing have the same tag, which no other crossing of the experiment has. Of a way's
two ends the one whose piece comes first waits, and the other connects to it; at a member that nobody reaches only if the other end is
at one, too. It is then reached by a port of our own tunnel server, if we have one, and so is one of which it is not said where it goes,
and that goes to such a member. Without one, an order of a piece that waits goes to no member without tunnels.
"""

from __future__ import annotations

import re
from asyncio import to_thread
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from pydantic import ValidationError

from federation_member.experiments.errors import NothingToRun, NoWay, TooLarge, UnusableMapping
from federation_member.experiments.model import NewExperiment, Planned
from federation_member.experiments.parting import Parting
from federation_member.experiments.serving import serve
from federation_member.experiments.views import sides_of
from federation_member.orders.candidates import KnownMember, is_at
from fedkit.kits.contract import Kit
from fedkit.kits.installed import kit_named
from fedkit.protocol.lending import Ability
from fedkit.protocol.segments import ConnectorSpec, CrossingSpec, SegmentSpec
from fedkit.services.arrange import Arranged
from fedkit.topology import topdl
from fedkit.topology.formats import read
from fedkit.topology.model import Computer, Described, Element, Topology
from fedkit.topology.placement import Room, everything, place
from fedkit.topology.routes import check_given
from fedkit.topology.services import parse_service
from fedkit.topology.split import Piece, Split, split

KIND = "segment"
FIRST_TAG, LAST_TAG = 1, 4094
NODES = 2000  # computers of one experiment; the routes of all of them together grow with the square
LABEL_LIMIT = 63
_UNUSUAL = re.compile(r"[^a-z0-9]+")

Tags = Mapping[tuple[str, frozenset[str]], int]


class Waits(NamedTuple):
    """The testbed whose end of a way waits, and whether that may need a relay of ours."""

    testbed: str
    relay: bool


Ways = Mapping[frozenset[str], Waits]


class Kept(NamedTuple):
    """What stays of an experiment that is extended: the tags of its crossings, and which end of each way waits."""

    tags: Tags
    ways: Ways


NOTHING = Kept({}, {})


async def described(
    new: NewExperiment, members: Sequence[KnownMember], placed: Mapping[str, str] | None = None
) -> Described:
    """Read a description and give every computer a testbed: those that are `placed` already the one that they are at.

    Raises `BadDescription`, `BadService`, `CannotPlace`, `NothingToRun`, `UnknownKit` or `UnusableMapping`.
    """
    kit_named(new.kit)
    files = {name: text.encode() for name, text in new.files.items()}
    found = await read(new.description.encode(), new.file, new.form, files)
    topology = found.topology
    topology = replace(topology, services=(*topology.services, *map(parse_service, new.services)))
    if placed:
        topology = replace(topology, elements=tuple(_at(element, placed) for element in topology.elements))
    computers = list(topology.computers)
    if not computers:
        raise NothingToRun(f"{new.file} describes no computers, so there is nothing to run.")
    if len(computers) > NODES:
        raise TooLarge(f"An experiment has at most {NODES} computers; this one has {len(computers)}.")
    if not all(computer.testbed for computer in computers):
        topology = await to_thread(place, topology, _rooms(new, computers, members))
    return replace(found, topology=topology)


def _at(element: Element, placed: Mapping[str, str]) -> Element:
    if not isinstance(element, Computer) or element.testbed or element.name not in placed:
        return element
    return element.with_attributes({"testbed": placed[element.name]})


def lends(member: KnownMember, kit: str) -> bool:
    """Whether a member says that it lends pieces of experiments with that kit."""
    return KIND in member.offer.kinds and kit in member.offer.kits


def _rooms(new: NewExperiment, computers: Sequence[Computer], members: Sequence[KnownMember]) -> list[Room]:
    lending = {member.name: member for member in members if member.alive and lends(member, new.kit)}
    places = new.places or dict.fromkeys([*new.members, *(lending if not new.members else ())])
    images = {name: {image.name for image in member.offer.images} for name, member in lending.items()}
    wanted = {computer.osid for computer in computers if computer.osid} & set().union(*images.values())
    rooms = []
    sides = sides_of(new.parties)
    for testbed, machines in places.items():
        if sides.of(testbed) is not None:
            continue  # what names no testbed is shared
        here = images.get(new.members.get(testbed, testbed))

        def suits(computer: Computer, here: set[str] | None = here) -> bool:
            return here is None or computer.osid not in wanted or computer.osid in here

        rooms.append(Room(testbed, machines, suits if wanted else everything))
    return rooms


def serve_and_plan(
    new: NewExperiment,
    topology: Topology,
    members: Sequence[KnownMember],
    owner: str,
    secret: str,
    kept: Kept = NOTHING,
    *,
    relay: bool = False,
) -> list[Planned]:
    """The same of a topology whose services are its owner's; raises what `plan` and `serve` do."""
    return plan(new, serve(topology, kit_named(new.kit), owner, new.ssh_keys, secret), members, kept, relay=relay)


def plan(
    new: NewExperiment,
    arranged: Arranged,
    members: Sequence[KnownMember],
    kept: Kept = NOTHING,
    *,
    relay: bool = False,
) -> list[Planned]:
    """What is asked for each testbed; what is `kept` stays. `relay`: portals may hold ports of a tunnel server of ours.

    Raises `CannotSplit`, `NoWay`, `TooLarge`, `UnknownKit`, `UnusableMapping`, `UnusableRoute` or what `Parting` does.
    """
    kit, topology = kit_named(new.kit), arranged.topology
    _check_crossings(topology)
    check_given(topology)
    done = split(topology, new.portals)
    testbeds = [piece.testbed for piece in done.pieces]
    tags = _tags(done, kept.tags)
    parting = Parting(new, topology)
    located = _locations(new.members, testbeds, members)
    waiting = _waiting(done, located, _unreachable(located, members), kept.ways, relay=relay and kit.relays)
    specs = [_spec(new, kit, piece, waiting, tags, parting, arranged.settings) for piece in done.pieces]
    return [Planned(spec, located[spec.testbed]) for spec in specs]


def _check_crossings(topology: Topology) -> None:
    """Count what `split` would cut before it does: each crossing names everybody beyond it."""
    crossings = 0
    for ends in topology.ends.values():
        testbeds = {end.testbed for end, _ in ends if isinstance(end, Computer)}
        crossings += max(len(testbeds) - 1, 0)
    if crossings > LAST_TAG + 1 - FIRST_TAG:
        raise TooLarge(f"An experiment has at most {LAST_TAG} crossings; this one has {crossings}.")


def _unreachable(located: Mapping[str, str | None], members: Sequence[KnownMember]) -> dict[str, str]:
    """The testbeds that are known to go to a member without tunnels, and that member's name."""
    return {
        testbed: member.name
        for testbed, location in located.items()
        if location is not None
        for member in members
        if is_at(member, location) and Ability.TUNNELS not in member.offer.abilities
    }


def _waiting(
    done: Split, located: Mapping[str, str | None], unreachable: Mapping[str, str], kept: Ways, *, relay: bool
) -> Ways:
    """Of every two testbeds that have a way to each other the one that waits; who waits already goes on while that is possible."""
    place_of = {piece.testbed: (piece.testbed in unreachable, number) for number, piece in enumerate(done.pieces)}
    ways = {frozenset((piece.testbed, one.peer)) for piece in done.pieces for one in piece.connectors}
    for one, other in map(sorted, ways):
        if one in unreachable and other in unreachable and not relay:
            raise NoWay(
                f"{one} at {unreachable[one]} and {other} at {unreachable[other]} cannot be joined: neither member has a tunnel "
                "server, by which the other could reach its portals, and this member has none that could relay, or their kit does "
                "not. Put one of the two "
                "elsewhere, or run the experiment from a member with a tunnel server."
            )

    def waits(way: frozenset[str]) -> Waits:
        there = kept.get(way)
        if there is not None and (relay if there.relay else there.testbed not in unreachable):
            return there
        testbed = min(way, key=place_of.__getitem__)
        return Waits(testbed, relay and (located[testbed] is None or testbed in unreachable))

    return {way: waits(way) for way in ways}


def _locations(
    mapping: Mapping[str, str], testbeds: Sequence[str], members: Sequence[KnownMember]
) -> dict[str, str | None]:
    unknown = sorted(set(mapping) - set(testbeds) - {testbed.partition("/")[0] for testbed in testbeds})
    if unknown:
        raise UnusableMapping(f"The description has no testbed {unknown[0]}; it has {', '.join(testbeds[:10])}.")
    for wanted in mapping.values():
        if not any(is_at(member, wanted) for member in members):
            raise UnusableMapping(f"No member {wanted[:80]} is known; `fed members` names those that there are.")
    named = {member.name for member in members}
    found: dict[str, str | None] = {}
    for testbed in testbeds:
        name = testbed.partition("/")[0]
        found[testbed] = mapping.get(testbed) or mapping.get(name) or (name if name in named else None)
    return found


def _tags(done: Split, kept: Tags) -> Tags:
    """A number for every crossing, in the order of the pieces."""
    crossings = dict.fromkeys(
        (crossing.substrate, frozenset((piece.testbed, connector.peer)))
        for piece in done.pieces
        for connector in piece.connectors
        for crossing in connector.crossings
    )
    used, new = set(kept.values()), crossings.keys() - kept.keys()
    if len(used) + len(new) > LAST_TAG + 1 - FIRST_TAG:
        raise TooLarge(
            f"An experiment has at most {LAST_TAG} crossings, those of desktops included; {len(used)} are there."
        )
    free = (number for number in range(FIRST_TAG, LAST_TAG + 1) if number not in used)
    return {crossing: kept[crossing] if crossing in kept else next(free) for crossing in crossings}


def kept_of(specs: Iterable[SegmentSpec]) -> Kept:
    """What pieces have that stays when they are planned anew."""
    found = [(frozenset((spec.testbed, one.peer)), spec.testbed, one) for spec in specs for one in spec.connectors]
    tags = {(crossing.substrate, way): crossing.tag for way, _testbed, one in found for crossing in one.crossings}
    return Kept(tags, {way: Waits(testbed, one.relay) for way, testbed, one in found if not one.active})


def _spec(
    new: NewExperiment,
    kit: Kit,
    piece: Piece,
    waiting: Ways,
    tags: Tags,
    parting: Parting,
    settings: Mapping[str, Sequence[tuple[str, str]]],
) -> SegmentSpec:
    own = [computer.name for computer in piece.topology.computers]
    try:
        return SegmentSpec(
            name=_label(f"{new.name}-{piece.testbed}"),
            testbed=piece.testbed,
            description=topdl.write(replace(piece.topology, attributes=())).decode(),
            routing=parting.routing,
            connectors=_connectors(piece, waiting, tags, parting),
            hosts=parting.hosts(piece.testbed),
            routes=parting.routes_in(own),
            apart=parting.apart(own),
            ssh_keys=parting.ssh_keys(piece.testbed),
            settings={name: kit.settings(name, settings[name]) for name in own if name in settings},
            kit=kit.name,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise TooLarge(f"The piece of {piece.testbed} cannot be asked for: {where}: {first['msg']}.") from error


def _connectors(piece: Piece, waiting: Ways, tags: Tags, parting: Parting) -> list[ConnectorSpec]:
    ways = {connector.peer: waiting[frozenset((piece.testbed, connector.peer))] for connector in piece.connectors}
    return [
        ConnectorSpec(
            name=connector.name,
            peer=connector.peer,
            active=ways[connector.peer].testbed != piece.testbed,
            relay=ways[connector.peer] == (piece.testbed, True),
            crossings=[
                CrossingSpec(
                    substrate=crossing.substrate,
                    tag=tags[crossing.substrate, frozenset((piece.testbed, connector.peer))],
                    stands_for=[name for name in crossing.stands_for if parting.tells(piece.testbed, name)],
                    ip4=list(crossing.ip4),
                )
                for crossing in connector.crossings
            ],
        )
        for connector in piece.connectors
    ]


def _label(text: str) -> str:
    """A name as orders have them."""
    return _UNUSUAL.sub("-", text.lower()).strip("-")[:LABEL_LIMIT].strip("-") or KIND


def partners(specs: Iterable[SegmentSpec]) -> dict[tuple[str, str], tuple[str, str]]:
    """For every (testbed, connector) the one at the other end: the one with the same tags."""
    ends: dict[int, list[tuple[str, str]]] = {}
    for spec in specs:
        for connector in spec.connectors:
            ends.setdefault(connector.crossings[0].tag, []).append((spec.testbed, connector.name))
    return {end: other for pair in ends.values() if len(pair) == 2 for end, other in (pair, pair[::-1])}
