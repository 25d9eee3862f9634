"""A connection to plain OpenSSH: `tun@openssh.com`, a channel for each crossing, and nothing else to agree on.

As the end that connects we ask for every crossing over one connection. OpenSSH's client opens one tunnel for each connection, so
as the end that waits we take each channel for itself; whichever came last carries its crossing.
"""

from __future__ import annotations

from collections.abc import Callable

import asyncssh

from fedkit.portal.channel import ETHERNET_MODE, ETHERNET_TUNNEL, FrameChannel
from fedkit.portal.planes.classic import Classic
from fedkit.portal.planes.contract import Plane
from fedkit.portal.ssh import FrameConnection
from fedkit.portal.switch import Switch

KEEPALIVE, KEEPALIVES = 1.0, 3  # seconds between two questions, and how many may stay unanswered


class ClassicSession:
    """`ended` is called when the last channel has gone."""

    def __init__(self, switch: Switch, conn: FrameConnection, ended: Callable[[ClassicSession, str], None]) -> None:
        self._switch = switch
        self.conn = conn
        self._ended = ended
        self._planes: dict[int, Classic] = {}
        conn.set_keepalive(KEEPALIVE, KEEPALIVES)

    @property
    def planes(self) -> list[Plane]:
        """A plane for each crossing."""
        return list(self._planes.values())

    @property
    def joined(self) -> bool:
        """Whether some crossing goes this way."""
        return any(crossing.plane in self.planes for crossing in self._switch.crossings.values())

    def open(self) -> None:
        """Ask the peer for every crossing."""
        for tag in self._switch.tags:
            plane = self._plane(tag)
            plane.channel = FrameChannel(self.conn, ETHERNET_TUNNEL, plane)
            plane.channel.open(ETHERNET_MODE, tag)

    def attach(self, tag: int) -> Classic:
        """The peer asks for this crossing; `channel` of what is returned is still to be set. Raises `ChannelOpenError`."""
        if tag not in self._switch.crossings or tag in self._planes:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, f"There is no crossing {tag} here to be had")
        return self._plane(tag)

    def _plane(self, tag: int) -> Classic:
        plane = Classic(
            self.conn, tag, self._switch.deliver, lambda: self._opened(tag), lambda why: self._lost(tag, why)
        )
        self._planes[tag] = plane
        return plane

    def _opened(self, tag: int) -> None:
        self._switch.use(tag, self._planes[tag])

    def _lost(self, tag: int, reason: str) -> None:
        plane = self._planes.pop(tag, None)
        if plane is not None:
            self._switch.leave([plane])
            if not self._planes:
                self._ended(self, reason)

    def close(self, reason: str) -> None:
        """End it."""
        for tag in list(self._planes):
            self._lost(tag, reason)
        self.conn.disconnect(asyncssh.DISC_BY_APPLICATION, reason)
