"""The lender's side of a lease: what a borrower may ask of it, and every change of its row.

Each request is answered at once, inside the transaction that writes it into the book; the keeper finds the row and makes it
true. A borrower is known by its fedid and can only touch its own leases; those of others do not exist for it. The member
itself is a borrower like any other, only without the mesh in between.

Lock order, where both are needed: the order's row before the lease's. A change that starts here and concerns a lease of our own
orders therefore takes the order first (`locked`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from federation_member.access import grants
from federation_member.access.controller import Controller, Ended, proof_to_tell
from federation_member.access.grants import Grant
from federation_member.access.model import Action
from federation_member.access.rules import allows
from federation_member.access.verdict import Applicant
from federation_member.errors import Cannot, LeaseGone, NotAllowed, NotLent, NotRunning, NoTunnel, UnknownLease, Why
from federation_member.orders import lease_uses, leases, wishes
from federation_member.orders.candidates import KnownMember, choose_flavour, misfit
from federation_member.orders.leases import LIVE, RETENTION, Lease, TunnelLease
from federation_member.orders.model import NOUNS
from federation_member.orders.ownership import borrowed, is_borrowed, running
from federation_member.orders.room import NO_ROOM, TurnedAway
from federation_member.orders.segments.growing import grown
from federation_member.orders.segments.lines import is_able
from federation_member.orders.segments.plan import check as check_segment
from federation_member.orders.segments.state import SegmentState, gone, promised, within
from federation_member.orders.segments.ways import ways
from federation_member.orders.store import REASON_LENGTH
from federation_member.orders.tables import lease_tombstones
from federation_member.orders.tunnels import SPARE, Tunnels
from federation_member.orders.wishes import NOTHING
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.identity.names import Name
from fedkit.mesh.api import Mesh, Peer
from fedkit.policy import compact
from fedkit.policy.model import Credential
from fedkit.policy.revocation import RevocationList
from fedkit.protocol.lending import (
    Ability,
    AnySpec,
    ComputeSpec,
    Flavour,
    LeaseChange,
    LeaseChanged,
    LeaseCreate,
    LeaseRelease,
    LeaseState,
    LeaseSync,
    LeaseSynced,
    LeaseView,
    Offer,
    TunnelClose,
    TunnelOpen,
)
from fedkit.protocol.segments import SegmentGo, SegmentSpec
from fedkit.store import Tx

SOON = timedelta(seconds=0.5)  # until a segment takes notice of what became of its parts
OwnNews = Callable[[Tx, LeaseView], None]


class Lending:
    """The book's operations; `me` is this member with its present offer, `wake(lease_id, at)` the keeper's."""

    def __init__(
        self,
        mesh: Mesh,
        tunnels: Tunnels,
        access: Controller,
        me: Callable[[], KnownMember],
        wake: Callable[[str, datetime], None],
        clock: Clock,
        *,
        hosted: bool = False,
    ) -> None:
        self._hosted = hosted
        self._mesh = mesh
        self._tunnels = tunnels
        self._access = access
        self._me = me
        self._wake = wake
        self._clock = clock
        self.turned_away = TurnedAway(mesh, clock)
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
        name = Name.parse(body.name)
        applicant = Applicant(borrower, name, body.principal, _read(body.credentials))
        flavour = self._fit(body.spec)
        lease_uses.check(tx.conn, borrower, name, body.spec)
        now = self._clock()
        grant = self._grant(tx, applicant, body, flavour, now + timedelta(seconds=body.seconds))
        expires = grant.until
        segment = self._segment(tx, body)
        lease = Lease(
            id=body.lease_id,
            borrower=borrower,
            project=name.project,
            user=name.user,
            account=grant.account.name,
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
            instance=promised(body.spec, segment),
            tunnel=self._tunnel(body.spec, expires),
            tunnels=(),
            handed=self._access.handed(grant, None),
            segment=segment,
        )
        leases.add(tx.conn, lease)
        lease_uses.add(tx.conn, lease)
        self._tunnels.grant(tx, lease)
        tx.after_commit(lambda: self._wake(lease.id, now))
        return lease.view().model_copy(update={"proof": proof_to_tell(grant)})

    def _grant(
        self, tx: Tx, applicant: Applicant, body: LeaseCreate, flavour: Flavour | None, until: datetime
    ) -> Grant:
        action, keys = Action(body.spec.kind), []
        if isinstance(body.spec, ComputeSpec):
            action = Action(body.spec.kind, flavour.name if flavour else "", image=body.spec.image)
            keys = body.spec.ssh_keys
        elif isinstance(body.spec, SegmentSpec):
            keys = body.spec.ssh_keys
        try:
            return self._access.grant(tx, body.lease_id, applicant, action, keys, until)
        except NotAllowed as refusal:
            if not refusal.details.get("missing"):  # no credential would help: the count, perhaps
                self.turned_away.add(applicant.member)
            raise

    def _segment(self, tx: Tx, body: LeaseCreate) -> SegmentState | None:
        """The state of a new segment; raises `UnusableSegment`, `UnusableKey` or `BadDescription`.

        A description is read for those alone who may have a segment, because that takes time; so its grant goes if it is no use.
        """
        if not isinstance(body.spec, SegmentSpec):
            return None
        try:
            offer = self._lent(tx.conn, body.lease_id)
            check_segment(body.spec, offer)
            relayed = Ability.TUNNELS not in self._me().offer.abilities
            delays = is_able(body.spec, offer)
            return SegmentState.begin(body.spec, hosted=self._hosted, relayed=relayed, delays=delays)
        except FedError as error:
            self._access.release(tx, body.lease_id, error.code, error.message)
            grants.forget(tx.conn, body.lease_id)
            raise

    def release(self, tx: Tx, borrower: Peer, body: LeaseRelease) -> LeaseView:
        """Begin to take a lease back; one never seen is marked so that it can never be created."""
        lease = leases.load(tx.conn, body.lease_id, lock=True)
        if lease is None:
            return self._bury(tx, borrower, body.lease_id)
        lease = borrowed(lease, borrower)
        if lease.state not in LIVE:
            return lease.view()
        reason = "its borrower gave it back"
        return self.change(tx, lease, tell=False, state=LeaseState.RELEASING, reason=reason, due=self._clock()).view()

    def sync(self, tx: Tx, borrower: Peer, body: LeaseSync) -> LeaseSynced:
        """Renew what is alive of these leases and tell the state of each."""
        now = self._clock()
        expires = now + timedelta(seconds=body.seconds)
        fresh = _read(body.credentials)
        found: list[LeaseView] = []
        unknown: list[str] = []
        for lease_id in sorted(set(body.lease_ids)):  # sorted: locks are taken in one order
            lease = leases.load(tx.conn, lease_id, lock=True)
            if lease is None or not is_borrowed(lease, borrower):
                unknown.append(lease_id)
                continue
            if lease.state in LIVE and lease.expires > now:
                lease = self._renew(tx, lease, borrower, max(expires, lease.expires), fresh)
            found.append(lease.view())
        return LeaseSynced(leases=found, unknown=unknown)

    def wish(self, tx: Tx, borrower: Peer, body: LeaseChange) -> LeaseView:
        """Write down how a lease is to be from now on; raises `UnknownLease`, `NotRunning` or `Cannot`."""
        if body.segment is not None:
            return self._go(tx, borrower, body, body.segment)
        lease = running(leases.load(tx.conn, body.lease_id, lock=True), borrower)
        wishes.check(lease.spec.kind, body, self._me().offer.abilities)
        wanted = lease.wishes.and_then(body)
        if wanted == lease.wishes:
            return lease.view()
        told = {} if lease.code == NotAllowed.code else {"code": "", "reason": ""}
        here = borrower.fedid == self._mesh.me.fedid  # whose order hears of it at once; others get it as their answer
        return self.change(tx, lease, tell=here, wishes=wanted, due=self._clock(), **told).view()

    def _go(self, tx: Tx, borrower: Peer, body: LeaseChange, go: SegmentGo) -> LeaseView:
        """Start a segment, change it, or tell it its portals' partners."""
        lease = borrowed(leases.load(tx.conn, body.lease_id, lock=True), borrower)
        if lease.segment is None or not isinstance(lease.spec, SegmentSpec) or body.power or body.rules is not None:
            raise Cannot("Segments alone can be started so, and nothing else be changed of them.")
        if lease.state not in LIVE:
            raise NotRunning(f"The segment is {lease.state.value}; there is nothing to start.")
        spec, segment = grown(lease.spec, lease.segment, go, self._lent(tx.conn, lease.id))
        segment = gone(spec, segment, go if spec is go.spec else within(spec, go))
        if segment == lease.segment:
            return lease.view()
        here = borrower.fedid == self._mesh.me.fedid
        changed = self.change(tx, lease, tell=here, spec=spec, segment=segment, due=self._clock())
        if spec is not lease.spec:
            self.change_ways(tx, changed, lease.spec)
        return changed.view()

    def change_ways(self, tx: Tx, lease: Lease, before: SegmentSpec) -> None:
        """Have the tunnel server keep the ports of a segment as it is now, and those alone: one right is the whole segment's."""
        assert isinstance(lease.spec, SegmentSpec)
        if lease.tunnel is not None:
            for name in sorted({*ways(before)} - {*ways(lease.spec)}):
                self._tunnels.free(tx, lease, lease.tunnel, name)
            self._tunnels.grant(tx, lease)

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

    # Access

    def begin(self, tx: Tx) -> None:
        """Recall what was revoked, and end what should have ended."""
        self._end_all(tx, self._access.begin(tx))

    def revoke(self, tx: Tx, listing: RevocationList) -> None:
        """Take in an issuer's list, and end every lease that rests on what it names."""
        self._end_all(tx, self._access.revoke(tx, listing))

    def _end_all(self, tx: Tx, ended: Sequence[Ended]) -> None:
        for one in sorted(ended, key=lambda one: one.lease_id):  # sorted: locks are taken in one order
            lease = self.locked(tx, one.lease_id)
            if lease is not None and lease.state in LIVE:
                now = self._clock()
                self.change(tx, lease, state=LeaseState.FAILING, code=Why.REVOKED, reason=one.reason, due=now)

    # What the lender itself changes

    def locked(self, tx: Tx, lease_id: str) -> Lease | None:
        """Read a lease to change it from our side."""
        if leases.borrower_of(tx.conn, lease_id) == self._mesh.me.fedid:
            self._lock_own(tx, lease_id)
        return leases.load(tx.conn, lease_id, lock=True)

    def change(self, tx: Tx, lease: Lease, *, tell: bool = True, **changes: Any) -> Lease:
        """Write a change, tell the borrower (unless the change is the answer to its request), wake the keeper.

        Of a part of a segment the borrower hears as of the whole, which takes notice soon.
        """
        lease = leases.save(tx, lease, self._clock(), **changes)
        due = lease.due
        if due is not None:
            tx.after_commit(lambda: self._wake(lease.id, due))
        if lease.parent is not None:
            parent, soon = lease.parent, self._clock() + SOON
            tx.after_commit(lambda: self._wake(parent, soon))
        elif tell and lease.borrower.fedid == self._mesh.me.fedid:
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
        if tunnel is not None and lease.segment is None:  # whose portals may still come, and need it
            tunnel = replace(tunnel, private_key="")
        instance = changes.get("instance", lease.instance)
        grant = grants.load(tx.conn, lease.id)
        if grant is not None and instance is not None:
            changes["handed"] = self._access.handed(grant, instance.user)
        return self.change(
            tx, lease, state=LeaseState.RUNNING, code="", reason="", due=lease.expires, tunnel=tunnel, **changes
        )

    def end(self, tx: Tx, lease: Lease) -> Lease:
        """Close a lease under which the middleware holds nothing any more."""
        state = LeaseState.FAILED if lease.state is LeaseState.FAILING else LeaseState.RELEASED
        if lease.parent is None:  # what a segment that found no room had of it already is no room for anybody
            self._tell_of_room(tx, lease)
        self._tunnels.revoke(tx, lease)
        self._access.release(tx, lease.id, lease.code, lease.reason)
        for used_id in lease_uses.uses_of(tx.conn, lease.id):
            tx.after_commit(partial(self.wake, used_id))  # it may wait for this to be gone
        nothing: dict[str, Any] = {"instance": None, "tunnel": None, "tunnels": (), "handed": None, "wishes": NOTHING}
        nothing["spec"] = leases.without_secrets(lease.spec)
        if lease.segment is not None:
            nothing["segment"] = lease.segment.without_keys()
        return self.change(tx, lease, state=state, due=self._clock() + RETENTION, **nothing)

    def _tell_of_room(self, tx: Tx, ended: Lease) -> None:
        if ended.code in NO_ROOM:
            self.turned_away.add(ended.borrower)
        elif ended.instance is not None:
            self.turned_away.tell(tx)

    def end_user(self, tx: Tx, lease_id: str, used: Lease) -> None:
        """End a lease because one that it uses ends."""
        lease = self.locked(tx, lease_id)
        if lease is not None and lease.state in LIVE:
            reason = f"the {NOUNS[used.spec.kind]} that it uses ends: {used.reason}"
            self.change(
                tx, lease, state=LeaseState.FAILING, code=Why.LEASE_USED_ENDED, reason=reason, due=self._clock()
            )

    def forget(self, tx: Tx, lease_id: str) -> None:
        """Forget an ended lease and its grant."""
        lease_uses.forget(tx.conn, lease_id)
        leases.forget(tx.conn, lease_id)
        grants.forget(tx.conn, lease_id)

    # Parts of segments

    def add_part(self, tx: Tx, parent: Lease, lease_id: str, part: str, spec: AnySpec) -> Lease:
        """Write a lease that is part of a segment and rests on its grant; one that is not lent here has failed at once."""
        lease = self._part(parent, lease_id, part, spec)
        try:
            lease = replace(lease, flavour=self._fit(spec), tunnel=self._tunnel(spec, parent.expires))
        except NotLent as error:
            lease = replace(lease, state=LeaseState.FAILING, code=error.code, reason=error.message)
        leases.add(tx.conn, lease)
        lease_uses.add(tx.conn, lease)
        self._tunnels.grant(tx, lease)
        tx.after_commit(partial(self.wake, lease.id))
        return lease

    def offer_to(self, conn: Connection, lease: Lease) -> Offer:
        """What of our offer the rule of a segment lets its machines be made of."""
        return self._lent(conn, lease.id)

    def _lent(self, conn: Connection, lease_id: str) -> Offer:
        offer, rule = self._me().offer, self._access.lent_by(conn, lease_id)
        flavours = [one for one in offer.flavours if rule is not None and allows(rule.flavours, one.name)]
        images = [one for one in offer.images if rule is not None and allows(rule.images, one.name)]
        return offer.model_copy(update={"flavours": flavours, "images": images})

    def _part(self, parent: Lease, lease_id: str, part: str, spec: AnySpec) -> Lease:
        now = self._clock()
        return replace(
            parent,
            id=lease_id,
            spec=spec,
            state=LeaseState.ACCEPTED,
            code="",
            reason="",
            revision=1,
            created=now,
            changed=now,
            due=now,
            instance=None,
            handed=None,
            wishes=NOTHING,
            spells=(),
            segment=None,
            parent=parent.id,
            part=part,
        )

    def extend_tunnel(self, tx: Tx, lease: Lease, expires: datetime) -> None:
        """Let the right of a part's machine to its ports last as long as its segment."""
        assert lease.tunnel is not None
        lease = leases.save(
            tx, lease, self._clock(), quiet=True, expires=expires, tunnel=replace(lease.tunnel, expires=expires + SPARE)
        )
        self._tunnels.grant(tx, lease)

    # Details

    def _fit(self, spec: AnySpec) -> Flavour | None:
        me = self._me()
        refusal = misfit(me, spec)
        if refusal is not None:
            raise NotLent(refusal)
        chosen = choose_flavour(me, spec) if isinstance(spec, ComputeSpec) else None
        assert not isinstance(chosen, str)
        return chosen

    def _tunnel(self, spec: AnySpec, expires: datetime) -> TunnelLease | None:
        """Machines have tunnels, unless here they have public addresses; and hosted segments, which consist of machines."""
        has = isinstance(spec, ComputeSpec) or (self._hosted and isinstance(spec, SegmentSpec) and ways(spec))
        return self._tunnels.begin(expires) if has and Ability.ADDRESSES not in self._me().offer.abilities else None

    def _renew(self, tx: Tx, lease: Lease, borrower: Peer, expires: datetime, fresh: Sequence[Credential]) -> Lease:
        """Let a lease last as long as its grant; where that ends, say why."""
        now = self._clock()
        grant = self._access.renew(tx, lease.id, expires, fresh)
        problem = "it was lent before there was a policy here" if grant is None else grant.problem
        expires = lease.expires if grant is None else max(grant.until, lease.expires)
        tunnel = lease.tunnel
        if tunnel is not None and tunnel.expires < expires:
            tunnel = TunnelLease(tunnel.server, tunnel.private_key, tunnel.public_key, expires + SPARE, tunnel.revision)
        changes: dict[str, Any] = {"borrower": borrower, "expires": expires, "tunnel": tunnel}
        changes["due"] = expires if lease.state is LeaseState.RUNNING and not lease.wishes else lease.due
        if lease.segment is not None:
            changes["due"] = now
            tx.after_commit(partial(self.wake, lease.id))  # its parts are to last as long
        if grant is not None:
            changes["handed"] = self._access.handed(grant, lease.instance.user if lease.instance else None)
        changes |= _told(lease, problem)
        renewed = leases.save(tx, lease, now, quiet="code" not in changes, **changes)
        if tunnel is not lease.tunnel:
            self._tunnels.grant(tx, renewed)
        return renewed

    def _with_tunnel(self, tx: Tx, borrower: Peer, lease_id: str) -> tuple[Lease, TunnelLease]:
        lease = borrowed(leases.load(tx.conn, lease_id, lock=True), borrower)
        if lease.segment is not None:
            raise NoTunnel("The nodes of a segment have one port each, and no more.")
        if lease.state is not LeaseState.RUNNING:
            raise UnknownLease(f"The lease is {lease.state.value}; tunnels need a running machine.")
        if lease.tunnel is not None:
            return lease, lease.tunnel
        if lease.instance is not None and lease.instance.public_address is not None:
            raise NoTunnel(f"The machine needs no tunnel: it is reachable at {lease.instance.public_address}.")
        raise NoTunnel("This site has no tunnel server for its machines.")

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


def _read(credentials: Sequence[str]) -> tuple[Credential, ...]:
    """Check what came along; raises `BadCredential`."""
    return tuple(map(compact.read, credentials))


def _told(lease: Lease, problem: str) -> dict[str, str]:
    """What a renewal changes of what a lease says: that it will end by the lender's policy, or that it will not after all."""
    reason = f"will not be renewed: {problem}"[:REASON_LENGTH] if problem else ""
    if reason and reason != lease.reason:
        return {"code": NotAllowed.code, "reason": reason}
    if not reason and lease.code == NotAllowed.code:
        return {"code": "", "reason": ""}
    return {}
