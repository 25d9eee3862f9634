"""Adds to an experiment that runs: what the larger description comes to, beside what there is. Pure, but for reading it.

    the larger description ──► contains what there is, unchanged ──► pieces that change, and new ones
                          └─ something would be another ──► `NotContained`, which names each

What there is keeps testbeds, addresses, links, and the tags of its crossings.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from federation_member.experiments.attaching import Attachment, has_room, joined, next_version
from federation_member.experiments.errors import NotContained, TooLarge
from federation_member.experiments.model import (
    FILES_LIMIT,
    TEXT_LIMIT,
    Experiment,
    Extension,
    FileName,
    NewExperiment,
    Planned,
    Segment,
    Whole,
)
from federation_member.experiments.planning import described, kept_of, serve_and_plan
from federation_member.orders.candidates import KnownMember
from fedkit.protocol.segments import CONNECTORS_LIMIT, SegmentSpec, TestbedName
from fedkit.topology import topdl
from fedkit.topology.formats import Form
from fedkit.topology.model import Computer, Service, Substrate, Topology
from fedkit.topology.services import parse_service, write_service

NAMED = 10  # differences that a refusal names


class LargerDescription(BaseModel):
    """What an experiment is to be from now on: all that it is, and more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field(max_length=TEXT_LIMIT, description="of the whole, as for a new experiment")
    file: FileName = "experiment"
    form: Form | None = None
    files: dict[FileName, Annotated[str, StringConstraints(max_length=TEXT_LIMIT)]] = Field(
        default_factory=dict, max_length=FILES_LIMIT
    )
    members: dict[TestbedName, Annotated[str, StringConstraints(min_length=1, max_length=253)]] = Field(
        default_factory=dict, max_length=256, description="of new testbeds"
    )
    places: dict[TestbedName, int | None] = Field(
        default_factory=dict, max_length=256, description="where new computers that name no testbed may go"
    )


@dataclass(frozen=True)
class Growth:
    """What is asked for: `extension` says how the pieces change that there are, `added` are those of new testbeds."""

    extension: Extension
    added: Sequence[Planned]


async def grow(
    whole: Whole,
    larger: LargerDescription,
    members: Sequence[KnownMember],
    now: datetime,
    secret: str,
    *,
    relay: bool = False,
    attached: Sequence[Attachment] = (),
) -> Growth:
    """Compare what is asked for with what there is, desktops included; raises `NotContained`, and what `described` and `plan` do."""
    experiment = whole.experiment
    specs = {one.number: _spec(one) for one in whole.segments}
    old = topdl.read(experiment.description.encode())
    placed = {computer.name: str(computer.testbed) for computer in old.computers}
    new = _asked(experiment, whole.segments, larger)
    topology = (await described(new, members, placed)).topology
    topology = replace(topology, services=_services(experiment, topology))
    _refuse([*_moved(old, topology), *_in_the_way(attached, topology)])
    owner, kept = experiment.owner.name, kept_of(specs.values())
    planned = await to_thread(serve_and_plan, new, topology, members, owner, secret, kept, relay=relay)
    pieces = {piece.spec.testbed: piece for piece in planned}
    there = {
        number: joined(_kept(spec, pieces.pop(spec.testbed).spec), [one for one in attached if one.is_there])
        for number, spec in specs.items()
    }
    if full := next((spec for spec in there.values() if not has_room(spec, attached)), None):
        raise TooLarge(f"{full.testbed} would have more than {CONNECTORS_LIMIT} portals, those of desktops included.")
    _refuse([line for number, spec in there.items() for line in _changes(specs[number], spec)])
    changed = {number: spec for number, spec in there.items() if spec != specs[number]}
    first = next(iter(specs.values()))
    extension = Extension(
        description=topdl.write(topology).decode(),
        routing=topology.routing,
        services=tuple(map(write_service, topology.services)),
        specs={
            n: spec.model_copy(update={"version": next_version(experiment, specs[n], attached)})
            for n, spec in changed.items()
        },
        before={number: specs[number] for number in changed},
        added=(),
        since=now,
    )
    added = [replace(piece, spec=piece.spec.model_copy(update={"seal_to": first.seal_to})) for piece in pieces.values()]
    return Growth(extension, added)


