"""Who fits an order, and what is said when nobody does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from federation_member.orders.candidates import OwnMember, Snapshot, choose_flavour, misfit
from federation_member.orders.picker import RoundRobinPicker
from fedkit.protocol.lending import (
    AnySpec,
    AttachmentSpec,
    ComputeSpec,
    Flavour,
    Image,
    NetworkSpec,
    Offer,
    PublicIpSpec,
    VolumeSpec,
)
from fedkit.protocol.segments import SegmentSpec
from tests.unit.orders.examples import an_order

MACHINE = "00000000-0000-4000-8000-000000000001"
SIZES = [("s", 1, 512, 1), ("m", 2, 2048, 10), ("wide", 4, 1024, 10), ("l", 4, 8192, 20)]


def member(name: str, *, sizes: list[tuple[str, int, int, int]] = SIZES, image: str = "debian") -> OwnMember:
    """A member that lends machines."""
    offer = Offer(
        kinds=["compute", "network"],
        flavours=[Flavour(name=n, vcpu=c, ram_mb=r, disk_gb=d) for n, c, r, d in sizes],
        images=[Image(name=image)],
        attributes={"arch": "x86_64"} if name == "a.test" else {},
    )
    return OwnMember(name[0] * 40, name, f"fm.{name}", offer, datetime(2026, 1, 1, tzinfo=UTC))


A, B = member("a.test"), member("b.test", sizes=SIZES[:2], image="fedora")
WORLD = Snapshot((A, B))


@pytest.mark.parametrize(
    ("requirements", "chosen"),
    [
        ("", "s"),
        ("vcpu >= 2", "m"),
        ("vcpu >= 4", "wide"),
        ("vcpu >= 4 && ram_mb > 1024", "l"),
        ('flavour == "l"', "l"),
    ],
)
def test_the_smallest_flavour_that_fits_is_chosen(requirements: str, chosen: str) -> None:
    flavour = choose_flavour(A, ComputeSpec(image="debian", requirements=requirements))
    assert isinstance(flavour, Flavour)
    assert flavour.name == chosen


@pytest.mark.parametrize(
    ("spec", "location", "sentence"),
    [
        (ComputeSpec(image="debain"), None, "the image debain is not offered by any known member; did you mean debian?"),
        (ComputeSpec(image="x"), "b.test", "the image x is not offered by b.test; offered: fedora"),
        (ComputeSpec(image="debian", flavour="huge"), None, "the flavour huge is not offered by any known member; offered: l, m, s, wide"),
        (ComputeSpec(image="debian", requirements="vcpu > 1 && ram_mb > 99999"), None, "nothing at any known member meets: ram_mb > 99999"),
        (ComputeSpec(image="debian", requirements="attributes.gpu"), None, "nothing at any known member meets: attributes.gpu"),
        (ComputeSpec(image="debian"), "c.test", "no member c.test is known; did you mean b.test?"),
        (NetworkSpec(cidr="10.0.0.0/24", requirements='member == "c"'), None, 'nothing at any known member meets: member == "c"'),
    ],
)  # fmt: skip
def test_the_part_that_nobody_meets_is_named(
    spec: ComputeSpec | NetworkSpec, location: str | None, sentence: str
) -> None:
    assert WORLD.fitting(spec, location) == []
    assert WORLD.why_none(spec, location) == sentence


def test_parts_that_only_fail_together_are_told_by_member() -> None:
    spec = ComputeSpec(image="fedora", requirements="vcpu == 4")
    assert WORLD.why_none(spec, None) == (
        "nobody meets all of it: a.test has no image fedora; no flavour of b.test meets vcpu == 4"
    )


COPY = "snapshot:" + MACHINE
URL = "https://images.test/disk.qcow2"


@pytest.mark.parametrize(
    ("spec", "able", "sentence"),
    [
        (VolumeSpec(size_gb=1, requirements='member == "c"'), None, 'nothing at any known member meets: member == "c"'),
        (VolumeSpec(size_gb=1, requirements='member == "b.test"'), "b.test", ""),
        (PublicIpSpec(machine=MACHINE), None, "the kind public_ip is not lent by any known member"),
        (AttachmentSpec(machine=MACHINE, volume=MACHINE), "a.test", ""),
        (ComputeSpec(image=URL, image_sha256="0" * 64), "b.test", ""),
        (ComputeSpec(image=COPY), "a.test", ""),
        (ComputeSpec(image=COPY, flavour="x"), None, "the flavour x is not offered by any known member; offered: l, m, s, wide"),
    ],
)  # fmt: skip
def test_every_kind_goes_to_whom_it_can(spec: AnySpec, able: str | None, sentence: str) -> None:
    kinds = ["compute", "volume", "attachment"]
    one = replace(A, offer=A.offer.model_copy(update={"kinds": kinds}))
    other = replace(B, offer=B.offer.model_copy(update={"kinds": kinds, "abilities": ["image_urls", "levitation"]}))
    world = Snapshot((one, other))
    fitting = [found.name for found in world.fitting(spec, None)]
    assert able in fitting if able else fitting == []
    assert able or world.why_none(spec, None) == sentence
    if isinstance(spec, ComputeSpec) and spec.from_url:
        assert fitting == ["b.test"]
        assert world.why_none(spec, "a.test") == "images are not fetched by a.test"


def test_an_attribute_that_a_member_lacks_does_not_match() -> None:
    assert WORLD.fitting(NetworkSpec(cidr="10.0.0.0/24", requirements='attributes.arch == "x86_64"'), None) == [A]


def test_round_robin_gives_everybody_a_turn() -> None:
    picker = RoundRobinPicker()
    members = [member(f"{letter}.test") for letter in "abc"]
    firsts = [picker.rank(an_order(), members)[0].name for _ in range(6)]
    assert firsts == ["a.test", "b.test", "c.test"] * 2
    assert {m.name for m in picker.rank(an_order(), members)} == {"a.test", "b.test", "c.test"}


def test_a_piece_goes_where_its_kit_is() -> None:
    spec = SegmentSpec(testbed="here", description="", kit="strings")
    has, lacks = (
        replace(A, name=name, offer=Offer(kinds=["segment"], kits=kits))
        for name, kits in (("a.test", ["federation", "strings"]), ("b.test", ["federation"]))
    )
    assert misfit(has, spec) is None
    said = "b.test has no federation kit strings; it has federation"
    assert misfit(lacks, spec) == said
    world = Snapshot((lacks, has))
    assert world.fitting(spec, None) == [has]
    assert world.fitting(spec.model_copy(update={"kit": "federation"}), None) == [lacks, has]
    assert world.why_none(spec, "b.test") == f"nobody meets all of it: {said}"
