"""What is asked of lenders: laws of connectors, tags and hosts over any topology."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.experiments import planning
from federation_member.experiments.errors import NoWay, TooLarge, UnusableMapping
from federation_member.experiments.model import NewExperiment, Party
from federation_member.experiments.parting import hosts_of
from federation_member.experiments.planning import NOTHING, Kept, kept_of, partners, plan
from federation_member.experiments.preview import Doubt, preview
from federation_member.orders.candidates import OwnMember
from fedkit.protocol.lending import Ability, Offer
from fedkit.protocol.segments import SegmentSpec
from fedkit.services.arrange import Arranged
from fedkit.topology import topdl
from fedkit.topology.model import Topology
from tests.support.segments import wired
from tests.unit.topology.test_sub_experiment import SEED

NODES = [f"n{number}" for number in range(6)]
wires = st.lists(st.sets(st.sampled_from(NODES), min_size=2, max_size=4).map(sorted), min_size=1, max_size=5)
testbeds = st.lists(st.sampled_from(["a", "b/x", "b/y", "c"]), min_size=len(NODES), max_size=len(NODES))


LINK = wired(("a", "b"), a={"testbed": "x"}, b={"testbed": "y"})


def planned(
    topology: Topology,
    portals: int = 1,
    *,
    members: Mapping[str, str] | None = None,
    at: Sequence[OwnMember] = (),
    kept: Kept = NOTHING,
    relay: bool = False,
) -> list[SegmentSpec]:
    """The specs of all pieces."""
    new = NewExperiment(name="mine", description="", portals=portals, members=dict(members or {}))
    return [piece.spec for piece in plan(new, Arranged(topology), at, kept, relay=relay)]


def site(name: str, *, reached: bool) -> OwnMember:
    """A member whose machines have tunnels, or not."""
    offer = Offer(abilities=[Ability.TUNNELS] if reached else [])
    return OwnMember(name * 40, f"site-{name}.test", f"fm.site-{name}.test", offer, datetime(2026, 1, 1, tzinfo=UTC))


def topology_of(on: list[list[str]], at: list[str]) -> Topology:
    """Computers at testbeds."""
    places = dict(zip(NODES, at, strict=True))
    used = {name for members in on for name in members}
    return wired(*map(tuple, on), **{name: {"testbed": places[name]} for name in used})


@given(wires, testbeds, st.integers(1, 3))
def test_both_ends_of_every_crossing_have_a_tag_that_no_other_has(
    on: list[list[str]], at: list[str], portals: int
) -> None:
    specs = planned(topology_of(on, at), portals)
    ends = [
        (crossing.tag, crossing.substrate, frozenset((spec.testbed, connector.peer)), connector.active)
        for spec in specs
        for connector in spec.connectors
        for crossing in connector.crossings
    ]
    assert set(Counter((tag, substrate, way) for tag, substrate, way, _active in ends).values()) <= {2}
    assert len({tag for tag, *_ in ends}) == len(ends) / 2
    assert Counter(active for *_, active in ends)[True] == len(ends) / 2


@given(wires, testbeds, st.integers(1, 3))
def test_every_connector_has_one_partner_with_the_same_crossings(
    on: list[list[str]], at: list[str], portals: int
) -> None:
    specs = planned(topology_of(on, at), portals)
    connectors = {(spec.testbed, one.name): (spec.testbed, one) for spec in specs for one in spec.connectors}
    found = partners(specs)
    assert found.keys() == connectors.keys()
    for end, other in found.items():
        (testbed, mine), (far, theirs) = connectors[end], connectors[other]
        assert (mine.peer, theirs.peer) == (far, testbed)
        assert [c.tag for c in mine.crossings] == [c.tag for c in theirs.crossings]
        assert mine.active is not theirs.active


def test_a_name_is_that_of_the_first_address_and_every_address_has_one_of_its_own() -> None:
    hosts = hosts_of(wired(("a", "b"), ("a", "c")))
    assert [(host.ip4, host.names) for host in hosts] == [
        ("10.1.1.2", ["a", "a-wire1"]),
        ("10.1.2.2", ["a-wire2"]),
        ("10.1.1.3", ["b", "b-wire1"]),
        ("10.1.2.3", ["c", "c-wire2"]),
    ]


@pytest.mark.parametrize(
    ("reached", "where", "waits"),
    [
        ("xy", {}, "x"),
        ("xy", {"x": "site-x.test", "y": "site-y.test"}, "x"),
        ("y", {"x": "site-x.test", "y": "site-y.test"}, "y"),
        ("x", {"x": "site-x.test", "y": "site-y.test"}, "x"),
        ("y", {"x": "fm.site-x.test"}, "y"),
        ("", {"x": "site-x.test"}, "y"),
        ("", {"y": "site-y.test"}, "x"),
        ("y", {"x": "site-y.test", "y": "site-y.test"}, "x"),
    ],
)
def test_the_end_waits_that_can_be_reached(reached: str, where: dict[str, str], waits: str) -> None:
    specs = planned(LINK, members=where, at=[site(name, reached=name in reached) for name in "xy"])
    assert {spec.testbed: spec.waits for spec in specs} == {"x": waits == "x", "y": waits == "y"}


def test_two_that_nobody_reaches_are_refused() -> None:
    where = {"x": "site-x.test", "y": "site-y.test"}
    with pytest.raises(NoWay, match=r"x at site-x\.test and y at site-y\.test"):
        planned(LINK, members=where, at=[site("x", reached=False), site("y", reached=False)])


@pytest.mark.parametrize(
    ("reached", "where", "waits", "relayed"),
    [
        ("", "xy", "x", True),
        ("y", "xy", "y", False),
        ("xy", "xy", "x", False),
        ("", "x", "y", True),  # goes wherever somebody lends it
        ("", "", "x", True),
        ("xy", "y", "x", True),
    ],
)
def test_with_a_relay_whoever_may_need_it_is_offered_it(reached: str, where: str, waits: str, relayed: bool) -> None:
    members, at = {name: f"site-{name}.test" for name in where}, [site(name, reached=name in reached) for name in "xy"]
    (passive,) = [spec for spec in planned(LINK, members=members, at=at, relay=True) if not spec.connectors[0].active]
    assert (passive.testbed, passive.connectors[0].relay, passive.waits) == (waits, relayed, not relayed)


@given(st.sets(st.sampled_from("xy")), st.booleans(), st.sets(st.sampled_from("xy")))
def test_who_waits_goes_on_whatever_members_have_by_then(reached: set[str], relay: bool, later: set[str]) -> None:
    """But where nobody could be reached any more the other end takes over, or there is no way."""
    anywhere = planned(LINK, at=[site(name, reached=name in reached) for name in "xy"], relay=relay)
    where, at = {name: f"site-{name}.test" for name in "xy"}, [site(name, reached=name in later) for name in "xy"]
    if not relay and not later:
        with pytest.raises(NoWay):
            planned(LINK, members=where, at=at, kept=kept_of(anywhere))
        return
    again = planned(LINK, members=where, at=at, kept=kept_of(anywhere), relay=relay)
    if relay or "x" in later:
        assert [spec.connectors for spec in again] == [spec.connectors for spec in anywhere]
    else:
        assert [spec.waits for spec in again] == [False, True]


def test_a_mapping_of_a_testbed_that_is_not_there_is_refused() -> None:
    new = NewExperiment(name="mine", description="", members={"z": "site-z.test"})
    with pytest.raises(UnusableMapping, match="no testbed z"):
        plan(new, Arranged(wired(("a", "b"), a={"testbed": "x"}, b={"testbed": "y"})), [])


async def test_a_preview_tells_of_relays_what_creating_would() -> None:
    members, at = {"x": "site-x.test", "y": "site-y.test"}, [site(name, reached=False) for name in "xy"]
    new = NewExperiment(name="e", description=topdl.write(LINK).decode(), members=members)
    assert [problem.code for problem in (await preview(new, at)).errors] == [NoWay.code]
    assert (await preview(new, at, relay=True)).shown is not None


async def test_a_preview_tells_of_services_what_creating_would() -> None:
    topology = wired(("a", "b"), a={"testbed": "x"}, b={"testbed": "y"})
    description = topdl.write(topology).decode()

    def asked(*services: str) -> NewExperiment:
        return NewExperiment(name="e", description=description, services=list(services))

    wrong = await preview(asked("teleport:x"), [])
    assert [problem.code for problem in wrong.errors] == ["services.unknown"]
    right = await preview(asked("local_seer_control:x"), [])
    assert right.shown is not None
    assert [one.name for one in right.shown.split.pieces[0].topology.computers] == ["a", "control"]


async def test_a_preview_warns_of_a_member_that_has_other_kits() -> None:
    at = [replace(site(name, reached=True), offer=Offer(kinds=["segment"], kits=["strings"])) for name in "xy"]
    members = {"x": "site-x.test"}
    found = await preview(NewExperiment(name="e", description=topdl.write(LINK).decode(), members=members), at)
    assert [problem.code for problem in found.warnings] == [Doubt.NO_KIT, Doubt.NOBODY_LENDS]


async def test_a_preview_warns_of_events_that_will_not_happen() -> None:
    text = SEED.replace(
        "$ns run", '$ns at 1.0 "$link0 down"\nset cbr [new Application/Traffic/CBR]\n$ns at 2.0 "$cbr start"\n$ns run'
    )

    async def warned(*services: str) -> list[str]:
        found = await preview(NewExperiment(name="e", description=text, services=list(services)), [])
        assert found.shown is not None
        return [problem.message for problem in found.warnings if problem.code == Doubt.UNSERVED]

    assert await warned("local_seer_control:deter,ucb") == ["Nothing here carries out the event '2 cbr start'."]
    assert len(await warned()) == 2


def test_more_crossings_than_there_are_tags_are_refused_before_anything_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"n{number}" for number in range(70)]
    lans = wired(*[tuple(names)] * 60, **{name: {"testbed": f"t{name}"} for name in names})
    monkeypatch.setattr(planning, "split", pytest.fail)
    with pytest.raises(TooLarge, match="at most 4094 crossings; this one has 4140"):
        planned(lans)


def test_crossings_for_which_those_of_desktops_leave_no_tag_are_refused() -> None:
    desktops = {(f"lan{tag}", frozenset(("x", f"desktop:{tag}"))): tag for tag in range(1, 4095)}
    with pytest.raises(TooLarge, match="at most 4094 crossings"):
        planned(LINK, kept=Kept(desktops, {}))


@pytest.mark.parametrize(
    ("routing", "parties", "told"),
    [
        ("Session", {}, "Session"),
        ("Session", {"red": Party(testbeds=["x"])}, "Static"),
        ("ospf", {"red": Party(testbeds=["x"])}, "Static"),
        ("Manual", {"red": Party(testbeds=["x"])}, "Manual"),
        (None, {"red": Party(testbeds=["x"])}, None),
    ],
)
def test_daemons_that_would_tell_parties_of_one_another_are_not_asked_for(
    routing: str | None, parties: dict[str, Party], told: str | None
) -> None:
    new = NewExperiment(name="mine", description="", parties=parties)
    done = plan(new, Arranged(replace(LINK, routing=routing)), [])
    assert {piece.spec.routing for piece in done} == {told}
