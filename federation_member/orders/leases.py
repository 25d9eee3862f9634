"""The lender's book: rows of leases, read and written inside the caller's transaction.

The book says what should exist; the keeper makes the middleware agree. What has ended is remembered for
`RETENTION`, so that a late request for it finds its answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, delete, insert, select, update

from federation_member.access.certificates import Handed
from federation_member.orders.segments.state import STATE, SegmentState
from federation_member.orders.store import REASON_LENGTH, SPEC, TUNNELS
from federation_member.orders.tables import EPOCH, leases
from federation_member.orders.wishes import NOTHING, RuleList, Wishes, as_columns, of_columns
from federation_member.usage import book
from federation_member.usage.model import Party, Sizes, follow, sizes_of
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import (
    ComputeSpec,
    Flavour,
    Instance,
    LeaseState,
    LeaseView,
    Spec,
    Spell,
    Tunnel,
    first_rules,
)
from fedkit.protocol.segments import SegmentSpec
from fedkit.store import Tx

ENDED = frozenset({LeaseState.FAILED, LeaseState.RELEASED})
LIVE = frozenset({LeaseState.ACCEPTED, LeaseState.RUNNING})
HANDED: TypeAdapter[Handed] = TypeAdapter(Handed)
SPELLS: TypeAdapter[tuple[Spell, ...]] = TypeAdapter(tuple[Spell, ...])
RETENTION = timedelta(days=1)  # how long an ended lease is remembered: longer than any request for it can be under way


@dataclass(frozen=True)
class TunnelLease:
    """The right of a lease's machine to hold ports at a tunnel server."""

    server: Peer
    private_key: str  # OpenSSH format; empty once the machine has it
    public_key: str
    expires: datetime
    revision: int = 0  # of the server's last word; 0 before its first


@dataclass(frozen=True)
class Lease:
    """One lease, as a row."""

    id: str
    borrower: Peer
    project: str
    user: str
    account: str
    spec: Spec
    flavour: Flavour | None
    state: LeaseState
    code: str
    reason: str
    revision: int
    created: datetime
    changed: datetime
    expires: datetime
    due: datetime | None
    instance: Instance | None
    tunnel: TunnelLease | None
    tunnels: tuple[Tunnel, ...]
    handed: Handed | None = None  # while its grant is used
    wishes: Wishes = NOTHING
    rules: RuleList | None = None  # that are in force; none: those that it was made with
    spells: tuple[Spell, ...] = ()  # the last ones: when it held what
    parent: str | None = None  # the segment that it is a part of, and whose account its time goes to
    part: str = ""  # which, such as "node/a"
    segment: SegmentState | None = None

    @property
    def party(self) -> Party:
        """Whose account it goes to."""
        return Party(self.borrower.fedid, self.borrower.address, self.project, self.user, self.spec.kind)

    @property
    def holds(self) -> Sizes | None:
        """What it holds now; None while it does not run, or if its parent is said to hold it."""
        if self.state is not LeaseState.RUNNING or self.parent is not None:
            return None
        if self.segment is not None:
            return self.segment.sizes
        return sizes_of(self.spec, self.flavour, self.instance)

    def view(self) -> LeaseView:
        """What the borrower may see."""
        return LeaseView(
            lease_id=self.id,
            state=self.state,
            revision=self.revision,
            code=self.code,
            reason=self.reason[:REASON_LENGTH],
            expires=self.expires,
            instance=self.instance,
            tunnels=list(self.tunnels) if self.segment is None else [],
            allocation=None if self.handed is None else self.handed.allocation,
            certificates=[] if self.handed is None else list(self.handed.certificates),
            credentials=[] if self.handed is None else list(self.handed.credentials),
            wanted_power=self.wishes.power,
            rules=list(first_rules(self.spec) if self.rules is None else self.rules),
            wanted_rules=None if self.wishes.rules is None else list(self.wishes.rules),
            spells=list(self.spells),
        )


