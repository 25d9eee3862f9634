"""What every kind of thing in the cloud can do, and what all of them share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from federation_member.middleware.contract import InstanceRequest, Owned, Unavailable
from federation_member.middleware.openstack.config import OpenStackConfig
from federation_member.middleware.openstack.connection import Cloud, Service
from federation_member.middleware.openstack.marks import Marks

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0  # seconds between two looks whether something is gone
T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What is the same for all accounts."""

    config: OpenStackConfig
    marks: Marks


class InProgress(Exception):
    """Something that `create` needs is on its way; the message tells how far it is."""


class Kind(Protocol):
    """One kind of order. All calls are idempotent, and may run at the same time for different keys."""

    name: ClassVar[str]
    services: ClassVar[tuple[Service, ...]]  # that the cloud must have for it

    async def create(self, cloud: Cloud, key: str, request: InstanceRequest) -> Owned:
        """Make it or go on making it, and say how it is; it may raise `InProgress`."""

    async def find(self, cloud: Cloud, key: str) -> Owned | None:
        """As it is now, whether complete or not."""

    async def delete(self, cloud: Cloud, key: str) -> None:
        """Remove all that there is of it, and return when the cloud says that it is gone."""

    async def owned(self, cloud: Cloud) -> list[Owned]:
        """All of this kind that is the account's and carries our mark, leftovers too."""


class Thing(BaseModel):
    """The least that anything in the cloud has."""

    model_config = ConfigDict(frozen=True)

    id: str


class Described(Thing):
    """Something of Neutron's."""

    name: str = ""
    description: str | None = None


async def until_gone(context: Context, what: str, is_gone: Callable[[], Awaitable[bool]]) -> None:
    """Wait; raises `Unavailable` when it takes too long, and the caller comes again."""
    deadline = time.monotonic() + context.config.timeouts.removal
    pause = FIRST_PAUSE
    while not await is_gone():
        if time.monotonic() > deadline:
            raise Unavailable(f"The cloud was asked to delete {what} and has not done so yet.")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


class Remembered(Generic[T]):
    """What changes rarely in the cloud, kept for `seconds`. Those who ask at the same time share one look."""

    def __init__(self, look: Callable[[Cloud], Awaitable[T]], seconds: float) -> None:
        self._look = look
        self._seconds = seconds
        self._kept: dict[str, tuple[float, T]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, cloud: Cloud) -> T:
        """As the account sees it."""
        async with self._locks.setdefault(cloud.account, asyncio.Lock()):
            at, value = self._kept.get(cloud.account, (0.0, None))
            if value is None or time.monotonic() - at > self._seconds:
                value = await self._look(cloud)
                self._kept[cloud.account] = (time.monotonic(), value)
            return value

    def forget(self, cloud: Cloud) -> None:
        """Look again next time."""
        self._kept.pop(cloud.account, None)
