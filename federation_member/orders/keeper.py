"""Makes the middleware agree with the lender's book, lease by lease; a level-triggered reconciler.

    accepted ─ create ─► running ─ lost, failed ─► failing ─ delete ─► failed
                            └─ given back, lease over ─► releasing ─ delete ─► released

Looking at a lease means: read its row, do the one call that its state needs, write what came of it, if the row still says the
same. Calls are idempotent by the lease id, so a crash anywhere leads to the same call again. At start and every hour the whole
of `list_owned` is compared with the book: what the book does not hold is deleted, what is missing or not well is looked at.

Local accounts are looked after likewise (access/local_accounts.py): ready before anything is made under them, and settled again
whenever a grant is released.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog

from federation_member.access import grants
from federation_member.access.grants import Grant
from federation_member.access.local_accounts import LocalAccounts
from federation_member.errors import NoTunnel, Why
from federation_member.middleware.contract import (
    Account,
    ComputeRequest,
    InstanceRequest,
    Middleware,
    MiddlewareError,
    NotAuthorised,
    Owned,
    PlainRequest,
    Status,
    Unavailable,
)
from federation_member.orders import lease_uses, leases
from federation_member.orders.leases import ENDED, LIVE, Lease
from federation_member.orders.lending import Lending
from federation_member.orders.segments.embedder import Embedder
from federation_member.orders.segments.hosted import Hosted
from federation_member.orders.store import REASON_LENGTH
from federation_member.orders.tunnels import Tunnels
from federation_member.orders.wishes import fulfil
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.mesh.errors import MeshError
from fedkit.protocol.lending import ComputeSpec, Instance, LeaseState
from fedkit.protocol.segments import SegmentSpec
from fedkit.store import Database, Tx

log = structlog.get_logger()

SWEEP = ""  # the key under which the queue holds the comparison with `list_owned`
SWEEP_EVERY = timedelta(hours=1)
ORPHAN = "orphan "  # before the key of an instance that stands in no book
ACCOUNT = "account "  # before a local account's name: the key of looking at it
PATIENCE = timedelta(seconds=60)  # how long a middleware or tunnel server may be unavailable before a lease fails
CALL_LIMIT = timedelta(minutes=3)  # of one call; what takes longer answers `creating` and is called again
TELL_EVERY = timedelta(seconds=5)  # how often a borrower hears how far it is
CLAIM = timedelta(seconds=15)  # how long others wait for a process that died at work; it says so often that it lives
BARRED = "its lender is not let look at it: "  # how the reason of such a lease begins
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between two looks at what is not finished


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """A call to the middleware; one that takes too long counts as not answered."""
    try:
        async with asyncio.timeout(CALL_LIMIT.total_seconds()):
            yield
    except TimeoutError as error:
        raise Unavailable(f"The lender's middleware did not answer within {CALL_LIMIT}.") from error


class Keeper:
    """Looks at leases; `worker` names this process among those that share the book."""

    def __init__(
        self,
        db: Database,
        lending: Lending,
        tunnels: Tunnels,
        middleware: Middleware,
        segments: Embedder,
        hosted: Hosted | None,
        clock: Clock,
        worker: str,
    ) -> None:
        self._db = db
        self._lending = lending
        self._tunnels = tunnels
        self._middleware = middleware
        self._segments = segments
        self._hosted = hosted
        self._accounts = LocalAccounts(db, middleware)
        self._clock = clock
        self._worker = worker

    async def look(self, lease_id: str) -> datetime | None:
        """Do what a lease needs now; return when to look again."""
        if lease_id == SWEEP:
            await self._sweep()
            return self._clock() + SWEEP_EVERY
        if lease_id.startswith(ORPHAN):
            return await self._remove(lease_id.removeprefix(ORPHAN))
        if lease_id.startswith(ACCOUNT):
            return await self._settle(lease_id.removeprefix(ACCOUNT))
        lease = await self._take(lease_id)
        if lease is None:
            return None
        claim = asyncio.create_task(self._hold(lease_id))
        try:
            return await self._act(lease)
        except Unavailable as error:
            log.warning("middleware_unavailable", lease=lease_id, reason=error.message)
            return self._later(lease)
        finally:
            claim.cancel()
            await asyncio.gather(claim, return_exceptions=True)
            await self._leave(lease_id)

    # Claims: several processes on PostgreSQL must not talk to the middleware about one lease at once

    async def _take(self, lease_id: str) -> Lease | None:
        if self._db.is_sqlite:
            lease = await self._db.read(lambda conn: leases.load(conn, lease_id))
        else:
            lease = await self._db.run(lambda tx: self._claim(tx, lease_id))
        if lease is not None and lease.parent is None and lease.state in LIVE and lease.expires <= self._clock():
            lease = await self._db.run(lambda tx: self._expire(tx, lease_id))
        return lease

    def _claim(self, tx: Tx, lease_id: str) -> Lease | None:
        now = self._clock()
        if not leases.claim(tx.conn, lease_id, self._worker, now, now + CLAIM):
            return None
        return leases.load(tx.conn, lease_id)

    async def _hold(self, lease_id: str) -> None:
        """Renew the claim until cancelled."""
        while not self._db.is_sqlite:
            await asyncio.sleep(CLAIM.total_seconds() / 3)
            await self._db.run(lambda tx: self._claim(tx, lease_id))

    async def _leave(self, lease_id: str) -> None:
        if not self._db.is_sqlite:
            await self._db.run(lambda tx: leases.unclaim(tx.conn, lease_id, self._worker))

    def _expire(self, tx: Tx, lease_id: str) -> Lease | None:
        lease = self._lending.locked(tx, lease_id)
        now = self._clock()
        if lease is None or lease.state not in LIVE or lease.expires > now:
            return lease
        reason = "its borrower did not renew it in time"
        return self._lending.change(
            tx, lease, state=LeaseState.RELEASING, code=Why.LEASE_EXPIRED, reason=reason, due=now
        )

    # One look

    async def _act(self, lease: Lease) -> datetime | None:
        if lease.segment is not None and lease.state not in ENDED:
            looks = self._hosted if lease.segment.hosted and self._hosted is not None else self._segments
            return await looks.look(lease)
        if lease.state is LeaseState.ACCEPTED:
            return await self._create(lease)
        if lease.state is LeaseState.RUNNING:
            return await self._check(lease)
        if lease.state not in ENDED:
            return await self._delete(lease)
        if lease.due is not None and lease.due <= self._clock():
            await self._db.run(lambda tx: self._lending.forget(tx, lease.id))
            return None
        return lease.due

    async def _create(self, lease: Lease) -> datetime | None:
        try:
            async with asyncio.timeout(CALL_LIMIT.total_seconds()):
                owned = await self._make(lease)
        except (Unavailable, MeshError) as error:
            if self._clock() - lease.created < PATIENCE:
                log.warning("lease_waits", lease=lease.id, code=error.code, reason=error.message)
                return self._later(lease)
            return await self._fail(lease, error.code, error.message)
        except FedError as error:
            return await self._fail(lease, error.code, error.message)
        except TimeoutError:
            return await self._fail(lease, Why.MIDDLEWARE_TIMEOUT, f"not made within {CALL_LIMIT}")
        except Exception as error:
            log.exception("middleware_broke", lease=lease.id)
            return await self._fail(lease, Why.MIDDLEWARE_BROKE, f"{type(error).__name__} in the lender's middleware")
        return await self._made(lease, owned)

    async def _make(self, lease: Lease) -> Owned:
        grant = await self._db.read(lambda conn: grants.load(conn, lease.parent or lease.id))
        if grant is not None and grant.account.how in grants.KINDS:
            await self._accounts.settle(lease.account)
        return await self._middleware.create(lease.id, await self._request(lease, grant))

    async def _request(self, lease: Lease, grant: Grant | None) -> InstanceRequest:
        account = Account(lease.account, None if grant is None else grant.account.certificate)
        assert not isinstance(lease.spec, SegmentSpec)
        if not isinstance(lease.spec, ComputeSpec):
            return PlainRequest(lease.spec, account)
        assert lease.flavour is not None
        tunnel = await self._tunnels.access(lease)
        trusted = None if grant is None else grant.authority
        return ComputeRequest(lease.spec, lease.flavour, account, tuple(lease.spec.networks), tunnel, trusted)

    async def _made(self, lease: Lease, owned: Owned) -> datetime | None:
        if owned.status is Status.FAILED:
            return await self._fail(lease, MiddlewareError.code, owned.reason or "the instance failed")
        if owned.status is Status.CREATING:
            told, progress = lease.reason, owned.reason[:REASON_LENGTH]
            if progress == told or self._clock() - lease.changed < TELL_EVERY:
                return self._later(lease)
            return await self._write(lease, reason=progress)
        return await self._db.run(lambda tx: self._runs(tx, lease.id, owned.instance))

    def _runs(self, tx: Tx, lease_id: str, instance: Instance) -> datetime | None:
        """The instance is there; a machine that is to have a tunnel counts as running when its port is granted."""
        lease = self._lending.locked(tx, lease_id)
        now = self._clock()
        if lease is None or lease.state is not LeaseState.ACCEPTED:
            return None if lease is None else now
        if lease.tunnel is None or lease.tunnel.revision > 0:
            return self._lending.made(tx, lease, instance=instance).due
        if now - lease.created < PATIENCE:
            return leases.save(tx, lease, now, quiet=True, instance=instance, due=lease.created + PATIENCE).due
        reason = "the tunnel server does not answer, so nobody could reach the machine"
        return self._lending.change(tx, lease, state=LeaseState.FAILING, code=NoTunnel.code, reason=reason, due=now).due

    async def _check(self, lease: Lease) -> datetime | None:
        try:
            async with _in_time():
                owned = await self._middleware.get(lease.id)
        except NotAuthorised as error:
            return await self._barred(lease, error)
        if owned is None:
            return await self._fail(lease, Why.LEASE_LOST, "the instance is gone at its lender")
        if owned.status is Status.FAILED:
            return await self._fail(lease, Why.LEASE_LOST, owned.reason or "the instance failed at its lender")
        changes: dict[str, Any] = {"code": "", "reason": ""} if _is_barred(lease) else {}
        wishes = lease.wishes
        if owned.status is Status.RUNNING:
            changes["instance"] = owned.instance
            if wishes:
                wishes, done = await fulfil(self._middleware, lease.id, wishes, owned)
                changes |= done
        if wishes != lease.wishes or any(getattr(lease, name) != value for name, value in changes.items()):
            return await self._write(lease, wishes=wishes, **changes)
        return self._later(lease) if wishes else lease.expires

    async def _barred(self, lease: Lease, error: NotAuthorised) -> datetime | None:
        """It goes on running, as far as anybody knows; its borrower is told why nobody knows more, until somebody does."""
        log.warning("lease_not_seen", lease=lease.id, code=error.code, reason=error.message)
        reason = f"{BARRED}{error.message}"[:REASON_LENGTH]
        if (error.code, reason) == (lease.code, lease.reason):
            return self._later(lease)
        return await self._write(lease, code=error.code, reason=reason)

    async def _delete(self, lease: Lease) -> datetime | None:
        if not await self._is_free(lease):
            return self._later(lease)
        try:
            async with _in_time():
                await self._middleware.delete(lease.id)
        except FedError as error:
            log.warning("not_deleted", lease=lease.id, code=error.code, reason=error.message)
            return self._later(lease)
        return await self._db.run(lambda tx: self._deleted(tx, lease.id))

    async def _is_free(self, lease: Lease) -> bool:
        """Whether nothing uses it any more; whatever does is ended first."""
        users = await self._db.read(lambda conn: lease_uses.users_of(conn, lease.id))
        for user in users:
            await self._db.run(partial(self._lending.end_user, lease_id=user, used=lease))
        return not users

    def _deleted(self, tx: Tx, lease_id: str) -> datetime | None:
        lease = self._lending.locked(tx, lease_id)
        if lease is None or lease.state in ENDED:
            return None
        return self._lending.end(tx, lease).due

    async def _fail(self, lease: Lease, code: str, reason: str) -> datetime | None:
        log.warning("lease_failed", lease=lease.id, code=code, reason=reason)
        return await self._write(lease, state=LeaseState.FAILING, code=code, reason=reason)

    async def _write(self, seen: Lease, **changes: Any) -> datetime | None:
        """Write what came of a look, unless the lease has changed its state meanwhile; then look again."""

        def write(tx: Tx) -> datetime | None:
            lease = self._lending.locked(tx, seen.id)
            if lease is None or lease.state is not seen.state:
                return None if lease is None else self._clock()
            new = _merged(lease, seen, changes)
            due = self._clock()
            if new.get("state", lease.state) is LeaseState.RUNNING:
                waits = new.get("wishes", lease.wishes) or _is_barred(replace(lease, **new))
                due = self._later(lease) if waits else lease.expires
            return self._lending.change(tx, lease, due=due, **new).due

        return await self._db.run(write)

    def _later(self, lease: Lease) -> datetime:
        """A pause that grows with how long the lease has been in this state."""
        now = self._clock()
        pause = min(max((now - lease.changed).total_seconds() / 2, SHORTEST_PAUSE), LONGEST_PAUSE)
        return now + timedelta(seconds=pause)

    # Accounts

    async def _settle(self, account: str) -> datetime | None:
        try:
            async with _in_time():
                await self._accounts.settle(account)
        except MiddlewareError as error:
            log.warning("account_not_settled", account=account, code=error.code, reason=error.message)
            return self._clock() + timedelta(seconds=LONGEST_PAUSE)
        return None

    # All of them

    async def _remove(self, key: str) -> datetime | None:
        """Delete what the middleware holds and the book, still, does not."""
        if key in await self._db.read(leases.held):
            return None
        try:
            async with _in_time():
                await self._middleware.delete(key)
        except MiddlewareError as error:
            log.warning("orphan_not_deleted", key=key, code=error.code, reason=error.message)
            return self._clock() + timedelta(seconds=LONGEST_PAUSE)
        log.warning("orphan_deleted", key=key)
        return None

    async def _sweep(self) -> None:
        """Have deleted what the middleware holds and the book does not, and looked at what the book holds and it does not."""
        async with _in_time():
            owned = {instance.key: instance for instance in await self._middleware.list_owned()}
            accounts = await self._accounts.all()
        held = await self._db.read(leases.held)  # read later than the list: whatever is made stands in the book first
        for key in sorted(owned.keys() - held.keys()):
            self._lending.wake(ORPHAN + key)
        for key in sorted(held):
            if key not in owned or owned[key].status is Status.FAILED:
                self._lending.wake(key)
        for account in sorted(accounts):
            self._lending.wake(ACCOUNT + account)


def _is_barred(lease: Lease) -> bool:
    return lease.code == NotAuthorised.code and lease.reason.startswith(BARRED)


def _merged(lease: Lease, seen: Lease, changes: dict[str, Any]) -> dict[str, Any]:
    """What a look came to, for a lease of which something else may be wanted by now; then a refusal is not worth telling."""
    if "wishes" not in changes or lease.wishes == seen.wishes:
        return changes
    told = {name: value for name, value in changes.items() if name not in ("code", "reason")}
    return told | {"wishes": lease.wishes.without(seen.wishes, changes["wishes"])}