def load(conn: Connection, lease_id: str, *, lock: bool = False) -> Lease | None:
    """Read one lease; `lock` keeps others from changing it until the end of the transaction."""
    query = select(leases).where(leases.c.id == lease_id)
    row = conn.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _lease(row)


def borrower_of(conn: Connection, lease_id: str) -> str | None:
    """The fedid of a lease's borrower, which never changes."""
    return conn.execute(select(leases.c.borrower).where(leases.c.id == lease_id)).scalar()


def children(conn: Connection, parent: str) -> dict[str, Lease]:
    """The parts of a segment, by their ids; those that have ended are remembered for a while."""
    rows = conn.execute(select(leases).where(leases.c.parent == parent))
    return {row.id: _lease(row) for row in rows}


def extend(conn: Connection, parent: str, expires: datetime) -> None:
    """Let the parts of a segment that are there last as long as it does."""
    t = leases.c
    alive = update(leases).where(t.parent == parent, t.state.in_(_values(LIVE)), t.expires < expires)
    settled = alive.where(t.state == LeaseState.RUNNING.value, t.wanted_power.is_(None))
    conn.execute(settled.values(expires=expires, due=expires))
    conn.execute(alive.values(expires=expires))


def add(conn: Connection, lease: Lease) -> None:
    """Write a new lease."""
    conn.execute(
        insert(leases).values(
            id=lease.id,
            borrower=lease.borrower.fedid,
            project=lease.project,
            owner=lease.user,
            account=lease.account,
            kind=lease.spec.kind,
            spec=lease.spec.model_dump_json(),
            flavour=None if lease.flavour is None else lease.flavour.model_dump_json(),
            created=lease.created,
            parent=lease.parent,
            part=lease.part,
            **_columns(lease),
        )
    )


def save(tx: Tx, lease: Lease, now: datetime, *, quiet: bool = False, **changes: Any) -> Lease:
    """Write changes to a lease, and what they mean for its account, and return it; `quiet` ones are not worth a new revision."""
    if not quiet:
        changes["revision"] = lease.revision + 1
    new = replace(lease, changed=now, **changes)
    new = replace(new, spells=follow(new.spells, new.holds, now))
    values = _columns(new)
    if new.spec is not lease.spec:  # which is large, and hardly ever changes
        values["spec"] = new.spec.model_dump_json()
    tx.conn.execute(update(leases).where(leases.c.id == lease.id).values(**values))
    if new.spells != lease.spells:
        book.lent(tx, lease.id, lease.party, lease.spells, new.spells)
    return new


def without_secrets(spec: Spec) -> Spec:
    """A spec as it may be remembered when it has ended: what machines were told holds keys and passwords."""
    if isinstance(spec, ComputeSpec) and spec.user_data:
        return spec.model_copy(update={"user_data": ""})
    if isinstance(spec, SegmentSpec) and spec.settings:
        return spec.model_copy(update={"settings": {}})
    return spec


def forget(conn: Connection, lease_id: str) -> None:
    """Remove an ended lease from the book."""
    conn.execute(delete(leases).where(leases.c.id == lease_id, leases.c.state.in_(_values(ENDED))))


def due(conn: Connection) -> list[tuple[str, datetime]]:
    """All leases that wait for a time."""
    query = select(leases.c.id, leases.c.due).where(leases.c.due >= EPOCH)
    return [(row.id, row.due) for row in conn.execute(query)]


def due_before(conn: Connection, time: datetime) -> list[str]:
    """Leases that the keeper should have looked at by a time."""
    return list(conn.execute(select(leases.c.id).where(leases.c.due < time)).scalars())


def held(conn: Connection) -> dict[str, LeaseState]:
    """Every lease under which the middleware may hold something."""
    query = select(leases.c.id, leases.c.state).where(leases.c.state.not_in(_values(ENDED)))
    return {row.id: LeaseState(row.state) for row in conn.execute(query)}


