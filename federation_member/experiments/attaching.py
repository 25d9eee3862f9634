"""Joins a researcher's own machine (a desktop) to an experiment that runs, as one more computer of one of its pieces.

    n0 ─┬─ lan0 ─┬─ n1             the piece that has lan0 gets a connector more, whose portal waits
        └ portal ┘
            ╚═════ one ssh connection, made by the desktop ═════ desktop, with a free address of lan0

It is told what a node of that piece would be, names and routes; so a party's people attach at their own testbeds, and to their own
networks. Nothing that runs becomes another: nodes are told nothing of it, for then one that does not listen would hold it up. They
reach it all the same, since their routes lead to its network. Pure functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import count

from pydantic import BaseModel, ConfigDict, Field

from federation_member.experiments.errors import NotAttachable, UnusableAttachment
from federation_member.experiments.joining import spec_of
from federation_member.experiments.model import Experiment, NewExperiment, Segment
from federation_member.experiments.parting import Parting, hosts_of
from federation_member.experiments.planning import FIRST_TAG, LAST_TAG
from federation_member.experiments.views import View, sides_of
from federation_member.orders.candidates import KnownMember
from federation_member.orders.model import OrderState
from federation_member.orders.ssh_keys import is_public
from fedkit.protocol.lending import Ability, Name, SshKey, Uuid
from fedkit.protocol.segments import (
    CONNECTORS_LIMIT,
    Address,
    ConnectorSpec,
    CrossingSpec,
    Host,
    Route,
    SegmentSpec,
    TestbedName,
    WireName,
)
from fedkit.services.roles import users_own
from fedkit.topology.model import Attribute, Computer, Interface, Topology

LIFE = timedelta(minutes=30)  # of an attachment that is not asked for again: a desktop may sleep, or be gone
EACH, ALL = 4, 16  # attachments of one user, and of all, in one experiment
TRIED = 4096  # addresses of a network, from its end


class NewAttachment(BaseModel):
    """A desktop that is to be attached, or to stay so: asking again with the same id and key is harmless, and renews it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Uuid = Field(description="chosen by whoever asks, at random")
    public_key: SshKey = Field(description="by which the desktop will connect: made for this, and kept by it alone")
    at: WireName | None = Field(default=None, description="a link or LAN; without it, the first with a free address")
    name: Name | None = Field(default=None, description="what the desktop is called; without it, desktop, desktop1, …")


class Attachment(BaseModel):
    """A desktop that is attached, or is to be. A `code` says that it failed, and why; it then holds nothing any more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Uuid
    user: str
    principal: str | None = Field(description="of that user: whoever is let in no more is taken out")
    public_key: SshKey
    name: Name
    testbed: TestbedName
    substrate: WireName
    ip4: Address
    prefix_length: int
    connector: str
    tag: int
    relay: bool = Field(description="that its portal is reached by a port of our own tunnel server")
    asked: int | None = Field(
        default=None, description="the version of the piece, with it, that its lender is to promise"
    )
    made: bool = Field(
        default=False, description="that its lender promised, so that the piece is to have its connector"
    )
    created: datetime
    leaving: bool = Field(default=False, description="that it is to be taken out as soon as that is possible")
    code: str = ""
    reason: str = ""

    @property
    def is_there(self) -> bool:
        """Whether the piece is to have its connector."""
        return self.made and not self.code

    @property
    def computer(self) -> Computer:
        """What it is to a topology."""
        mask = IPv4Network(f"{self.ip4}/{self.prefix_length}", strict=False).netmask
        said = (Attribute("ip4_address", self.ip4), Attribute("ip4_netmask", str(mask)))
        end = Interface("eth0", (self.substrate,), attributes=said)
        return Computer(name=self.name, interfaces=(end,), attributes=(Attribute("testbed", self.testbed),))

    @property
    def waits(self) -> ConnectorSpec:
        """The portal that waits for it."""
        crossing = CrossingSpec(substrate=self.substrate, tag=self.tag, stands_for=[self.name], ip4=[self.ip4])
        return ConnectorSpec(
            name=self.connector,
            peer=f"desktop:{self.name}",  # no testbed
            active=False,
            relay=self.relay,
            failure="ignore",
            crossings=[crossing],
        )


class Told(BaseModel):
    """What a desktop is told of others: names, its own too, and ways."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hosts: list[Host]
    routes: list[Route]


