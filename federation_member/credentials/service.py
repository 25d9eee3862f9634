"""The home side of identity put together: what users keep, what is published for them, and who must look when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from federation_member.credentials import wallet
from federation_member.credentials.revoking import Revoking
from federation_member.credentials.tables import lists
from federation_member.credentials.wallet import Kept
from fedkit.clock import Clock
from fedkit.policy import compact, revocation
from fedkit.policy.revocation import RevocationList
from fedkit.store import Database


class Credentials:
    """The wallets of a member's users, and the revocation lists that go out from here.

    `on_more` is called when lenders may now be shown what they could not be shown before.
    """

    def __init__(self, db: Database, revoking: Revoking, clock: Clock, on_more: Callable[[], None]) -> None:
        self._db = db
        self._revoking = revoking
        self._clock = clock
        self._on_more = on_more

    def look(self) -> None:
        """Something changed in the tables, perhaps by another process: see what is revoked, and what orders can do now."""
        self._revoking.look()
        self._on_more()

    async def add(self, account: str, text: str) -> Kept:
        """Keep a credential in the compact form; raises `BadCredential`, `CredentialExpired`, `TooMuchKept`."""
        credential = compact.read(text)
        now = self._clock()
        if await self._db.run(lambda tx: wallet.add(tx, account, credential, now)):
            self._on_more()
        kept = await self.kept(account)
        return next((one for one in kept if one.credential.id == credential.id), Kept(credential, now))

    async def kept(self, account: str) -> list[Kept]:
        """What an account keeps, oldest first."""
        return await self._db.read(lambda conn: wallet.content(conn, account))

    async def remove(self, account: str, credential_id: str) -> None:
        """Keep a credential no longer; raises `UnknownCredential`."""
        await self._db.run(lambda tx: wallet.remove(tx, account, credential_id))

    async def publish(self, account: str, text: str) -> RevocationList:
        """Publish a revocation list that its issuer signed; raises `BadRevocationList`, `StaleList`, `TooManyLists`."""
        heard = revocation.read(text)
        await self._db.run(lambda tx: self._revoking.publish(tx, account, heard))
        return heard

    async def published(self, issuer: str) -> str | None:
        """The newest list of an issuer that went out from here."""
        query = lists.select().where(lists.c.issuer == issuer)
        row = await self._db.read(lambda conn: conn.execute(query).first())
        return None if row is None else str(row.signed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish while the context is open."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._revoking.run())
            try:
                yield
            finally:
                task.cancel()
