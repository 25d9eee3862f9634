"""Which user ids machines can have.

With all 2^32 ids to give (real root) each machine has 65,536 of its own, so that its root is nobody anywhere else. In a
user namespace of an unprivileged person machines share what that person has: with 65,536 or more they are complete
systems, with a single one every account in a machine is the same id, and OpenSSH's server (which needs a second one to
separate privileges) gives way to Dropbear.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FIRST = 1 << 30  # ours start here; below 2^31 because some programs keep ids in signed numbers
RANGE = 1 << 16


@dataclass(frozen=True)
class Ids:
    """A range of ids outside, seen as 0… inside."""

    first: int
    count: int


@dataclass(frozen=True)
class IdSpace:
    """What this process may map."""

    separate: bool
    count: int

    @classmethod
    def of_this_process(cls, uid_map: Path = Path("/proc/self/uid_map")) -> IdSpace:
        """Read user_namespaces(7)'s `uid_map`."""
        ranges = [tuple(int(part) for part in line.split()) for line in uid_map.read_text().splitlines()]
        start, count = next(((start, count) for start, _, count in ranges if start == 0), (0, 1))
        whole = start + count >= 1 << 31
        return cls(separate=whole, count=RANGE if whole else min(count, RANGE))

    def of_machine(self, number: int) -> Ids:
        """The ids of machine `number`."""
        return Ids(FIRST + number * RANGE if self.separate else 0, self.count)
