"""Which kits are there: every entry point of the group `fedmesh.kit`, the federation's own among them."""

from __future__ import annotations

import difflib
from functools import lru_cache
from importlib.metadata import entry_points

from fedkit.kits.contract import Kit, Kits
from fedkit.kits.errors import UnknownKit

GROUP = "fedmesh.kit"
KEPT = 16  # kits that need not be looked for again


def installed() -> Kits:
    """One of each, by name; a plug-in that cannot be loaded raises what Python says."""
    found: dict[str, Kit] = {}
    for point in entry_points(group=GROUP):
        kit: Kit = point.load()()
        found[kit.name] = kit
    return found


@lru_cache(KEPT)
def kit_named(name: str) -> Kit:
    """The one of that name; raises `UnknownKit`, which says what there is."""
    known = installed()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}."
        raise UnknownKit(f"There is no federation kit {name[:80]!r} here; {hint}")
    return known[name]
