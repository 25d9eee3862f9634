"""Who uses whom, in the lender's book; what borrowers make of it is told in uses.py.

    accepted: only if what it uses are running leases of the same user, and of the right kind
    ending:   whatever the reason, the keeper first ends those that use it, and deletes it when they are gone

So nothing is deleted under what uses it, though the lender should crash at any line and the borrower never be heard of again.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, delete, insert, or_, select

from federation_member.errors import UnknownLease
from federation_member.orders import leases as book
from federation_member.orders.leases import ENDED, Lease
from federation_member.orders.model import NOUNS
from federation_member.orders.tables import lease_uses, leases
from fedkit.identity.names import Name
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import AnySpec, LeaseState, references


def check(conn: Connection, borrower: Peer, name: Name, spec: AnySpec) -> None:
    """Lock what a new lease is to use; raises `UnknownLease`, whether that is somebody else's, another kind, or gone."""
    needed = references(spec)
    for lease_id in sorted(needed):  # sorted: locks are taken in one order
        noun = NOUNS[needed[lease_id]]
        used = book.load(conn, lease_id, lock=True)
        owner = None if used is None else (used.borrower.fedid, used.project, used.user)
        if used is None or used.parent is not None or owner != (borrower.fedid, name.project, name.user):
            raise UnknownLease(f"The {noun} {lease_id} is not a lease of this user.")
        if used.spec.kind != needed[lease_id] or used.state is not LeaseState.RUNNING:
            raise UnknownLease(f"The lease {lease_id} is not a running {noun}.")


def add(conn: Connection, lease: Lease) -> None:
    """Note what a new lease uses."""
    rows = [{"lease_id": lease.id, "used_id": used_id} for used_id in references(lease.spec)]
    if rows:
        conn.execute(insert(lease_uses), rows)


def users_of(conn: Connection, lease_id: str) -> list[str]:
    """The leases that use this one and still hold something by it; a snapshot that has been made does not."""
    made_snapshot = and_(leases.c.kind == "snapshot", leases.c.instance.is_not(None))
    ended = leases.c.state.in_([state.value for state in ENDED])
    query = select(leases.c.id).join(lease_uses, lease_uses.c.lease_id == leases.c.id)
    query = query.where(lease_uses.c.used_id == lease_id, ~ended, ~made_snapshot)
    return list(conn.execute(query.order_by(leases.c.id)).scalars())


def uses_of(conn: Connection, lease_id: str) -> list[str]:
    """The leases that this one uses."""
    return list(conn.execute(select(lease_uses.c.used_id).where(lease_uses.c.lease_id == lease_id)).scalars())


def forget(conn: Connection, lease_id: str) -> None:
    """Forget what an ended lease used, and that it was used."""
    conn.execute(delete(lease_uses).where(or_(lease_uses.c.lease_id == lease_id, lease_uses.c.used_id == lease_id)))
