"""What every data plane is to a crossing and to its session.

A crossing reads its tap straight into the place that a plane offers, so that a frame is copied once, by its encryption:

    room() ─► the tap is read there ─► commit(tag, size) ─► … ─► flush()

A plane that has no room drops: `None` is the tail of its queue. Each end sends by the plane that it finds best and takes what comes
by any, so that a change of planes needs no agreement and loses nothing that was on its way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class PlaneName(StrEnum):
    """As status and configuration call them."""

    SUPERFRAMES = "superframes"
    DATAGRAMS = "datagrams"
    CLASSIC = "classic"


Deliver = Callable[[int, memoryview], None]
"""Takes the tag and record of a frame that came; the view is valid until it returns."""


@dataclass
class Traffic:
    """What a plane has carried: records and their octets, in each direction, and frames it could not take or make out."""

    sent: int = 0
    received: int = 0
    spoilt: int = 0


class Outlet(Protocol):
    """What takes frames."""

    def room(self) -> memoryview | None:
        """Where the next record behind its tag goes; None: there is none, it is lost."""

    def commit(self, tag: int, size: int) -> None:
        """A record stands where `room` said."""

    def flush(self) -> None:
        """Send what the line takes now; the rest follows by itself."""


class Plane(Outlet, Protocol):
    """One way."""

    @property
    def name(self) -> PlaneName: ...

    @property
    def traffic(self) -> Traffic: ...

    @property
    def superframes(self) -> bool:
        """Whether it carries frames that are larger than a wire's."""
