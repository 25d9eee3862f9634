"""Pictures: well formed whatever names there are, everything in them once, nothing on top of another."""

from __future__ import annotations

from itertools import combinations
from math import hypot

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from deploy.cli import main
from fedkit.topology import layout
from fedkit.topology.layout import APART, CELL_HEIGHT, CELL_WIDTH, NODE_HEIGHT, NODE_WIDTH, NOWHERE, lay_out
from fedkit.topology.model import Attribute, Computer, Topology
from fedkit.topology.ns2.reader import read
from fedkit.topology.picture import Condition, draw
from tests.unit.topology.test_placement import description
from tests.unit.topology.test_sub_experiment import SEED


def named(picture: str, kind: str) -> list[str]:
    """The names of everything of that class."""
    root = etree.fromstring(picture)
    return [str(node.get("data-name")) for node in root.iter("{*}g") if node.get("class") == kind]


async def test_the_seeds_example() -> None:
    picture = draw((await read(SEED.encode())).topology)
    assert named(picture, "testbed") == ["deter", "ucb"]
    assert sorted(named(picture, "computer")) == ["a", "b", "c", "d", "e"]
    assert sorted(named(picture, "portal")) == ["detertunnel0", "ucbtunnel0"]
    assert sorted(named(picture, "substrate")) == ["lan0", "link0", "link1", "link1"]  # the cut one on either side
    texts = [text.text for text in etree.fromstring(picture).iter("{*}text")]
    assert texts.count("link1") == 1


def test_names_are_text_and_nothing_else() -> None:
    hostile = '"><script>alert(1)</script>' + "x" * 200
    computer = Computer(name=hostile, attributes=(Attribute("testbed", "<b>&"),))
    root = etree.fromstring(draw(Topology(elements=(computer,))))
    assert root.find(".//{*}script") is None
    assert [group.get("data-name") for group in root.iter("{*}g")] == ["<b>&", hostile]


def test_what_names_no_testbed_and_what_is_empty() -> None:
    assert named(draw(description(2, [{0, 1}])), "testbed") == [NOWHERE]
    assert etree.QName(etree.fromstring(draw(Topology()))).localname == "svg"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 11), min_size=1, max_size=5), max_size=10), st.integers(1, 4))
def test_no_computer_is_on_another(wires: list[set[int]], testbeds: int) -> None:
    topology = description(12, wires, {number: f"t{number % testbeds}" for number in range(12)})
    picture = draw(topology)
    assert picture == draw(topology)
    assert sorted(named(picture, "computer")) == sorted(computer.name for computer in topology.computers)
    boxes = [
        (float(rect.get("x", "")), float(rect.get("y", "")))
        for group in etree.fromstring(picture).iter("{*}g")
        for rect in group.iterfind("{*}rect")
        if group.get("class") == "computer"
    ]
    for (x, y), (u, v) in combinations(boxes, 2):
        assert abs(x - u) >= NODE_WIDTH or abs(y - v) >= NODE_HEIGHT


async def test_conditions_are_told_by_more_than_colour() -> None:
    topology = (await read(SEED.encode())).topology
    root = etree.fromstring(
        draw(topology, conditions={"a": Condition("failed", "<no room>"), "b": Condition("running")})
    )
    groups = {str(group.get("data-name")): group for group in root.iter("{*}g")}
    assert groups["a"].get("class") == "computer failed"
    assert groups["a"].findtext("{*}title") == "a: failed: <no room>"
    assert [text.text for text in groups["b"].iterfind("{*}text")] == ["b", "✓"]
    assert groups["c"].get("class") == "computer"


def test_neighbours_stand_near_one_another() -> None:
    ring = [3, 0, 4, 1, 5, 2]
    topology = description(6, [{one, ring[(index + 1) % 6]} for index, one in enumerate(ring)])
    lines = etree.fromstring(draw(topology)).iter("{*}line")
    ends = [[float(line.get(name, "")) for name in ("x1", "y1", "x2", "y2")] for line in lines]
    assert all(abs(x - u) <= CELL_WIDTH and abs(y - v) <= CELL_HEIGHT for x, y, u, v in ends)


def test_hundreds_of_portals_at_one_testbed_are_not_each_compared_with_each_at_every_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peers = 300
    star = description(peers + 1, [{0, peer} for peer in range(1, peers + 1)], {n: f"t{n}" for n in range(peers + 1)})
    asked = []

    def counted(x: float, y: float) -> float:
        asked.append((x, y))
        return hypot(x, y)

    monkeypatch.setattr(layout, "hypot", counted)
    gates = lay_out(star).portals
    assert all(hypot(a.x - b.x, a.y - b.y) >= APART for a, b in combinations(gates[:peers], 2))
    assert len(asked) < peers * peers


def test_the_command(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    file = f"{tmp_path}/exp.ns"
    with open(file, "w") as out:
        out.write(SEED)
    assert main(["experiment", "picture", file]) == 0
    assert named(capsys.readouterr().out, "testbed") == ["deter", "ucb"]
