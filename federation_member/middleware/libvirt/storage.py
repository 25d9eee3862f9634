"""Volumes, attachments and snapshots: files beside the machines, and their way in and out of them."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from weakref import WeakValueDictionary

import structlog

from federation_member.middleware.contract import (
    MiddlewareError,
    NoCapacity,
    PlainRequest,
    StillUsed,
    Unavailable,
    UnusableSpec,
)
from federation_member.middleware.libvirt import disks, domains
from federation_member.middleware.libvirt.book import ATTACHMENT, COMPUTE, SNAPSHOT, VOLUME, Book, Record
from federation_member.middleware.libvirt.config import Limits
from federation_member.middleware.libvirt.disks import Disk
from federation_member.middleware.libvirt.domains import Copying
from federation_member.middleware.libvirt.hypervisor import Hypervisor
from federation_member.middleware.libvirt.machines import GIB, SNAPSHOT_FILE, Machines
from federation_member.middleware.libvirt.tasks import Tasks
from fedkit.protocol.lending import AttachmentSpec, Instance, Power, SnapshotSpec, VolumeSpec

log = structlog.get_logger()
VOLUME_FILE = "volume.qcow2"
COPY_LIMIT = 3600.0  # seconds for the copy of a disk
LOOK = 0.5  # seconds between two looks at a copy; libvirt tells how far it is only when asked
SERIAL = 20  # characters that virtio takes


class Storage:
    """All disks of one member that are not a machine's own."""

    def __init__(self, limits: Limits, book: Book, hypervisor: Hypervisor, machines: Machines, tasks: Tasks) -> None:
        self._limits = limits
        self._book = book
        self._hypervisor = hypervisor
        self._machines = machines
        self._tasks = tasks
        self._copies: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def make_volume(self, key: str, request: PlainRequest, spec: VolumeSpec) -> Record:
        """Make a volume; it takes room as it is written to."""
        record = self._book.get(key)
        if record is None:
            self._check_room(spec.size_gb)
            record = self._begin(key, VOLUME, request, Instance(name=spec.name, size_gb=spec.size_gb))
        folder = disks.new_folder(self._machines.folder(key))
        await disks.make_empty(folder / VOLUME_FILE, spec.size_gb * GIB)
        return self._book.change(record, complete=True)

    async def make_attachment(self, key: str, request: PlainRequest, spec: AttachmentSpec) -> Record:
        """Put a volume into a machine."""
        self._of_kind(spec.machine, COMPUTE)
        self._of_kind(spec.volume, VOLUME)
        record = self._book.get(key)
        if record is None:
            if self._attachment_of(spec.volume) is not None:
                raise UnusableSpec("The volume is attached already; one machine at a time can have it.")
            instance = Instance(name=spec.name)
            record = self._begin(key, ATTACHMENT, request, instance, machine=spec.machine, volume=spec.volume)
        work = functools.partial(
            domains.attach,
            key=spec.machine,
            disk=self._volume(spec.volume),
            serial=hashlib.sha256(spec.volume.encode()).hexdigest()[:SERIAL],
        )
        target = await self._hypervisor.call(work, about=key)
        if target is None:
            raise NoCapacity("The machine has as many disks as it can have.")
        instance = record.instance.model_copy(update={"device": f"/dev/{target}"})
        return self._book.change(record, instance=instance, complete=True)

    async def make_snapshot(self, key: str, request: PlainRequest, spec: SnapshotSpec) -> Record:
        """Begin to copy a machine's disk."""
        record = self._book.get(key)
        if record is None:
            machine = self._of_kind(spec.machine, COMPUTE)
            size = await disks.virtual_size(self._machines.disk(spec.machine))
            size_gb = -(-size // GIB)
            self._check_room(size_gb)
            instance = Instance(name=spec.name, size_gb=size_gb)
            record = self._begin(key, SNAPSHOT, request, instance, machine=spec.machine, image=machine.image)
        if not record.complete and not record.failed:
            self._tasks.begin(key, functools.partial(self._copy, key))
        return record

    async def is_there(self, record: Record) -> bool:
        """Whether what the record says is still so."""
        if record.kind == ATTACHMENT:
            work = functools.partial(domains.attached, key=record.machine, path=self._volume(record.volume).path)
            return await self._hypervisor.call(work) is not None
        name = VOLUME_FILE if record.kind == VOLUME else SNAPSHOT_FILE
        return (self._machines.folder(record.key) / name).exists()

    async def remove(self, record: Record) -> None:
        """Remove it. Raises `StillUsed` for a volume in a machine, `Unavailable` while a machine does not let go of one."""
        await self._hypervisor.settled(record.key)
        if record.kind == ATTACHMENT:
            await self._detach(record)
            return
        if record.kind == VOLUME and self._attachment_of(record.key) is not None:
            raise StillUsed("The volume is attached to a machine; delete the attachment first.")
        if record.kind == SNAPSHOT:
            await self._end_copy(record)
        await asyncio.to_thread(disks.remove_folder, self._machines.folder(record.key))

    async def _detach(self, record: Record) -> None:
        work = functools.partial(domains.detach, key=record.machine, path=self._volume(record.volume).path)
        if not await self._hypervisor.call(work, about=record.key):
            raise Unavailable("The machine has not let go of the volume yet; unmount it there.")

    async def _copy(self, key: str) -> None:
        """Copy a disk as it is at one moment, whether its machine runs or not."""
        record = self._book.must(key)
        target = self._machines.folder(key) / SNAPSHOT_FILE
        async with self._copies.setdefault(record.machine, asyncio.Lock()), asyncio.timeout(COPY_LIMIT):
            await self._end_copy(record)  # which another member began, that was killed
            disks.new_folder(target.parent)
            if await self._machines.power(record.machine) is Power.STOPPED:
                await disks.flatten(self._machines.disk(record.machine), target)
            else:
                await self._copy_live(record)
        self._book.change(self._book.must(key), complete=True)
        log.info("instance_made", key=key, kind=SNAPSHOT)

    async def _copy_live(self, record: Record) -> None:
        target = self._machines.folder(record.key) / SNAPSHOT_FILE
        begin = functools.partial(domains.begin_copy, key=record.machine, target=target)
        if not await self._hypervisor.call(begin, about=record.key):
            raise MiddlewareError("The machine is gone, or stopped just now.")
        while (how_far := await self._how_far(record.machine)) is Copying.UNDER_WAY:
            await self._tasks.stirred(record.key, LOOK)
        if how_far is Copying.FAILED:
            raise MiddlewareError("The machine ended while its disk was copied.")

    async def _how_far(self, machine: str) -> Copying:
        try:
            return await self._hypervisor.call(functools.partial(domains.copying, key=machine))
        except Unavailable:
            return Copying.UNDER_WAY  # it goes on without libvirtd

    async def _end_copy(self, record: Record) -> None:
        target = self._machines.folder(record.key) / SNAPSHOT_FILE
        work = functools.partial(domains.abort_copy, key=record.machine, target=target)
        await self._hypervisor.call(work, about=record.key)

    def _volume(self, key: str) -> Disk:
        return Disk(self._machines.folder(key) / VOLUME_FILE, "qcow2")

    def _of_kind(self, key: str, kind: str) -> Record:
        record = self._book.get(key)
        if record is None or record.kind != kind or not record.complete:
            raise UnusableSpec(f"There is no {kind} {key} here.")
        return record

    def _attachment_of(self, volume: str) -> Record | None:
        return next((record for record in self._book.of_kind(ATTACHMENT) if record.volume == volume), None)

    def _begin(self, key: str, kind: str, request: PlainRequest, instance: Instance, **more: str) -> Record:
        record = Record(
            key=key,
            kind=kind,
            number=self._book.free_number(),
            instance=instance,
            account=request.account.name,
        )
        return self._book.put(record.model_copy(update=more))

    def _check_room(self, size_gb: int) -> None:
        sizes = [record.instance.size_gb or 0 for record in self._book.of_kind(VOLUME, SNAPSHOT)]
        if len(sizes) >= self._limits.volumes:
            raise NoCapacity(f"{len(sizes)} volumes and snapshots exist here; there is no room for more.")
        if sum(sizes) + size_gb > self._limits.volume_gb:
            raise NoCapacity(f"There is no room for {size_gb} GiB more; {self._limits.volume_gb} are lent at most.")
