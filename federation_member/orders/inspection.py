"""What a lender tells of what it lent, and of what there would be to lend, without changing anything.

Each answer needs the site's own words, which may come late or never: every question has a limit in time, and only so many are
asked at once, so that a cloud that hangs, or a borrower that asks without end, holds up nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from federation_member.access.controller import Controller
from federation_member.access.grants import LocalAccount
from federation_member.access.model import How
from federation_member.access.verdict import Applicant
from federation_member.errors import Cannot
from federation_member.middleware.console import last_of, printable
from federation_member.middleware.contract import (
    Account,
    Middleware,
    Quota,
    ShowsConsole,
    TellsQuota,
    Unavailable,
    UnknownAccount,
)
from federation_member.orders import leases
from federation_member.orders.leases import Lease
from federation_member.orders.ownership import running
from federation_member.orders.wishes import check_console
from fedkit.identity.names import Name
from fedkit.mesh.api import Mesh, Peer, Request
from fedkit.policy import compact
from fedkit.protocol.lending import (
    Amounts,
    ComputeSpec,
    Console,
    LeaseConsole,
    LeaseState,
    Offer,
    QuotaGet,
    QuotaView,
    VolumeSpec,
)
from fedkit.store import Database

LIMIT = 4.0  # seconds that an answer may take, so that it comes before its asker stops to wait
AT_ONCE = 8  # questions to the middleware

T = TypeVar("T")


class Inspection:
    """Answers a borrower's questions; `offer` is what this member lends now."""

    def __init__(
        self, db: Database, access: Controller, middleware: Middleware | None, offer: Callable[[], Offer]
    ) -> None:
        self._db = db
        self._access = access
        self._middleware = middleware
        self._offer = offer
        self._places = asyncio.Semaphore(AT_ONCE)

    def serve(self, mesh: Mesh) -> None:
        """Register with the mesh."""
        mesh.on_query("lease.console", LeaseConsole, self._console)
        mesh.on_query("quota.get", QuotaGet, self._quota)

    async def _console(self, request: Request[LeaseConsole]) -> Console:
        return await self.console(request.sender, request.body)

    async def _quota(self, request: Request[QuotaGet]) -> QuotaView:
        return await self.quota(request.sender, request.body)

    async def console(self, borrower: Peer, body: LeaseConsole) -> Console:
        """The end of what a machine wrote; raises `UnknownLease`, `NotRunning`, `Cannot` or a `MiddlewareError`."""
        lease = running(await self._db.read(lambda conn: leases.load(conn, body.lease_id)), borrower)
        check_console(lease.spec.kind, self._offer().abilities)
        return Console(text=await self.printed(lease.id))

    async def printed(self, lease_id: str) -> str:
        """The same of whatever machine of ours; raises `Cannot` or a `MiddlewareError`."""
        if not isinstance(self._middleware, ShowsConsole):
            raise Cannot("This member cannot show consoles any more.")
        return last_of(printable(await self._in_time(partial(self._middleware.console, lease_id))))

    async def quota(self, borrower: Peer, body: QuotaGet) -> QuotaView:
        """What a user may have, has, and everybody has with them; raises `NotAllowed`, `Cannot` or a `MiddlewareError`."""
        if self._middleware is None:
            raise Cannot("This member lends nothing.")
        name, offer = Name.parse(body.name), self._offer()
        applicant = Applicant(borrower, name, body.principal, tuple(map(compact.read, body.credentials)))
        flavours, images = [one.name for one in offer.flavours], [one.name for one in offer.images]

        def read(conn: Connection) -> tuple[LocalAccount, list[Lease]]:
            account = self._access.account_of(conn, applicant, flavours, images)
            return account, leases.under(conn, account.name)

        account, held = await self._db.read(read)
        quota = await self._of_account(account)
        mine = [lease for lease in held if (lease.borrower.fedid, lease.user) == (borrower.fedid, name.user)]
        return QuotaView(
            account=account.name,
            total=quota.total if quota else Amounts(),
            used=quota.used if quota else amounts(held),
            mine=amounts(lease for lease in mine if lease.state is LeaseState.RUNNING),
        )

    async def _of_account(self, account: LocalAccount) -> Quota | None:
        """What the middleware says; None if it cannot tell, or the account is yet to be made."""
        if not isinstance(self._middleware, TellsQuota):
            return None
        try:
            asked = Account(account.name, account.certificate)
            return await self._in_time(partial(self._middleware.quota, asked))
        except UnknownAccount:
            if account.how is How.CREATE:
                return None
            raise

    async def _in_time(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(LIMIT), self._places:
                return await ask()
        except TimeoutError as error:
            raise Unavailable(f"The lender's own cloud did not answer within {LIMIT:g} s.") from error


def amounts(held: Iterable[Lease]) -> Amounts:
    """What leases come to. A stopped machine counts: clouds keep its place."""
    machines = vcpu = ram_mb = volumes = volume_gb = networks = public_ips = 0
    for lease in held:
        match lease.spec:
            case ComputeSpec():
                machines += 1
                vcpu += lease.flavour.vcpu if lease.flavour else 0
                ram_mb += lease.flavour.ram_mb if lease.flavour else 0
            case VolumeSpec(size_gb=size_gb):
                volumes += 1
                volume_gb += size_gb
            case _:
                networks += lease.spec.kind == "network"
                public_ips += lease.spec.kind == "public_ip"
    return Amounts(
        machines=machines,
        vcpu=vcpu,
        ram_mb=ram_mb,
        volumes=volumes,
        volume_gb=volume_gb,
        networks=networks,
        public_ips=public_ips,
    )
