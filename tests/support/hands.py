"""Commands in machines that do not exist: what each would say, and who was asked what."""

from __future__ import annotations

import asyncio

from federation_member.orders.segments.remote import NotReached, Place, Said


class FakeHands:
    """Says `says` by the machine's host, else that all is well; `hanging` ones never end."""

    def __init__(self) -> None:
        self.says: dict[str, Said] = {}
        self.silent: set[str] = set()
        self.hanging: set[str] = set()
        self.asked: list[tuple[Place, str]] = []

    async def run(self, place: Place, command: str, told: str = "") -> Said:
        """See `Hands`."""
        self.asked.append((place, told or command))
        if place.host in self.hanging:
            await asyncio.Event().wait()
        if place.host in self.silent:
            raise NotReached(f"Nobody at {place.host}.")
        return self.says.get(place.host, Said("", 0))
