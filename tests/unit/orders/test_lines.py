"""Which portal sees to which delays and losses, and what is left to nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation_member.orders.segments.growing import grown
from federation_member.orders.segments.lines import NO_LINES, Lines, is_able, lines, node_shapes, portal_lines
from federation_member.orders.segments.plan import node_part, plan, portal_part
from federation_member.orders.segments.state import SegmentState, gone
from federation_member.orders.segments.wiring import read
from fedkit.kits.contract import Kit
from fedkit.kits.installed import kit_named
from fedkit.protocol.lending import ComputeSpec, Flavour, Image, Offer
from fedkit.protocol.segments import Connection, SegmentGo, SegmentSpec
from fedkit.topology import topdl
from fedkit.topology.model import Capacity, Interface, Latency
from fedkit.topology.shaping import Shape, Way
from tests.support.segments import KEY, connector, piece

FLAVOUR = Flavour(name="small", vcpu=1, ram_mb=128, disk_gb=0)
OURS = Image(name="ours", portal=True, delays=True)
OFFER = Offer(kinds=["segment"], flavours=[FLAVOUR], images=[OURS])
LATE = Shape(Way(delay=10.0, loss=0.1), Way(delay=10.0, loss=0.1))
PLAIN = OFFER.model_copy(update={"images": [Image(name="plain", portal=True)]})
RATE = Shape(Way(1000.0), Way(1000.0))


def begun(spec: SegmentSpec, offer: Offer = OFFER) -> SegmentState:
    """As a lender with this offer has it."""
    return SegmentState.begin(spec, delays=is_able(spec, offer))


def seen_to(spec: SegmentSpec, offer: Offer = OFFER) -> Lines:
    """By portals there."""
    return lines(spec, begun(spec, offer))


def slow(spec: SegmentSpec, latency: float = 10.0, loss: str = "0.1", **said: str) -> SegmentSpec:
    """All its interfaces late and lossy."""
    topology = topdl.read(spec.description.encode(), "segment")

    def changed(interface: Interface) -> Interface:
        return replace(interface, latency=Latency(latency), capacity=Capacity(1000.0)).with_attributes(
            {"loss": loss, **said}
        )

    elements = tuple(
        replace(computer, interfaces=tuple(map(changed, computer.interfaces))) for computer in topology.computers
    )
    return spec.model_copy(update={"description": topdl.write(replace(topology, elements=elements)).decode()})


def link(**changes: object) -> SegmentSpec:
    """Its own end of a link that crosses, and a link that does not."""
    return slow(piece(("n1",), ("n1", "n2"), connectors=[connector("wire1", active=False)], **changes))


def test_the_portal_of_a_link_sees_to_its_delay_and_loss() -> None:
    spec = link()
    assert seen_to(spec) == {"wire1": LATE}
    assert portal_lines(spec.connectors[0], seen_to(spec)) == {10: LATE}
    assert node_shapes(read(spec.description), "n1", seen_to(spec)) == {
        "10.1.1.2": RATE,
        "10.1.2.2": Shape(replace(LATE.to, rate=1000.0), replace(LATE.back, rate=1000.0)),
    }


@pytest.mark.parametrize(
    "spec",
    [
        slow(piece(("n1", "n2"), connectors=[connector("wire1", active=False)])),
        slow(piece(("n1",), connectors=[connector("wire1", active=a, name=f"t{int(a)}") for a in (True, False)])),
        slow(piece(("n1",), ("n1", "n2"), connectors=[])),
        slow(piece(("n1",), connectors=[connector("wire1", active=False)]), 0.0, "0"),
        slow(piece(("n1",), connectors=[connector("wire1", active=False)]), 20_000.0),
        slow(piece(("n1",), connectors=[connector("wire1", active=False)]), to_loss="1.5"),
    ],
    ids=["two nodes", "two portals", "no portal", "nothing asked", "too late", "more than all lost"],
)
def test_what_stays_with_the_nodes(spec: SegmentSpec) -> None:
    assert seen_to(spec) == NO_LINES


@pytest.mark.parametrize("images", [[], [Image(name="plain", portal=True), OURS], [Image(name="none", delays=True)]])
def test_where_the_portals_image_cannot_do_it_nodes_do(images: list[Image]) -> None:
    assert seen_to(link(), OFFER.model_copy(update={"images": images})) == NO_LINES


def test_where_the_kit_does_not_do_it_nodes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(kit_named("federation")), "delays", Kit.delays)
    assert seen_to(link()) == NO_LINES


def test_nobody_is_told_which_images_do_it() -> None:
    """Members of older versions would not understand."""
    assert "delays" not in OFFER.model_dump_json()


def test_a_desktop_is_at_the_near_end() -> None:
    spec = link()
    desktop = connector("wire1", active=False, name="desktop").model_copy(update={"failure": "ignore"})
    joined = spec.model_copy(update={"connectors": [*spec.connectors, desktop], "version": 2})
    assert seen_to(joined) == seen_to(spec)
    assert portal_lines(desktop, seen_to(joined)) == {}
    changed, state = grown(spec, begun(spec), SegmentGo(spec=joined), OFFER)
    assert changed is joined
    assert "fartunnel0" not in state.turns


def test_machines_are_told_so() -> None:
    spec = link()
    state = gone(spec, begun(spec), SegmentGo(connections=[Connection(connector="fartunnel0", peer_key=KEY)]))
    made = {child.part: child.make(OFFER) for child in plan(spec, state)}
    portal, node = made[portal_part("fartunnel0")], made[node_part("n1")]
    assert isinstance(portal, ComputeSpec)
    assert isinstance(node, ComputeSpec)
    for said in ("10 delay_ms = 10.0", "10 loss = 0.1", "10 delay_back_ms = 10.0", "10 loss_back = 0.1"):
        assert said in portal.user_data
    assert "10.1.1.2||tbf rate 1000kbit" in node.user_data
    assert "10.1.2.2|yes|netem" in node.user_data


def test_a_growth_that_would_have_a_node_delay_what_its_portal_does_is_refused() -> None:
    spec = link()
    state = begun(spec)
    more = slow(piece(("n1", "n3"), ("n1", "n2"), connectors=spec.connectors, version=2))
    same, refused = grown(spec, state, SegmentGo(spec=more), OFFER)
    assert same is spec
    assert refused.refused is not None
    assert "n1 runs" in refused.refused.reason
    assert grown(spec, begun(spec, PLAIN), SegmentGo(spec=more), OFFER)[0] is more  # its nodes were made for that


def test_a_portal_that_delays_otherwise_is_another_one() -> None:
    carried = [connector("wire1", active=False)]
    spec = slow(piece(("n1",), connectors=carried))
    other = slow(piece(("n9",), connectors=carried, version=2), 5.0)
    _, state = grown(spec, begun(spec), SegmentGo(spec=other), OFFER)
    assert state.turns["fartunnel0"] == 1
    _, state = grown(spec, begun(spec, PLAIN), SegmentGo(spec=other), OFFER)
    assert "fartunnel0" not in state.turns
