"""The lender's side of a lease: what a borrower may ask of it, and every change of its row.

Each request is answered at once, inside the transaction that writes it into the book; the keeper finds the row and makes it
true. A borrower is known by its fedid and can only touch its own leases; those of others do not exist for it. The member
itself is a borrower like any other, only without the mesh in between.

Lock order, where both are needed: the order's row before the lease's. A change that starts here and concerns a lease of our own
orders therefore takes the order first (`locked`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select

from federation_member.access.allowlist import Access, Applicant
from federation_member.errors import LeaseGone, NotLent, NoTunnel, UnknownLease
from federation_member.orders import leases
from federation_member.orders.candidates import KnownMember, choose_flavour, misfit
from federation_member.orders.leases import ENDED, LIVE, RETENTION, Lease, TunnelLease
from federation_member.orders.tables import lease_tombstones
from federation_member.orders.tables import leases as lease_table
from federation_member.orders.tunnels import SPARE, Tunnels
from fedkit.clock import Clock
from fedkit.identity.names import Name
from fedkit.mesh.api import Mesh, Peer
from fedkit.protocol.lending import (
    ComputeSpec,
    Flavour,
    LeaseChanged,
    LeaseCreate,
    LeaseRelease,
    LeaseState,
    LeaseSync,
    LeaseSynced,
    LeaseView,
    NetworkSpec,
    TunnelClose,
    TunnelOpen,
)
from fedkit.store import Tx

OwnNews = Callable[[Tx, LeaseView], None]


class Lending:
    """The book's operations; `me` is this member with its present offer, `wake(lease_id, at)` the keeper's."""

    def __init__(
        self,
        mesh: Mesh,
        tunnels: Tunnels,
        access: Access,
        me: Callable[[], KnownMember],
        wake: Callable[[str, datetime], None],
        clock: Clock,
    ) -> None:
        self._mesh = mesh
        self._tunnels = tunnels
        self._access = access
        self._me = me
        self._wake = wake
        self._clock = clock
        self._own_news: OwnNews = lambda _tx, _view: None
        self._lock_own: Callable[[Tx, str], None] = lambda _tx, _lease_id: None

    def connect_own(self, news: OwnNews, lock: Callable[[Tx, str], None]) -> None:
        """Name the borrower's book of this member: `news` for its leases, `lock` for the order of a lease."""
        self._own_news = news
        self._lock_own = lock

    # What a borrower asks

    def create(self, tx: Tx, borrower: Peer, body: LeaseCreate) -> LeaseView:
        """Accept a lease (or return it, if it was accepted before); raises a `FedError` to refuse it."""
        known = leases.load(tx.conn, body.lease_id, lock=True)
        if known is not None and known.borrower.fedid == borrower.fedid and known.state in LIVE:
            return known.view()
        if known is not None or self._is_tombstone(tx, body.lease_id):
            raise LeaseGone("This lease was released before; ask for another.")
        flavour = self._fit(body.spec)
        name = Name.parse(body.name)
        self._check_networks(tx, borrower, name, body.spec)
        applicant = Applicant(borrower.fedid, borrower.address, name.project, name.user, body.spec.kind)
        account = self._access.decide(applicant, lambda: self._held(tx))
        now = self._clock()
        expires = now + timedelta(seconds=body.seconds)
        lease = Lease(
            id=body.lease_id,
            borrower=borrower,
            project=name.project,
            user=name.user,
            account=account.name,
            spec=body.spec,
            flavour=flavour,
            state=LeaseState.ACCEPTED,
            code="",
            reason="",
            revision=1,
            created=now,
            changed=now,
            expires=expires,
            due=now,
            instance=None,
            tunnel=self._tunnels.begin(expires) if isinstance(body.spec, ComputeSpec) else None,
            tunnels=(),
        )
        leases.add(tx.conn, lease)
        self._tunnels.grant(tx, lease)
        tx.after_commit(lambda: self._wake(lease.id, now))
        return lease.view()

    def release(self, tx: Tx, borrower: Peer, body: LeaseRelease) -> LeaseView:
        """Begin to take a lease back; one never seen is marked so that it can never be created."""
        lease = leases.load(tx.conn, body.lease_id, lock=True)
        if lease is None:
            return self._bury(tx, borrower, body.lease_id)
        if lease.borrower.fedid != borrower.fedid:
            raise UnknownLease("No such lease of yours.")
        if lease.state not in LIVE:
            return lease.view()
        reason = "its borrower gave it back"
        return self.change(tx, lease, tell=False, state=LeaseState.RELEASING, reason=reason, due=self._clock()).view()

    def sync(self, tx: Tx, borrower: Peer, body: LeaseSync) -> LeaseSynced:
        """Renew what is alive of these leases and tell the state of each."""
        now = self._clock()
        expires = now + timedelta(seconds=body.seconds)
        found: list[LeaseView] = []
        unknown: list[str] = []
        for lease_id in sorted(set(body.lease_ids)):  # sorted: locks are taken in one order
            lease = leases.load(tx.conn, lease_id, lock=True)
            if lease is None or lease.borrower.fedid != borrower.fedid:
                unknown.append(lease_id)
                continue
            if lease.state in LIVE and lease.expires > now:
                lease = self._renew(tx, lease, borrower, max(expires, lease.expires))
            found.append(lease.view())
        return LeaseSynced(leases=found, unknown=unknown)

    def open_tunnel(self, tx: Tx, borrower: Peer, body: TunnelOpen) -> LeaseView:
        """Reserve a port for a machine under a name; its number comes with a later change of the lease."""
        lease, tunnel = self._with_tunnel(tx, borrower, body.lease_id)
        assert isinstance(lease.spec, ComputeSpec)
        if all(open_.name != body.name for open_ in lease.tunnels):
            if len(lease.tunnels) >= lease.spec.tunnel_ports:
                raise NoTunnel(f"This machine may hold {lease.spec.tunnel_ports} ports, and all are in use.")
            self._tunnels.reserve(tx, lease, tunnel, body.name)
        return lease.view()

    def close_tunnel(self, tx: Tx, borrower: Peer, body: TunnelClose) -> LeaseView:
        """Give a machine's port back."""
        lease, tunnel = self._with_tunnel(tx, borrower, body.lease_id)
        if any(open_.name == body.name for open_ in lease.tunnels):
            self._tunnels.free(tx, lease, tunnel, body.name)
        return lease.view()

    # What the lender itself changes

    def locked(self, tx: Tx, lease_id: str) -> Lease | None:
        """Read a lease to change it from our side."""
        if leases.borrower_of(tx.conn, lease_id) == self._mesh.me.fedid:
            self._lock_own(tx, lease_id)
        return leases.load(tx.conn, lease_id, lock=True)

    def change(self, tx: Tx, lease: Lease, *, tell: bool = True, **changes: Any) -> Lease:
        """Write a change, tell the borrower (unless the change is the answer to its request), wake the keeper."""
        lease = leases.save(tx.conn, lease, self._clock(), **changes)
        due = lease.due
        if due is not None:
            tx.after_commit(lambda: self._wake(lease.id, due))
        if tell and lease.borrower.fedid == self._mesh.me.fedid:
            self._own_news(tx, lease.view())
        elif tell:
            self._mesh.enqueue(tx, lease.borrower, "lease.changed", LeaseChanged(lease=lease.view()))
        return lease

    def now(self) -> datetime:
        """The present time of this book."""
        return self._clock()

    def wake(self, lease_id: str) -> None:
        """Have the keeper look at a lease now."""
        self._wake(lease_id, self._clock())

    def made(self, tx: Tx, lease: Lease, **changes: Any) -> Lease:
        """The instance runs and, where it needs one, has its tunnel: tell. The machine has its key, so we forget it."""
        tunnel = changes.pop("tunnel", lease.tunnel)
        if tunnel is not None:
            tunnel = replace(tunnel, private_key="")
        return self.change(
            tx, lease, state=LeaseState.RUNNING, code="", reason="", due=lease.expires, tunnel=tunnel, **changes
        )

    def end(self, tx: Tx, lease: Lease) -> Lease:
        """Close a lease under which the middleware holds nothing any more."""
        state = LeaseState.FAILED if lease.state is LeaseState.FAILING else LeaseState.RELEASED
        self._tunnels.revoke(tx, lease)
        return self.change(
            tx, lease, state=state, instance=None, tunnel=None, tunnels=(), due=self._clock() + RETENTION
        )

    # Details

    def _fit(self, spec: ComputeSpec | NetworkSpec) -> Flavour | None:
        me = self._me()
        refusal = misfit(me, spec)
        if refusal is not None:
            raise NotLent(refusal)
        chosen = choose_flavour(me, spec) if isinstance(spec, ComputeSpec) else None
        assert not isinstance(chosen, str)
        return chosen

    @staticmethod
    def _check_networks(tx: Tx, borrower: Peer, name: Name, spec: ComputeSpec | NetworkSpec) -> None:
        for lease_id in spec.networks if isinstance(spec, ComputeSpec) else ():
            network = leases.load(tx.conn, lease_id, lock=True)
            owner = None if network is None else (network.borrower.fedid, network.project, network.user)
            if network is None or owner != (borrower.fedid, name.project, name.user):
                raise UnknownLease(f"The network {lease_id} is not a lease of this user.")
            if network.spec.kind != "network" or network.state is not LeaseState.RUNNING:
                raise UnknownLease(f"The lease {lease_id} is not a running network.")

    @staticmethod
    def _held(tx: Tx) -> Mapping[Applicant, int]:
        t = lease_table.c
        who = (t.borrower, t.address, t.project, t.owner, t.kind)
        query = select(*who, func.count().label("number")).where(t.state.not_in([s.value for s in ENDED]))
        rows = tx.conn.execute(query.group_by(*who))
        return {Applicant(r.borrower, r.address, r.project, r.owner, r.kind): r.number for r in rows}

    def _renew(self, tx: Tx, lease: Lease, borrower: Peer, expires: datetime) -> Lease:
        now = self._clock()
        tunnel = lease.tunnel
        if tunnel is not None and tunnel.expires < expires:
            tunnel = TunnelLease(tunnel.server, tunnel.private_key, tunnel.public_key, expires + SPARE, tunnel.revision)
        due = expires if lease.state is LeaseState.RUNNING else lease.due
        changes: dict[str, Any] = {"borrower": borrower, "expires": expires, "tunnel": tunnel, "due": due}
        renewed = leases.save(tx.conn, lease, now, quiet=True, **changes)
        if tunnel is not lease.tunnel:
            self._tunnels.grant(tx, renewed)
        return renewed

    def _with_tunnel(self, tx: Tx, borrower: Peer, lease_id: str) -> tuple[Lease, TunnelLease]:
        lease = leases.load(tx.conn, lease_id, lock=True)
        if lease is None or lease.borrower.fedid != borrower.fedid:
            raise UnknownLease("No such lease of yours.")
        if lease.state is not LeaseState.RUNNING:
            raise UnknownLease(f"The lease is {lease.state.value}; tunnels need a running machine.")
        if lease.tunnel is None:
            raise NoTunnel("This site has no tunnel server for its machines.")
        return lease, lease.tunnel

    def _is_tombstone(self, tx: Tx, lease_id: str) -> bool:
        query = select(lease_tombstones.c.id).where(lease_tombstones.c.id == lease_id)
        return tx.conn.execute(query).first() is not None

    def _bury(self, tx: Tx, borrower: Peer, lease_id: str) -> LeaseView:
        now = self._clock()
        t = lease_tombstones
        tx.conn.execute(delete(t).where(t.c.until < now))
        if not self._is_tombstone(tx, lease_id):
            tx.conn.execute(insert(t).values(id=lease_id, borrower=borrower.fedid, until=now + RETENTION))
        reason = "it was never made here"
        return LeaseView(lease_id=lease_id, state=LeaseState.RELEASED, revision=1, reason=reason, expires=now)
