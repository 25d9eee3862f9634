"""A middleware in memory, with the faults of real ones, for tests of the order engine alone.

The `Cloud` outlives the middleware objects that talk to it, as a real cloud outlives a member that crashed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel

from federation_member.middleware.contract import (
    AccountInUse,
    AccountKind,
    AccountSpec,
    ComputeRequest,
    InstanceRequest,
    MiddlewareError,
    Owned,
    Status,
    Unavailable,
    UnknownAccount,
)
from fedkit.protocol.lending import Flavour, Image, Instance

SMALL = Flavour(name="small", vcpu=1, ram_mb=512, disk_gb=1)
LARGE = Flavour(name="large", vcpu=4, ram_mb=4096, disk_gb=20)


@dataclass
class Cloud:
    """What really exists, and how the cloud behaves. `gate` holds calls back until it is set."""

    flavours: list[Flavour] = field(default_factory=lambda: [SMALL, LARGE])
    images: list[str] = field(default_factory=lambda: ["debian"])
    instances: dict[str, InstanceRequest] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)  # every key that was ever created, in order
    existing: set[str] = field(default_factory=lambda: {"federation", "shared"})  # the site's own accounts
    accounts: dict[str, AccountSpec] = field(default_factory=dict)  # what the federation made or gave
    history: list[str] = field(default_factory=list)  # what happened to accounts and under them, in order
    refusal: MiddlewareError | None = None
    down: bool = False
    slow_start: bool = False  # `create` returns while the instance is still being made
    started: set[str] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    listener: Callable[[str], None] = lambda key: None

    def __post_init__(self) -> None:
        self.gate.set()

    def lose(self, key: str) -> None:
        """An instance vanishes by itself."""
        del self.instances[key]
        self.listener(key)

    def finish(self, key: str) -> None:
        """An instance that was being made is ready."""
        self.started.add(key)
        self.listener(key)

    def check_account(self, name: str) -> None:
        """As real clouds do: nothing runs under an account that is not there."""
        made = self.accounts.get(name)
        if name not in self.existing and (made is None or made.kind is not AccountKind.CREATED):
            raise UnknownAccount(f"There is no account {name}.")

    def owned(self, key: str) -> Owned:
        """How the cloud describes an instance."""
        request = self.instances[key]
        flavour = request.flavour if isinstance(request, ComputeRequest) else None
        ready = not self.slow_start or key in self.started
        status = Status.RUNNING if ready else Status.CREATING
        user = "fed" if isinstance(request, ComputeRequest) else None
        return Owned(key, request.spec.kind, status, Instance(name=request.spec.name, flavour=flavour, user=user))


class NoConfig(BaseModel):
    """Nothing to configure."""


class FakeMiddleware:
    """One member's way to a cloud."""

    name: ClassVar[str] = "fake"
    Config: ClassVar[type[BaseModel]] = NoConfig

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.busy: set[str] = set()
        self.dead = False  # its process is: it does nothing more

    async def start(self, changed: Callable[[str], None]) -> None:
        self.cloud.listener = changed

    async def stop(self) -> None:
        self.cloud.listener = lambda key: None

    def kinds(self) -> frozenset[str]:
        return frozenset({"compute", "network"})

    async def flavours(self) -> list[Flavour]:
        return self.cloud.flavours

    async def images(self) -> list[Image]:
        return [Image(name=name) for name in self.cloud.images]

    async def create(self, key: str, request: InstanceRequest) -> Owned:
        await self._call(key)
        try:
            if self.cloud.refusal is not None:
                raise self.cloud.refusal
            self.cloud.check_account(request.account.name)
            if key not in self.cloud.instances:
                self.cloud.history.append(f"machine under {request.account.name}")
                self.cloud.made.append(key)
                self.cloud.instances[key] = request
            return self.cloud.owned(key)
        finally:
            self.busy.discard(key)

    async def get(self, key: str) -> Owned | None:
        await self._call(key)
        self.busy.discard(key)
        return self.cloud.owned(key) if key in self.cloud.instances else None

    async def delete(self, key: str) -> None:
        await self._call(key)
        self.busy.discard(key)
        self.cloud.instances.pop(key, None)

    async def list_owned(self) -> list[Owned]:
        return [self.cloud.owned(key) for key in self.cloud.instances]

    async def ensure_account(self, account: AccountSpec) -> None:
        key = f"account {account.name}"
        await self._call(key)
        self.busy.discard(key)
        if account.kind is AccountKind.EXISTING:
            self.cloud.check_account(account.name)
        elif account.name in self.cloud.existing:
            raise AccountInUse(f"{account.name} is the site's.")
        if self.cloud.accounts.get(account.name) != account:
            self.cloud.history.append(f"account {account.name}")
        self.cloud.accounts[account.name] = account

    async def remove_account(self, name: str) -> None:
        await self._call(f"account {name}")
        self.busy.discard(f"account {name}")
        made = self.cloud.accounts.get(name)
        if made is not None and made.kind is AccountKind.CREATED:
            users = {request.account.name for request in self.cloud.instances.values()}
            assert name not in users, "an account is removed while machines run under it"
        if self.cloud.accounts.pop(name, None) is not None:
            self.cloud.history.append(f"no account {name}")

    async def list_accounts(self) -> list[AccountSpec]:
        return list(self.cloud.accounts.values())

    async def _call(self, key: str) -> None:
        if self.dead:
            await asyncio.Event().wait()
        assert key not in self.busy, "two calls for one key at the same time"
        self.busy.add(key)
        try:
            await self.cloud.gate.wait()
            if self.cloud.down:
                raise Unavailable("The cloud does not answer.")
        except BaseException:
            self.busy.discard(key)
            raise
