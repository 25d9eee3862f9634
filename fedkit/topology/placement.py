"""Chooses a testbed for every computer that names none: fewest crossings, within the room that each testbed has.

A crossing is a substrate cut once: one that reaches k testbeds has k-1 of them. Minimising that with room to heed is hard (balanced
hypergraph partitioning), so this is a heuristic that never breaks a limit, and is the same for the same description:

    1  a feasible start: nearest to what is placed already; augmenting paths make room where choice was unlucky
    2  passes of Fiduccia and Mattheyses ("A linear-time heuristic for improving network partitions", DAC 1982), with k parts:
       move every computer once, the best move first, even a bad one; go back to the best moment; repeat while it helps.
       In every second kind of pass a testbed may be over its room by one for a while, so that two full ones can swap.
    3  from several starts; the best is taken.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from fedkit.errors import InputError
from fedkit.topology.model import Computer, Topology

STARTS = (4, 32)  # at least and at most, the more the smaller the description
START_WORK = 2000  # computers that all starts together may place, beyond the least number of starts
IDLE_MOVES = 200  # moves in a row without a new best, after which a pass is over


class CannotPlace(InputError):
    """The testbeds together have no room for all computers, or none suits one of them."""

    code = "topology.cannot_place"


def everything(_computer: Computer) -> bool:
    """Suits every computer."""
    return True


@dataclass(frozen=True)
class Room:
    """What a testbed can take: how many computers (None: any number), and which."""

    testbed: str
    machines: int | None = None
    suits: Callable[[Computer], bool] = everything


def place(topology: Topology, rooms: Sequence[Room]) -> Topology:
    """The same with a testbed for every computer; those that name one stay, and count against its room.

    Raises `CannotPlace`, naming the computer that nobody can take, or how many too many there are.
    """
    puzzle = _Puzzle(topology, rooms)
    if not puzzle.free:
        return topology
    least, most = STARTS
    starts = min(max(START_WORK // len(puzzle.free), least), most)
    best = min((_solve(puzzle, start) for start in range(starts)), key=puzzle.crossings)
    names = {computer.name: puzzle.testbeds[best[number]] for number, computer in enumerate(puzzle.computers)}
    elements = [
        element.with_attributes({"testbed": names[element.name]})
        if isinstance(element, Computer) and not element.testbed
        else element
        for element in topology.elements
    ]
    return replace(topology, elements=tuple(elements))


class _Puzzle:
    """The description in numbers: computers, testbeds and substrates by index. A place is a testbed's index."""

    def __init__(self, topology: Topology, rooms: Sequence[Room]) -> None:
        self.computers = list(topology.computers)
        named = [computer.testbed for computer in self.computers if computer.testbed]
        self.testbeds = list(dict.fromkeys([*(room.testbed for room in rooms), *named]))
        index = {computer.name: number for number, computer in enumerate(self.computers)}
        self.wires = [
            sorted({index[end.name] for end, _ in ends if isinstance(end, Computer)}) for ends in topology.ends.values()
        ]
        self.on: list[list[int]] = [[] for _ in self.computers]
        for wire, members in enumerate(self.wires):
            for computer in members:
                self.on[computer].append(wire)
        by_name = {room.testbed: room for room in rooms}
        self.free = [number for number, computer in enumerate(self.computers) if not computer.testbed]
        self.fixed = {n: self.testbeds.index(c.testbed) for n, c in enumerate(self.computers) if c.testbed}
        machines = [by_name[name].machines if name in by_name else None for name in self.testbeds]
        held = Counter(self.fixed.values())  # is there by its author's own word, be it too much
        self.limits = [
            len(self.computers) if number is None else max(number, held[place]) for place, number in enumerate(machines)
        ]
        self.choices: dict[int, list[int]] = {
            number: [place for place, room in enumerate(rooms) if room.suits(self.computers[number])]
            for number in self.free
        }
        if lonely := [self.computers[number].name for number in self.free if not self.choices[number]]:
            raise CannotPlace(f"No testbed can take {', '.join(lonely[:5])}; there are {_names(rooms)}.")

    def crossings(self, places: Sequence[int]) -> int:
        """How often substrates are cut."""
        return sum(len({places[computer] for computer in members}) - 1 for members in self.wires if members)


def _names(rooms: Sequence[Room]) -> str:
    told = [room.testbed if room.machines is None else f"{room.testbed} ({room.machines})" for room in rooms]
    return ", ".join(told) or "none"


def _solve(puzzle: _Puzzle, start: int) -> list[int]:
    places = _Start(puzzle, random.Random(start)).made()  # noqa: S311  no secret
    while True:
        passes = (_State(puzzle, places, may_swap=may_swap).improved() for may_swap in (False, True))
        better = next((found for found in passes if found is not None), None)
        if better is None:
            return places
        places = better


