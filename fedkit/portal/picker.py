"""Which plane to send by, of those that are alive. Pure.

Super-frames in ssh are the fastest on a short clean line: few octets are copied, and the kernel cuts nothing. On a long line that
loses, TCP inside TCP makes everybody wait for each lost octet, and datagrams win. A path that is dead carries nothing, whatever
it was like; one that is alive again is chosen again, and nothing but life makes a choice turn within `STEADY` seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedkit.portal.planes.contract import PlaneName

LONG = 0.005  # seconds there and back
LOSSY = 0.0005  # part of what ssh sends that it has to send again
STEADY = 5.0


@dataclass(frozen=True)
class Path:
    """What is known of a plane's path."""

    alive: bool
    delay: float | None = None  # seconds there and back when it is idle
    loss: float = 0.0  # of ssh: the part sent again


@dataclass
class Choice:
    """The plane now, and since when."""

    plane: PlaneName | None = None
    since: float = float("-inf")
    changes: int = 0


def pick(choice: Choice, paths: Mapping[PlaneName, Path], now: float) -> PlaneName | None:
    """Choose; `choice` is kept up to date."""
    best = _best(paths)
    current_lives = choice.plane is not None and choice.plane in paths and paths[choice.plane].alive
    if best is None and choice.plane in paths:
        return choice.plane  # it may only be slow, and there is no other
    if best != choice.plane and not (current_lives and now - choice.since < STEADY):
        choice.changes += choice.plane is not None
        choice.plane, choice.since = best, now
    return choice.plane


def _best(paths: Mapping[PlaneName, Path]) -> PlaneName | None:
    alive = {name: path for name, path in paths.items() if path.alive}
    if PlaneName.DATAGRAMS in alive and PlaneName.SUPERFRAMES in alive:
        stream = alive[PlaneName.SUPERFRAMES]
        long = min(alive[PlaneName.DATAGRAMS].delay or 0.0, stream.delay or 0.0) >= LONG
        return PlaneName.DATAGRAMS if long or stream.loss >= LOSSY else PlaneName.SUPERFRAMES
    return next((name for name in PlaneName if name in alive), None)
