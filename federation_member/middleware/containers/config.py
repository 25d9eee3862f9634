"""Options of the `containers` kind, `[middleware.options]` in member.toml."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from fedkit.config import Section
from fedkit.protocol.lending import Flavour

DEFAULT_IMAGE = "debian"
ACCOUNT = r"^[a-z0-9_][a-z0-9_.-]{0,62}$"


class Limits(Section):
    """How much the member lends at most."""

    machines: int = Field(default=200, ge=1, le=1000, description="at the same time; a bridge has 1023 ports")
    networks: int = Field(default=50, ge=1, le=1000, description="at the same time")
    processes: int = Field(default=512, ge=16, description="in one machine, threads included")


class ContainersConfig(Section):
    """Where machines stand and what they are made from."""

    base: Path = Field(description="root file system of the image `debian`, made by `python -m deploy.image.build`")
    state: Path = Field(
        description="folder of our own; on tmpfs it empties itself when the host restarts, as the machines do"
    )
    bridge: str = Field(
        default="br0", max_length=15, description="the intranet's bridge, in the member's network namespace"
    )
    subnet: IPv4Network = Field(description="the intranet's prefix on that bridge")
    pool: IPv4Network | None = Field(default=None, description="part of it that machines get; without it all of it")
    gateway: IPv4Address | None = Field(default=None, description="default route of machines; never given to one")
    dns: list[IPv4Address] = Field(default_factory=list, max_length=3)
    flavours: list[Flavour] = Field(
        default=[
            Flavour(name="small", vcpu=1, ram_mb=256, disk_gb=1),
            Flavour(name="medium", vcpu=2, ram_mb=1024, disk_gb=2),
            Flavour(name="large", vcpu=4, ram_mb=4096, disk_gb=4),
        ],
        min_length=1,
    )
    images: dict[str, Path] = Field(default_factory=dict, description="more images: name to root file system")
    accounts: list[Annotated[str, StringConstraints(pattern=ACCOUNT)]] = Field(
        default=["federation"], max_length=1000, description="of the site, that policy rules may name"
    )
    limits: Limits = Limits()

    @field_validator("base", "state", "images")
    @classmethod
    def _resolved(cls, value: Path | dict[str, Path]) -> Path | dict[str, Path]:
        if isinstance(value, Path):
            return value.resolve()
        return {name: path.resolve() for name, path in value.items()}

    @model_validator(mode="after")
    def _pool_lies_in_subnet(self) -> ContainersConfig:
        if self.pool is not None and not self.pool.subnet_of(self.subnet):
            raise ValueError("pool must be part of subnet")
        return self

    @property
    def all_images(self) -> dict[str, Path]:
        """Name to root file system, the default image first."""
        return {DEFAULT_IMAGE: self.base} | self.images
