"""What would come of a description: its pieces, where they would go, its picture, or what is wrong with it. Nothing is asked of anybody.

    description, mappings ─► read, place, split, plan, as creating does ─► errors, or pieces with a layout, and what may stand in the way

So whatever is said here is what creating would say. What members offer may change meanwhile; such doubts are warnings.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from federation_member.experiments.errors import NoWay
from federation_member.experiments.model import NewExperiment, Planned
from federation_member.experiments.planning import KIND, described, lends, plan
from federation_member.experiments.serving import NOBODYS, serve
from federation_member.orders.candidates import KnownMember, is_at
from fedkit.errors import FedError, InputError
from fedkit.kits.installed import kit_named
from fedkit.services.events import happenings, unserved
from fedkit.topology.errors import BadDescription, Problem
from fedkit.topology.layout import Layout, lay_out
from fedkit.topology.model import Topology
from fedkit.topology.split import Split, split

CONTROLLER = "local_seer_control"  # the service by which events happen
UNSERVED_LIMIT = 20  # events that are told of


class Doubt(StrEnum):
    """Codes of warnings: why a piece may not be had where it would go."""

    NOBODY_LENDS = "experiments.nobody_lends"
    MEMBER_AWAY = "experiments.member_away"
    NOT_LENT = "experiments.not_lent"
    NO_KIT = "experiments.kit_not_lent"
    UNSERVED = "experiments.event_unserved"


@dataclass(frozen=True)
class Shown:
    """A description that can be run: its pieces, and the name or address of the member that each would go to, if one is named."""

    split: Split
    locations: tuple[str | None, ...]
    layout: Layout


@dataclass(frozen=True)
class Preview:
    """What would come of it; `shown` is None where there are errors. `output` is what an ns2 program wrote."""

    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    output: str = ""
    shown: Shown | None = None


async def preview(new: NewExperiment, members: Sequence[KnownMember], *, relay: bool = False) -> Preview:
    """Tell what creating this would do."""
    try:
        found = await described(new, members)
    except InputError as error:
        return Preview(_problems(new, error), error.warnings if isinstance(error, BadDescription) else ())
    try:
        planned, shown = await to_thread(_show, new, found.topology, members, relay)
        unserved_events = await to_thread(_unserved, new, found.topology)
    except (InputError, NoWay) as error:
        return Preview(_problems(new, error), found.warnings, found.output)
    doubts = (*unserved_events, *_doubts(new, planned, members))
    return Preview((), (*found.warnings, *doubts), found.output, shown)


def _show(
    new: NewExperiment, topology: Topology, members: Sequence[KnownMember], relay: bool
) -> tuple[Sequence[Planned], Shown]:
    arranged = serve(topology, kit_named(new.kit), NOBODYS, new.ssh_keys, NOBODYS)
    planned, topology = plan(new, arranged, members, relay=relay), arranged.topology
    locations = tuple(piece.member for piece in planned)
    return planned, Shown(split(topology, new.portals), locations, lay_out(topology, new.portals))


def _problems(new: NewExperiment, error: FedError) -> tuple[Problem, ...]:
    if isinstance(error, BadDescription):
        return error.problems
    return (Problem(new.file, None, error.code, error.message),)


def _unserved(new: NewExperiment, topology: Topology) -> list[Problem]:
    """The events that will not happen, the first ones by their words."""
    lost = [f"Nothing here carries out the event {words!r}." for words in unserved(topology)]
    if happenings(topology) and not any(service.name == CONTROLLER for service in topology.services):
        has_one = CONTROLLER in kit_named(new.kit).services()
        hint = f"add the service {CONTROLLER} for each testbed" if has_one else f"the kit {new.kit} has none"
        lost.insert(0, f"No event happens without a controller; {hint}.")
    return [Problem(new.file, None, Doubt.UNSERVED, words) for words in lost[:UNSERVED_LIMIT]]


def _doubts(new: NewExperiment, planned: Sequence[Planned], members: Sequence[KnownMember]) -> Iterator[Problem]:
    lending = [member for member in members if member.alive and lends(member, new.kit)]
    for piece in planned:
        testbed, location = piece.spec.testbed, piece.member
        if location is None:
            if not lending:
                said = f"{testbed}: nobody who is there now lends pieces of experiments with the kit {new.kit}."
                yield Problem(new.file, None, Doubt.NOBODY_LENDS, said)
            continue
        there = [member for member in members if is_at(member, location)]
        if not any(member.alive for member in there):
            said = f"{testbed}: {location} was not heard of lately; it may not answer."
            yield Problem(new.file, None, Doubt.MEMBER_AWAY, said)
        elif not any(KIND in member.offer.kinds for member in there):
            said = f"{testbed}: {location} does not say that it lends pieces of experiments; choose another member."
            yield Problem(new.file, None, Doubt.NOT_LENT, said)
        elif not any(lends(member, new.kit) for member in there):
            said = f"{testbed}: {location} has no federation kit {new.kit}; choose another member, or another kit."
            yield Problem(new.file, None, Doubt.NO_KIT, said)
