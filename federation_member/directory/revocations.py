"""The newest revocation list of each issuer that we heard of, from whomever: what counts is the issuer's own signature.

A list with a higher serial takes the place of the one before; whoever listens is told in the very transaction that writes it down, so
a crash loses nothing. A Rendezvous can keep a list back, which is why nothing that this federation's members say of their
users holds longer than a day, and why a member also tells a list to those that lend to the user whom it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog
from sqlalchemy import BigInteger, Column, Connection, Double, String, Table, Text, delete, func, insert, select

from federation_member.directory.errors import StaleList, TooManyLists, UnusableEntry
from federation_member.directory.store import metadata
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.mesh.api import Mesh, Request
from fedkit.mesh.pins import Pins
from fedkit.policy.revocation import RevocationList
from fedkit.policy.revocation import read as read_list
from fedkit.protocol import Empty
from fedkit.protocol.rendezvous import Revocation, Revoke
from fedkit.store import Tx

log = structlog.get_logger()

MAX_LISTS = 10_000  # issuers; of more than that nothing is believed
KEEP = timedelta(days=1)  # after the last credential of a list has expired

lists = Table(
    "directory_revocations",
    metadata,
    Column("issuer", String(40), primary_key=True),
    Column("serial", BigInteger, nullable=False),
    Column("signed", Text, nullable=False),
    Column("expires", Double, nullable=False),
)

OnRevoked = Callable[[Tx, RevocationList], None]


class Revocations:
    """Takes lists in, and serves `rendezvous.revoke` to members that bring one themselves."""

    def __init__(self, mesh: Mesh, clock: Clock) -> None:
        self._clock = clock
        self._listeners: list[OnRevoked] = []
        mesh.on_command("rendezvous.revoke", Revoke, self._brought)

    def on_revoked(self, callback: OnRevoked) -> None:
        """Be told of each list that is news, in the transaction that writes it down."""
        self._listeners.append(callback)

    def take(self, tx: Tx, heard: RevocationList) -> bool:
        """Write down a list and tell of it; return whether it was news.

        Raises `StaleList` where a newer one is known, `TooManyLists`, or `KeyConflict` for another key than the pinned one.
        """
        now = self._clock()
        issuer = heard.issuer.fedid
        known = tx.conn.execute(select(lists.c.serial, lists.c.signed).where(lists.c.issuer == issuer)).first()
        if known is not None and known.signed == heard.text:
            return False
        if known is not None and heard.serial <= known.serial:
            raise StaleList(f"Serial {heard.serial} of {issuer} is not higher than {known.serial}, which is known.")
        Pins().look_up(tx.conn, heard.issuer)
        tx.conn.execute(delete(lists).where((lists.c.issuer == issuer) | (lists.c.expires <= now.timestamp())))
        if tx.conn.execute(select(func.count()).select_from(lists)).scalar_one() >= MAX_LISTS:
            raise TooManyLists(f"{MAX_LISTS} revocation lists are known; no more are believed.")
        last = max(heard.revoked.values(), default=heard.issued)
        expires = (max(last, now) + KEEP).timestamp()
        tx.conn.execute(insert(lists).values(issuer=issuer, serial=heard.serial, signed=heard.text, expires=expires))
        for listener in self._listeners:
            listener(tx, heard)
        return True

    def told(self, tx: Tx, entries: Sequence[Revocation]) -> None:
        """Take in what the Rendezvous told; what is not as its issuer signed it is logged and changes nothing."""
        for entry in entries:
            try:
                heard = read_list(entry.signed)
                if heard.issuer.fedid != entry.issuer:
                    raise UnusableEntry(f"The entry of {entry.issuer} holds the list of {heard.issuer.fedid}.")
                self.take(tx, heard)
            except FedError as error:
                log.warning("revocation_list_refused", issuer=entry.issuer, code=error.code, reason=error.message)

    def _brought(self, tx: Tx, request: Request[Revoke]) -> Empty:
        self.take(tx, read_list(request.body.signed))
        return Empty()


def known_list(conn: Connection, issuer: str) -> str | None:
    """The signed text of an issuer's newest list."""
    return conn.execute(select(lists.c.signed).where(lists.c.issuer == issuer)).scalar()
