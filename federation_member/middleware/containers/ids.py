"""Which user and group ids machines can have.

With all ids to give (real root) each machine has 65,536 of its own, so that its root is nobody anywhere else. In a user
namespace of an unprivileged person machines share what that person has: with 65,536 they are complete systems, with a
single one every account in a machine is the same id, and OpenSSH's server (which needs a second one to separate
privileges) gives way to Dropbear. See user_namespaces(7), uid_map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FIRST = 1 << 30  # ours start here; below 2^31 because some programs keep ids in signed numbers
RANGE = 1 << 16
PROC_SELF = Path("/proc/self")
Extents = tuple[tuple[int, int, int], ...]  # id inside, id outside, how many


@dataclass(frozen=True)
class Ids:
    """What one machine has. `first` is its root, seen from outside."""

    first: int
    uids: Extents
    gids: Extents

    @property
    def only_one(self) -> bool:
        """Whether root is the only id there is."""
        return min(_count(self.uids), _count(self.gids)) == 1


@dataclass(frozen=True)
class IdSpace:
    """What this process may map, each extent as long as the kernel accepts in one piece."""

    uids: Extents
    gids: Extents

    @classmethod
    def of_this_process(cls, folder: Path = PROC_SELF) -> IdSpace:
        """Read what this process has."""
        return cls(_read(folder / "uid_map"), _read(folder / "gid_map"))

    @property
    def separate(self) -> bool:
        """Whether each machine can have ids of its own."""
        return min(_count(self.uids), _count(self.gids)) > 1 << 31

    def of_machine(self, number: int) -> Ids:
        """The ids of machine `number`."""
        if self.separate:
            first = FIRST + number * RANGE
            own = ((0, first, RANGE),)
            return Ids(first, own, own)
        return Ids(0, _same(self.uids), _same(self.gids))


def _read(path: Path) -> Extents:
    lines = sorted(tuple(map(int, line.split())) for line in path.read_text().splitlines())
    return tuple((inside, outside, count) for inside, outside, count in lines)


def _count(extents: Extents) -> int:
    """How many ids there are from 0 on without a gap."""
    end = 0
    for inside, _, count in extents:
        if inside == end:
            end += count
    return end


def _same(extents: Extents) -> Extents:
    """Map ids to themselves, a whole system's worth of them."""
    wanted = min(_count(extents), RANGE)
    return tuple((inside, inside, min(count, wanted - inside)) for inside, _, count in extents if inside < wanted)
