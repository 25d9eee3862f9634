"""The `openstack` kind: the contract of `middleware.contract`, kept with an OpenStack cloud.

    Accounts ── Cloud (one connection for each account) ── threads, bounded
    kinds: Compute, NetworkKind, …                         what is ordered, each found by its mark
    Watch                                                  what changes by itself

Nothing is kept here that the cloud does not know: which account holds a key is only remembered to be faster. Starting never fails
because of the cloud: a member serves its own users while its cloud is down, and calls say `Unavailable` until it is back.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Sequence
from typing import ClassVar

import structlog
from pydantic import BaseModel

from federation_member.middleware.contract import (
    Account,
    AccountSpec,
    InstanceRequest,
    MiddlewareError,
    NotAuthorised,
    Owned,
    Quota,
    Status,
    Unavailable,
    UnusableSpec,
)
from federation_member.middleware.openstack import power
from federation_member.middleware.openstack.accounts import Accounts
from federation_member.middleware.openstack.attachments import AttachmentKind
from federation_member.middleware.openstack.compute import Compute
from federation_member.middleware.openstack.config import OpenStackConfig
from federation_member.middleware.openstack.connection import Cloud, Service
from federation_member.middleware.openstack.console import console
from federation_member.middleware.openstack.images import Images
from federation_member.middleware.openstack.kinds import Context, Kind
from federation_member.middleware.openstack.lookups import Flavours, Networks
from federation_member.middleware.openstack.marks import Marks, check
from federation_member.middleware.openstack.networks import NETWORK, NetworkKind
from federation_member.middleware.openstack.progress import Progress
from federation_member.middleware.openstack.public_ips import PUBLIC_IP, PublicIpKind
from federation_member.middleware.openstack.quota import quota
from federation_member.middleware.openstack.rules import Groups
from federation_member.middleware.openstack.servers import COMPUTE, Server, owned
from federation_member.middleware.openstack.snapshots import SnapshotKind
from federation_member.middleware.openstack.volumes import VolumeKind
from federation_member.middleware.openstack.watch import Watch
from fedkit.protocol.lending import Flavour, Image, Power, SecurityRule

log = structlog.get_logger()
LATE = 3600.0  # seconds for which something that appears under a deleted key is taken for a late answer, and deleted
TIDY = 3600.0  # seconds between two looks for images that nobody needs any more
START = 20.0  # seconds that the first look at the cloud may take
SERVICES: tuple[Service, ...] = ("compute", "network", "image", "block_storage")
NEEDED: frozenset[Service] = frozenset({"compute", "network", "image"})


class OpenStackMiddleware:
    """Machines and what belongs to them in one OpenStack cloud."""

    name: ClassVar[str] = "openstack"
    Config: ClassVar[type[BaseModel]] = OpenStackConfig

    def __init__(self, config: OpenStackConfig) -> None:
        self._config = config
        context = Context(config, Marks(config.site))
        self._accounts = Accounts(context)
        self._flavours, self._images, self._networks = Flavours(context), Images(context), Networks(context)
        self._groups = {kind: Groups(context, kind) for kind in (NETWORK, PUBLIC_IP)}
        self._compute = Compute(context, self._images, self._flavours, self._networks, self._groups[NETWORK])
        kinds: list[Kind] = [
            self._compute,
            NetworkKind(context, self._networks, self._groups[NETWORK]),
            VolumeKind(context),
            AttachmentKind(context),
            SnapshotKind(context),
        ]
        if config.public_network is not None:
            kinds.append(PublicIpKind(context, self._networks, self._groups[PUBLIC_IP]))
        self._kinds = {kind.name: kind for kind in kinds}
        self._is_checked = False
        self._missing: frozenset[Service] = frozenset()  # services that the cloud does not have
        self._places: dict[str, tuple[Cloud, Kind]] = {}  # where a key was seen last
        self._deleted: dict[str, float] = {}  # key to when
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._watch = Watch(context, self._server_changed)
        self._progress = Progress(config.timeouts.stalled)
        self._changed: Callable[[str], None] = lambda key: None
        self._late: asyncio.Queue[tuple[Cloud, str]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    @property
    def fetches_images(self) -> bool:
        """Whether an image may be named by its URL."""
        return self._config.images_from_urls is not None

    @property
    def gives_addresses(self) -> bool:
        """Whether every machine has a public address, and so needs no tunnel."""
        return self._config.public_addresses

    async def start(self, changed: Callable[[str], None]) -> None:
        """Look whether the cloud is there, say so if not, and watch it from now on."""
        self._changed = changed
        await self._images.start(changed)
        for cloud in self._accounts.static:
            self._watch.follow(cloud)
        try:
            async with asyncio.timeout(START):
                for cloud in await self._accounts.all():
                    self._watch.follow(cloud)
                await self._watch.look()  # what goes from now on is noticed
                await self._check()
        except (MiddlewareError, TimeoutError) as error:
            reason = error.message if isinstance(error, MiddlewareError) else f"no answer within {START:g} s"
            log.error(
                "cloud_not_ready",
                auth_url=self._config.auth_url,
                reason=reason,
                next="it is tried again with every call",
            )
        self._task = asyncio.create_task(self._run(), name="openstack")

    async def _check(self) -> None:
        """Raise a `MiddlewareError` that says what is missing for machines to be made."""
        cloud = self._accounts.first
        await cloud.project_id()
        self._missing = frozenset([service for service in SERVICES if not await cloud.has(service)])
        if needed := sorted(self._missing & NEEDED):
            raise MiddlewareError(
                f"The cloud's catalog has no service {', '.join(needed)} in region {self._config.region}; "
                "check region and interface in [middleware.options]."
            )
        await asyncio.gather(self._flavours.offered(cloud), self._networks.site(cloud))
        self._is_checked = True

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch.run())
            group.create_task(self._remove_late())
            group.create_task(self._remove_unused())

    async def stop(self) -> None:
        """Let go; what is in the cloud stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            await self._images.stop()
        self._accounts.close()

    def kinds(self) -> frozenset[str]:
        """What can be ordered, of what the cloud has services for."""
        return frozenset(name for name, kind in self._kinds.items() if not self._missing.intersection(kind.services))

    def _usable(self) -> list[Kind]:
        return [self._kinds[name] for name in sorted(self.kinds())]

    async def flavours(self) -> list[Flavour]:
        """As the cloud has them, and the configuration lends them."""
        if not self._is_checked:
            await self._check()
        return await self._flavours.offered(self._accounts.first)

    async def images(self) -> list[Image]:
        """As configured, or as the cloud has them."""
        return await self._images.offered(self._accounts.first)

    async def create(self, key: str, request: InstanceRequest) -> Owned:
        """Make it, or go on making it; a machine is `creating` until the cloud says that it is active."""
        check(key)
        kind = self._kinds.get(request.spec.kind)
        if kind is None or kind.name not in self.kinds():
            raise UnusableSpec(f"Nothing of the kind {request.spec.kind} can be made here.")
        cloud = await self._accounts.get(request.account.name)
        async with self._lock(key):
            self._deleted.pop(key, None)
            if kind.name == COMPUTE and (known := self._watch.known(cloud, key)) is not None:
                self._progress.see(known)
                return known
            self._watch.follow(cloud)
            try:
                made = await kind.create(cloud, key, request)
            except Unavailable:
                self._progress.forget(key)
                raise
            self._progress.see(made)
            self._places[key] = (cloud, kind)
            if kind.name == COMPUTE and made.status is Status.CREATING and made.instance.address is not None:
                self._watch.begun(cloud, key, made)  # a server is on its way, not only its image
            return made

    async def get(self, key: str) -> Owned | None:
        """As the cloud tells it."""
        check(key)
        place = self._places.get(key)
        if place is not None:
            return await place[1].find(place[0], key)
        for cloud in await self._accounts.all():
            found = await asyncio.gather(*(kind.find(cloud, key) for kind in self._usable()))
            for kind, instance in zip(self._usable(), found, strict=True):
                if instance is not None:
                    self._seen(cloud, kind, instance)
                    return instance
        return None

    async def delete(self, key: str) -> None:
        """Remove it and all that was made for it; what is not known is looked for in every account."""
        check(key)
        async with self._lock(key):
            place = self._places.get(key)
            places = (
                [place] if place else [(one, kind) for one in await self._accounts.all() for kind in self._usable()]
            )
            barred: NotAuthorised | None = None
            for cloud, kind in places:
                try:
                    await kind.delete(cloud, key)
                except NotAuthorised as error:  # it may be elsewhere
                    barred = error
                self._watch.forget(cloud, key)
            if barred is not None:
                raise barred
            self._places.pop(key, None)
            self._progress.forget(key)
            self._note_deleted(key)

    async def list_owned(self) -> list[Owned]:
        """Everything with our mark, in all accounts that let us in: one whose password is wrong must not hide the others."""
        lists = await asyncio.gather(*(self._owned_by(cloud) for cloud in await self._accounts.all()))
        return [instance for instances in lists for instance in instances]

    async def _owned_by(self, cloud: Cloud) -> list[Owned]:
        kinds = self._usable()
        try:
            lists = await asyncio.gather(*(kind.owned(cloud) for kind in kinds))
        except NotAuthorised as error:
            log.error("account_not_listed", account=cloud.account, reason=error.message)
            return []
        for kind, instances in zip(kinds, lists, strict=True):
            for instance in instances:
                self._seen(cloud, kind, instance)
        return [instance for instances in lists for instance in instances]

    def _seen(self, cloud: Cloud, kind: Kind, instance: Owned) -> None:
        self._places[instance.key] = (cloud, kind)
        if kind.name == COMPUTE:
            self._watch.follow(cloud)

    # Accounts

    async def ensure_account(self, account: AccountSpec) -> None:
        """Make a project for it, or give the site's own what it says."""
        await self._accounts.ensure(account)

    async def remove_account(self, name: str) -> None:
        """Undo that."""
        await self._accounts.remove(name)

    async def list_accounts(self) -> list[AccountSpec]:
        """All that was made or given."""
        return await self._accounts.given()

    # What runs

    async def set_power(self, key: str, power_wanted: Power) -> Owned:
        """Begin to make it so; `changed` tells when the cloud has done it."""
        cloud, server = await self._machine(key)
        if await power.step(cloud, server, power_wanted):
            self._watch.begun(cloud, key)
            server = await power.shown(cloud, server)
        return owned(key, server)

    async def set_rules(self, key: str, rules: Sequence[SecurityRule]) -> None:
        """Change the security group of a network or public address."""
        if await self.get(key) is not None:
            cloud, kind = self._places[key]
            groups = self._groups.get(kind.name)
            if groups is not None and await groups.change(cloud, key, rules):
                return
        raise UnusableSpec(f"There is no network or public address {key} here.")

    async def console(self, key: str) -> str:
        """What Nova has of it."""
        cloud, server = await self._machine(key)
        return await console(cloud, server.id)

    async def quota(self, account: Account) -> Quota:
        """As the cloud's services count it for the account's project."""
        return await quota(await self._accounts.get(account.name))

    async def _machine(self, key: str) -> tuple[Cloud, Server]:
        if await self.get(key) is not None:
            cloud, kind = self._places[key]
            server = await self._compute.server(cloud, key) if kind.name == COMPUTE else None
            if server is not None:
                return cloud, server
        raise UnusableSpec(f"There is no machine {key} here.")

    # What happens by itself

    def _server_changed(self, cloud: Cloud, key: str) -> None:
        if key in self._deleted:
            self._late.put_nowait((cloud, key))
        else:
            self._changed(key)

    async def _remove_late(self) -> None:
        """Delete servers that came to be after their key was deleted: a call whose answer never came was carried out late."""
        while True:
            cloud, key = await self._late.get()
            log.warning("late_server_deleted", key=key, account=cloud.account)
            try:
                await self._compute.delete(cloud, key)
            except MiddlewareError as error:
                log.warning("late_server_stays", key=key, reason=error.message)

    async def _remove_unused(self) -> None:
        """Remove images that were fetched for somebody, and that nobody needed for long."""
        while True:
            await asyncio.sleep(TIDY)
            try:
                for cloud in await self._accounts.all():
                    await self._images.tidy(cloud)
            except MiddlewareError as error:
                log.warning("images_not_tidied", reason=error.message)

    def _note_deleted(self, key: str) -> None:
        now = time.monotonic()
        self._deleted[key] = now
        while self._deleted and next(iter(self._deleted.values())) < now - LATE:
            del self._deleted[next(iter(self._deleted))]

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())
