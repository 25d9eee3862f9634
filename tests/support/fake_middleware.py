"""A middleware in memory, with the faults of real ones, for tests of the order engine alone.

The `Cloud` outlives the middleware objects that talk to it, as a real cloud outlives a member that crashed. Like a real one it
makes nothing that uses what is not there, and deletes nothing that is in use; `misdeeds` tells who tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from pydantic import BaseModel

from federation_member.middleware.contract import (
    Account,
    AccountInUse,
    AccountKind,
    AccountSpec,
    ComputeRequest,
    InstanceRequest,
    MiddlewareError,
    NodeRequest,
    Owned,
    PortalRequest,
    Printed,
    Quota,
    SegmentRequest,
    Status,
    StillUsed,
    Unavailable,
    UnknownAccount,
    UnusableSpec,
)
from federation_member.orders.model import NOUNS
from fedkit.protocol.lending import (
    Amounts,
    AttachmentSpec,
    Flavour,
    Image,
    Instance,
    Power,
    PublicIpSpec,
    SecurityRule,
    SnapshotSpec,
    VolumeSpec,
    references,
)
from fedkit.protocol.segments import NodeInfo, NodeStatus, Operation, PortalInfo, SegmentInfo

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFZ3vXvM5Yy0m2mD0Yc0v9u0m6J7s7n0wq0m2mD0Yc0w"
SMALL = Flavour(name="small", vcpu=1, ram_mb=512, disk_gb=1)
LARGE = Flavour(name="large", vcpu=4, ram_mb=4096, disk_gb=20)


KINDS = frozenset(NOUNS)


@dataclass
class Cloud:
    """What really exists, and how the cloud behaves. `gate` holds calls back until it is set."""

    flavours: list[Flavour] = field(default_factory=lambda: [SMALL, LARGE])
    images: list[str] = field(default_factory=lambda: ["debian"])
    portals: set[str] = field(default_factory=lambda: {"debian"})  # the images that portals run in
    instances: dict[str, InstanceRequest] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)  # every key that was ever created, in order
    existing: set[str] = field(default_factory=lambda: {"federation", "shared"})  # the site's own accounts
    accounts: dict[str, AccountSpec] = field(default_factory=dict)  # what the federation made or gave
    history: list[str] = field(default_factory=list)  # what happened to accounts and under them, in order
    refusal: MiddlewareError | None = None
    refused_kinds: frozenset[str] = KINDS  # what `refusal` is for
    kinds: frozenset[str] = KINDS
    gives_addresses: bool = False
    fetches_images: bool = False
    misdeeds: list[str] = field(default_factory=list)
    powers: dict[str, Power] = field(default_factory=dict)  # of machines that do not run
    rules: dict[str, list[SecurityRule]] = field(default_factory=dict)  # as they were set last
    calls: list[str] = field(default_factory=list)  # of set_power and set_rules
    slow_power: bool = False  # `set_power` only begins; `settle_power` ends it
    beginning: dict[str, Power] = field(default_factory=dict)
    consoles: dict[str, str] = field(default_factory=dict)
    quota: Quota | None = None
    wish_refusal: MiddlewareError | None = None
    look_refusal: MiddlewareError | None = None  # what `get` says
    hanging: set[str] = field(default_factory=set)  # calls for these keys never return
    mute: bool = False  # it does not even say what it offers
    down: bool = False
    slow_start: bool = False  # `create` returns while the instance is still being made
    progress: str = ""  # what is said of that
    started: set[str] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    listener: Callable[[str], None] = lambda key: None
    before: Callable[[str, object], Awaitable[None]] | None = None  # "create", "get", "delete" of what
    hosts: bool = False  # it runs segments as a whole
    segments: dict[str, SegmentRequest] = field(default_factory=dict)
    broken: dict[tuple[str, str], str] = field(default_factory=dict)  # parts of segments, and why they failed

    def __post_init__(self) -> None:
        self.gate.set()

    def lose(self, key: str) -> None:
        """An instance vanishes by itself."""
        del self.instances[key]
        self.listener(key)

    def become(self, key: str, power: Power) -> None:
        """A machine stops or starts by itself."""
        self.powers[key] = power
        self.listener(key)

    def settle_power(self, key: str) -> None:
        """A change of power that was begun is over."""
        self.become(key, self.beginning.pop(key))

    def finish(self, key: str) -> None:
        """An instance that was being made is ready."""
        self.started.add(key)
        self.listener(key)

    def check_account(self, name: str) -> None:
        """As real clouds do: nothing runs under an account that is not there."""
        made = self.accounts.get(name)
        if name not in self.existing and (made is None or made.kind is not AccountKind.CREATED):
            raise UnknownAccount(f"There is no account {name}.")

    def users_of(self, key: str) -> list[str]:
        """What cannot do without an instance: all that names it, but for snapshots, which are copies."""
        return [
            user
            for user, request in self.instances.items()
            if key in references(request.spec) and request.spec.kind != "snapshot"
        ]

    def check_used(self, request: InstanceRequest) -> None:
        """What an instance uses is there, and a volume is in one machine at a time."""
        for key, kind in references(request.spec).items():
            if key not in self.instances or self.instances[key].spec.kind != kind:
                raise UnusableSpec(f"There is no {kind} {key}.")
            if request.spec.kind == "attachment" and kind == "volume" and self.users_of(key):
                raise UnusableSpec(f"The volume {key} is attached already.")

    def owned(self, key: str) -> Owned:
        """How the cloud describes an instance."""
        request = self.instances[key]
        ready = not self.slow_start or key in self.started
        status = Status.RUNNING if ready else Status.CREATING
        reason = "" if ready else self.progress
        return Owned(key, request.spec.kind, status, self._instance(key, request), reason)

    def owned_segment(self, key: str) -> Owned:
        """How it describes a segment that it runs as a whole."""
        request = self.segments[key]

        def said(name: str) -> dict[str, Any]:
            reason = self.broken.get((key, name), "")
            return {"status": NodeStatus.FAILED if reason else NodeStatus.RUNNING, "reason": reason}

        info = SegmentInfo(
            nodes=[NodeInfo(name=one.name, host_keys=[HOST_KEY], **said(one.name)) for one in request.nodes],
            portals=[PortalInfo(connector=one.name, host_key=HOST_KEY, **said(one.name)) for one in request.portals],
        )
        return Owned(key, "segment", Status.RUNNING, Instance(name="segment", user="root", segment=info))

    def _instance(self, key: str, request: InstanceRequest) -> Instance:
        spec = request.spec
        address = f"203.0.113.{self.made.index(key) % 250 + 1}"
        if isinstance(request, ComputeRequest):
            public = address if self.gives_addresses else None
            power = self.powers.get(key, Power.RUNNING)
            return Instance(
                name=spec.name,
                flavour=request.flavour,
                user="fed",
                host_keys=[HOST_KEY] if request.spec.carries_frames else [],
                public_address=public,
                power=power,
            )
        match spec:
            case VolumeSpec():
                return Instance(name=spec.name, size_gb=spec.size_gb)
            case AttachmentSpec():
                return Instance(name=spec.name, device=spec.device or "/dev/vdb")
            case PublicIpSpec():
                return Instance(name=spec.name, public_address=address)
            case SnapshotSpec():
                return Instance(name=spec.name, size_gb=1)
        return Instance(name=spec.name)


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
        return self.cloud.kinds

    @property
    def gives_addresses(self) -> bool:
        return self.cloud.gives_addresses

    @property
    def fetches_images(self) -> bool:
        return self.cloud.fetches_images

    async def flavours(self) -> list[Flavour]:
        if self.cloud.mute:
            await asyncio.Event().wait()
        return self.cloud.flavours

    async def images(self) -> list[Image]:
        return [Image(name=name, portal=name in self.cloud.portals) for name in self.cloud.images]

    async def create(self, key: str, request: InstanceRequest) -> Owned:
        await self._call(key)
        try:
            await self._meddled("create", request)
            if self.cloud.refusal is not None and request.spec.kind in self.cloud.refused_kinds:
                raise self.cloud.refusal
            self.cloud.check_account(request.account.name)
            if key not in self.cloud.instances:
                self.cloud.check_used(request)
                self.cloud.history.append(f"{NOUNS[request.spec.kind]} under {request.account.name}")
                self.cloud.made.append(key)
                self.cloud.instances[key] = request
            return self.cloud.owned(key)
        finally:
            self.busy.discard(key)

    def hosts_segments(self) -> bool:
        return self.cloud.hosts

    async def start_segment(self, key: str, request: SegmentRequest) -> Owned:
        await self._call(key)
        try:
            if key not in self.cloud.segments:
                await self._meddled("create", request)
            before = self.cloud.segments.get(key)
            there = set() if before is None else {part.name for part in _parts(before)}
            self.cloud.segments[key] = replace(request, nodes=before.nodes if before else (), portals=())
            for part in _parts(request):
                await self._make_part(key, part, is_new=part.name not in there)
            self.cloud.segments[key] = request
            return self.cloud.owned_segment(key)
        finally:
            self.busy.discard(key)

    async def _make_part(self, key: str, part: NodeRequest | PortalRequest, *, is_new: bool) -> None:
        if is_new:
            try:
                await self._meddled("create", part)
            except MiddlewareError as error:
                self.cloud.broken[key, part.name] = error.message

    async def operate(self, key: str, operation: Operation, node: str, command: str = "") -> Printed:
        return Printed(f"{operation} {node} {command}")

    async def get(self, key: str) -> Owned | None:
        await self._call(key)
        try:
            await self._meddled("get", self.cloud.instances.get(key))
        finally:
            self.busy.discard(key)
        if self.cloud.look_refusal is not None:
            raise self.cloud.look_refusal
        if key in self.cloud.segments:
            return self.cloud.owned_segment(key)
        return self.cloud.owned(key) if key in self.cloud.instances else None

    async def delete(self, key: str) -> None:
        await self._call(key)
        try:
            await self._meddled("delete", self.cloud.instances.get(key))
        finally:
            self.busy.discard(key)
        self.cloud.segments.pop(key, None)
        users = self.cloud.users_of(key)
        if users:
            self.cloud.misdeeds.append(f"{key} was to be deleted, though {users} use it")
            raise StillUsed("It is in use.")
        self.cloud.instances.pop(key, None)

    async def set_power(self, key: str, power: Power) -> Owned:
        await self._call(key)
        self.busy.discard(key)
        self.cloud.calls.append(f"{key} {power}")
        if self.cloud.wish_refusal is not None:
            raise self.cloud.wish_refusal
        if self.cloud.slow_power:
            self.cloud.beginning[key] = power
        else:
            self.cloud.powers[key] = power
        return self.cloud.owned(key)

    async def set_rules(self, key: str, rules: Sequence[SecurityRule]) -> None:
        await self._call(key)
        self.busy.discard(key)
        self.cloud.calls.append(f"{key} rules")
        if self.cloud.wish_refusal is not None:
            raise self.cloud.wish_refusal
        self.cloud.rules[key] = list(rules)

    async def console(self, key: str) -> str:
        await self._call(f"console {key}")
        self.busy.discard(f"console {key}")
        return self.cloud.consoles.get(key, "")

    async def quota(self, account: Account) -> Quota:
        await self._call("quota")
        self.busy.discard("quota")
        self.cloud.check_account(account.name)
        return self.cloud.quota or Quota(Amounts(), Amounts())

    async def list_owned(self) -> list[Owned]:
        segments = [self.cloud.owned_segment(key) for key in self.cloud.segments]
        return [self.cloud.owned(key) for key in self.cloud.instances] + segments

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

    async def _meddled(self, call: str, request: object) -> None:
        if self.cloud.before is not None:
            await self.cloud.before(call, request)
            if self.dead:
                await asyncio.Event().wait()

    async def _call(self, key: str) -> None:
        if self.dead:
            await asyncio.Event().wait()
        assert key not in self.busy, "two calls for one key at the same time"
        self.busy.add(key)
        try:
            if key in self.cloud.hanging:
                await asyncio.Event().wait()
            await self.cloud.gate.wait()
            if self.cloud.down:
                raise Unavailable("The cloud does not answer.")
        except BaseException:
            self.busy.discard(key)
            raise


def _parts(segment: SegmentRequest) -> tuple[NodeRequest | PortalRequest, ...]:
    return (*segment.nodes, *segment.portals)
