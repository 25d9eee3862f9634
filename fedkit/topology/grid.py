"""Puts the computers of one testbed on a grid so that its picture can be read: short wires, and none through a third computer.

A start in the order of the file, or along the wires if that is better; then any two places swap what they hold while that helps (pairwise
interchange, as circuits are placed). A wire's length is half the rectangle around its ends. Always the same for the same wires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, sqrt

SWAPS = 10_000  # that are tried at most; beyond a hundred computers no picture is good
ENDS = 2_000_000  # of wires that are looked at for it at most: a LAN that everybody is on is no shorter for any swap
THROUGH = 2.0  # what it costs to be drawn over somebody who stands between

Cell = tuple[float, float]  # column and row


@dataclass(frozen=True)
class Wire:
    """Which computers it joins, by index, and where else it ends: at portals, in cells."""

    members: Sequence[int]
    pins: Sequence[Cell] = ()


def across(count: int) -> int:
    """How many columns the grid for so many computers has."""
    return max(1, ceil(sqrt(count)))


def down(count: int) -> int:
    """How many rows it has."""
    return max(1, ceil(count / across(count)))


def cells_of(count: int, wires: Sequence[Wire]) -> list[tuple[int, int]]:
    """The column and row of each computer."""
    columns, rows = across(count), down(count)
    snake = [
        (column if row % 2 == 0 else columns - 1 - column, row) for row in range(rows) for column in range(columns)
    ]
    on: list[list[Wire]] = [[] for _ in range(count)]
    for wire in wires:
        for member in set(wire.members):
            on[member].append(wire)
    starts = [_placed(order, snake) for order in (range(count), _along(count, on))]
    best = min(starts, key=lambda cells: sum(_length(wire, cells) for wire in wires))
    _improve(best, snake, on)
    return best


def _placed(order: Sequence[int], snake: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Back and forth through the rows, so that neighbours in the order are neighbours on the grid."""
    cells = dict(zip(order, snake, strict=False))
    return [cells[number] for number in range(len(order))]


def _along(count: int, on: Sequence[Sequence[Wire]]) -> list[int]:
    """All computers, along the wires, beginning with the first."""
    found: dict[int, None] = {}
    followed: set[int] = set()
    for first in range(count):
        row = [first] if first not in found else []
        found[first] = None
        for number in row:
            wires = [wire for wire in on[number] if id(wire) not in followed]
            followed.update(map(id, wires))
            new = [member for wire in wires for member in wire.members if member not in found]
            found.update(dict.fromkeys(new))
            row.extend(dict.fromkeys(new))
    return list(found)


def _improve(cells: list[tuple[int, int]], snake: Sequence[tuple[int, int]], on: Sequence[Sequence[Wire]]) -> None:
    here: dict[tuple[int, int], int | None] = dict.fromkeys(snake)
    here.update({cell: number for number, cell in enumerate(cells)})
    left, ends, better = SWAPS, ENDS, True
    while better:
        better = False
        for one, other in combinations(snake, 2):
            moved = [number for number in (here[one], here[other]) if number is not None]
            if not moved:
                continue
            if left == 0 or ends <= 0:
                return
            touched = {id(wire): wire for number in moved for wire in on[number]}.values()
            left, ends = left - 1, ends - sum(2 * len(wire.members) for wire in touched)
            before = sum(_length(wire, cells) for wire in touched)
            _swap(cells, here, one, other)
            if sum(_length(wire, cells) for wire in touched) < before - 1e-9:
                better = True
            else:
                _swap(cells, here, one, other)


def _swap(
    cells: list[tuple[int, int]],
    here: dict[tuple[int, int], int | None],
    one: tuple[int, int],
    other: tuple[int, int],
) -> None:
    here[one], here[other] = here[other], here[one]
    for cell in (one, other):
        number = here[cell]
        if number is not None:
            cells[number] = cell


def _length(wire: Wire, cells: Sequence[tuple[int, int]]) -> float:
    ends: list[Cell] = [cells[member] for member in wire.members] + list(wire.pins)
    columns, rows = [end[0] for end in ends], [end[1] for end in ends]
    wide, high = max(columns) - min(columns), max(rows) - min(rows)
    runs_through = not wire.pins and len(ends) == 2 and min(wide, high) == 0 and max(wide, high) > 1
    return wide + high + (THROUGH if runs_through else 0)
