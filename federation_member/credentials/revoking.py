"""Makes revocations known: lists are made of what was marked as revoked, handed to the Rendezvous, and to who lends to the user.

    marked as revoked (accounts, any process) ─► look ─► this member's list, signed ─┐
    a list that a user's own key signed (REST) ──────────────────────────────────────┴─► row ─► rendezvous.revoke (outbox)

Everything is found in the tables, so a crash only delays. Our own list holds what this member said and revoked and what would still
hold; that is a day's worth, for what it says holds no longer. Where a day's worth does not fit one list, what expires first is
left out, loudly: it then ends by its expiry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, func, insert, select, update

from federation_member.credentials import signing
from federation_member.credentials.errors import StaleList, TooManyLists
from federation_member.credentials.tables import lists, signed
from federation_member.directory.revocations import known_list
from federation_member.orders.store import HELD
from federation_member.orders.tables import order_attempts, orders
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Mesh, Outcome, Peer
from fedkit.policy import revocation
from fedkit.policy.revocation import RevocationList
from fedkit.protocol.rendezvous import SIGNED_LIMIT, Revoke
from fedkit.store import Database, Tx

log = structlog.get_logger()

ENTRIES_LIMIT = 350  # of our own list; so many fit `SIGNED_LIMIT` with any key
LISTS_PER_ACCOUNT = 16  # issuers whose lists one user may publish here
LENDERS_TOLD = 100  # at once; the others hear of it from the Rendezvous
TELL_WITHIN = timedelta(minutes=5)  # a lender that is not reached so soon hears of it from the Rendezvous
KEEP = timedelta(days=1)
NOT_DELIVERED = "mesh."

Take = Callable[[Tx, RevocationList], bool]


class Revoking:
    """Publishes this member's revocation list and its users'; `take` has this very member heed a list."""

    def __init__(
        self, db: Database, mesh: Mesh, key: PrivateKey, rendezvous: Peer | None, clock: Clock, take: Take
    ) -> None:
        self._db = db
        self._mesh = mesh
        self._key = key
        self._rendezvous = rendezvous
        self._clock = clock
        self._take = take
        self._work = asyncio.Event()
        mesh.on_answer("rendezvous.revoke", self._answered)

    def look(self) -> None:
        """Something may have been revoked: look at the tables."""
        self._work.set()

    def publish_again(self, tx: Tx) -> None:
        """The Rendezvous may know nothing of what it was told: hand it every list that still says something."""
        tx.conn.execute(update(lists).where(lists.c.expires > self._clock()).values(sent=0))
        tx.after_commit(self.look)

    async def run(self) -> None:
        """Publish until cancelled."""
        self.look()
        while True:
            await self._work.wait()
            self._work.clear()
            await self._db.run(self.step)

    def step(self, tx: Tx) -> None:
        """Bring our own list up to date, and send what was not sent."""
        now = self._clock()
        self._renew_own(tx, now)
        unsent = select(lists).where(lists.c.sent < lists.c.serial, lists.c.expires > now).with_for_update()
        for row in tx.conn.execute(unsent).all():
            if self._rendezvous is not None:
                self._mesh.enqueue(tx, self._rendezvous, "rendezvous.revoke", Revoke(signed=row.signed))
            tx.conn.execute(update(lists).where(lists.c.issuer == row.issuer).values(sent=row.serial))
        signing.forget_expired(tx, now)

    def publish(self, tx: Tx, account: str, heard: RevocationList) -> None:
        """Publish a list that somebody signed themselves; raises `StaleList`, `TooManyLists`."""
        issuer = heard.issuer.fedid
        known = tx.conn.execute(select(lists).where(lists.c.issuer == issuer)).first()
        if known is not None and known.signed == heard.text:
            return
        if issuer == self._key.fedid or (known is not None and heard.serial <= known.serial):
            raise StaleList(
                f"A newer revocation list of {issuer} is known; its serial is {known.serial if known else 0}."
            )
        mine = select(func.count()).select_from(lists).where(lists.c.account == account, lists.c.issuer != issuer)
        if tx.conn.execute(mine).scalar_one() >= LISTS_PER_ACCOUNT:
            raise TooManyLists(f"One publishes the lists of at most {LISTS_PER_ACCOUNT} issuers.")
        self._write(tx, account, heard)
        self._tell_lenders(tx, [account], heard)
        tx.after_commit(self.look)

    def _renew_own(self, tx: Tx, now: datetime) -> None:
        me = self._key.fedid
        revoked = signing.revoked_by(tx.conn, me, now)
        row = tx.conn.execute(select(lists).where(lists.c.issuer == me)).first()
        known = {} if row is None else revocation.read(row.signed).revoked
        fresh = [credential_id for credential_id, _ in revoked if credential_id not in known]
        if not fresh:
            return
        if len(revoked) > ENTRIES_LIMIT:
            log.error("revocations_do_not_fit", left_out=len(revoked) - ENTRIES_LIMIT, until=revoked[-ENTRIES_LIMIT][1])
        heeded = known_list(tx.conn, me)  # by the directory; newer than ours where our store is an older one
        last = max(0 if row is None else row.serial, 0 if heeded is None else revocation.read(heeded).serial)
        serial = max(int(now.timestamp() * 1000), last + 1)
        heard = revocation.issue(self._key, serial, now, dict(revoked[-ENTRIES_LIMIT:]))
        try:
            self._write(tx, "", heard)
        except FedError as error:  # others are told all the same
            log.error("own_revocations_not_heeded", code=error.code, reason=error.message)
        accounts = select(signed.c.account).where(signed.c.id.in_(fresh)).distinct()
        self._tell_lenders(tx, tx.conn.execute(accounts).scalars().all(), heard)

    def _write(self, tx: Tx, account: str, heard: RevocationList) -> None:
        assert len(heard.text) <= SIGNED_LIMIT
        issuer = heard.issuer.fedid
        values = {
            "account": account,
            "serial": heard.serial,
            "sent": 0,
            "signed": heard.text,
            "expires": max(heard.revoked.values(), default=heard.issued) + KEEP,
        }
        changed = tx.conn.execute(update(lists).where(lists.c.issuer == issuer).values(**values))
        if changed.rowcount == 0:
            tx.conn.execute(insert(lists).values(issuer=issuer, **values))
        self._take(tx, heard)

    def _tell_lenders(self, tx: Tx, accounts: Iterable[str], heard: RevocationList) -> None:
        deadline = self._clock() + TELL_WITHIN
        for peer in _lenders_of(tx.conn, list(accounts), self._mesh.me.fedid):
            self._mesh.enqueue(tx, peer, "rendezvous.revoke", Revoke(signed=heard.text), deadline=deadline)

    def _answered(self, tx: Tx, outcome: Outcome) -> None:
        if outcome.error is None or self._rendezvous is None or outcome.peer.fedid != self._rendezvous.fedid:
            return  # a lender that was not reached hears of it from the Rendezvous
        log.error("revocation_not_published", code=outcome.error.code, reason=outcome.error.message)
        if outcome.error.code.startswith(NOT_DELIVERED):  # for a week; the Rendezvous is told when it is heard again
            text = str(outcome.sent["signed"])
            tx.conn.execute(update(lists).where(lists.c.signed == text).values(sent=0))


def _lenders_of(conn: Connection, accounts: list[str], own: str) -> list[Peer]:
    """Who lends something to any of these users."""
    rows = order_attempts.c
    query = (
        select(rows.fedid, rows.address)
        .join(orders, orders.c.id == rows.order_id)
        .where(orders.c.owner.in_(accounts), rows.state.in_([state.value for state in HELD]), rows.fedid != own)
        .distinct()
        .limit(LENDERS_TOLD)
    )
    return [Peer(row.fedid, row.address) for row in conn.execute(query)]
