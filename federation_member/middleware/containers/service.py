"""The `containers` kind: the contract of `middleware.contract`, kept with namespaces, bridges and runc.

Order of things, so that a crash at any line leaves nothing that `list_owned` does not name: the record first, then the
instance; the instance's end first, then the record's. A record without `complete` was never handed out: creating it again clears
away what there is of it and starts anew, with the same address.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, ClassVar

import structlog
from pydantic import BaseModel

from federation_member.middleware.containers import console, network
from federation_member.middleware.containers.accounts import AccountBook
from federation_member.middleware.containers.book import Book, Record, check_key
from federation_member.middleware.containers.config import DEFAULT_IMAGE, ContainersConfig
from federation_member.middleware.containers.fence import Fence
from federation_member.middleware.containers.ids import IdSpace
from federation_member.middleware.containers.joining import NETWORK, Joining, identity, outside_names
from federation_member.middleware.containers.runtime import TUN, Launch, Runtime
from federation_member.middleware.containers.seed import Machine, seed
from federation_member.middleware.containers.segments import SEGMENT, Segments, identities
from federation_member.middleware.contract import (
    Account,
    AccountSpec,
    ComputeRequest,
    InstanceRequest,
    MiddlewareError,
    NoCapacity,
    Owned,
    PlainRequest,
    Printed,
    Quota,
    SegmentRequest,
    Status,
    Unavailable,
    UnknownFlavour,
    UnknownImage,
    UnusableSpec,
)
from federation_member.middleware.inside.files import ACCOUNT
from federation_member.middleware.inside.host_key import HostKey
from federation_member.middleware.user_data import UserData, parse
from fedkit.portal.script import PROGRAM
from fedkit.protocol.lending import Amounts, Flavour, Image, Instance, NetworkSpec, Power
from fedkit.protocol.segments import Operation

log = structlog.get_logger()
COMPUTE = "compute"
SSH_PORT = 22
DELAYS = f"{PROGRAM}/lib/fedkit/portal/line.py"  # in an image whose portal program knows how
READY_TIMEOUT = 20.0  # seconds from the start of a machine to its ssh server, under heavy load
READY_PAUSE = 0.005  # seconds between two tries to reach it
GIB, MIB = 1 << 30, 1 << 20
SMALLEST_DISK = 64 * MIB


@contextmanager
def _as_ours(what: str) -> Iterator[None]:
    """What the host's kernel refuses, or does not do in time, is the middleware's failure."""
    try:
        yield
    except OSError as error:
        raise MiddlewareError(f"{what}: {error.strerror or 'it took too long'}.") from error


class ContainersMiddleware:
    """Machines and networks in the member's own network namespace."""

    name: ClassVar[str] = "containers"
    Config: ClassVar[type[BaseModel]] = ContainersConfig

    def __init__(self, config: ContainersConfig) -> None:
        self._config = config
        self._book = Book(config.state / "instances")
        self._accounts = AccountBook(config.state / "accounts", config.accounts, self._used_accounts)
        self._runtime = Runtime(config.state / "runc", self._ended)
        self._ids = IdSpace.of_this_process()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._joining = Joining(config, self._book)
        name = hashlib.sha256(bytes(config.state)).hexdigest()[:8]
        self._fence = Fence(f"fedmesh-containers-{name}", network.FENCED_PORT)
        self._segments = Segments(
            config, self._book, self._joining, self._fence, self._ids, self._runtime, self._has_news
        )
        self._changed: Callable[[str], None] = lambda key: None
        self._lock_file: IO[bytes] | None = None

    async def start(self, changed: Callable[[str], None]) -> None:
        """Find what is here. Raises `Unavailable` with the next step if the site is not ready for machines."""
        self._changed = changed
        self._take_state()
        try:
            await self._look_around()
        except BaseException:
            await self.stop()
            raise

    async def _look_around(self) -> None:
        for name in self._config.all_images:
            self._check_image(name)
        await self._joining.look_around()
        self._book.load()
        self._accounts.load()
        await self._runtime.start(real_root=self._ids.separate)
        if self._runtime.cgroups is None:
            log.warning("limits_unavailable", missing="memory and processor time", reason="no writable control groups")
        for record in self._book:
            if record.kind == NETWORK:
                await network.ensure_bridge(network.bridge_name(record.number), verbatim=record.verbatim)
        fenced = [identity(record) for record in self._book if record.carries_frames]
        fenced += [one for record in self._book if record.kind == SEGMENT for one in identities(record)]
        if fenced:
            await self._fence.raise_around(fenced)
        self._segments.look_around()

    async def stop(self) -> None:
        """Let go; machines stay."""
        self._segments.stop()
        self._runtime.stop()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def kinds(self) -> frozenset[str]:
        """Machines and private networks."""
        return frozenset({COMPUTE, NETWORK})

    async def flavours(self) -> list[Flavour]:
        """As configured."""
        return self._config.flavours

    async def images(self) -> list[Image]:
        """As configured."""
        return [
            Image(name=name, portal=name == DEFAULT_IMAGE, delays=(root / DELAYS).exists())
            for name, root in self._config.all_images.items()
        ]

    async def create(self, key: str, request: InstanceRequest) -> Owned:
        """Make a machine (until its ssh server answers) or a network."""
        check_key(key)
        self._accounts.check(request.account.name)
        async with self._lock(key):
            with _as_ours(f"{key} cannot be made"):
                return await self._owned(await self._made(key, request))

    async def _made(self, key: str, request: InstanceRequest) -> Record:
        record = self._book.get(key)
        if record is not None and record.complete:
            return record
        try:
            return await self._make(key, request)
        except BaseException:  # cancelled, too
            await self._remove(key)
            raise

    async def get(self, key: str) -> Owned | None:
        """What is there under `key`."""
        record = self._book.get(key)
        return await self._owned(record) if record else None

    async def delete(self, key: str) -> None:
        """End it and forget it."""
        async with self._lock(key):
            with _as_ours(f"{key} cannot be removed"):
                await self._remove(key)

    async def list_owned(self) -> list[Owned]:
        """All that is in the book."""
        return [await self._owned(record) for record in self._book]

    async def set_power(self, key: str, power: Power) -> Owned:
        """Pause a machine, or let it go on. Its disk lives as long as its processes, so it cannot be stopped."""
        async with self._lock(key):
            record = self._book.get(key)
            if record is None or record.kind != COMPUTE or not self._runtime.is_alive(key):
                raise MiddlewareError(f"No machine {key} runs here.")
            if power is Power.STOPPED:
                raise UnusableSpec("A container's disk lives only as long as it runs; pause the machine instead.")
            with _as_ours(f"{key} cannot be {power}"):
                await (self._runtime.pause(key) if power is Power.PAUSED else self._runtime.resume(key))
            return await self._owned(record)

    async def console(self, key: str) -> str:
        """What the machine, and its user's script, wrote at its start."""
        root = self._runtime.open_root(key, self._book.folder(key))
        try:
            return await asyncio.to_thread(console.read, root)
        finally:
            os.close(root)

    def hosts_segments(self) -> bool:
        """Where machines can carry frames."""
        return not self._ids.of_machine(0).only_one and (self._ids.separate or os.access(TUN, os.R_OK | os.W_OK))

    async def start_segment(self, key: str, request: SegmentRequest) -> Owned:
        """Make a segment, or make one that runs as it is wanted now."""
        check_key(key)
        self._accounts.check(request.account.name)
        async with self._lock(key):
            with _as_ours(f"{key} cannot be made"):
                return await self._owned(await self._started(key, request))

    async def _started(self, key: str, request: SegmentRequest) -> Record:
        record = self._book.get(key)
        group = self._accounts.group(request.account.name)
        if record is not None and record.complete:
            return await self._segments.adapt(record, request, group)
        try:
            for image in {part.image for part in request.nodes} | {part.image for part in request.portals}:
                self._check_image(image)
            record = await self._segments.make(key, request, group)
        except BaseException:  # cancelled, too
            await self._remove(key)
            raise
        record = record.model_copy(update={"complete": True})
        self._book.put(record)
        log.info("instance_made", key=key, kind=record.kind)
        return record

    async def operate(self, key: str, operation: Operation, node: str, command: str = "") -> Printed:
        """Do something to a node of a segment."""
        record = self._book.get(key)
        if record is None or record.kind != SEGMENT:
            raise MiddlewareError(f"No segment {key} runs here.")
        return await self._segments.operate(record, operation, node, command)

    async def quota(self, account: Account) -> Quota:
        """The limits are all accounts' together, so one may have what the others leave."""
        self._accounts.check(account.name)
        machines = [record for record in self._book for _ in record.addresses]
        networks = [record for record in self._book if record.kind == NETWORK]
        mine = [record for record in machines if record.account == account.name]
        mine_networks = [record for record in networks if record.account == account.name]
        limits = self._config.limits
        flavours = [record.instance.flavour for record in mine if record.instance.flavour is not None]
        return Quota(
            total=Amounts(
                machines=max(len(mine), limits.machines - len(machines) + len(mine)),
                networks=max(len(mine_networks), limits.networks - len(networks) + len(mine_networks)),
            ),
            used=Amounts(
                machines=len(mine),
                networks=len(mine_networks),
                vcpu=sum(flavour.vcpu for flavour in flavours),
                ram_mb=sum(flavour.ram_mb for flavour in flavours),
            ),
        )

    async def ensure_account(self, account: AccountSpec) -> None:
        """Write it down; from here on machines can run under it."""
        with _as_ours(f"The account {account.name} cannot be made"):
            self._accounts.ensure(account)

    async def remove_account(self, name: str) -> None:
        """Forget it."""
        with _as_ours(f"The account {name} cannot be removed"):
            self._accounts.remove(name)

    async def list_accounts(self) -> list[AccountSpec]:
        """All that was made or given."""
        return self._accounts.given()

    async def _make(self, key: str, request: InstanceRequest) -> Record:
        if isinstance(request, ComputeRequest):
            record = await self._make_machine(key, request)
        else:
            record = await self._make_network(key, request)
        record = record.model_copy(update={"complete": True})
        self._book.put(record)
        log.info("instance_made", key=key, kind=record.kind)
        return record

    async def _make_machine(self, key: str, request: ComputeRequest) -> Record:
        user_data = parse(request.spec.user_data)
        self._check_image(request.spec.image)
        if request.spec.carries_frames:
            self._check_carrying()
        if request.flavour not in self._config.flavours:
            names = ", ".join(flavour.name for flavour in self._config.flavours)
            raise UnknownFlavour(f"There is no such flavour as {request.flavour.name} here; there are {names}.")
        record = self._book.get(key)
        if record is None:
            record = self._new_machine(key, request)
            self._book.put(record)
        else:
            await self._unmake(record)
        host_key = HostKey.generate()
        if record.carries_frames:
            await self._fence.admit(*identity(record))
        await self._runtime.launch(self._launch(record, request, user_data, host_key))
        await self._until_reachable(record)
        return record.model_copy(
            update={"instance": record.instance.model_copy(update={"host_keys": [host_key.public]})}
        )

    def _new_machine(self, key: str, request: ComputeRequest) -> Record:
        """Choose number and addresses; no await in here, so nobody else can choose the same."""
        others = sum(len(record.addresses) for record in self._book)
        if others >= self._config.limits.machines:
            raise NoCapacity(f"{others} machines run here; there is no room for more.")
        address = self._joining.first_address()
        return Record(
            key=key,
            kind=COMPUTE,
            number=self._book.free_number(),
            instance=Instance(name=request.spec.name, flavour=request.flavour, address=address, user=ACCOUNT),
            account=request.account.name,
            joined=self._joining.join(request),
            carries_frames=request.spec.carries_frames,
        )

    def _launch(self, record: Record, request: ComputeRequest, user_data: UserData, host_key: HostKey) -> Launch:
        ids = self._ids.of_machine(record.number)
        plugs = self._joining.plugs(record)
        machine = Machine(
            hostname=request.spec.name,
            addresses=[plug.address.ip for plug in plugs if plug.address is not None],
            dns=self._config.dns,
            keys=list(request.spec.ssh_keys),
            host_key=host_key,
            user_data=user_data,
            tunnel=request.tunnel,
            trusted_ca=request.trusted_ca,
            one_id=ids.only_one,
        )
        return Launch(
            key=record.key,
            folder=self._book.folder(record.key),
            image=self._config.all_images[request.spec.image],
            hostname=request.spec.name,
            group=self._group(record),
            ids=ids,
            plugs=plugs,
            files=seed(machine),
            vcpu=request.flavour.vcpu,
            ram_bytes=request.flavour.ram_mb * MIB,
            disk_bytes=max(request.flavour.disk_gb * GIB, SMALLEST_DISK),
            processes=self._config.limits.processes,
            carries_frames=record.carries_frames,
        )

    async def _until_reachable(self, record: Record) -> None:
        """Wait for the ssh server, or for the machine's end."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_TIMEOUT
        while self._runtime.is_alive(record.key):
            try:
                async with asyncio.timeout_at(deadline):
                    _, writer = await asyncio.open_connection(record.instance.address, SSH_PORT)
            except TimeoutError as error:
                raise MiddlewareError("The machine runs, but its ssh server does not answer.") from error
            except OSError:
                await asyncio.sleep(READY_PAUSE)
            else:
                writer.transport.abort()
                return
        raise MiddlewareError("The machine ended while it started.")

    async def _make_network(self, key: str, request: PlainRequest) -> Record:
        if not isinstance(request.spec, NetworkSpec):
            raise UnusableSpec(f"Nothing of the kind {request.spec.kind} can be made here.")
        if request.spec.rules:
            raise UnusableSpec("A private network here has no way in or out, so no rules either; leave them out.")
        prefix = network.parse_network(request.spec.cidr, request.spec.gateway, self._config.subnet)
        record = self._book.get(key)
        if record is None:
            count = sum(record.kind == NETWORK for record in self._book)
            if count >= self._config.limits.networks:
                raise NoCapacity(f"{count} networks exist here; there is no room for more.")
            instance = Instance(name=request.spec.name, cidr=str(prefix))
            number = self._book.free_number()
            record = Record(
                key=key,
                kind=NETWORK,
                number=number,
                instance=instance,
                gateway=request.spec.gateway,
                account=request.account.name,
                verbatim=request.spec.verbatim,
            )
            self._book.put(record)
        await network.ensure_bridge(network.bridge_name(record.number), verbatim=record.verbatim)
        return record

    async def _remove(self, key: str) -> None:
        record = self._book.get(key)
        if record is not None:
            await self._unmake(record)
            self._book.remove(key)
            self._tidy(record.account)
            log.info("instance_removed", key=key, kind=record.kind)

    def _tidy(self, account: str | None) -> None:
        """Remove an account's control group after its last machine; nothing can have begun another in between."""
        if account is not None and account not in self._used_accounts() and self._runtime.cgroups is not None:
            self._runtime.cgroups.remove_empty(self._accounts.group(account))

    def _used_accounts(self) -> set[str]:
        return {record.account for record in self._book if record.account is not None}

    def _group(self, record: Record) -> str | None:
        return None if record.account is None else self._accounts.group(record.account)

    async def _unmake(self, record: Record) -> None:
        """Remove what there is of an instance, except its record."""
        if record.kind == SEGMENT:
            await self._segments.unmake(record, self._accounts.group(str(record.account)))
            return
        if record.kind == NETWORK:
            await network.remove_link(network.bridge_name(record.number))
            return
        await self._runtime.end(record.key, self._book.folder(record.key), self._group(record))
        for name in outside_names(record):
            await network.remove_link(name)
        if record.carries_frames:
            await self._fence.forget(identity(record)[0])

    async def _owned(self, record: Record) -> Owned:
        if record.kind == SEGMENT:
            return await self._segments.owned(record)
        status, reason = Status.RUNNING, ""
        if not record.complete:
            status, reason = Status.CREATING, "Not finished; create it again to go on, or delete it."
        elif record.kind == COMPUTE and not self._runtime.is_alive(record.key):
            status, reason = Status.FAILED, "The machine ended."
        instance = record.instance
        if record.kind == COMPUTE and status is Status.RUNNING:
            power = Power.PAUSED if self._runtime.is_paused(record.key) else Power.RUNNING
            instance = instance.model_copy(update={"power": power})
        return Owned(record.key, record.kind, status, instance, reason)

    def _has_news(self, key: str) -> None:
        self._changed(key)

    def _ended(self, key: str) -> None:
        log.info("machine_ended", key=key)
        self._changed(key)

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    def _check_image(self, name: str) -> None:
        path = self._config.all_images.get(name)
        if path is None:
            raise UnknownImage(f"There is no image {name} here; there are {', '.join(self._config.all_images)}.")
        if not (path / "bin/sh").exists():
            raise Unavailable(
                f"The image {name} is not in {path}; build it with `python -m deploy.image.build {path}`."
            )
        if path.stat().st_uid != os.geteuid():
            raise Unavailable(f"The image {name} in {path} belongs to another user; build one of your own.")

    def _check_carrying(self) -> None:
        if self._ids.of_machine(0).only_one:
            raise UnusableSpec(
                "A machine that carries frames needs ids of its own, which a member with a single one cannot give; "
                "start the member as root, or give its user a range in /etc/subuid and /etc/subgid."
            )
        if not self._ids.separate and not os.access(TUN, os.R_OK | os.W_OK):
            raise UnusableSpec(f"A machine that carries frames needs {TUN}, which this member cannot open.")

    def _take_state(self) -> None:
        """One member at a time."""
        self._config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_file = (self._config.state / "lock").open("wb")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"Another member uses {self._config.state}.") from error
