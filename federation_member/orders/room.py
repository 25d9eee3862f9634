"""Whom a lender turned away for want of room, so that it can tell them when an instance of somebody ends.

    refused by a rule's count or hours, or failed for want of capacity ──► remembered
    a lease ends that held an instance ──► `lease.room` to each remembered borrower, whose waiting orders then ask again

It is a hint that saves waiting, so it is kept in memory and bounded: whoever is not told asks again when its back-off is over.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from federation_member.middleware.contract import NoCapacity, NoQuota
from fedkit.clock import Clock
from fedkit.mesh.api import Mesh, Peer
from fedkit.protocol import Empty
from fedkit.store import Tx

REMEMBERED = 1000  # borrowers
PATIENCE = timedelta(seconds=60)  # until a hint that does not arrive is worth nothing
NO_ROOM = frozenset({NoCapacity.code, NoQuota.code, "tunnel.no_port"})
"""Codes of leases that failed because everything was taken; the last one is the tunnel server's."""


class TurnedAway:
    """Borrowers that wait for room; may be used from any thread."""

    def __init__(self, mesh: Mesh, clock: Clock) -> None:
        self._mesh = mesh
        self._clock = clock
        self._peers: dict[str, Peer] = {}
        self._own: Callable[[], None] = lambda: None

    def connect_own(self, told: Callable[[], None]) -> None:
        """Name who is told where the borrower is this very member."""
        self._own = told

    def add(self, peer: Peer) -> None:
        """Remember a borrower; beyond `REMEMBERED` only those that are remembered already."""
        if len(self._peers) < REMEMBERED or peer.fedid in self._peers:
            self._peers[peer.fedid] = peer

    def tell(self, tx: Tx) -> None:
        """There is room: tell everybody, once."""
        peers, self._peers = self._peers, {}
        for peer in peers.values():
            if peer.fedid == self._mesh.me.fedid:
                tx.after_commit(self._own)
            else:
                self._mesh.enqueue(tx, peer, "lease.room", Empty(), deadline=self._clock() + PATIENCE)
