"""Opening hours: `mon-fri 08:00-18:00 Europe/Berlin`.

    [DAYS] [RANGES] [ZONE]      mon-fri | sat,sun | fri-mon      08:00-12:00,13:00-18:00      Europe/Berlin, else UTC

They are read off the wall clock of the zone. A range that ends before it begins goes on past midnight and belongs to the
day on which it began. Where the clock is put forward, the hour that does not exist is nobody's; where it is put back, an
hour that comes twice counts twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

from federation_member.access.errors import UnusablePolicy

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LIMIT = 256  # characters
_MIDNIGHT = 24 * 60
_RANGE = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|24:00)\Z", re.ASCII)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*\Z")


@dataclass(frozen=True)
class Hours:
    """Days (0 is Monday) and ranges of minutes since midnight on a zone's wall clock."""

    days: frozenset[int]
    ranges: tuple[tuple[int, int], ...]
    zone: tzinfo
    text: str

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Read opening hours; raise `UnusablePolicy`."""
        words = text.split() if len(text) <= LIMIT else []
        rest = list(words)
        days = frozenset(_days(rest.pop(0))) if rest and _names_days(rest[0]) else frozenset(range(7))
        ranges = tuple(_range(one) for one in rest.pop(0).split(",")) if rest and rest[0][0].isdigit() else None
        zone = _zone(rest.pop(0)) if rest else _zone("UTC")
        if rest or not words:
            raise UnusablePolicy(f"Hours are written `mon-fri 08:00-18:00 Europe/Berlin`; {text[:80]!r} is not.")
        return cls(days, ranges or ((0, _MIDNIGHT),), zone, text)

    def admits(self, at: datetime) -> bool:
        """Tell whether the wall clock at this instant lies within."""
        local = at.astimezone(self.zone)
        today, minute = local.weekday(), local.hour * 60 + local.minute
        return any(self._within(today, minute, start, end) for start, end in self.ranges)

    def _within(self, today: int, minute: int, start: int, end: int) -> bool:
        if start <= end:
            return today in self.days and start <= minute < end
        began_yesterday = (today - 1) % 7 in self.days and minute < end
        return began_yesterday or (today in self.days and minute >= start)

    @property
    def empty(self) -> bool:
        """Whether no instant lies within: every range ends where it begins."""
        return all(start == end for start, end in self.ranges)

    def clock(self, at: datetime) -> str:
        """The instant as a person there says it."""
        return at.astimezone(self.zone).strftime("%a %H:%M %Z").lower()


def _names_days(word: str) -> bool:
    return word[:3].lower() in DAYS and word[3:4] in ("", "-", ",")


def _days(word: str) -> set[int]:
    found: set[int] = set()
    for part in word.lower().split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise UnusablePolicy(f"Days are {' '.join(DAYS)}, as in mon-fri or sat,sun; {word[:80]!r} is not.")
        start, end = DAYS.index(first), DAYS.index(last or first)
        found.update((start + step) % 7 for step in range((end - start) % 7 + 1))
    return found


def _range(text: str) -> tuple[int, int]:
    match = _RANGE.match(text)
    if match is None:
        raise UnusablePolicy(f"A range of hours is written 08:00-18:00, to 24:00 at most; {text[:80]!r} is not.")
    start = int(match[1]) * 60 + int(match[2])
    return start, _MIDNIGHT if match[3] is None else int(match[3]) * 60 + int(match[4])


def _zone(name: str) -> tzinfo:
    try:
        if _ZONE.match(name):
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; no zone's file; a folder of zones
        pass
    raise UnusablePolicy(f"{name[:80]!r} is no time zone; write one as Europe/Berlin, or leave it out for UTC.")