@dataclass(frozen=True)
class Scene:
    """What a new attachment is planned on; the topology has the nodes of services too."""

    experiment: Experiment
    topology: Topology
    segments: Sequence[Segment]
    attached: Sequence[Attachment]
    view: View
    members: Sequence[KnownMember]
    relay: bool
    """Whether our own tunnel server serves where a lender has none."""
    user: str
    principal: str | None

    @property
    def reachable(self) -> frozenset[str]:
        """The members with tunnel servers."""
        return frozenset(one.fedid for one in self.members if Ability.TUNNELS in one.offer.abilities)


def attach(scene: Scene, wanted: NewAttachment, now: datetime) -> tuple[Attachment, Told]:
    """Plan an attachment; raises `NotAttachable` or `UnusableAttachment`."""
    if not is_public(wanted.public_key):
        raise UnusableAttachment("The public key is none; it is one line, as `ssh-keygen` writes it.")
    others = [one for one in scene.attached if not one.code]
    there = _with(scene.topology, others)
    name = _name(there, wanted.name)
    segment, substrate, address = _place(there, scene, wanted.at)
    connectors = [one for each in scene.segments if each.order is not None for one in spec_of(each.order).connectors]
    connectors += [one.waits for one in others]
    attachment = Attachment(
        id=wanted.id,
        user=scene.user,
        principal=scene.principal,
        public_key=wanted.public_key,
        name=name,
        testbed=segment.testbed,
        substrate=substrate,
        ip4=str(address.ip),
        prefix_length=address.network.prefixlen,
        connector=_connector(there, connectors, name),
        tag=_tag(connectors),
        relay=segment.order is not None and segment.order.member_fedid not in scene.reachable,
        created=now,
    )
    return attachment, _told(scene, attachment, _with(there, [attachment]))


def joined(spec: SegmentSpec, attached: Iterable[Attachment]) -> SegmentSpec:
    """A piece with the connectors of those that are attached to it."""
    added = [one.waits for one in attached if one.testbed == spec.testbed]
    return spec.model_copy(update={"connectors": [*spec.connectors, *added]})


def has_room(spec: SegmentSpec, attached: Iterable[Attachment], more: int = 0) -> bool:
    """Whether a piece may have the connectors of all that is attached, or is to be, and so many more."""
    names = {one.connector for one in attached if one.testbed == spec.testbed and not one.code}
    return len(names | {one.name for one in spec.connectors}) + more <= CONNECTORS_LIMIT


def without(spec: SegmentSpec, gone: Collection[Attachment]) -> SegmentSpec | None:
    """A piece without them, as its next version; None if it has nothing of them."""
    connectors = {(one.testbed, one.connector) for one in gone}
    kept = [one for one in spec.connectors if (spec.testbed, one.name) not in connectors]
    if len(kept) == len(spec.connectors):
        return None
    return spec.model_copy(update={"connectors": kept, "version": spec.version + 1})


def next_version(experiment: Experiment, spec: SegmentSpec, attached: Iterable[Attachment]) -> int:
    """A version that was never asked for: each attempt makes an event, so what lenders said of an earlier one is not taken for it."""
    return 1 + max([spec.version + experiment.events, *(one.asked or 0 for one in attached)])


def keys_of(attached: Iterable[Attachment]) -> Mapping[tuple[str, str], str]:
    """The key that enters each desktop's portal, by testbed and connector."""
    return {(one.testbed, one.connector): one.public_key for one in attached if one.is_there}


def _with(topology: Topology, attached: Iterable[Attachment]) -> Topology:
    return replace(topology, elements=(*topology.elements, *(one.computer for one in attached)))


def _told(scene: Scene, attachment: Attachment, topology: Topology) -> Told:
    """Names and ways; who is on its own network is called by the address there."""
    new = NewExperiment(name=scene.experiment.name, description="", parties=dict(scene.experiment.parties))
    parting = Parting(new, topology)
    near = {
        end.name: interface.ip4
        for end, interface in topology.ends[attachment.substrate]
        if isinstance(end, Computer) and interface.ip4
    }
    hosts = []
    for line in parting.hosts(attachment.testbed):
        names = [name for name in line.names if near.get(name) in (None, line.ip4)]
        names = [*(name for name, address in near.items() if address == line.ip4 and name not in names), *names]
        hosts += [Host(ip4=line.ip4, names=names)] if names else []
    return Told(hosts=hosts, routes=parting.routes_in([attachment.name]).get(attachment.name, []))


