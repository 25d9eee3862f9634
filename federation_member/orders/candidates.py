"""Who could fulfil an order, as far as we know: the directory's members, filtered by what they offer.

`Snapshot` is an immutable picture of all known members. What it is asked (who fits this?) depends on nothing else, so its
answers are cached until the next picture: ten thousand equal orders cost one evaluation.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from federation_member.orders.requirements import Requirement, parse
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import SNAPSHOT, Ability, AnySpec, ComputeSpec, Flavour, NetworkSpec, Offer, VolumeSpec
from fedkit.protocol.segments import SegmentSpec

EXAMPLES = 3  # members that a refusal names one by one
CACHE = 4096  # different questions remembered


class KnownMember(Protocol):
    """A member as the directory knows it."""

    @property
    def fedid(self) -> str:
        """Its identity."""

    @property
    def name(self) -> str:
        """What people call it, such as site-b.test."""

    @property
    def address(self) -> str:
        """The bare JID of its component."""

    @property
    def offer(self) -> Offer:
        """What it lends."""

    @property
    def alive(self) -> bool:
        """Whether it was heard of within its term."""

    @property
    def last_seen(self) -> datetime:
        """When it was last heard of."""


class Directory(Protocol):
    """All members that we know of."""

    def members(self) -> Sequence[KnownMember]:
        """Everybody, ourselves included or not; may be called from any thread."""

    def on_change(self, callback: Callable[[], None]) -> None:
        """Be told on the event loop that a member came, went, or offers something else."""

    def set_offer(self, offer: Offer) -> None:
        """Announce from now on that this is what we lend."""


@dataclass(frozen=True)
class OwnMember:
    """We ourselves, as the first candidate of every order."""

    fedid: str
    name: str
    address: str
    offer: Offer
    last_seen: datetime
    alive: bool = True


def choose_flavour(member: KnownMember, spec: ComputeSpec) -> Flavour | str:
    """Return the smallest flavour of `member` that `spec` accepts, or why there is none."""
    requirement = parse(spec.requirements, machine=True)
    flavours = [f for f in member.offer.flavours if spec.flavour in (None, f.name)]
    if not flavours:
        return f"{member.name} has no flavour {spec.flavour}" if spec.flavour else f"{member.name} has no flavour"
    refusals = []
    for flavour in sorted(flavours, key=_size(flavours)):
        refusal = requirement.refusal(_names(member, spec.image, flavour))
        if refusal is None:
            return flavour
        refusals.append(refusal)
    return f"no flavour of {member.name} meets {refusals[-1]}"


def smallest(flavours: Sequence[Flavour]) -> Flavour:
    """The one that a machine gets that asks for no other."""
    return min(flavours, key=_size(flavours))


def requirement_of(spec: AnySpec) -> Requirement:
    """What `spec` asks of a lender; nothing of its own, if it goes where what it uses is.

    Raises `UnusableRequirements` or `UnknownRequirement`.
    """
    match spec:
        case ComputeSpec():
            return parse(spec.requirements, machine=True)
        case NetworkSpec() | VolumeSpec() | SegmentSpec():
            return parse(spec.requirements, machine=False)
        case _:
            return parse("", machine=False)


def misfit(member: KnownMember, spec: AnySpec) -> str | None:
    """Return None if `member` offers what `spec` asks for, else why not."""
    if spec.kind not in member.offer.kinds:
        return f"{member.name} does not lend the kind {spec.kind}"
    if isinstance(spec, SegmentSpec) and (problem := _cannot_join(member, spec)) is not None:
        return problem
    if not isinstance(spec, ComputeSpec):
        refusal = requirement_of(spec).refusal(_names(member))
        return None if refusal is None else f"{member.name} does not meet {refusal}"
    if not _has_image(member, spec):
        return f"{member.name} {'does not fetch images' if spec.from_url else f'has no image {spec.image}'}"
    chosen = choose_flavour(member, spec)
    return chosen if isinstance(chosen, str) else None


def _cannot_join(member: KnownMember, spec: SegmentSpec) -> str | None:
    """Why `member` cannot make a piece of an experiment one with the others; None if it can."""
    if spec.kit not in member.offer.kits:
        return f"{member.name} has no federation kit {spec.kit}; it has {', '.join(member.offer.kits) or 'none'}"
    if spec.connectors and not any(image.portal for image in member.offer.images):
        return f"{member.name} has no image that portals of experiments run in"
    if spec.waits and Ability.TUNNELS not in member.offer.abilities:
        return f"{member.name} has no tunnel server, so portals of other sites cannot reach its own"
    return None


def _has_image(member: KnownMember, spec: ComputeSpec) -> bool:
    """Snapshots are not on offer: whoever names one is sent to its lender, who knows it."""
    if spec.from_url:
        return Ability.IMAGE_URLS in member.offer.abilities
    return spec.image.startswith(SNAPSHOT) or spec.image in _images(member)


def is_at(member: KnownMember, location: str | None) -> bool:
    """Tell whether `location` (name, address or fedid; None is anywhere) means this member."""
    return location in (None, member.name, member.address, member.fedid)


def peer(member: KnownMember) -> Peer:
    """The member as one to talk to."""
    return Peer(member.fedid, member.address)


@dataclass
class Snapshot:
    """All known members at one moment, ourselves first."""

    members: tuple[KnownMember, ...]
    _cache: dict[Any, Any] = field(default_factory=dict)

    def fitting(self, spec: AnySpec, location: str | None) -> list[KnownMember]:
        """Members that offer what is asked for, alive or not."""
        found: list[KnownMember] = self._cached(
            ("fitting", _question(spec, location)),
            lambda: [m for m in self.members if is_at(m, location) and misfit(m, spec) is None],
        )
        return found

    def why_none(self, spec: AnySpec, location: str | None) -> str:
        """Say which part of the request nobody meets; for a request that `fitting` finds nobody for."""
        sentence: str = self._cached(("why", _question(spec, location)), lambda: self._why_none(spec, location))
        return sentence

    def _cached(self, key: tuple[object, ...], compute: Callable[[], Any]) -> Any:
        if len(self._cache) >= CACHE:
            self._cache.clear()
        if key not in self._cache:
            self._cache[key] = answer = compute()
            return answer
        return self._cache[key]

    def _why_none(self, spec: AnySpec, location: str | None) -> str:
        members = [m for m in self.members if is_at(m, location)]
        if not members:
            return f"no member {location} is known; {_nearest(str(location), [m.name for m in self.members], 'known')}"
        who = f"{location}" if location else "any known member"
        if not any(spec.kind in m.offer.kinds for m in members):
            return f"the kind {spec.kind} is not lent by {who}"
        if isinstance(spec, ComputeSpec):
            if not any(_has_image(m, spec) for m in members):
                return _no_image(spec, members, who)
            flavours = sorted({f.name for m in members for f in m.offer.flavours})
            if spec.flavour and spec.flavour not in flavours:
                return (
                    f"the flavour {spec.flavour} is not offered by {who}; {_nearest(spec.flavour, flavours, 'offered')}"
                )
        unmet = self._unmet_clauses(members, spec)
        if unmet:
            return f"nothing at {who} meets: {' and '.join(unmet)}"
        reasons = [str(misfit(m, spec)) for m in members]
        return f"nobody meets all of it: {'; '.join(reasons[:EXAMPLES])}{'; …' if len(reasons) > EXAMPLES else ''}"

    @staticmethod
    def _unmet_clauses(members: list[KnownMember], spec: AnySpec) -> list[str]:
        requirement = requirement_of(spec)
        worlds: list[dict[str, Any]]
        if isinstance(spec, ComputeSpec):
            worlds = [_names(m, spec.image, flavour) for m in members for flavour in m.offer.flavours]
        else:
            worlds = [_names(m) for m in members]
        return [c.source for c in requirement.clauses if all(c.refusal(world) is not None for world in worlds)]


def _question(spec: AnySpec, location: str | None) -> tuple[object, ...]:
    """What of a request the answer depends on."""
    match spec:
        case ComputeSpec():
            return (spec.kind, location, spec.requirements, spec.image, spec.flavour)
        case SegmentSpec():
            return (spec.kind, location, spec.requirements, bool(spec.connectors), spec.waits, spec.kit)
        case NetworkSpec() | VolumeSpec():
            return (spec.kind, location, spec.requirements)
        case _:
            return (spec.kind, location)


def _no_image(spec: ComputeSpec, members: Sequence[KnownMember], who: str) -> str:
    if spec.from_url:
        return f"images are not fetched by {who}"
    images = sorted({image for member in members for image in _images(member)})
    return f"the image {spec.image} is not offered by {who}; {_nearest(spec.image, images, 'offered')}"


def _names(member: KnownMember, image: str = "", flavour: Flavour | None = None) -> dict[str, Any]:
    names: dict[str, Any] = {
        "member": member.name,
        "fedid": member.fedid,
        "address": member.address,
        "attributes": dict(member.offer.attributes),
    }
    if flavour is not None:
        names |= {"vcpu": flavour.vcpu, "ram_mb": flavour.ram_mb, "disk_gb": flavour.disk_gb}
        names |= {"flavour": flavour.name, "image": image}
    return names


def _images(member: KnownMember) -> set[str]:
    return {image.name for image in member.offer.images}


def _size(flavours: Sequence[Flavour]) -> Callable[[Flavour], tuple[float, int, str]]:
    most_vcpu = max(f.vcpu for f in flavours)
    most_ram = max(f.ram_mb for f in flavours)
    return lambda f: (f.vcpu / most_vcpu + f.ram_mb / most_ram, f.disk_gb, f.name)


def _nearest(wanted: str, there: Sequence[str], verb: str) -> str:
    near = difflib.get_close_matches(wanted, there, 1)
    if near:
        return f"did you mean {near[0]}?"
    return f"{verb}: {', '.join(sorted(there)[:10]) or 'none'}"