class _Start:
    """A feasible placement, grown from what is placed already."""

    def __init__(self, puzzle: _Puzzle, chance: random.Random) -> None:
        self._puzzle = puzzle
        self._chance = chance
        self._places = [-1] * len(puzzle.computers)
        self._in: list[set[int]] = [set() for _ in puzzle.testbeds]
        for computer, place in puzzle.fixed.items():
            self._places[computer] = place
            self._in[place].add(computer)

    def made(self) -> list[int]:
        """The place of each computer."""
        for computer in self._order():
            near = self._near(computer)
            wishes = sorted(
                self._puzzle.choices[computer], key=lambda place: (-near.get(place, 0), self._chance.random())
            )
            place = next((place for place in wishes if self._has_room(place)), None)
            if place is not None:
                self._put(computer, place)
            elif not self._make_room(computer):
                raise CannotPlace(self._shortage())
        return self._places

    def _order(self) -> Iterator[int]:
        """What has least choice first, then along the wires from wherever it begins."""
        seen: set[int] = set()
        free = sorted(self._puzzle.free, key=lambda n: (len(self._puzzle.choices[n]), self._chance.random()))
        for first in [*self._puzzle.fixed, *free]:
            row = [first] if first not in seen else []
            seen.add(first)
            for computer in row:
                if computer not in self._puzzle.fixed:
                    yield computer
                for wire in self._puzzle.on[computer]:
                    new = [member for member in self._puzzle.wires[wire] if member not in seen]
                    seen.update(new)
                    row.extend(new)

    def _near(self, computer: int) -> dict[int, int]:
        """How many of its wires reach each place already."""
        found: dict[int, int] = {}
        for wire in self._puzzle.on[computer]:
            for place in {self._places[member] for member in self._puzzle.wires[wire]} - {-1}:
                found[place] = found.get(place, 0) + 1
        return found

    def _has_room(self, place: int) -> bool:
        return len(self._in[place]) < self._puzzle.limits[place]

    def _put(self, computer: int, place: int) -> None:
        before = self._places[computer]
        if before >= 0:
            self._in[before].discard(computer)
        self._places[computer] = place
        self._in[place].add(computer)

    def _make_room(self, computer: int) -> bool:
        """Move others along a shortest chain of testbeds that ends at one with room (an augmenting path)."""
        came: dict[int, tuple[int, int]] = dict.fromkeys(self._puzzle.choices[computer], (computer, -1))
        row = list(came)
        for place in row:
            if self._has_room(place):
                self._shift(came, place)
                return True
            for other in sorted(self._in[place] - self._puzzle.fixed.keys()):
                for further in self._puzzle.choices[other]:
                    if further not in came:
                        came[further] = (other, place)
                        row.append(further)
        return False

    def _shift(self, came: dict[int, tuple[int, int]], place: int) -> None:
        while place >= 0:
            computer, before = came[place]
            self._put(computer, place)
            place = before

    def _shortage(self) -> str:
        room = sum(min(limit, len(self._puzzle.computers)) for limit in self._puzzle.limits)
        told = ", ".join(f"{n} ({limit})" for n, limit in zip(self._puzzle.testbeds, self._puzzle.limits, strict=True))
        return f"{len(self._puzzle.computers)} computers, and not enough testbeds that suit them have room: {told}; {room} in all."


class _State:
    """A placement during one pass. `count[wire][place]` tells how many members of a wire are there."""

    def __init__(self, puzzle: _Puzzle, places: Sequence[int], *, may_swap: bool) -> None:
        self._puzzle = puzzle
        self._may_swap = may_swap
        self._places = list(places)
        self._used = [0] * len(puzzle.testbeds)
        for place in places:
            self._used[place] += 1
        self._count = [[0] * len(puzzle.testbeds) for _ in puzzle.wires]
        for wire, members in enumerate(puzzle.wires):
            for member in members:
                self._count[wire][places[member]] += 1
        self._movable = set(puzzle.free)
        self._heap: list[tuple[int, int, int]] = []
        for computer in puzzle.free:
            self._offer(computer)

    def improved(self) -> list[int] | None:
        """What one pass finds, if it is better."""
        gained, best, idle = 0, 0, 0
        best_places: list[int] | None = None
        while idle < IDLE_MOVES and (move := self._next()) is not None:
            gain, computer, place = move
            self._move(computer, place)
            gained += gain
            idle += 1
            if gained > best and self._fits():
                best, best_places, idle = gained, list(self._places), 0
        return best_places

    def _fits(self) -> bool:
        return all(used <= limit for used, limit in zip(self._used, self._puzzle.limits, strict=True))

    def _next(self) -> tuple[int, int, int] | None:
        """The best move that is possible; among equals one to a testbed with room.

        A gain in the heap may be stale, and is then put back as it is now.
        """
        passed: list[tuple[int, int, int]] = []
        found: tuple[int, int, int] | None = None
        while self._heap and (found is None or -self._heap[0][0] == found[0]):
            negative, computer, place = heapq.heappop(self._heap)
            if computer not in self._movable or place == self._places[computer]:
                continue
            gain = self._gain(computer, place)
            if gain != -negative:
                heapq.heappush(self._heap, (-gain, computer, place))
                continue
            passed.append((negative, computer, place))
            if self._used[place] < self._puzzle.limits[place]:
                found = gain, computer, place
                break
            if found is None and self._may_overfill(place):
                found = gain, computer, place
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found

    def _may_overfill(self, place: int) -> bool:
        """Only one testbed at a time may be over its room, and only if somebody else can leave it again."""
        return self._may_swap and self._fits() and any(self._places[computer] == place for computer in self._movable)

    def _gain(self, computer: int, place: int) -> int:
        here, gain = self._places[computer], 0
        for wire in self._puzzle.on[computer]:
            gain += (self._count[wire][here] == 1) - (self._count[wire][place] == 0)
        return gain

    def _offer(self, computer: int) -> None:
        for place in self._puzzle.choices[computer]:
            if place != self._places[computer]:
                heapq.heappush(self._heap, (-self._gain(computer, place), computer, place))

    def _move(self, computer: int, place: int) -> None:
        here = self._places[computer]
        self._movable.discard(computer)
        self._places[computer] = place
        self._used[here] -= 1
        self._used[place] += 1
        touched: set[int] = set()
        for wire in self._puzzle.on[computer]:
            count = self._count[wire]
            count[here] -= 1
            count[place] += 1
            if count[here] <= 1 or count[place] <= 2:  # only then a gain of another member changes
                touched.update(self._puzzle.wires[wire])
        for other in touched & self._movable:
            self._offer(other)
