"""Who is asking: passwords become tokens, tokens become users.

    person ── user, password ──► log_in ──► a token, shown once ──► every further request ──► authenticate ──► User

Hashing a password takes time and memory on purpose, so it runs in its own two threads: a flood of log-ins queues up
there and nowhere else. An unknown user costs the same hash as a known one, so that time tells nothing about names.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import secrets
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from federation_member.accounts import store
from federation_member.accounts.errors import (
    AccountExists,
    TooManyAttempts,
    TooManyTokens,
    Unauthenticated,
    UnknownAccount,
    UnknownToken,
    UnusableAccount,
    WrongPassword,
)
from federation_member.accounts.limiter import AttemptLimiter, Monotonic
from federation_member.accounts.store import Account, Token
from federation_member.orders.model import User
from fedkit.clock import Clock, now
from fedkit.store import Database

PASSWORD_MINIMUM = 8
PASSWORD_MAXIMUM = 1024
TOKEN_PREFIX = "fed_"  # noqa: S105 - lets secret scanners and people recognise one
TOKENS_PER_ACCOUNT = 100
HASHING_THREADS = 2
# Argon2id (RFC 9106) with the parameters that OWASP gives for a server that must stay small: 19 MiB, 2 passes, 1 lane.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")


class Accounts:
    """Accounts and tokens of one member."""

    def __init__(self, db: Database, clock: Clock = now, monotonic: Monotonic = time.monotonic) -> None:
        self._db = db
        self._clock = clock
        self._threads = ThreadPoolExecutor(HASHING_THREADS, "argon2")
        self._by_user = AttemptLimiter(10, 30.0, monotonic)
        self._by_address = AttemptLimiter(50, 2.0, monotonic)
        # Compared with when the user is unknown; nobody knows its password.
        self._nobody = HASHER.hash(secrets.token_hex(16))

    def close(self) -> None:
        """End the hashing threads."""
        self._threads.shutdown()

    async def add(self, name: str, project: str, password: str) -> Account:
        """Make an account; raises `UnusableAccount`, `AccountExists`."""
        for what, text in (("user", name), ("project", project)):
            if not _NAME.match(text):
                raise UnusableAccount(f"A {what} name is 1 to 63 of a-z, 0-9 and '-', not {text[:80]!r}.")
        hashed = await self._hash(password)
        account = Account(name, project, self._clock())
        if not await self._db.run(lambda tx: store.add_account(tx, account, hashed)):
            raise AccountExists(
                f"There is an account {name!r} already; `fed member user password` changes its password."
            )
        return account

    async def set_password(self, name: str, password: str) -> None:
        """Change a password; every token of the account is revoked."""
        hashed = await self._hash(password)
        if not await self._db.run(lambda tx: store.set_password(tx, name, hashed)):
            raise UnknownAccount(f"There is no account {name!r}.")

    async def remove(self, name: str) -> None:
        """Remove an account and its tokens. What its user has ordered stays ordered."""
        if not await self._db.run(lambda tx: store.remove_account(tx, name)):
            raise UnknownAccount(f"There is no account {name!r}.")

    async def everybody(self) -> list[Account]:
        """All accounts, by name."""
        return await self._db.read(store.list_accounts)

    async def log_in(self, name: str, password: str, address: str) -> None:
        """Check a password; raises `WrongPassword`, or `TooManyAttempts` from this `address` or for this name."""
        wait = max(self._by_address.take(address), self._by_user.take(name))
        if wait:
            seconds = math.ceil(wait)
            raise TooManyAttempts(f"Too many log-ins; try again in {seconds} s.", retry_after=seconds)
        stored = await self._db.read(lambda conn: store.password_hash_of(conn, name))
        loop = asyncio.get_running_loop()
        good = await loop.run_in_executor(self._threads, _matches, stored or self._nobody, password)
        if stored is None or not good:
            raise WrongPassword("User and password do not belong together.")
        self._by_user.forgive(name)

    async def issue(self, name: str, label: str, days: int) -> tuple[Token, str]:
        """Make a token for this account that expires after `days`; the second value is the secret, never seen again."""
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        created = self._clock()
        token = Token(str(uuid.uuid4()), label, created, created + timedelta(days=days))
        if not await self._db.run(lambda tx: store.add_token(tx, name, token, _sha256(secret), TOKENS_PER_ACCOUNT)):
            raise TooManyTokens(f"This account has {TOKENS_PER_ACCOUNT} tokens already; revoke one first.")
        return token, secret

    async def authenticate(self, secret: str) -> User:
        """Whose token this is; raises `Unauthenticated`."""
        moment = self._clock()
        account = await self._db.read(lambda conn: store.account_of_token(conn, _sha256(secret), moment))
        if account is None:
            raise Unauthenticated("This token is unknown, expired or revoked; get a new one with `fed login`.")
        return User(account.project, account.name)

    async def tokens(self, name: str) -> list[Token]:
        """The tokens of an account, oldest first."""
        return await self._db.read(lambda conn: store.list_tokens(conn, name))

    async def revoke(self, name: str, token_id: str) -> None:
        """Revoke one token; raises `UnknownToken` for one that is not this account's."""
        if not await self._db.run(lambda tx: store.remove_token(tx, name, token_id)):
            raise UnknownToken("You have no token of that id.")

    async def _hash(self, password: str) -> str:
        if not PASSWORD_MINIMUM <= len(password) <= PASSWORD_MAXIMUM:
            raise UnusableAccount(f"A password has {PASSWORD_MINIMUM} to {PASSWORD_MAXIMUM} characters.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, HASHER.hash, password)


def _matches(hashed: str, password: str) -> bool:
    try:
        return HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
