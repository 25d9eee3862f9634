"""Placement: never beyond anybody's room, as good as the best there is where that can be counted out."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.cli import main
from fedkit.topology.model import Attribute, Computer, Interface, Substrate, Topology
from fedkit.topology.placement import CannotPlace, Room, place
from fedkit.topology.split import split


def description(number: int, wires: Sequence[Collection[int]], named: Mapping[int, str] | None = None) -> Topology:
    """So many computers, the wires that join them, and the testbeds that some name."""
    named = named or {}
    computers = [
        Computer(
            name=f"c{computer}",
            interfaces=tuple(
                Interface(f"i{wire}", (f"w{wire}",)) for wire, members in enumerate(wires) if computer in members
            ),
            attributes=(Attribute("testbed", named[computer]),) if computer in named else (),
        )
        for computer in range(number)
    ]
    return Topology(tuple(Substrate(f"w{wire}") for wire in range(len(wires))), tuple(computers))


def cuts(wires: Sequence[Collection[int]], places: Sequence[object]) -> int:
    """How often wires are cut."""
    return sum(len({places[member] for member in members}) - 1 for members in wires)


@st.composite
def puzzles(draw: st.DrawFn) -> tuple[int, list[set[int]], list[int], dict[int, int]]:
    """Computers, wires, rooms with enough room, and computers that name their testbed already."""
    number = draw(st.integers(1, 6))
    members = st.sets(st.integers(0, number - 1), min_size=min(2, number), max_size=4)
    wires = draw(st.lists(members, max_size=8))
    rooms = draw(st.lists(st.integers(0, number), min_size=1, max_size=3))
    rooms[0] += max(0, number - sum(rooms))
    named = draw(st.dictionaries(st.integers(0, number - 1), st.integers(0, len(rooms) - 1), max_size=2))
    for room in named.values():
        rooms[room] += 1  # so that the others still have theirs
    return number, wires, rooms, named


@settings(max_examples=60, deadline=None)
@given(puzzles())
def test_it_is_as_good_as_the_best_of_all(puzzle: tuple[int, list[set[int]], list[int], dict[int, int]]) -> None:
    number, wires, rooms, named = puzzle
    given_names = {computer: f"t{room}" for computer, room in named.items()}
    placed = place(description(number, wires, given_names), [Room(f"t{n}", room) for n, room in enumerate(rooms)])
    testbeds = [computer.testbed for computer in placed.computers]
    assert all(testbeds.count(f"t{n}") <= room for n, room in enumerate(rooms))
    assert all(testbeds[computer] == name for computer, name in given_names.items())
    possible = (
        choice
        for choice in itertools.product(range(len(rooms)), repeat=number)
        if all(choice.count(n) <= room for n, room in enumerate(rooms))
        and all(choice[computer] == room for computer, room in named.items())
    )
    assert cuts(wires, testbeds) == min(cuts(wires, choice) for choice in possible)


def test_the_same_description_is_placed_the_same() -> None:
    wires = [{n, (n * 7 + 3) % 40} for n in range(40) if n != (n * 7 + 3) % 40]
    rooms = [Room("x", 15), Room("y", 15), Room("z", 15)]
    first, second = (place(description(40, wires), rooms) for _ in range(2))
    assert first == second
    assert len(split(first).pieces) <= 3


def test_only_where_it_suits() -> None:
    def is_even(computer: Computer) -> bool:
        return int(computer.name[1:]) % 2 == 0

    placed = place(
        description(6, [{0, 1}, {2, 3}]), [Room("even", 3, is_even), Room("odd", 3, lambda c: not is_even(c))]
    )
    assert [c.testbed for c in placed.computers] == ["even", "odd"] * 3


def test_room_is_made_where_choice_was_unlucky() -> None:
    picky = [Room("any", 2), Room("some", 2, lambda computer: computer.name in ("c0", "c1"))]
    wires = [{0, 1, 2, 3}]  # all would be together in `any`, but only two of them may be elsewhere
    placed = place(description(4, wires), picky)
    assert [c.testbed for c in placed.computers] == ["some", "some", "any", "any"]


@pytest.mark.parametrize(
    ("rooms", "what"),
    [
        ([], "No testbed can take c0, c1, c2; there are none"),
        ([Room("x", 9, lambda computer: computer.name != "c1")], r"No testbed can take c1; there are x \(9\)"),
        ([Room("x", 1), Room("y", 1)], r"3 computers, .*: x \(1\), y \(1\); 2 in all"),
    ],
)
def test_what_cannot_be_placed_is_named(rooms: list[Room], what: str) -> None:
    with pytest.raises(CannotPlace, match=what):
        place(description(3, [{0, 1}]), rooms)


def test_the_command(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    file = f"{tmp_path}/exp.ns"
    lines = ["set ns [new Simulator]", "source tb_compat.tcl", *(f"set n{n} [$ns node]" for n in range(4))]
    lines += ["set l [$ns duplex-link $n0 $n1 1Mb 0ms DropTail]", "set m [$ns duplex-link $n2 $n3 1Mb 0ms DropTail]"]
    with open(file, "w") as out:
        out.write("\n".join([*lines, "$ns run", ""]))
    assert main(["experiment", "split", file, "--place", "x=2", "--place", "y=2"]) == 0
    assert "cut: nothing" in capsys.readouterr().err
    assert main(["experiment", "split", file, "--place", "x=3"]) == 2
    assert "topology.cannot_place" in capsys.readouterr().err
    assert main(["experiment", "split", file, "--place", "x=many"]) == 2
    assert "such as deter=20" in capsys.readouterr().err
