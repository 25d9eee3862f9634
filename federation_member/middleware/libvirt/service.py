"""The `libvirt` kind: the contract of `middleware.contract`, kept with libvirt, QEMU and bridges.

Order of things, as with containers: the record first, then the instance; the instance's end first, then the record's. `create`
answers as soon as a guest starts, and `changed` tells when its ssh server answers.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, ClassVar
from weakref import WeakValueDictionary

import structlog
from pydantic import BaseModel

from federation_member.middleware.containers.book import check_key
from federation_member.middleware.containers.fence import Fence
from federation_member.middleware.contract import (
    Account,
    ComputeRequest,
    InstanceRequest,
    MiddlewareError,
    Owned,
    Quota,
    Status,
    Unavailable,
    UnusableSpec,
)
from federation_member.middleware.images import Fetching, ImageStore
from federation_member.middleware.libvirt import domains, networks, probe, xml
from federation_member.middleware.libvirt.book import ATTACHMENT, COMPUTE, NETWORK, SNAPSHOT, VOLUME, Book, Record
from federation_member.middleware.libvirt.config import LibvirtConfig
from federation_member.middleware.libvirt.hypervisor import Hypervisor
from federation_member.middleware.libvirt.machines import Machines
from federation_member.middleware.libvirt.networks import Networks
from federation_member.middleware.libvirt.storage import Storage
from federation_member.middleware.libvirt.tasks import Tasks
from fedkit.protocol.lending import (
    Amounts,
    AttachmentSpec,
    Flavour,
    Image,
    Instance,
    NetworkSpec,
    Power,
    SnapshotSpec,
    VolumeSpec,
)

log = structlog.get_logger()
ACCELERATOR = "accelerator.json"


@contextmanager
def _as_ours(what: str) -> Iterator[None]:
    """What the host refuses is the middleware's failure."""
    try:
        yield
    except OSError as error:
        raise MiddlewareError(f"{what}: {error.strerror or error}.") from error


