"""Options of the `libvirt` kind, `[middleware.options]` in member.toml."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from federation_member.middleware.guest import How
from federation_member.middleware.images import ImagesConfig
from fedkit.config import Section
from fedkit.protocol.lending import Flavour


class BaseImage(Section):
    """What machines are made from; never written to. libvirt's QEMU must be able to read its files."""

    path: Path = Field(description="disk, qcow2 or raw")
    kernel: Path | None = Field(default=None, description="started directly; without it the disk's boot loader")
    initrd: Path | None = None
    cmdline: str = Field(default="console=ttyS0", max_length=1024, description="of the kernel")
    user_data: How = Field(default=How.CLOUD_INIT, description="how the image treats user data")
    portal: bool = Field(default=False, description="portals of experiments run in it: OpenSSH, taps and bridges")
    delays: bool = Field(default=False, description="the federation's portal program is in it (docs/portals.md)")
    description: str = Field(default="", max_length=512)

    @field_validator("path", "kernel", "initrd")
    @classmethod
    def _resolved(cls, value: Path | None) -> Path | None:
        return value and value.resolve()

    @model_validator(mode="after")
    def _initrd_has_kernel(self) -> BaseImage:
        if self.initrd and not self.kernel:
            raise ValueError("initrd needs kernel")
        return self


class Limits(Section):
    """How much the member lends at most, at the same time."""

    machines: int = Field(default=20, ge=1, le=1000)
    vcpu: int | None = Field(default=None, ge=1, description="of all machines")
    ram_mb: int | None = Field(default=None, ge=1, description="MiB of all machines")
    networks: int = Field(default=20, ge=1, le=1000)
    volumes: int = Field(default=50, ge=1, le=10_000, description="volumes and snapshots")
    volume_gb: int = Field(default=500, ge=1, description="GiB of all volumes and snapshots")


class LibvirtConfig(Section):
    """Which hypervisor, where machines stand, and what they are made from."""

    uri: str = Field(default="qemu:///system", description="of libvirt, on this host: disks and bridges are made here")
    owner: str = Field(
        default="fedmesh",
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="written into every domain; tells members apart that share a hypervisor",
    )
    state: Path = Field(description="folder of our own, for disks and records; libvirt's QEMU must be able to enter it")
    accelerator: Literal["auto", "kvm", "tcg"] = Field(
        default="auto", description="auto: kvm if a kernel really boots with it, else emulation (tcg)"
    )
    emulator: Path = Path("/usr/bin/qemu-system-x86_64")
    bridge: str = Field(default="br0", max_length=15, description="the intranet's bridge, on this host")
    subnet: IPv4Network = Field(description="the intranet's prefix on that bridge")
    pool: IPv4Network | None = Field(default=None, description="part of it that machines get; without it all of it")
    gateway: IPv4Address | None = Field(default=None, description="default route of machines; never given to one")
    dns: list[IPv4Address] = Field(default_factory=list, max_length=3)
    flavours: list[Flavour] = Field(
        default=[
            Flavour(name="small", vcpu=1, ram_mb=512, disk_gb=4),
            Flavour(name="medium", vcpu=2, ram_mb=2048, disk_gb=10),
            Flavour(name="large", vcpu=4, ram_mb=8192, disk_gb=40),
        ],
        min_length=1,
    )
    images: dict[str, BaseImage] = Field(default_factory=dict, description="by the name that orders use")
    fetch: ImagesConfig | None = Field(default=None, description="of images from URLs; without it none is fetched")
    boot_seconds: float = Field(default=600, gt=0, description="from power-on to the ssh server")
    shutdown_seconds: float = Field(default=30, ge=0, description="from the power button to pulling the plug")
    limits: Limits = Limits()

    @field_validator("state", "emulator")
    @classmethod
    def _resolved(cls, value: Path) -> Path:
        return value.resolve()

    @model_validator(mode="after")
    def _pool_lies_in_subnet(self) -> LibvirtConfig:
        if self.pool is not None and not self.pool.subnet_of(self.subnet):
            raise ValueError("pool must be part of subnet")
        return self