def under(conn: Connection, account: str) -> list[Lease]:
    """The leases of a local account under which the middleware may hold something."""
    query = select(leases).where(leases.c.account == account, leases.c.state.not_in(_values(ENDED)))
    return [_lease(row) for row in conn.execute(query)]


def claim(conn: Connection, lease_id: str, worker: str, now: datetime, until: datetime) -> bool:
    """Reserve talking to the middleware about a lease; False if another process is at it."""
    query = select(leases.c.claimed_by, leases.c.claimed_until).where(leases.c.id == lease_id)
    row = conn.execute(query.with_for_update(skip_locked=True)).one_or_none()
    if row is None or (row.claimed_by not in (None, worker) and row.claimed_until > now):
        return False
    conn.execute(update(leases).where(leases.c.id == lease_id).values(claimed_by=worker, claimed_until=until))
    return True


def unclaim(conn: Connection, lease_id: str, worker: str) -> None:
    """End a claim."""
    query = update(leases).where(leases.c.id == lease_id, leases.c.claimed_by == worker)
    conn.execute(query.values(claimed_by=None, claimed_until=None))


def _values(states: Iterable[LeaseState]) -> list[str]:
    return [state.value for state in states]


def _columns(lease: Lease) -> dict[str, Any]:
    tunnel = lease.tunnel
    return {
        "address": lease.borrower.address,
        "state": lease.state.value,
        "code": lease.code,
        "reason": lease.reason[:REASON_LENGTH],
        "revision": lease.revision,
        "changed": lease.changed,
        "expires": lease.expires,
        "due": lease.due,
        "instance": None if lease.instance is None else lease.instance.model_dump_json(),
        "tunnel_fedid": None if tunnel is None else tunnel.server.fedid,
        "tunnel_address": None if tunnel is None else tunnel.server.address,
        "tunnel_key": None if tunnel is None else tunnel.private_key,
        "tunnel_public": None if tunnel is None else tunnel.public_key,
        "tunnel_expires": None if tunnel is None else tunnel.expires,
        "tunnel_revision": 0 if tunnel is None else tunnel.revision,
        "tunnels": TUNNELS.dump_json(lease.tunnels).decode(),
        "handed": None if lease.handed is None else HANDED.dump_json(lease.handed).decode(),
        **as_columns(lease.wishes, lease.rules),
        "spells": SPELLS.dump_json(lease.spells).decode(),
        "segment": None if lease.segment is None else STATE.dump_json(lease.segment).decode(),
    }


def _lease(row: Row[Any]) -> Lease:
    tunnel = None
    if row.tunnel_fedid is not None:
        server = Peer(row.tunnel_fedid, row.tunnel_address)
        tunnel = TunnelLease(server, row.tunnel_key, row.tunnel_public, row.tunnel_expires, row.tunnel_revision)
    wishes, rules = of_columns(row)
    return Lease(
        id=row.id,
        borrower=Peer(row.borrower, row.address),
        project=row.project,
        user=row.owner,
        account=row.account,
        spec=SPEC.validate_json(row.spec),
        flavour=None if row.flavour is None else Flavour.model_validate_json(row.flavour),
        state=LeaseState(row.state),
        code=row.code,
        reason=row.reason,
        revision=row.revision,
        created=row.created,
        changed=row.changed,
        expires=row.expires,
        due=row.due,
        instance=None if row.instance is None else Instance.model_validate_json(row.instance),
        tunnel=tunnel,
        tunnels=TUNNELS.validate_json(row.tunnels),
        handed=None if row.handed is None else HANDED.validate_json(row.handed),
        wishes=wishes,
        rules=rules,
        spells=SPELLS.validate_json(row.spells),
        parent=row.parent,
        part=row.part,
        segment=None if row.segment is None else STATE.validate_json(row.segment),
    )
