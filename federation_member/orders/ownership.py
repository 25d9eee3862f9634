"""Whose a lease is: every operation checks the sender's right to the very lease that it names."""

from __future__ import annotations

from federation_member.errors import NotRunning, UnknownLease
from federation_member.orders.leases import Lease
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import LeaseState


def is_borrowed(lease: Lease, borrower: Peer) -> bool:
    """Tell whether a borrower may name a lease; a part of its segment it may not."""
    return lease.borrower.fedid == borrower.fedid and lease.parent is None


def borrowed(lease: Lease | None, borrower: Peer) -> Lease:
    """The borrower's own lease; raises `UnknownLease`."""
    if lease is None or not is_borrowed(lease, borrower):
        raise UnknownLease("No such lease of yours.")
    return lease


def running(lease: Lease | None, borrower: Peer) -> Lease:
    """The borrower's own lease, if it runs; raises `UnknownLease` or `NotRunning`."""
    lease = borrowed(lease, borrower)
    if lease.state is not LeaseState.RUNNING:
        raise NotRunning(f"The lease is {lease.state.value}; only what runs can be changed or looked at.")
    return lease
