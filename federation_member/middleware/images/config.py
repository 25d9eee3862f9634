"""Options of fetching images, `[middleware.options.images]` in member.toml."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from pydantic import Field

from fedkit.config import Section

GIB = 1 << 30


class ImagesConfig(Section):
    """Where images may come from, how large they may be, how long they may take."""

    folder: Path = Field(description="of our own; images are kept there until the space is needed for others")
    allow: list[IPv4Network | IPv6Network] = Field(
        default_factory=list, max_length=256, description="addresses that are not public and may be fetched from"
    )
    refuse: list[IPv4Network | IPv6Network] = Field(
        default_factory=list, max_length=256, description="public addresses that may not, such as the intranet's own"
    )
    ports: list[int] = Field(default=[80, 443], min_length=1, max_length=64)
    ca: Path | None = Field(default=None, description="PEM file of who signs servers; without it the system's")
    size: int = Field(default=10 * GIB, ge=1, description="octets of one image at most")
    virtual_size: int = Field(default=100 * GIB, ge=1, description="octets of the disk that an image describes")
    cache: int = Field(default=50 * GIB, ge=1, description="octets of all images together")
    spare: int = Field(default=2 * GIB, ge=0, description="octets of the disk that are left free")
    seconds: float = Field(default=3600, gt=0, description="for one download")
    stall: float = Field(default=60, gt=0, description="seconds that one MiB, and each step before the first, may take")
    parallel: int = Field(default=4, ge=1, le=64, description="downloads at the same time; more wait")
    waiting: int = Field(default=64, ge=1, le=1000, description="downloads that run or wait at most")
