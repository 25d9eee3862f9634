"""Spells and what they add up to, without any I/O.

A **spell** is a time in which a lease held the same. It begins when the lease runs or what it holds changes, and ends when
that ends; the spells of a lease follow one another:

    running ──────────── stopped ───────── running ──── given back
    │ 1: cpu, ram, disk  │ 2: disk          │ 3: all of it │

Sums are whole microseconds times whole sizes. Nothing is rounded before it is shown, so sums of sums are exact too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction

from fedkit.protocol.lending import (
    ComputeSpec,
    Flavour,
    Instance,
    Power,
    SnapshotSpec,
    Spec,
    Spell,
    VolumeSpec,
)

MICROSECONDS_PER_HOUR = 3_600_000_000
MIB_PER_GIB = 1024
SHOWN_DIGITS = 6  # of an hour: 3.6 ms
TOLD = 2  # spells that a lender tells with every view


class Role(StrEnum):
    """On which side of a lease this member stood; of a lease of its own orders on both."""

    BORROWED = "borrowed"
    LENT = "lent"


class By(StrEnum):
    """What sums are made for each of."""

    MEMBER = "member"
    PROJECT = "project"
    USER = "user"
    KIND = "kind"


@dataclass(frozen=True)
class Sizes:
    """What a lease holds: CPUs, MiB of memory, GiB of disk. A network holds none of these, but time."""

    vcpu: int = 0
    ram_mb: int = 0
    disk_gb: int = 0


@dataclass(frozen=True)
class Party:
    """Between whom and for whom a lease is: `member` (a fedid, answering at `address`) is the other side."""

    member: str
    address: str
    project: str
    user: str
    kind: str


@dataclass(frozen=True)
class Sum:
    """What spells come to, in microseconds, and in these times vCPU, MiB and GiB."""

    time: int = 0
    vcpu: int = 0
    ram_mb: int = 0
    disk_gb: int = 0

    def __add__(self, other: Sum) -> Sum:
        return Sum(
            self.time + other.time,
            self.vcpu + other.vcpu,
            self.ram_mb + other.ram_mb,
            self.disk_gb + other.disk_gb,
        )

    def hours(self) -> dict[str, float]:
        """What a person reads, rounded."""
        parts = {
            "hours": Fraction(self.time),
            "vcpu_hours": Fraction(self.vcpu),
            "ram_gb_hours": Fraction(self.ram_mb, MIB_PER_GIB),
            "disk_gb_hours": Fraction(self.disk_gb),
        }
        return {name: float(round(part / MICROSECONDS_PER_HOUR, SHOWN_DIGITS)) for name, part in parts.items()}


def lasting(time: int, sizes: Sizes) -> Sum:
    """The sum of spells of the same sizes that last `time` microseconds together."""
    time = int(time)  # PostgreSQL sums whole numbers to decimals
    return Sum(time, time * sizes.vcpu, time * sizes.ram_mb, time * sizes.disk_gb)


def sizes_of(spec: Spec, flavour: Flavour | None, instance: Instance | None) -> Sizes:
    """What a running lease holds. A stopped machine holds its disk alone, a paused one all of it."""
    match spec:
        case ComputeSpec() if flavour is not None:
            if instance is not None and instance.power is Power.STOPPED:
                return Sizes(disk_gb=flavour.disk_gb)
            return Sizes(flavour.vcpu, flavour.ram_mb, flavour.disk_gb)
        case VolumeSpec():
            return Sizes(disk_gb=spec.size_gb)
        case SnapshotSpec():
            return Sizes(disk_gb=(instance.size_gb or 0) if instance is not None else 0)
    return Sizes()


def follow(spells: tuple[Spell, ...], holds: Sizes | None, now: datetime) -> tuple[Spell, ...]:
    """The last spells of a lease that holds this from now on (None: nothing any more), newest last.

    Where the clock went back, spells are empty rather than negative: each begins when the one before ended.
    """
    last = spells[-1] if spells else None
    if last is not None and last.ended is None:
        if holds == Sizes(last.vcpu, last.ram_mb, last.disk_gb):
            return spells
        now = max(now, last.began)
        spells = (*spells[:-1], last.model_copy(update={"ended": now}))
    elif last is not None and last.ended is not None:
        now = max(now, last.ended)
    if holds is not None:
        number = last.number + 1 if last is not None else 1
        begun = Spell(number=number, vcpu=holds.vcpu, ram_mb=holds.ram_mb, disk_gb=holds.disk_gb, began=now)
        spells = (*spells, begun)
    return spells[-TOLD:]
