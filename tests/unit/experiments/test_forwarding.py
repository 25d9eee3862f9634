"""Who is between others forwards for them, also where nobody of its own piece needs that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation_member.experiments.model import NewExperiment
from federation_member.experiments.planning import plan
from federation_member.orders.segments.plan import forwards
from fedkit.services.arrange import Arranged
from tests.support.segments import wired

PLACES = {"n0": {"testbed": "x"}, "n1": {"testbed": "y"}, "n2": {"testbed": "z"}}


@pytest.mark.parametrize(("routing", "forwarding"), [("Static", {"n1"}), (None, set())])
def test_a_node_alone_in_its_piece_forwards_if_routes_lead_over_it(routing: str | None, forwarding: set[str]) -> None:
    topology = replace(wired(("n0", "n1"), ("n1", "n2"), **PLACES), routing=routing)
    pieces = plan(NewExperiment(name="e", description=""), Arranged(topology), [])
    nodes = {
        name: piece.spec for piece in pieces for name, place in PLACES.items() if piece.spec.testbed == place["testbed"]
    }
    assert {name for name, spec in nodes.items() if forwards(spec, name)} == forwarding


def test_nobody_forwards_where_everybody_is_on_every_network() -> None:
    topology = replace(wired(("n0", "n1"), ("n0", "n1"), **PLACES), routing="Static")
    for piece in plan(NewExperiment(name="e", description=""), Arranged(topology), []):
        assert piece.spec.routes == {}
