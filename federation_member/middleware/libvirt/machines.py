"""Machines: from the record to the ssh server that answers, and back.

    record ─ overlay, seed ─ domain defined and started (`started`) ─ ssh server answers (`complete`)

A crash anywhere before `started` is followed by the same steps from the beginning, with the same addresses; after it, what
runs is waited for. A domain that ended while it started has failed: it is not started again, because it would end again.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import structlog

from federation_member.middleware.console import printable
from federation_member.middleware.containers import network
from federation_member.middleware.containers.fence import Fence
from federation_member.middleware.contract import (
    ComputeRequest,
    MiddlewareError,
    NoCapacity,
    Unavailable,
    UnknownFlavour,
    UnknownImage,
    UnusableImage,
    UnusableSpec,
)
from federation_member.middleware.guest import ACCOUNT, Guest, HostKey, render
from federation_member.middleware.guest.nocloud import nocloud_iso
from federation_member.middleware.images import Fetching, ImageStore
from federation_member.middleware.libvirt import disks, domains, networks
from federation_member.middleware.libvirt.book import COMPUTE, SNAPSHOT, Book, Record
from federation_member.middleware.libvirt.config import BaseImage, LibvirtConfig
from federation_member.middleware.libvirt.disks import Disk
from federation_member.middleware.libvirt.hypervisor import Hypervisor
from federation_member.middleware.libvirt.networks import Networks
from federation_member.middleware.libvirt.probe import Accelerator
from federation_member.middleware.libvirt.tasks import Tasks
from federation_member.middleware.libvirt.xml import Domain
from fedkit.protocol.lending import CONSOLE_LIMIT, Instance, Power
from fedkit.protocol.lending import SNAPSHOT as SNAPSHOT_PREFIX

log = structlog.get_logger()
SSH_PORT = 22
TRY, PAUSE = 2.0, 0.25  # seconds that one try to reach a machine may take; between two tries
GREETING = b"SSH-2.0-"
START_LIMIT = 60.0  # seconds for libvirt to start a machine on a host that is busy
GIB = 1 << 30
DISK, SEED, CONSOLE, BASE, SNAPSHOT_FILE = "disk.qcow2", "seed.iso", "console.log", "base", "snapshot.qcow2"


@dataclass(frozen=True)
class Base:
    """What a machine's disk begins as. `kept` is not the operator's, but may vanish while it is used, unless it is linked."""

    disk: Disk
    image: BaseImage
    name: str
    kept: bool


class Machines:
    """All machines of one member."""

    def __init__(
        self,
        config: LibvirtConfig,
        book: Book,
        hypervisor: Hypervisor,
        nets: Networks,
        fence: Fence,
        tasks: Tasks,
        store: ImageStore | None,
        changed: Callable[[str], None],
    ) -> None:
        self._config = config
        self._book = book
        self._hypervisor = hypervisor
        self._networks = nets
        self._fence = fence
        self._tasks = tasks
        self._store = store
        self.accelerator: Accelerator = "tcg"
        self._changed = changed

    async def raise_fence(self) -> None:
        """Know all machines by their addresses."""
        records = [record for record in self._book.of_kind(COMPUTE) if record.instance.address]
        await self._fence.raise_around(map(_identity, records))

    async def make(self, key: str, request: ComputeRequest) -> Record | Fetching:
        """Go on with making a machine; what takes time goes on by itself."""
        record = self._book.get(key)
        if record is not None and (record.complete or record.failed):
            return record
        if record is None or not record.started:
            if record is not None:
                await self._end(key)  # which a member that was killed may have started
            guest = _guest(request)
            seed = render(guest, self._image_of(request.spec.image)[0].user_data)
            self._check_flavour(request)
            base = self._base(key, request)  # no await from here until it is linked: it may leave the shelf
            if isinstance(base, Fetching):
                return base
            record = await self._launch(self._begin(key, request, record, guest.host_key, base), request, base, seed)
        self._tasks.begin(key, functools.partial(self._boot, key))
        return record

    async def remove(self, key: str, record: Record | None) -> None:
        """Remove a machine, or a domain without record."""
        await self._end(key)
        if record is not None:
            await self._fence.forget(networks.intranet_port(record))
        await asyncio.to_thread(disks.remove_folder, self.folder(key))

    async def set_power(self, record: Record, power: Power) -> Record:
        """Make it so, or begin to."""
        if power is Power.PAUSED and await self.power(record.key) is Power.STOPPED:
            raise UnusableSpec("A stopped machine cannot be paused; start it first.")
        if power is Power.STOPPED and record.power is power and self._tasks.goes_on(record.key):
            return record  # the button is pressed, and the clock runs
        await self._tasks.end(record.key)  # it may be stopping
        if power is not Power.RUNNING:
            record = self._book.change(record, power=power)  # first, or its end would be taken for an accident
        work = functools.partial(domains.set_power, key=record.key, wanted=power)
        if await self._hypervisor.call(work, about=record.key, seconds=START_LIMIT) is None:
            raise MiddlewareError("The machine is gone.")
        if power is Power.RUNNING:
            record = self._book.change(record, power=power)
        if power is Power.STOPPED:
            self._tasks.begin(record.key, functools.partial(self._stop, record.key))
        return record

    async def power(self, key: str) -> Power | None:
        """How it is; None if there is no such machine."""
        return await self._hypervisor.call(functools.partial(domains.power, key=key))

    async def console(self, key: str) -> str:
        """The end of what it wrote, as text."""
        return await asyncio.to_thread(_tail, self.folder(key) / CONSOLE)

    def folder(self, key: str) -> Path:
        """Where the files of an instance are that QEMU uses."""
        return self._config.state / "disks" / key

    def disk(self, key: str) -> Disk:
        """The disk of a machine."""
        return Disk(self.folder(key) / DISK, "qcow2")

    def _begin(self, key: str, request: ComputeRequest, record: Record | None, host_key: HostKey, base: Base) -> Record:
        """Write the record; no await in here, so nobody else can choose the same addresses."""
        if record is not None:
            instance = record.instance.model_copy(update={"host_keys": [host_key.public]})
            return self._book.change(record, instance=instance)
        self._check_room(request)
        instance = Instance(
            name=request.spec.name,
            flavour=request.flavour,
            address=str(self._networks.free_address()),
            user=ACCOUNT,
            host_keys=[host_key.public],
        )
        record = Record(
            key=key,
            kind=COMPUTE,
            number=self._book.free_number(),
            instance=instance,
            account=request.account.name,
            joined=self._networks.join(request),
            image=base.name,
        )
        return self._book.put(record)

    async def _launch(self, record: Record, request: ComputeRequest, base: Base, seed: bytes) -> Record:
        folder = disks.new_folder(self.folder(record.key))
        if base.kept:
            base = Base(await disks.keep(base.disk, folder / BASE), base.image, base.name, kept=False)
        size = await disks.virtual_size(base.disk)
        wanted = request.flavour.disk_gb * GIB
        if 0 < wanted < size:
            raise UnusableImage(f"The image needs a disk of {-(-size // GIB)} GiB; choose a larger flavour.")
        disk = await disks.make_overlay(folder / DISK, base.disk, max(size, wanted))
        interfaces = self._networks.interfaces(record)
        nics = [interface.nic for interface in interfaces]
        iso = nocloud_iso(record.key, request.spec.name, seed, nics)
        await asyncio.to_thread(disks.write_secret, folder / SEED, iso)
        await self._fence.admit(*_identity(record))
        domain = Domain(
            key=record.key,
            owner=self._config.owner,
            title=f"{request.spec.name} for {request.account.name}",
            accelerator=self.accelerator,
            emulator=self._config.emulator,
            vcpu=request.flavour.vcpu,
            ram_mb=request.flavour.ram_mb,
            disk=disk,
            seed=Disk(folder / SEED, "raw"),
            console=folder / CONSOLE,
            plugs=[interface.plug for interface in interfaces],
            kernel=base.image.kernel,
            initrd=base.image.initrd,
            cmdline=base.image.cmdline,
        )
        work = functools.partial(domains.launch, description=domain.to_xml())
        await self._hypervisor.call(work, about=record.key, seconds=START_LIMIT)
        return self._book.change(record, started=True)

    async def _end(self, key: str) -> None:
        await self._hypervisor.settled(key)
        await self._hypervisor.call(functools.partial(domains.end, key=key), about=key)

    async def _boot(self, key: str) -> None:
        """Wait for the ssh server, or for the machine's end."""
        record = self._book.must(key)
        try:
            async with asyncio.timeout(self._config.boot_seconds):
                while not await _greets(str(record.instance.address)):
                    if await self._has_ended(key):
                        raise MiddlewareError("The machine ended while it started; its console tells more.")
                    await asyncio.sleep(PAUSE)
        except TimeoutError as error:
            raise MiddlewareError(
                f"The machine runs, but its ssh server does not answer after {self._config.boot_seconds:.0f} s."
            ) from error
        self._book.change(self._book.must(key), complete=True)
        log.info("instance_made", key=key, kind=COMPUTE)
        self._changed(key)

    async def _has_ended(self, key: str) -> bool:
        try:
            return await self.power(key) in (None, Power.STOPPED)
        except Unavailable:
            return False  # it may well run on without libvirtd

    async def _stop(self, key: str) -> None:
        """Give it time to shut down, then pull the plug."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.shutdown_seconds
        while loop.time() < deadline and not await self._has_ended(key):
            await self._tasks.stirred(key, deadline - loop.time())
        await self._hypervisor.call(functools.partial(domains.pull_plug, key=key), about=key)
        self._changed(key)

    def _check_flavour(self, request: ComputeRequest) -> None:
        if request.flavour not in self._config.flavours:
            names = ", ".join(flavour.name for flavour in self._config.flavours)
            raise UnknownFlavour(f"There is no such flavour as {request.flavour.name} here; there are {names}.")

    def _check_room(self, request: ComputeRequest) -> None:
        limits = self._config.limits
        flavours = [record.instance.flavour for record in self._book.of_kind(COMPUTE)]
        sizes = [flavour for flavour in [*flavours, request.flavour] if flavour is not None]
        if len(flavours) >= limits.machines:
            raise NoCapacity(f"{len(flavours)} machines run here; there is no room for more.")
        if limits.vcpu is not None and sum(size.vcpu for size in sizes) > limits.vcpu:
            raise NoCapacity(
                f"There is no room for {request.flavour.vcpu} more processors; {limits.vcpu} are lent at most."
            )
        if limits.ram_mb is not None and sum(size.ram_mb for size in sizes) > limits.ram_mb:
            raise NoCapacity(
                f"There is no room for {request.flavour.ram_mb} MiB more; {limits.ram_mb} are lent at most."
            )

    def _base(self, key: str, request: ComputeRequest) -> Base | Fetching:
        spec = request.spec
        image, name = self._image_of(spec.image)
        if spec.from_url:
            if self._store is None:
                raise UnknownImage("No images are fetched from URLs here.")
            ready = self._store.state(key, spec.image, str(spec.image_sha256))
            return (
                ready if isinstance(ready, Fetching) else Base(Disk(ready.path, ready.format), image, name, kept=True)
            )
        if spec.image.startswith(SNAPSHOT_PREFIX):
            folder = self.folder(spec.image.removeprefix(SNAPSHOT_PREFIX))
            return Base(Disk(folder / SNAPSHOT_FILE, "qcow2"), image, name, kept=True)
        try:
            return Base(disks.known(image.path), image, name, kept=False)
        except OSError as error:
            raise Unavailable(f"The image {name} cannot be read from {image.path}: {error.strerror}.") from error

    def _image_of(self, wanted: str) -> tuple[BaseImage, str]:
        """How to start what the order names, and the name of the configured image that it comes from."""
        name = wanted
        if wanted.startswith(SNAPSHOT_PREFIX):
            record = self._book.get(wanted.removeprefix(SNAPSHOT_PREFIX))
            if record is None or record.kind != SNAPSHOT or not record.complete:
                raise UnknownImage(f"There is no {wanted} here.")
            name = record.image
        if not name or wanted.startswith(("http://", "https://")):
            return BaseImage(path=Path()), ""
        if name not in self._config.images:
            raise UnknownImage(f"There is no image {name[:128]} here; there are {', '.join(self._config.images)}.")
        return self._config.images[name], name


def _guest(request: ComputeRequest) -> Guest:
    spec = request.spec
    return Guest(
        hostname=spec.name,
        keys=list(spec.ssh_keys),
        host_key=HostKey.generate(),
        tunnel=request.tunnel,
        trusted_ca=request.trusted_ca,
        user_data=spec.user_data,
    )


def _identity(record: Record) -> tuple[str, str, IPv4Address]:
    address = IPv4Address(record.instance.address)
    return networks.intranet_port(record), network.hardware_address(address), address


async def _greets(address: str) -> bool:
    """Whether an ssh server answers there."""
    try:
        async with asyncio.timeout(TRY):
            reader, writer = await asyncio.open_connection(address, SSH_PORT)
            try:
                return await reader.readexactly(len(GREETING)) == GREETING
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - CONSOLE_LIMIT))
            return printable(file.read(CONSOLE_LIMIT).decode(errors="replace"))
    except FileNotFoundError:
        return ""
