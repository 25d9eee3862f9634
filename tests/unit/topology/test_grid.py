"""The places of computers in a picture: each its own, the same again for the same wires, and found in bounded time."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from fedkit.topology.grid import ENDS, Wire, across, cells_of, down

counts = st.integers(0, 30)


@settings(max_examples=60, deadline=None)
@given(counts, st.data())
def test_each_has_a_cell_of_its_own_on_the_grid(count: int, data: st.DataObject) -> None:
    numbers = st.lists(st.integers(0, max(count - 1, 0)), min_size=1, max_size=5, unique=True)
    pins = st.lists(st.tuples(st.floats(-2, 8), st.floats(-2, 8)), max_size=2)
    wires = [Wire(*pair) for pair in data.draw(st.lists(st.tuples(numbers, pins), max_size=20))] if count else []
    cells = cells_of(count, wires)
    assert len(set(cells)) == len(cells) == count
    assert all(0 <= column < across(count) and 0 <= row < down(count) for column, row in cells)
    assert cells_of(count, wires) == cells


def test_who_is_wired_to_the_right_edge_stands_there() -> None:
    assert cells_of(4, [Wire([0], [(9.0, 0.0)])])[0] == (1, 0)


def test_thousands_are_placed_without_every_swap_being_tried() -> None:
    wires = [Wire([number, (number * 7) % 2000]) for number in range(2000)]
    assert len(set(cells_of(2000, wires))) == 2000


class Looked(list[int]):
    """Ends of a wire that count how often they are looked at."""

    times = 0

    def __iter__(self) -> Iterator[int]:
        Looked.times += len(self)
        return super().__iter__()


def test_lans_that_all_are_on_cost_no_more_than_many_short_wires() -> None:
    wires = [Wire(Looked(range(400))) for _ in range(8)]
    Looked.times = 0
    cells = cells_of(400, wires)
    assert len(set(cells)) == 400
    assert Looked.times < 2 * ENDS
