"""The audit log as its readers ask for it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from federation_member.access import audit
from federation_member.access.audit import Entry, Kind, Verification
from federation_member.access.replay import differing
from fedkit.identity.keys import PublicKey
from fedkit.store import Database


@dataclass(frozen=True)
class Checked:
    """What a check of the whole log found; `differing` are decisions that the log's own texts do not lead to again."""

    chain: Verification
    differing: tuple[int, ...] = ()


class AuditLog:
    """Reads the log of the member whose key this is."""

    def __init__(self, db: Database, own: PublicKey) -> None:
        self._db = db
        self._own = own

    async def page(self, before: int | None, limit: int, kind: Kind | None) -> list[Entry]:
        """At most `limit` entries before a number, newest first."""
        return await self._db.read(lambda conn: audit.page(conn, before=before, limit=limit, kind=kind))

    async def entry(self, sequence: int) -> tuple[Entry, dict[str, str]] | None:
        """One entry, and the texts that it names; None if there is none of that number."""
        return await self._db.read(lambda conn: _with_texts(conn, sequence))

    async def check(self) -> Checked:
        """Walk the chain; if it holds, make every decision again."""
        return await self._db.read(self._check)

    def _check(self, conn: Connection) -> Checked:
        chain = audit.verify(conn)
        return Checked(chain, () if chain.broken_at is not None else tuple(differing(conn, self._own)))


def _with_texts(conn: Connection, sequence: int) -> tuple[Entry, dict[str, str]] | None:
    entry = audit.read(conn, sequence)
    if entry is None:
        return None
    texts = {name: text for name in audit.named(entry.said) if (text := audit.text_of(conn, name)) is not None}
    return entry, texts
