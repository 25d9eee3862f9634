"""The desktop's end of the way: a portal that connects, whose only crossing is the desktop's own interface.

applications ── interface with an address (a tap) ── this process ══ ssh, or datagrams ══ the portal that waits
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedkit.desktop.interface import Held
from fedkit.desktop.seat import Portal, Seat
from fedkit.portal import service
from fedkit.portal.config import CrossingConfig, PortalConfig
from fedkit.portal.journal import Journal
from fedkit.portal.tap import Tap


class Ground:
    """Where the portal stands: on a tap that is there, and that others care for."""

    def __init__(self, name: str, descriptor: int) -> None:
        self._name = name
        self._descriptor = descriptor

    def make(self, crossings: Iterable[CrossingConfig], _journal: Journal) -> dict[int, Tap]:
        """The tap, for the only crossing."""
        return {crossing.tag: Held(self._name, self._descriptor) for crossing in crossings}

    def undo(self, journal: Journal) -> None:
        """Nothing was changed."""
        journal.forget()


@contextmanager
def in_memory(text: str) -> Iterator[Path]:
    """A file that is on no disk."""
    descriptor = os.memfd_create("fed")
    try:
        os.write(descriptor, text.encode())
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def way(seat: Seat, portal: Portal, private_key: str, ground: Ground, state: Path) -> service.Portal:
    """The portal, which runs while its context is open; `state` is a folder of its own. Raises `PortalError`."""
    with in_memory(private_key) as key, in_memory(portal.host_key + "\n") as pinned:
        config = PortalConfig(
            active=True,
            peer=(portal.host,),
            port=portal.port,
            ssh_privkey=key,
            ssh_pubkey=pinned,  # nobody is let in
            host_key=pinned,
            state=state,
            crossing=(CrossingConfig(tag=seat.tag, interface="none", bridge="none"),),
        )
        return service.Portal(config, ground=ground)  # which reads its keys at once


def is_joined(portal: service.Portal) -> bool:
    """Whether frames go to and fro."""
    return any(crossing.plane is not None for crossing in portal.switch.crossings.values())
