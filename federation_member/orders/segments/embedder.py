"""Makes a segment true at its lender, by leases of the lender's own book: its children.

    accepted ── started ──► children are made, in batches, whatever they use first ── all run ──► running
        │                        └─ one fails whose loss is fatal ──► failing
        └─ failing, releasing ──► children are ended ── all gone ──► failed, released

Level-triggered like the keeper, which has each child made as any other lease: a look compares what is wanted (plan.py) with the
children that there are, makes what is missing, ends what is wanted no longer, and tells the sum (summary.py). Each look is
one short transaction, so it may be cut off anywhere and is simply repeated. A change of a child wakes its parent; so that a
large segment's borrower is not drowned in news, it hears at most every `TELL_EVERY`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from federation_member.orders import leases
from federation_member.orders.leases import ENDED, LIVE, Lease
from federation_member.orders.lending import Lending
from federation_member.orders.segments.errors import NOT_MADE
from federation_member.orders.segments.growing import parts_of, undone
from federation_member.orders.segments.plan import Child, plan
from federation_member.orders.segments.remote import Hands
from federation_member.orders.segments.retelling import Reteller
from federation_member.orders.segments.summary import Summary, summarize
from fedkit.clock import Clock
from fedkit.errors import InputError
from fedkit.protocol.lending import Instance, LeaseState
from fedkit.protocol.segments import SegmentSpec
from fedkit.store import Database, Tx

log = structlog.get_logger()

BATCH = 20  # children that one transaction makes, ends or extends
TELL_EVERY = timedelta(seconds=1)
MAKING = timedelta(minutes=30)  # until a part that does not run has failed; long, for slow clouds make one by one
LOOK_EVERY = timedelta(seconds=5)  # while something is under way, should no news of it come (another process has it)

Children = dict[str, Lease]


class Embedder:
    """Looks at leases of segments."""

    def __init__(self, db: Database, lending: Lending, clock: Clock, hands: Hands) -> None:
        self._db = db
        self._reteller = Reteller(db, lending, hands)
        self._lending = lending
        self._clock = clock

    async def look(self, lease: Lease) -> datetime | None:
        """Do what the segment needs now; return when to look again."""
        if lease.state in LIVE:
            due = await self._db.run(lambda tx: self._embed(tx, lease.id))
            told = await self._reteller.look(lease.id) if lease.segment is not None and lease.segment.stale else None
            return due if told is None or due is None else min(due, told)
        return await self._db.run(lambda tx: self._end(tx, lease.id))

    # Towards what is wanted

    def _embed(self, tx: Tx, lease_id: str) -> datetime | None:
        lease = self._lending.locked(tx, lease_id)
        if lease is None or lease.state not in LIVE:
            return None if lease is None else self._clock()
        assert lease.segment is not None
        assert isinstance(lease.spec, SegmentSpec)
        if not lease.segment.started:
            return self._settled(tx, lease, lease.expires)
        children = leases.children(tx.conn, lease.id)
        wanted = plan(lease.spec, lease.segment)
        try:
            is_more = self._make(tx, lease, wanted, children)
        except InputError as error:
            return self._lose(tx, lease, None, error.code, error.message)
        is_more |= self._drop(tx, wanted, children) | self._extend(tx, lease, children) | self._give_up(tx, children)
        summary = summarize(lease.spec, lease.segment, wanted, children)
        if summary.failed is not None:
            reason = f"{summary.failed.part}: {summary.failed.reason}"
            return self._lose(tx, lease, summary.failed.part, summary.failed.code, reason)
        return self._tell(tx, lease, summary, is_more=is_more)

    def _make(self, tx: Tx, lease: Lease, wanted: list[Child], children: Children) -> bool:
        """Make what is missing and can be made; tells whether there is more of it than fits one transaction."""
        running = {child.id for child in children.values() if child.state is LeaseState.RUNNING}
        there = {child.part for child in children.values() if child.state not in ENDED}  # one after the other
        ready = [
            child
            for child in wanted
            if child.id not in children and running.issuperset(child.uses) and child.part not in there
        ]
        if not ready:
            return False
        offer = self._lending.offer_to(tx.conn, lease)
        for child in ready[:BATCH]:
            children[child.id] = self._lending.add_part(tx, lease, child.id, child.part, child.make(offer))
        return len(ready) > BATCH

    def _drop(self, tx: Tx, wanted: list[Child], children: Children) -> bool:
        """End what is wanted no longer."""
        ids = {child.id for child in wanted}
        unwanted = [child for child in children.values() if child.id not in ids and child.state in LIVE]
        for child in unwanted[:BATCH]:
            self._release(tx, child, "its segment needs it no longer")
        return len(unwanted) > BATCH

    def _give_up(self, tx: Tx, children: Children) -> bool:
        """Have failed what was not made in all that time."""
        late = [
            child
            for child in children.values()
            if child.state is LeaseState.ACCEPTED and child.created + MAKING <= self._clock()
        ]
        for child in late[:BATCH]:
            fresh = leases.load(tx.conn, child.id, lock=True)
            if fresh is not None and fresh.state is LeaseState.ACCEPTED:
                now, reason = self._clock(), f"not made within {MAKING}"
                children[child.id] = self._lending.change(
                    tx, fresh, state=LeaseState.FAILING, code=NOT_MADE, reason=reason, due=now
                )
        return len(late) > BATCH

    def _release(self, tx: Tx, child: Lease, reason: str) -> None:
        fresh = leases.load(tx.conn, child.id, lock=True)
        if fresh is not None and fresh.state in LIVE:
            self._lending.change(tx, fresh, state=LeaseState.RELEASING, reason=reason, due=self._clock())

    def _extend(self, tx: Tx, lease: Lease, children: Children) -> bool:
        """Let the children last as long as the segment."""
        short = [
            child
            for child in children.values()
            if child.state in LIVE and child.tunnel is not None and child.tunnel.expires < lease.expires
        ]
        for child in short[:BATCH]:
            fresh = leases.load(tx.conn, child.id, lock=True)
            if fresh is not None and fresh.state in LIVE:
                self._lending.extend_tunnel(tx, fresh, lease.expires)
        if any(child.expires < lease.expires for child in children.values()):
            leases.extend(tx.conn, lease.id, lease.expires)
        return len(short) > BATCH

    # What is said of it

    def _tell(self, tx: Tx, lease: Lease, summary: Summary, *, is_more: bool) -> datetime | None:
        assert lease.segment is not None
        assert isinstance(lease.spec, SegmentSpec)
        assert lease.instance is not None
        now = self._clock()
        begins = summary.runs and not is_more and lease.state is LeaseState.ACCEPTED
        instance = Instance(name=lease.instance.name, user=summary.user, segment=summary.info)
        segment = replace(lease.segment, sizes=summary.sizes)
        if summary.info.version == lease.spec.version:
            segment = replace(segment, before=None)  # the change, if there was one, is over
        is_news = begins or instance != lease.instance or segment != lease.segment
        quiet_until = lease.segment.told + TELL_EVERY if lease.segment.told is not None else now
        again = now if is_more else now + LOOK_EVERY
        if is_news and (begins or quiet_until <= now):
            segment = replace(segment, told=now)
            if begins:
                return self._lending.made(tx, lease, instance=instance, segment=segment).due
            due = lease.expires if lease.state is LeaseState.RUNNING and not is_more else again
            return self._lending.change(tx, lease, instance=instance, segment=segment, due=due).due
        if is_news:
            return min(quiet_until, again)
        if lease.state is LeaseState.RUNNING and not is_more:
            return self._settled(tx, lease, lease.expires)
        return again

    def _settled(self, tx: Tx, lease: Lease, due: datetime) -> datetime:
        """Nothing is to be done before then."""
        if lease.due != due:
            leases.save(tx, lease, self._clock(), quiet=True, due=due)
        return due

    def _lose(self, tx: Tx, lease: Lease, part: str | None, code: str, reason: str) -> datetime | None:
        """A part is lost, or cannot be made: one that is new costs no more than the change that brought it."""
        assert lease.segment is not None
        assert isinstance(lease.spec, SegmentSpec)
        before = lease.segment.before
        if before is None or part in parts_of(before):
            return self._fail(tx, lease, code, reason)
        log.warning("segment_not_changed", lease=lease.id, code=code, reason=reason)
        spec, segment = undone(lease.spec, lease.segment, code, reason)
        return self._lending.change(tx, lease, tell=False, spec=spec, segment=segment, due=self._clock()).due

    def _fail(self, tx: Tx, lease: Lease, code: str, reason: str) -> datetime | None:
        log.warning("segment_failed", lease=lease.id, code=code, reason=reason)
        return self._lending.change(
            tx, lease, state=LeaseState.FAILING, code=code, reason=reason, due=self._clock()
        ).due

    # Its end

    def _end(self, tx: Tx, lease_id: str) -> datetime | None:
        lease = self._lending.locked(tx, lease_id)
        if lease is None or lease.state in ENDED:
            return None if lease is None else lease.due
        held = [child for child in leases.children(tx.conn, lease.id).values() if child.state not in ENDED]
        if not held:
            return self._lending.end(tx, lease).due
        alive = [child for child in held if child.state in LIVE]
        for child in alive[:BATCH]:
            self._release(tx, child, "its segment ends")
        return self._clock() + (timedelta() if len(alive) > BATCH else LOOK_EVERY)
