"""Who is asking: passwords become tokens, tokens become users; and whose key is whose.

    person ── user, password ──► log_in ──► a token, shown once ──► every further request ──► authenticate ──► User

Every account has a key, by whose fedid its user is known elsewhere: the user's own, or one that is made here and kept for them. Whatever
takes something away from an account revokes, in the same transaction, what this member said of its user; `on_change` is
called after each commit that changed what may be said.

Hashing a password takes time and memory on purpose, so it runs in its own two threads: a flood of log-ins queues up
there and nowhere else. An unknown user costs the same hash as a known one, so that time tells nothing about names.
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import hashlib
import math
import re
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from federation_member.accounts import challenges, store
from federation_member.accounts.errors import (
    AccountExists,
    KeyTaken,
    TooManyAttempts,
    TooManyTokens,
    Unauthenticated,
    UnknownAccount,
    UnknownToken,
    UnusableAccount,
    WrongPassword,
)
from federation_member.accounts.limiter import AttemptLimiter, Monotonic
from federation_member.accounts.providers import SignedIn
from federation_member.accounts.store import Account, Token
from federation_member.credentials import signing, wallet
from federation_member.orders.model import User
from fedkit.clock import Clock, now
from fedkit.identity.keys import PrivateKey, PublicKey
from fedkit.mesh.pins import Pins
from fedkit.store import Database, Tx

PASSWORD_MINIMUM = 8
PASSWORD_MAXIMUM = 1024
TOKEN_PREFIX = "fed_"  # noqa: S105 - lets secret scanners and people recognise one
TOKENS_PER_ACCOUNT = 100
PROJECTS_PER_ACCOUNT = 32  # each is a name that a lender may be asked under
HASHING_THREADS = 2
M_MMAP_THRESHOLD = -3  # malloc.h
# Argon2id (RFC 9106) with the parameters that OWASP gives for a server that must stay small: 19 MiB, 2 passes, 1 lane.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

NEVER = datetime.max.replace(tzinfo=UTC)
NO_PASSWORD = ""  # no hash: whatever is tried is wrong
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_FOREIGN_NAME = re.compile(r"(?=.{1,63}\Z)[A-Za-z0-9_][A-Za-z0-9_.@+-]*\Z")  # as fedkit/identity/names.py has it


class Accounts:
    """Accounts and tokens of one member."""

    def __init__(
        self,
        db: Database,
        clock: Clock = now,
        monotonic: Monotonic = time.monotonic,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._on_change = on_change
        self._clock = clock
        _give_back_memory()
        self._threads = ThreadPoolExecutor(HASHING_THREADS, "argon2")
        self._by_user = AttemptLimiter(10, 30.0, monotonic)
        self._by_address = AttemptLimiter(50, 2.0, monotonic)
        self._nobody = _hash_of_nothing()

    def close(self) -> None:
        """End the hashing threads."""
        self._threads.shutdown()

    async def add(
        self, name: str, project: str, password: str, *, further: Sequence[str] = (), operator: bool = False
    ) -> Account:
        """Make an account with a key that is kept here; raises `UnusableAccount`, `AccountExists`.

        `project` is the one that its user orders for unless they say another of the `further` ones; empty for none.
        """
        projects = _check_projects([project, *further] if project else further)
        _check_name("user", name)
        hashed = await self._hash(password)
        key = PrivateKey.generate()

        def write(tx: Tx) -> Account:
            if not store.add_account(tx, name, hashed, self._clock(), operator=operator):
                raise AccountExists(
                    f"There is an account {name!r} already; `fed member user password` changes its password."
                )
            store.set_projects(tx, name, projects)
            self._write_key(tx, name, key.public, key)
            return self._load(tx, name)

        return await self._db.run(write)

    async def set_password(self, name: str, password: str) -> None:
        """Change a password; every token of the account is revoked."""
        hashed = await self._hash(password)
        if not await self._db.run(lambda tx: store.set_password(tx, name, hashed)):
            raise UnknownAccount(f"There is no account {name!r}.")

    async def remove(self, name: str) -> None:
        """Remove an account, its tokens and its wallet, and revoke what was said of its user.

        What its user has ordered stays ordered; lenders take back what they lent.
        """

        def write(tx: Tx) -> None:
            self._load(tx, name)
            self._take_back(tx, name)
            wallet.forget_account(tx, name)
            store.remove_account(tx, name)

        await self._db.run(write)

    async def set_projects(self, name: str, projects: Sequence[str]) -> Account:
        """Replace an account's projects, the default one first; what was said of it in those taken away is revoked."""
        wanted = _check_projects(projects)
        return await self._db.run(lambda tx: self._set_projects(tx, self._load(tx, name), wanted))

    async def follow(self, provider: str, found: SignedIn) -> Account | None:
        """Have an account be as an identity provider says, and make it at first; None if it would have no project.

        What is not said by the provider, such as a suspension, stays. Raises `UnusableAccount` for a name that cannot be one here, and
        `AccountExists` where that name was somebody else's at the provider.
        """
        projects = [project for project in found.projects if _NAME.match(project)][:PROJECTS_PER_ACCOUNT]
        key = PrivateKey.generate()

        def write(tx: Tx) -> Account | None:
            name = store.account_of_subject(tx.conn, provider, found.subject)
            if name is None:
                if not projects:
                    return None
                name = self._adopt(tx, provider, found, key)
            account = self._load(tx, name)
            if found.operator is not None:
                store.set_operator(tx, name, operator=found.operator)
            if list(account.projects) != projects:
                self._set_projects(tx, account, projects)
            return self._load(tx, name)

        return await self._db.run(write)

    async def set_key(self, name: str, public: PublicKey) -> Account:
        """Register the user's own key; the one before counts no more, and what was said of it is revoked.

        Raises `UnknownAccount`, `KeyTaken`, or the mesh's `KeyConflict` for another key with a fedid that is known.
        """

        return await self._db.run(lambda tx: self._set_key(tx, name, public))

    async def register_key(self, member: str, name: str, answer: str) -> Account:
        """Register the key with which a user answered a challenge of the member with this fedid.

        Raises as `set_key` does, and `WrongKey` or `NotPossessed`.
        """

        def write(tx: Tx) -> Account:
            return self._set_key(tx, name, challenges.possessed(tx, member, name, answer, self._clock()))

        return await self._db.run(write)

    async def suspend(self, name: str) -> None:
        """Revoke what was said of a user, and say nothing more until the account is restored."""
        await self._db.run(lambda tx: self._suspend(tx, name, self._clock()))

    async def restore(self, name: str) -> None:
        """End a suspension."""
        await self._db.run(lambda tx: self._suspend(tx, name, None))

    async def get(self, name: str) -> Account:
        """One account; raises `UnknownAccount`."""
        found = await self._db.read(lambda conn: store.load_account(conn, name))
        if found is None:
            raise UnknownAccount(f"There is no account {name!r}.")
        return found

    async def everybody(self) -> list[Account]:
        """All accounts, by name."""
        return await self._db.read(store.list_accounts)

    async def challenge(self, name: str, address: str) -> tuple[str, datetime]:
        """Begin a log-in with a key: a nonce to be signed, and until when; raises `TooManyAttempts` from this `address`."""
        _refuse_if(self._by_address.take(address))
        return await self._db.run(lambda tx: challenges.begin(tx, name, self._clock()))

    async def log_in_with_key(self, member: str, name: str, answer: str, acting_for: str, address: str) -> datetime:
        """Check the answer to a challenge of the member with this fedid; return until when it may act for the user.

        Raises `WrongKey`, `UnusableMandate`, `NotPossessed`, or `TooManyAttempts` from this `address`.
        """
        _refuse_if(self._by_address.take(address))

        def check(tx: Tx) -> datetime:
            tx.after_commit(self._on_change)
            return challenges.finish(tx, member, name, answer, acting_for, self._clock()).expires

        return await self._db.run(check)

    async def log_in(self, name: str, password: str, address: str) -> None:
        """Check a password; raises `WrongPassword`, or `TooManyAttempts` from this `address` or for this name."""
        self.admit(name, address)
        stored = await self._db.read(lambda conn: store.password_hash_of(conn, name))
        loop = asyncio.get_running_loop()
        good = await loop.run_in_executor(self._threads, _matches, stored or self._nobody, password)
        if stored is None or not good:
            raise WrongPassword("User and password do not belong together.")
        self.forgive(name)

    def admit(self, name: str, address: str) -> None:
        """Count an attempt to log in; raises `TooManyAttempts` from this `address` or for this name."""
        _refuse_if(max(self._by_address.take(address), self._by_user.take(name)))

    def forgive(self, name: str) -> None:
        """Forget the attempts for a name that has proved itself."""
        self._by_user.forgive(name)

    async def issue(self, name: str, label: str, days: int, *, until: datetime = NEVER) -> tuple[Token, str]:
        """Make a token for this account that expires after `days`, and at the latest `until` then.

        The second value is the secret, never seen again.
        """
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        created = self._clock()
        token = Token(str(uuid.uuid4()), label, created, min(created + timedelta(days=days), until))
        if not await self._db.run(lambda tx: store.add_token(tx, name, token, _sha256(secret), TOKENS_PER_ACCOUNT)):
            raise TooManyTokens(f"This account has {TOKENS_PER_ACCOUNT} tokens already; revoke one first.")
        return token, secret

    async def authenticate(self, secret: str) -> User:
        """Whose token this is; raises `Unauthenticated`."""
        moment = self._clock()
        account = await self._db.read(lambda conn: store.account_of_token(conn, _sha256(secret), moment))
        if account is None:
            raise Unauthenticated("This token is unknown, expired or revoked; get a new one with `fed login`.")
        return User(account.project, account.name, account.operator)

    async def tokens(self, name: str) -> list[Token]:
        """The tokens of an account, oldest first."""
        return await self._db.read(lambda conn: store.list_tokens(conn, name))

    async def revoke(self, name: str, token_id: str) -> None:
        """Revoke one token; raises `UnknownToken` for one that is not this account's."""
        if not await self._db.run(lambda tx: store.remove_token(tx, name, token_id)):
            raise UnknownToken("You have no token of that id.")

    def _load(self, tx: Tx, name: str) -> Account:
        account = store.load_account(tx.conn, name)
        if account is None:
            raise UnknownAccount(f"There is no account {name!r}.")
        return account

    def _set_key(self, tx: Tx, name: str, public: PublicKey) -> Account:
        account = self._load(tx, name)
        if account.principal != public.fedid or account.custodial:
            self._take_back(tx, name)
            self._write_key(tx, name, public, None)
        return self._load(tx, name)

    def _adopt(self, tx: Tx, provider: str, found: SignedIn, key: PrivateKey) -> str:
        name = f"{found.user}@{provider}"
        if not _FOREIGN_NAME.match(name):
            raise UnusableAccount(f"{name[:80]!r} cannot be a name here: at most 63 letters, digits and _.@+- .")
        if not store.add_account(tx, name, NO_PASSWORD, self._clock(), operator=False):
            raise AccountExists(f"{name} was somebody else; the operator of this site can remove that account.")
        self._write_key(tx, name, key.public, key)
        store.bind(tx, name, provider, found.subject)
        return name

    def _set_projects(self, tx: Tx, account: Account, wanted: Sequence[str]) -> Account:
        gone = set(account.projects) - set(wanted) if account.projects else ({""} if wanted else set())
        store.set_projects(tx, account.name, wanted)
        prefix = [signing.project_role(project) for project in sorted(gone)]
        signing.revoke_roles(tx, account.name, prefix, self._clock())
        tx.after_commit(self._on_change)
        return self._load(tx, account.name)

    def _suspend(self, tx: Tx, name: str, since: datetime | None) -> None:
        if not store.suspend(tx, name, since):
            raise UnknownAccount(f"There is no account {name!r}.")
        if since is not None:
            signing.revoke(tx, name, since)
        tx.after_commit(self._on_change)

    def _take_back(self, tx: Tx, name: str) -> None:
        signing.revoke(tx, name, self._clock())
        tx.after_commit(self._on_change)

    def _write_key(self, tx: Tx, name: str, public: PublicKey, private: PrivateKey | None) -> None:
        Pins().pin(tx, public, self._clock().timestamp())
        if not store.set_key(tx, name, public, private, self._clock()):
            raise KeyTaken(f"The key {public.fedid} is another account's; everybody has a key of their own.")

    async def _hash(self, password: str) -> str:
        if not PASSWORD_MINIMUM <= len(password) <= PASSWORD_MAXIMUM:
            raise UnusableAccount(f"A password has {PASSWORD_MINIMUM} to {PASSWORD_MAXIMUM} characters.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, HASHER.hash, password)


def _check_name(what: str, text: str) -> None:
    if not _NAME.match(text):
        raise UnusableAccount(f"A {what} name is 1 to 63 of a-z, 0-9 and '-', not {text[:80]!r}.")


def _check_projects(projects: Sequence[str]) -> list[str]:
    for project in projects:
        _check_name("project", project)
    if len(projects) > PROJECTS_PER_ACCOUNT:
        raise UnusableAccount(f"One is in at most {PROJECTS_PER_ACCOUNT} projects.")
    return list(dict.fromkeys(projects))


def _refuse_if(wait: float) -> None:
    if wait:
        seconds = math.ceil(wait)
        raise TooManyAttempts(f"Too many log-ins; try again in {seconds} s.", retry_after=seconds)


def _give_back_memory() -> None:
    """Have glibc return the 19 MiB of each hash to the system; by itself it keeps such blocks for good (mallopt(3))."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024)


def _hash_of_nothing() -> str:
    """What looks like a hash of ours and is of no known password; comparing with it takes as long as with any other."""
    salt, digest = (base64.b64encode(secrets.token_bytes(size)).rstrip(b"=").decode() for size in (16, 32))
    cost = f"m={HASHER.memory_cost},t={HASHER.time_cost},p={HASHER.parallelism}"
    return f"$argon2id$v=19${cost}${salt}${digest}"


def _matches(hashed: str, password: str) -> bool:
    try:
        return HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