def _name(there: Topology, wanted: str | None) -> str:
    taken = {name for line in hosts_of(there) for name in line.names} | {one.name for one in there.computers}
    if wanted is None:
        return next(name for number in count() if (name := f"desktop{number or ''}") not in taken)
    if wanted in taken:
        raise UnusableAttachment(f"Something of this experiment is called {wanted} already; choose another name.")
    return wanted


def _connector(there: Topology, connectors: Iterable[ConnectorSpec], name: str) -> str:
    """What the portal is called: like nothing else of the experiment, so that no piece has two of one name."""
    taken = {connector.name for connector in connectors} | {one.name for one in there.computers}
    return next(found for number in count() if (found := f"{name[:40]}tunnel{number}") not in taken)


def _tag(connectors: Iterable[ConnectorSpec]) -> int:
    """From the end, which crossings of the description do not reach."""
    used = {crossing.tag for connector in connectors for crossing in connector.crossings}
    for tag in range(LAST_TAG, FIRST_TAG - 1, -1):
        if tag not in used:
            return tag
    raise NotAttachable(f"The experiment has {len(used)} crossings, and can have no more.")


def _place(there: Topology, scene: Scene, at: str | None) -> tuple[Segment, str, IPv4Interface]:
    """A piece that runs, a link or LAN of it, and a free address there."""
    allowed = [name for name in _substrates(there, scene) if at in (None, name)]
    if not allowed:
        has = ", ".join(list(_substrates(there, scene))[:10]) or "none"
        raise UnusableAttachment(f"You can attach to no link or LAN {at!r}; there is {has}.")
    why = ""
    for name in allowed:
        address = _free(there, name)
        segment, why = _segment(there, scene, name) if address is not None else (None, f"{name} has no free address")
        if segment is not None and address is not None:
            return segment, name, address
    raise NotAttachable(f"Nothing can be attached: {why}.")


def _substrates(there: Topology, scene: Scene) -> Iterator[str]:
    """The links and LANs, without those of services: a party's people have their own alone."""
    parties = sides_of(scene.experiment.parties).of_substrates(there)
    allowed = scene.view.parties
    for substrate in users_own(there).substrates:
        on = parties[substrate.name]
        if allowed is None or (on and on <= allowed):
            yield substrate.name


def _segment(there: Topology, scene: Scene, substrate: str) -> tuple[Segment | None, str]:
    """The first piece on it that runs and whose portals can be reached; else why there is none."""
    sides = sides_of(scene.experiment.parties)
    testbeds = [str(end.testbed) for end, _ in there.ends[substrate] if isinstance(end, Computer)]
    owners = {sides.of(testbed) for testbed in testbeds} - {None} or {None}  # a party's network is joined by its own
    pieces = {segment.testbed: segment for segment in scene.segments}
    why = f"no piece with {substrate} runs"
    for testbed in dict.fromkeys(testbeds):
        segment = pieces.get(testbed)
        if segment is None or segment.order is None or segment.order.state is not OrderState.FULFILLED:
            continue
        if sides.of(testbed) not in owners:
            why = f"{substrate} is a party's, and {testbed} is not"
        elif not scene.relay and segment.order.member_fedid not in scene.reachable:
            why = f"neither {segment.order.member} nor this member has a tunnel server, by which {testbed} could be reached"
        elif not has_room(spec_of(segment.order), scene.attached, 1):
            why = f"{testbed} has {CONNECTORS_LIMIT} portals, and can have no more"
        else:
            return segment, ""
    return None, why


def _free(there: Topology, substrate: str) -> IPv4Interface | None:
    """A free address, from the end: those of nodes are dealt out from the beginning."""
    used = {IPv4Address(i.ip4) for ends in there.ends.values() for _, i in ends if i.ip4}
    masks = [f"{i.ip4}/{i.netmask}" for _, i in there.ends[substrate] if i.ip4 and i.netmask]
    if not masks:
        return None
    network = IPv4Interface(masks[0]).network
    last = int(network.broadcast_address) - 1
    for number in range(last, max(last - TRIED, int(network.network_address)), -1):
        if IPv4Address(number) not in used:
            return IPv4Interface(f"{IPv4Address(number)}/{network.prefixlen}")
    return None