def _spec(segment: Segment) -> SegmentSpec:
    assert segment.order is not None
    assert isinstance(segment.order.spec, SegmentSpec)
    return segment.order.spec


def _asked(experiment: Experiment, segments: Sequence[Segment], larger: LargerDescription) -> NewExperiment:
    """The larger description as it would be asked for anew, with what there is at the members where it is."""
    here = {one.testbed: one.order.member for one in segments if one.order is not None and one.order.member}
    keys = [_spec(one).ssh_keys for one in segments]
    return NewExperiment(
        name=experiment.name,
        description=larger.description,
        file=larger.file,
        form=larger.form,
        files=larger.files,
        members=larger.members | here,
        places=larger.places,
        portals=experiment.portals,
        kit=experiment.kit,
        ssh_keys=[key for key in keys[0] if all(key in others for others in keys)],  # the owner's; parties have more
        parties=dict(experiment.parties),
    )


def _services(experiment: Experiment, topology: Topology) -> tuple[Service, ...]:
    """Those of the description, and those that the experiment has besides."""
    named = {service.name for service in topology.services}
    kept = [service for service in map(parse_service, experiment.services) if service.name not in named]
    return (*topology.services, *kept)


def _kept(old: SegmentSpec, new: SegmentSpec) -> SegmentSpec:
    """A piece as it is to be, with what does not follow from the description as it is."""
    same = {name: getattr(old, name) for name in ("name", "version", "ssh_keys", "seal_to", "requirements")}
    return new.model_copy(update=same)


def _in_the_way(attached: Sequence[Attachment], new: Topology) -> Iterator[str]:
    """Desktops whose names or addresses new computers would have."""
    names = {computer.name for computer in new.computers}
    addresses = {interface.ip4 for computer in new.computers for interface in computer.interfaces}
    for one in attached:
        if not one.code and (one.name in names or one.ip4 in addresses):
            yield f"{one.name} ({one.ip4}) is a desktop that is attached"


def _moved(old: Topology, new: Topology) -> list[str]:
    """Computers that would be gone or elsewhere."""
    testbeds = {computer.name: computer.testbed for computer in new.computers}
    return [
        f"{one.name} would go from {one.testbed} to {testbeds[one.name]}"
        if one.name in testbeds
        else f"{one.name} is missing"
        for one in old.computers
        if testbeds.get(one.name) != one.testbed
    ]


def _changes(old: SegmentSpec, new: SegmentSpec) -> Iterator[str]:
    """What of a piece would not be as it is."""
    before, after = (topdl.read(spec.description.encode()) for spec in (old, new))
    computers = {computer.name: computer for computer in after.computers}
    for computer in before.computers:
        yield from _computer_changes(computer, computers.get(computer.name))
    substrates = {substrate.name: substrate for substrate in after.substrates}
    for substrate in before.substrates:
        yield from _substrate_changes(substrate, substrates.get(substrate.name))


def _computer_changes(old: Computer, new: Computer | None) -> Iterator[str]:
    if new is None:
        yield f"{old.name} is missing"
        return
    before, after = _addresses(old), _addresses(new)
    for substrate in dict.fromkeys((*before, *after)):
        if before.get(substrate) != after.get(substrate):
            was, will = before.get(substrate, "not on it"), after.get(substrate, "not on it")
            yield f"{old.name} on {substrate}: is {was}, would be {will}"
    for name in ("osid", "hardware", "startup", "failure_action"):
        if getattr(old, name) != getattr(new, name):
            yield f"{old.name}: its {name.replace('_', ' ')} would change"


def _addresses(computer: Computer) -> Mapping[str, str]:
    return {name: f"{one.ip4}/{one.netmask}" for one in computer.interfaces for name in one.substrates}


def _substrate_changes(old: Substrate, new: Substrate | None) -> Iterator[str]:
    if new is None:
        yield f"{old.name} is missing"
    elif (old.capacity, old.latency) != (new.capacity, new.latency):
        yield f"{old.name} would be faster or slower"


def _refuse(differences: Iterable[str]) -> None:
    found = list(differences)
    if found:
        more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise NotContained(
            f"What runs would be another: {'; '.join(found[:NAMED])}{more}. Write the addresses that it has into the description "
            "(`fed experiment topology` shows them).",
            changed=found[:100],
        )
