"""Keeps leases alive and learns what became of them: one `lease.sync` for all that are due at a lender.

Each attempt's row says when it is to be renewed, a third of its lease after the last time. One lender is asked by one worker at a
time, in batches, smaller ones from the first answer on that did not fit. After a reconnect, a restart, or when a lender is heard of
again, all of its leases are due at once: that is also how a change that was missed is learnt.

What a lender was shown of a user ends (`fresh_due` in the attempt's row says when it must be shown anew); fresh credentials go along with
the renewal, as many leases at a time as their credentials fit.

What rests on something that was taken back here (a user suspended, or out of the project) is not renewed but given back. Its lender
learns of that by a revocation as well, within seconds; but somebody on the way may see to it that it does not.

A lender that does not answer costs patience, not machines: a running instance is given up when its lease has certainly ended
there; one that was only promised after `PROMISE`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

import structlog
from sqlalchemy import Connection, func, select, update

from federation_member.orders.identities import Identities, Shown
from federation_member.orders.lenders import Lenders
from federation_member.orders.model import AttemptState
from federation_member.orders.progress import Progress, fresh_due, renewal_pause
from federation_member.orders.scheduler import Scheduler
from federation_member.orders.store import AttemptRecord, Record, load_attempt
from federation_member.orders.tables import order_attempts
from federation_member.orders.turns import user_of
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.mesh.api import Peer
from fedkit.mesh.errors import AnswerTooLarge
from fedkit.protocol.lending import CREDENTIALS_LIMIT, CREDENTIALS_SIZE, LeaseSync, LeaseSynced
from fedkit.store import Database, Tx

log = structlog.get_logger()

BATCH = 100
PROMISE = timedelta(seconds=60)  # how long an accepted, not yet running lease may be without news of its lender
CLOCK_SKEW = timedelta(seconds=30)  # by how much a lender's clock may differ from ours
RETRY = 10.0  # seconds, at most, until a silent lender is asked again
COALESCE = timedelta(seconds=2)  # what is due this soon goes along
ALIVE = [AttemptState.ACCEPTED.value, AttemptState.RUNNING.value]


@dataclass
class Batch:
    """Leases that are renewed with one request, and what goes along with it: fresh credentials, by lease, and their texts."""

    leases: dict[str, tuple[Shown, ...]] = field(default_factory=dict)
    texts: dict[str, None] = field(default_factory=dict)

    def has_room(self, fresh: tuple[Shown, ...]) -> bool:
        """Tell whether these credentials fit too."""
        texts = self.texts.keys() | {credential.text for credential in fresh}
        fits = len(texts) <= CREDENTIALS_LIMIT and sum(map(len, texts)) <= CREDENTIALS_SIZE
        return fits or not self.leases

    def add(self, lease_id: str, fresh: tuple[Shown, ...]) -> None:
        """Put a lease in."""
        self.leases[lease_id] = fresh
        self.texts |= dict.fromkeys(credential.text for credential in fresh)


class Renewal:
    """Renews leases; its queue's keys are lenders' fedids."""

    def __init__(
        self,
        db: Database,
        lenders: Lenders,
        identities: Identities,
        progress: Progress,
        scheduler: Scheduler,
        clock: Clock,
    ) -> None:
        self._db = db
        self._identities = identities
        self._lenders = lenders
        self._progress = progress
        self._scheduler = scheduler
        self._clock = clock
        self._fitting: dict[str, int] = {}  # of how many leases a lender's answer is not too large

    async def all_due(self, fedid: str | None = None) -> list[str]:
        """Have every lease of a lender (None: of all) renewed now; returns the lenders to be woken."""
        now = self._clock()
        rows = order_attempts.c
        where = [rows.state.in_(ALIVE), rows.sync_due.is_not(None)] + ([rows.fedid == fedid] if fedid else [])

        def write(tx: Tx) -> list[str]:
            tx.conn.execute(update(order_attempts).where(*where).values(sync_due=now))
            return list(tx.conn.execute(select(rows.fedid).where(*where).distinct()).scalars())

        return await self._db.run(write)

    async def look(self, fedid: str) -> datetime | None:
        """Renew what is due at one lender; return when the next is."""
        rows = await self._db.read(lambda conn: self._due(conn, fedid))
        for (address, seconds), group in groupby(rows, key=lambda row: (row[1], row[2])):
            for batch in await self._with_credentials(fedid, [row[0] for row in group]):
                await self._renew(Peer(fedid, address), seconds, batch)
        return await self._db.read(lambda conn: _next_due(conn, fedid))

    def _due(self, conn: Connection, fedid: str) -> list[tuple[str, str, int]]:
        rows = order_attempts.c
        query = (
            select(rows.lease_id, rows.address, rows.seconds)
            .where(rows.fedid == fedid, rows.sync_due <= self._clock() + COALESCE)
            .order_by(rows.sync_due)
            .limit(self._fitting.get(fedid, BATCH))
        )
        found = [(row.lease_id, row.address, row.seconds) for row in conn.execute(query)]
        return sorted(found, key=lambda row: (row[1], row[2], row[0]))

    async def _with_credentials(self, fedid: str, lease_ids: list[str]) -> list[Batch]:
        """Group leases such that the fresh credentials of a group fit into one request; most need none."""
        shown = await self._db.run(lambda tx: {lease_id: self._shown(tx, lease_id) for lease_id in lease_ids})
        batches: list[Batch] = []
        for lease_id, fresh in shown.items():
            if fresh is None:
                await self._each([lease_id], lambda tx, id_: self._withdraw(tx, fedid, id_))
                continue
            if not batches or not batches[-1].has_room(fresh):
                batches.append(Batch())
            batches[-1].add(lease_id, fresh)
        return batches

    def _shown(self, tx: Tx, lease_id: str) -> tuple[Shown, ...] | None:
        """What the lender must be shown now of a lease's user, mostly nothing; None if what it was shown was taken back."""
        attempt = load_attempt(tx.conn, lease_id)
        if attempt is None or not attempt.attempt.name:
            return ()
        fresh = self._fresh(tx, attempt)
        said = [sent.statement for sent in attempt.attempt.sent if not sent.kept]
        return fresh if self._identities.stands(tx.conn, user_of(attempt.attempt.name), said) else None

    def _withdraw(self, tx: Tx, fedid: str, lease_id: str) -> None:
        self._scheduler.heard(tx, lease_id, fedid, self._progress.withdraw)

    def _fresh(self, tx: Tx, attempt: AttemptRecord) -> tuple[Shown, ...]:
        """What the lender must be shown now; nothing if it still knows enough."""
        if attempt.fresh_due is None or attempt.fresh_due > self._clock() + COALESCE:
            return ()
        user = user_of(attempt.attempt.name)
        try:
            identity = self._identities.of(tx, user)
        except FedError as error:
            log.warning("nothing_fresh_to_show", lease=attempt.lease_id, code=error.code)
            return ()
        kept = [sent.statement for sent in attempt.attempt.sent if sent.kept]
        return (*identity.credentials, *self._identities.successors(tx.conn, user, kept))

    async def _renew(self, peer: Peer, seconds: int, batch: Batch) -> None:
        lease_ids, texts = list(batch.leases), list(batch.texts)
        try:
            synced = await self._lenders.sync(peer, LeaseSync(lease_ids=lease_ids, seconds=seconds, credentials=texts))
        except FedError as error:
            if error.code == AnswerTooLarge.code and len(lease_ids) > 1:
                # They are still due, so the next look asks for them again, at once.
                self._fitting[peer.fedid] = len(lease_ids) // 2
                return
            log.warning("not_renewed", lender=peer.address, leases=len(lease_ids), code=error.code)
            code, reason = error.code, error.message
            await self._each(lease_ids, lambda tx, id_: self._missed(tx, peer, id_, seconds, code, reason))
        else:
            await self._each(lease_ids, lambda tx, id_: self._heard(tx, peer, id_, seconds, synced, batch.leases[id_]))

    async def _each(self, lease_ids: list[str], function: Callable[[Tx, str], None]) -> None:
        """Run a transaction for each lease; they share commits where the database can."""

        def bound(lease_id: str) -> Callable[[Tx], None]:
            return lambda tx: function(tx, lease_id)

        await asyncio.gather(*(self._db.run(bound(lease_id)) for lease_id in lease_ids))

    def _heard(
        self, tx: Tx, peer: Peer, lease_id: str, seconds: int, synced: LeaseSynced, fresh: tuple[Shown, ...]
    ) -> None:
        self._postpone(tx, lease_id, renewal_pause(seconds))
        if fresh:
            query = update(order_attempts).where(order_attempts.c.lease_id == lease_id)
            tx.conn.execute(query.values(fresh_due=fresh_due(fresh, self._clock())))
        view = next((lease for lease in synced.leases if lease.lease_id == lease_id), None)
        if view is not None:
            self._scheduler.heard(tx, lease_id, peer.fedid, lambda t, r, a: self._progress.view(t, r, a, view))
        elif lease_id in synced.unknown:
            self._scheduler.heard(tx, lease_id, peer.fedid, self._progress.forgotten)

    def _missed(self, tx: Tx, peer: Peer, lease_id: str, seconds: int, code: str, reason: str) -> None:
        self._postpone(tx, lease_id, timedelta(seconds=min(seconds / 10, RETRY)))

        def judge(tx: Tx, record: Record, attempt: AttemptRecord) -> Record:
            now = self._clock()
            promised = attempt.state is AttemptState.ACCEPTED and now - attempt.heard > PROMISE
            ended = attempt.attempt.expires is not None and now - attempt.attempt.expires > CLOCK_SKEW
            if not (promised or ended):
                return record
            why = f"silent since {attempt.heard:%H:%M:%S} UTC ({reason})"
            return self._progress.abandon(tx, record, attempt, code, why)

        self._scheduler.heard(tx, lease_id, peer.fedid, judge)

    def _postpone(self, tx: Tx, lease_id: str, pause: timedelta) -> None:
        query = update(order_attempts).where(order_attempts.c.lease_id == lease_id, order_attempts.c.state.in_(ALIVE))
        tx.conn.execute(query.values(sync_due=self._clock() + pause))


def first_due(conn: Connection) -> Iterable[tuple[str, datetime]]:
    """Each lender with leases to renew, and when the first of them is due."""
    rows = order_attempts.c
    query = select(rows.fedid, func.min(rows.sync_due).label("due")).where(rows.sync_due.is_not(None))
    return [(row.fedid, row.due) for row in conn.execute(query.group_by(rows.fedid))]


def _next_due(conn: Connection, fedid: str) -> datetime | None:
    rows = order_attempts.c
    query = select(func.min(rows.sync_due).label("due")).where(rows.fedid == fedid, rows.sync_due.is_not(None))
    return conn.execute(query).scalar()