class LibvirtMiddleware:
    """Guests, networks and disks on this host."""

    name: ClassVar[str] = "libvirt"
    Config: ClassVar[type[BaseModel]] = LibvirtConfig

    def __init__(self, config: LibvirtConfig) -> None:
        self._config = config
        self._book = Book(config.state / "instances")
        self._tasks = Tasks(self._gone_wrong)
        self._hypervisor = Hypervisor(config.uri, self._happened, self._look_again)
        self._networks = Networks(config, self._book)
        self._store = ImageStore(config.fetch) if config.fetch else None
        fence = Fence(f"fedmesh-{config.owner}", networks.INTRANET_PORT)
        self._machines = Machines(
            config, self._book, self._hypervisor, self._networks, fence, self._tasks, self._store, self._tell
        )
        self._storage = Storage(config.limits, self._book, self._hypervisor, self._machines, self._tasks)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._changed: Callable[[str], None] = lambda key: None
        self._lock_file: IO[bytes] | None = None
        self._fetching = False
        self.fetches_images = self._store is not None

    async def start(self, changed: Callable[[str], None]) -> None:
        """Find what is here. Raises `Unavailable` with the next step if the site is not ready for machines."""
        self._take_state()
        try:
            await self._look_around()
            if self._store is not None:
                await self._store.start(self._tell)
                self._fetching = True
        except BaseException:
            await self.stop()
            raise
        self._changed = changed

    async def _look_around(self) -> None:
        self._book.load()
        await self._networks.look_around()
        await self._machines.raise_fence()
        await self._hypervisor.start()
        self._machines.accelerator = await self._accelerator()

    async def _accelerator(self) -> probe.Accelerator:
        if self._config.accelerator != "auto":
            return self._config.accelerator
        kernels = [image.kernel for image in self._config.images.values() if image.kernel]
        return (await probe.find(self._config.emulator, kernels, self._config.state / ACCELERATOR)).accelerator

    async def stop(self) -> None:
        """Let go; machines stay."""
        self._changed = lambda key: None
        await self._tasks.stop()
        if self._store is not None and self._fetching:
            await self._store.stop()
            self._fetching = False
        await self._hypervisor.stop()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def kinds(self) -> frozenset[str]:
        """Machines, private networks, disks."""
        return frozenset({COMPUTE, NETWORK, VOLUME, ATTACHMENT, SNAPSHOT})

    async def flavours(self) -> list[Flavour]:
        """As configured."""
        return self._config.flavours

    async def images(self) -> list[Image]:
        """As configured."""
        return [
            Image(name=name, description=image.description, portal=image.portal, delays=image.delays)
            for name, image in self._config.images.items()
        ]

    async def create(self, key: str, request: InstanceRequest) -> Owned:
        """Make it, or go on with it."""
        check_key(key)
        async with self._lock(key):
            with _as_ours(f"{key} cannot be made"):
                try:
                    made = await self._make(key, request)
                except Unavailable:
                    raise  # the call is repeated, and goes on
                except (MiddlewareError, OSError):
                    if self._book.get(key) is not None:
                        await self._remove(key)
                    raise
        if isinstance(made, Fetching):
            return Owned(key, COMPUTE, Status.CREATING, Instance(name=request.spec.name), str(made))
        return await self._owned(made)

    async def get(self, key: str) -> Owned | None:
        """What is there under `key`."""
        record = self._book.get(key)
        if record is not None:
            return await self._owned(record)
        return None if await self._machines.power(key) is None else self._lost(key)

    async def delete(self, key: str) -> None:
        """End it and forget it."""
        check_key(key)
        async with self._lock(key):
            with _as_ours(f"{key} cannot be removed"):
                await self._remove(key)

    async def list_owned(self) -> list[Owned]:
        """All that is in the book, and what libvirt holds for us beside it."""
        work = functools.partial(domains.powers, owner=self._config.owner)
        powers = await self._hypervisor.call(work)
        owned = [await self._owned(record, powers) for record in self._book]
        return owned + [self._lost(key) for key in sorted(powers) if self._book.get(key) is None]

    async def quota(self, account: Account) -> Quota:
        """The member's limits, and what is lent, to whomever."""
        limits = self._config.limits
        machines = [record.instance.flavour for record in self._book.of_kind(COMPUTE)]
        sizes = [flavour for flavour in machines if flavour is not None]
        volumes = [record.instance.size_gb or 0 for record in self._book.of_kind(VOLUME, SNAPSHOT)]
        return Quota(
            total=Amounts(
                machines=limits.machines,
                vcpu=limits.vcpu,
                ram_mb=limits.ram_mb,
                volumes=limits.volumes,
                volume_gb=limits.volume_gb,
                networks=limits.networks,
            ),
            used=Amounts(
                machines=len(machines),
                vcpu=sum(size.vcpu for size in sizes),
                ram_mb=sum(size.ram_mb for size in sizes),
                volumes=len(volumes),
                volume_gb=sum(volumes),
                networks=sum(1 for _ in self._book.of_kind(NETWORK)),
            ),
        )

    async def set_power(self, key: str, power: Power) -> Owned:
        """Make the machine so, or begin to; stopping takes until the guest has shut down."""
        async with self._lock(key):
            return await self._owned(await self._machines.set_power(self._machine(key), power))

    async def console(self, key: str) -> str:
        """The end of what the machine wrote on its serial console."""
        return await self._machines.console(self._machine(key, complete=False).key)

    async def _make(self, key: str, request: InstanceRequest) -> Record | Fetching:
        if isinstance(request, ComputeRequest):
            return await self._machines.make(key, request)
        record = self._book.get(key)
        if record is not None and record.complete:
            return record
        match request.spec:
            case NetworkSpec():
                return await self._networks.make(key, request, request.spec)
            case VolumeSpec():
                return await self._storage.make_volume(key, request, request.spec)
            case AttachmentSpec():
                return await self._storage.make_attachment(key, request, request.spec)
            case SnapshotSpec():
                return await self._storage.make_snapshot(key, request, request.spec)
        raise UnusableSpec(f"Nothing of the kind {request.spec.kind} can be made here.")

    async def _remove(self, key: str) -> None:
        await self._tasks.end(key)
        if self._store is not None:
            self._store.release(key)
        record = self._book.get(key)
        if record is None or record.kind == COMPUTE:
            await self._machines.remove(key, record)
        elif record.kind == NETWORK:
            await self._networks.remove(record)
        else:
            await self._storage.remove(record)
        if record is not None:
            self._book.remove(key)
            log.info("instance_removed", key=key, kind=record.kind)

    async def _owned(self, record: Record, powers: dict[str, Power] | None = None) -> Owned:
        record = self._book.get(record.key) or record
        if record.failed:
            return Owned(record.key, record.kind, Status.FAILED, record.instance, record.failed)
        if not record.complete:
            return Owned(record.key, record.kind, Status.CREATING, record.instance, _how_far(record))
        if record.kind == COMPUTE:
            power = await self._machines.power(record.key) if powers is None else powers.get(record.key)
            return _machine_as_it_is(record, power)
        if record.kind != NETWORK and not await self._storage.is_there(record):
            return Owned(record.key, record.kind, Status.FAILED, record.instance, f"The {record.kind} is gone.")
        return Owned(record.key, record.kind, Status.RUNNING, record.instance)

    def _lost(self, key: str) -> Owned:
        reason = "A machine of ours whose record is lost; delete it."
        return Owned(key, COMPUTE, Status.FAILED, Instance(name=xml.domain_name(key)), reason)

    def _machine(self, key: str, *, complete: bool = True) -> Record:
        record = self._book.get(key)
        if record is None or record.kind != COMPUTE or (complete and not record.complete):
            raise UnusableSpec(f"There is no machine {key[:64]} here.")
        return record

    def _happened(self, name: str) -> None:
        """libvirt says that something happened to a domain."""
        key = xml.key_of(name)
        if key is not None and (record := self._book.get(key)) is not None:
            self._tasks.stir(key)
            if record.complete:
                self._changed(key)

    def _look_again(self) -> None:
        """Nobody listened for a while."""
        for record in self._book:
            self._changed(record.key)

    def _gone_wrong(self, key: str, reason: str) -> None:
        """What went on for an instance came to no good end."""
        record = self._book.get(key)
        if record is not None and not record.complete:
            self._book.change(record, failed=reason)
        self._changed(key)

    def _tell(self, key: str) -> None:
        self._changed(key)

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    def _take_state(self) -> None:
        """One member at a time."""
        self._config.state.mkdir(parents=True, exist_ok=True)
        self._config.state.chmod(0o711)  # QEMU's user finds its files by name, and nobody can look around
        self._lock_file = (self._config.state / "lock").open("wb")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"Another member uses {self._config.state}.") from error


def _how_far(record: Record) -> str:
    if record.kind == SNAPSHOT:
        return "copying the disk"
    return "booting" if record.started else "Not finished; create it again to go on, or delete it."


def _machine_as_it_is(record: Record, power: Power | None) -> Owned:
    if power is None or (power is Power.STOPPED and record.power is not Power.STOPPED):
        reason = "The machine is gone from its hypervisor." if power is None else "The machine ended."
        return Owned(record.key, COMPUTE, Status.FAILED, record.instance, reason)
    return Owned(record.key, COMPUTE, Status.RUNNING, record.instance.model_copy(update={"power": power}))
