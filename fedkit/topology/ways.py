"""What a frame meets on its way from one interface to another, for formats that tell it by pairs of ends.

The model tells it by hops: each interface has what happens *to* the substrate and *from* it (`to_delay`, `from_rate`, …), or one figure
for both, or what the substrate says for all:

    a ── to(a) ──► substrate ── from(b) ──► b        delay: the sum, rate: the least, loss: 1 - (1-to)(1-from)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, log, sqrt

from fedkit.topology.model import Attribute, Capacity, Computer, Interface, Latency, Substrate, Topology

End = tuple[str, str]  # computer and interface
NEARLY_ALL = 1 - 1e-9  # a loss that can still be split


@dataclass(frozen=True)
class Way:
    """Rate in kb/s (0: as fast as it goes), delay in ms, loss from 0 to 1, of one direction."""

    rate: float = 0.0
    delay: float = 0.0
    loss: float = 0.0

    @property
    def half(self) -> Way:
        """One of two equal hops of it."""
        return Way(self.rate, self.delay / 2, 1 - sqrt(1 - self.loss))


def way_between(substrate: Substrate, source: Interface, target: Interface) -> Way:
    """From one interface of a substrate to another."""
    out, back = _hop(substrate, source, "to"), _hop(substrate, target, "from")
    rates = [rate for rate in (out.rate, back.rate) if rate]
    return Way(min(rates, default=0.0), out.delay + back.delay, 1 - (1 - out.loss) * (1 - back.loss))


def _hop(substrate: Substrate, interface: Interface, side: str) -> Way:
    said = [interface.get(f"{side}_{what}") for what in ("rate", "delay", "loss")]
    if None not in said:
        rate, delay, loss = (float(value) for value in said if value is not None)
        return Way(max(rate, 0.0), delay, loss)
    capacity, latency = interface.capacity or substrate.capacity, interface.latency or substrate.latency
    return Way(capacity.rate if capacity else 0.0, latency.time if latency else 0.0, interface.loss)


def told_of_ends(topology: Topology, name: str, ways: Mapping[tuple[End, End], Way]) -> Topology:
    """The same topology whose substrate `name` is as these ways between its ends say.

    Equal ways are the substrate's own; a link whose two directions differ has half of each at either end. For a LAN of which
    not all ways are equal, each member gets hops whose sums they are, which is exact where they came from hops.
    """
    if not ways:
        return topology
    different = set(ways.values())
    ends = {end for pair in ways for end in pair}
    if len(different) == 1:
        half = different.pop().half
        return _changed(topology, name, half, {end: (half, half) for end in ends if half.loss})
    return _changed(topology, name, None, _hops(ways, ends))


def _hops(ways: Mapping[tuple[End, End], Way], ends: set[End]) -> dict[End, tuple[Way, Way]]:
    """What happens to and from each end, so that together they are the ways."""
    if len(ends) == 2:
        one, other = sorted(ends)
        there, back = ways.get((one, other), Way()).half, ways.get((other, one), Way()).half
        return {one: (there, back), other: (back, there)}
    delays = _summands({pair: way.delay for pair, way in ways.items()}, ends)
    losses = _summands({pair: -log(1 - min(way.loss, NEARLY_ALL)) for pair, way in ways.items()}, ends)
    return {
        end: (
            Way(_best_rate(ways, end, 0), delays[end][0], 1 - exp(-losses[end][0])),
            Way(_best_rate(ways, end, 1), delays[end][1], 1 - exp(-losses[end][1])),
        )
        for end in ends
    }


def _best_rate(ways: Mapping[tuple[End, End], Way], end: End, place: int) -> float:
    """The least rate of a hop from (0) or to (1) an end that explains its ways: that of the best of them; 0 is no limit."""
    rates = [way.rate for pair, way in ways.items() if pair[place] == end]
    return 0.0 if 0.0 in rates else max(rates, default=0.0)


def _summands(sums: Mapping[tuple[End, End], float], ends: set[End]) -> dict[End, tuple[float, float]]:
    """`to` and `from` of each end, whose sums these are; nothing is below zero.

    Ways that pass by the first end tell what its own two hops are together; without any, they are taken for equal halves.
    """
    first = min(ends)
    others = sorted(ends - {first})
    out = {end: sums.get((first, end), 0.0) for end in others}
    back = {end: sums.get((end, first), 0.0) for end in others}
    past = next(((a, b) for a, b in sums if first not in (a, b)), None)
    both = min(out.values()) if past is None else max(back[past[0]] + out[past[1]] - sums[past], 0.0)
    to = min(max(both / 2, both - min(back.values())), *out.values())
    found = {first: (to, min(max(both - to, 0.0), *back.values()))}
    for end in others:
        found[end] = (max(back[end] - found[first][1], 0.0), max(out[end] - to, 0.0))
    return found


def _changed(topology: Topology, name: str, whole: Way | None, hops: Mapping[End, tuple[Way, Way]]) -> Topology:
    substrates = tuple(_as_whole(s, whole) if s.name == name and whole else s for s in topology.substrates)
    elements = []
    for element in topology.elements:
        interfaces = tuple(
            _as_hop(interface, *hops[element.name, interface.name])
            if isinstance(element, Computer) and name in interface.substrates and (element.name, interface.name) in hops
            else interface
            for interface in element.interfaces
        )
        elements.append(replace(element, interfaces=interfaces))
    return replace(topology, substrates=substrates, elements=tuple(elements))


def _as_whole(substrate: Substrate, way: Way) -> Substrate:
    return replace(substrate, capacity=_capacity(way), latency=_latency(way))


def _as_hop(interface: Interface, out: Way, back: Way) -> Interface:
    if out == back:
        told = interface.with_attributes({"loss": f"{out.loss:.15g}" if out.loss else None})
        return replace(told, capacity=_capacity(out), latency=_latency(out))
    said = {
        f"{side}_{what}": f"{value:.15g}"
        for side, way in (("to", out), ("from", back))
        for what, value in _figures(way)
    }
    kept = tuple(a for a in interface.attributes if a.name not in said)
    told_of = (*kept, *(Attribute(key, value) for key, value in said.items()))
    return replace(interface, attributes=told_of, capacity=_capacity(out), latency=_latency(out))


def _figures(way: Way) -> tuple[tuple[str, float], ...]:
    return (("delay", way.delay), ("rate", way.rate), ("loss", way.loss))


def _capacity(way: Way) -> Capacity | None:
    return Capacity(way.rate) if way.rate else None


def _latency(way: Way) -> Latency | None:
    return Latency(way.delay) if way.delay else None
