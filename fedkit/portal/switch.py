"""The crossings of one end, by tag: where frames of the peer go, and by which plane each sends."""

from __future__ import annotations

from collections.abc import Iterable

from fedkit.portal.crossing import Crossing
from fedkit.portal.planes.contract import Plane


class Switch:
    """Frames with a tag that is not here are counted and lost: crossings never mix."""

    def __init__(self, crossings: Iterable[Crossing]) -> None:
        self.crossings = {crossing.tag: crossing for crossing in crossings}
        self.unknown = 0

    @property
    def tags(self) -> tuple[int, ...]:
        """Of all crossings."""
        return tuple(self.crossings)

    @property
    def takes_uso(self) -> bool:
        """Whether every crossing takes UDP in super-frames."""
        return all(crossing.takes_uso for crossing in self.crossings.values())

    def deliver(self, tag: int, record: memoryview) -> None:
        """A frame of the peer's."""
        crossing = self.crossings.get(tag)
        if crossing is None:
            self.unknown += 1
        else:
            crossing.deliver(record)

    def use(self, tag: int, plane: Plane | None, uso: bool = False) -> None:
        """Let a crossing send by this plane."""
        self.crossings[tag].use(plane, uso and self.crossings[tag].takes_uso)

    def leave(self, planes: Iterable[Plane]) -> None:
        """These planes carry nothing any more."""
        for crossing in self.crossings.values():
            if any(crossing.plane is plane for plane in planes):
                crossing.use(None, False)

    def close(self) -> None:
        """Let the taps go."""
        for crossing in self.crossings.values():
            crossing.close()
