"""What a description wants done to the frames of an interface: rate, delay and loss, each way.

    node ── to ──► wire        to_rate, to_delay, to_loss where the ways differ, else capacity, latency, loss
    node ◄─ back ── wire       from_rate, from_delay, from_loss

An interface that says nothing is as its substrate says. A link's delay is halved between its two ends, so each way of each end has
its own share and nothing needs to be known of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite

from fedkit.topology.model import Interface, Substrate


@dataclass(frozen=True)
class Way:
    """One direction. `rate` in kb/s (1000 bit/s), None for as fast as it goes; `delay` in ms; `loss` from 0 to 1."""

    rate: float | None = None
    delay: float = 0.0
    loss: float = 0.0


@dataclass(frozen=True)
class Shape:
    """Both directions, and how many packets wait at most where they must (None: whatever is usual)."""

    to: Way = Way()
    back: Way = Way()
    queue: int | None = None

    def __bool__(self) -> bool:
        return self.to != Way() or self.back != Way()

    @property
    def lateness(self) -> Shape:
        """Its delays and losses alone."""
        return Shape(replace(self.to, rate=None), replace(self.back, rate=None))

    @property
    def rates(self) -> Shape:
        """All but its delays and losses."""
        return Shape(Way(self.to.rate), Way(self.back.rate), self.queue)


def shape_of(interface: Interface, substrates: Mapping[str, Substrate]) -> Shape:
    """How an interface is to be; what is not a number counts as not said."""
    substrate = substrates.get(interface.substrates[0]) if interface.substrates else None
    capacity = interface.capacity or (substrate.capacity if substrate else None)
    latency = interface.latency or (substrate.latency if substrate else None)
    both = Way(capacity.rate if capacity else None, latency.time if latency else 0.0, interface.loss)
    if interface.get("bandwidth") in ("*", "~"):
        both = Way(None, both.delay, both.loss)
    return Shape(_way(interface, "to", both), _way(interface, "from", both), _queue(interface))


def _way(interface: Interface, name: str, both: Way) -> Way:
    rate = _number(interface.get(f"{name}_rate"))
    delay, loss = _number(interface.get(f"{name}_delay")), _number(interface.get(f"{name}_loss"))
    return Way(
        both.rate if rate is None else (rate if rate > 0 else None),
        both.delay if delay is None else delay,
        both.loss if loss is None else loss,
    )


def _queue(interface: Interface) -> int | None:
    limit = _number(interface.get("queue:limit_"))
    return int(limit) if limit is not None and limit >= 1 else None


def _number(text: str | None) -> float | None:
    try:
        number = None if text is None else float(text)
    except ValueError:
        return None
    return number if number is not None and isfinite(number) else None
