"""How a borrower reaches its lenders: over the mesh, or, where the lender is this very member, by calling its book.

Both ways keep to one pattern. What is told inside a transaction returns the lender's view at once if the lender is here, and
None if the answer will come over the mesh; then the operation's answer handler gets the same view.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from fedkit.clock import Clock
from fedkit.mesh.api import Mesh, Peer, RecordedRefusal
from fedkit.protocol.lending import (
    Console,
    LeaseChange,
    LeaseConsole,
    LeaseCreate,
    LeaseRelease,
    LeaseSync,
    LeaseSynced,
    LeaseView,
    QuotaGet,
    QuotaView,
    TunnelClose,
    TunnelOpen,
)
from fedkit.protocol.segments import RUN_LIMIT, RUNS, Operate, Operated
from fedkit.store import Database, Tx

ANSWER_WITHIN = timedelta(seconds=2.5)  # a candidate that takes longer costs the order its turn there
SYNC_TIMEOUT = 5.0  # seconds
QUESTION_TIMEOUT = 6.0  # seconds; longer than a lender gives its own cloud


class Lender(Protocol):
    """The lender's book of this member; see `lending.Lending`."""

    def create(self, tx: Tx, borrower: Peer, body: LeaseCreate) -> LeaseView:
        """Accept a lease, or raise a `FedError`."""

    def release(self, tx: Tx, borrower: Peer, body: LeaseRelease) -> LeaseView:
        """Begin to take a lease back."""

    def sync(self, tx: Tx, borrower: Peer, body: LeaseSync) -> LeaseSynced:
        """Renew leases and tell their states."""

    def wish(self, tx: Tx, borrower: Peer, body: LeaseChange) -> LeaseView:
        """Have a lease be otherwise from now on."""

    def open_tunnel(self, tx: Tx, borrower: Peer, body: TunnelOpen) -> LeaseView:
        """Reserve a port."""

    def close_tunnel(self, tx: Tx, borrower: Peer, body: TunnelClose) -> LeaseView:
        """Give a port back."""


class Teller(Protocol):
    """What this member tells of what it lends; see `inspection.Inspection`."""

    async def console(self, borrower: Peer, body: LeaseConsole) -> Console:
        """The end of what a machine wrote."""

    async def quota(self, borrower: Peer, body: QuotaGet) -> QuotaView:
        """What a user may have and has."""


class Operating(Protocol):
    """What this member does to nodes of segments; see `segments/operate.py`."""

    async def operate(self, borrower: Peer, body: Operate) -> Operated:
        """Do something to nodes."""


class Lenders:
    """All members as lenders."""

    def __init__(
        self, db: Database, mesh: Mesh, own: Lender, teller: Teller, operating: Operating, clock: Clock
    ) -> None:
        self._teller = teller
        self._operating = operating
        self._db = db
        self._mesh = mesh
        self._own = own
        self._clock = clock

    def is_own(self, peer: Peer) -> bool:
        """Tell whether the lender is this member."""
        return peer.fedid == self._mesh.me.fedid

    def silent(self, peer: Peer) -> bool:
        """Tell whether `peer` did not answer lately, so that asking it now would only cost time."""
        return not self.is_own(peer) and self._mesh.backing_off(peer) is not None

    def create(self, tx: Tx, peer: Peer, body: LeaseCreate) -> LeaseView | None:
        """Ask for a lease; a local refusal raises its `FedError`."""
        if self.is_own(peer):
            return self._create_own(tx, peer, body)
        self._mesh.enqueue(tx, peer, "lease.create", body, deadline=self._clock() + ANSWER_WITHIN)
        return None

    def _create_own(self, tx: Tx, peer: Peer, body: LeaseCreate) -> LeaseView:
        try:
            return self._own.create(tx, peer, body)
        except RecordedRefusal as refusal:
            refusal.record(tx)
            raise

    def release(self, tx: Tx, peer: Peer, lease_id: str) -> LeaseView | None:
        """Have a lease taken back, however long it takes to reach the lender."""
        body = LeaseRelease(lease_id=lease_id)
        if self.is_own(peer):
            return self._own.release(tx, peer, body)
        self._mesh.enqueue(tx, peer, "lease.release", body)
        return None

    def change(self, tx: Tx, peer: Peer, body: LeaseChange) -> LeaseView | str:
        """Have a lease be otherwise from now on; returns the view, or the id of the request under way."""
        if self.is_own(peer):
            return self._own.wish(tx, peer, body)
        return self._mesh.enqueue(tx, peer, "lease.change", body, deadline=self._clock() + ANSWER_WITHIN)

    def go(self, tx: Tx, peer: Peer, body: LeaseChange) -> None:
        """Tell how a segment is to be, however long it takes to reach its lender; the last word counts."""
        if self.is_own(peer):
            self._own.wish(tx, peer, body)
        else:
            self._mesh.enqueue(tx, peer, "lease.change", body)

    def open_tunnel(self, tx: Tx, peer: Peer, body: TunnelOpen) -> LeaseView | str:
        """Reserve a port; returns the view, or the id of the request under way."""
        if self.is_own(peer):
            return self._own.open_tunnel(tx, peer, body)
        return self._mesh.enqueue(tx, peer, "tunnel.open", body, deadline=self._clock() + ANSWER_WITHIN)

    def close_tunnel(self, tx: Tx, peer: Peer, body: TunnelClose) -> LeaseView | str:
        """Give a port back; returns the view, or the id of the request under way."""
        if self.is_own(peer):
            return self._own.close_tunnel(tx, peer, body)
        return self._mesh.enqueue(tx, peer, "tunnel.close", body, deadline=self._clock() + ANSWER_WITHIN)

    async def sync(self, peer: Peer, body: LeaseSync) -> LeaseSynced:
        """Renew leases; raises the mesh's errors if the lender does not answer."""
        if self.is_own(peer):
            return await self._db.run(lambda tx: self._own.sync(tx, peer, body))
        return await self._mesh.ask(peer, "lease.sync", body, LeaseSynced, timeout=SYNC_TIMEOUT)

    async def console(self, peer: Peer, body: LeaseConsole) -> Console:
        """What a machine wrote; raises what the lender answers, or the mesh's errors if it does not."""
        if self.is_own(peer):
            return await self._teller.console(peer, body)
        return await self._mesh.ask(peer, "lease.console", body, Console, timeout=QUESTION_TIMEOUT)

    async def quota(self, peer: Peer, body: QuotaGet) -> QuotaView:
        """What a user may have there; raises as `console` does."""
        if self.is_own(peer):
            return await self._teller.quota(peer, body)
        return await self._mesh.ask(peer, "quota.get", body, QuotaView, timeout=QUESTION_TIMEOUT)

    async def operate(self, peer: Peer, body: Operate) -> Operated:
        """Do something to nodes of a segment; raises as `console` does."""
        if self.is_own(peer):
            return await self._operating.operate(peer, body)
        timeout = RUN_LIMIT + QUESTION_TIMEOUT if body.operation in RUNS else QUESTION_TIMEOUT
        return await self._mesh.ask(peer, "segment.operate", body, Operated, timeout=timeout)
