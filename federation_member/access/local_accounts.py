"""Makes the site's local accounts agree with the grants: there while somebody is granted them, gone or as before afterwards.

Level-triggered: looking at an account means to read its grants and to have the middleware make it so, so it may be done at any
time, twice, or after a crash. It is there before anything is made under it, and withdrawn after the last grant is released. At
start all accounts are compared; only what the federation made or gave is ever taken away.
"""

from __future__ import annotations

import asyncio
import weakref

import structlog

from federation_member.access import grants
from federation_member.middleware.contract import KeepsAccounts, Middleware, MiddlewareError
from fedkit.store import Database

log = structlog.get_logger()


class LocalAccounts:
    """The accounts at one middleware."""

    def __init__(self, db: Database, middleware: Middleware) -> None:
        self._db = db
        self._middleware = middleware
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def settle(self, name: str) -> None:
        """Make the account as its grants want it, or take back what it was given; raises a `MiddlewareError`."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            wanted = await self._db.read(lambda conn: grants.wanted(conn, name))
            if not isinstance(self._middleware, KeepsAccounts):
                if wanted is None:
                    return
                raise MiddlewareError(
                    f"This kind of middleware cannot make or change the account {name}; the policy's rule has to name "
                    "one that exists."
                )
            if wanted is not None:
                await self._middleware.ensure_account(wanted)
            else:
                await self._middleware.remove_account(name)
                log.info("account_withdrawn", account=name)

    async def all(self) -> set[str]:
        """Every account that is, or should be, of the federation's making."""
        known = await self._db.read(grants.managed_accounts)
        if not isinstance(self._middleware, KeepsAccounts):
            return known
        return known | {account.name for account in await self._middleware.list_accounts()}
