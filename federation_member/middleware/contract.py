"""The contract between the member and whatever really makes machines.

The member's books (its leases) say what should exist; a middleware makes that true. Every call names the instance by
`key`, the lease id, which the middleware stores at the lender itself (a tag, a name, a label), never only in memory:
so `create` and `delete` may be repeated, and `list_owned` names all that the federation holds there, whatever crashed.

A kind is found by entry point (`fedmesh.middleware`): a class whose `Config` is a pydantic model and whose constructor takes
one; constructing it has no side effects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from fedkit.errors import Exit, FedError
from fedkit.protocol.lending import (
    Ability,
    Amounts,
    AttachmentSpec,
    ComputeSpec,
    Flavour,
    Image,
    Instance,
    NetworkSpec,
    Power,
    PublicIpSpec,
    SecurityRule,
    SnapshotSpec,
    VolumeSpec,
)
from fedkit.protocol.segments import Operation
from fedkit.topology.shaping import Shape


class MiddlewareError(FedError):
    """The lender said no, or failed. `message` keeps its own words."""

    code = "middleware.failed"
    http = 502


class NoQuota(MiddlewareError):
    """The account may not have more."""

    code = "middleware.no_quota"
    http = 409
    exit = Exit.REFUSED


class NoCapacity(MiddlewareError):
    """There is no room now (no valid host, no free address)."""

    code = "middleware.no_capacity"
    http = 409
    exit = Exit.REFUSED


class UnknownImage(MiddlewareError):
    """No such image here."""

    code = "middleware.unknown_image"
    http = 404
    exit = Exit.UNUSABLE_INPUT


class UnknownFlavour(MiddlewareError):
    """No such flavour here, or none that meets the requirements."""

    code = "middleware.unknown_flavour"
    http = 404
    exit = Exit.UNUSABLE_INPUT


class UnusableSpec(MiddlewareError):
    """This middleware cannot do what is asked (user data key, prefix, …); the message says which and what works."""

    code = "middleware.unusable_spec"
    http = 400
    exit = Exit.UNUSABLE_INPUT


class UnknownAccount(MiddlewareError):
    """The local account that a global identity was mapped to does not exist here."""

    code = "middleware.unknown_account"
    http = 409
    exit = Exit.REFUSED


class AccountInUse(MiddlewareError):
    """The account cannot be removed, because something still runs under it, or made, because it is somebody else's."""

    code = "middleware.account_in_use"
    http = 409
    exit = Exit.REFUSED


class UnusableImage(MiddlewareError):
    """What was fetched is not an image that can be booted here; the message says what it is."""

    code = "middleware.unusable_image"
    http = 400
    exit = Exit.UNUSABLE_INPUT


class NotAuthorised(MiddlewareError):
    """The lender does not let the mapped account do this, or does not know its credentials (any more)."""

    code = "middleware.not_authorised"
    http = 502
    exit = Exit.REFUSED


class StillUsed(MiddlewareError):
    """It cannot be removed, because something that is not ours still uses it."""

    code = "middleware.still_used"
    http = 409
    exit = Exit.REFUSED


class Unavailable(MiddlewareError):
    """Does not answer now; the caller repeats the call later."""

    code = "middleware.unavailable"
    http = 503
    exit = Exit.NOT_REACHABLE


class Status(StrEnum):
    """What the lender says of an instance. One that was stopped or paused is there, so it is `running`; see `Instance.power`."""

    CREATING = "creating"
    RUNNING = "running"
    FAILED = "failed"


@dataclass(frozen=True)
class Account:
    """The local account that a global identity was mapped to; in certificate systems a certificate with its key (PEM)."""

    name: str
    certificate: Path | None = None


class AccountKind(StrEnum):
    """Whose an account is."""

    EXISTING = "existing"  # the site's: the federation adds rights and keys to it and takes them away again
    CREATED = "created"  # the federation's: made and removed by it


@dataclass(frozen=True)
class AccountSpec:
    """How an account is to be while grants are mapped to it."""

    name: str
    kind: AccountKind
    keys: tuple[str, ...] = ()  # OpenSSH public keys of those who use it
    rights: tuple[str, ...] = ()  # what they may use, such as node types and flavours


@dataclass(frozen=True)
class TunnelAccess:
    """What a machine needs to open its own tunnels with nothing but `ssh`."""

    host: str
    address: str
    port: int
    host_key: str
    private_key: str = field(repr=False)  # OpenSSH format
    user: str = "tunnel"


@dataclass(frozen=True)
class ComputeRequest:
    """One machine to make: `flavour` is already chosen, `networks` are keys of networks made here.

    The machine's ssh server trusts `trusted_ca` (an OpenSSH public key) to sign user certificates, where it can.
    """

    spec: ComputeSpec
    flavour: Flavour
    account: Account
    networks: tuple[str, ...] = ()
    tunnel: TunnelAccess | None = None
    trusted_ca: str | None = None


@dataclass(frozen=True)
class PlainRequest:
    """One instance of another kind to make. What `spec` refers to are keys of what was made here."""

    spec: NetworkSpec | VolumeSpec | AttachmentSpec | PublicIpSpec | SnapshotSpec
    account: Account


InstanceRequest = ComputeRequest | PlainRequest


@dataclass(frozen=True)
class Owned:
    """One instance of the federation at the lender, as the lender sees it."""

    key: str
    kind: str
    status: Status
    instance: Instance
    reason: str = ""


class Middleware(Protocol):
    """What every kind provides. All calls may run at the same time, for different keys.

    A call that takes too long is cancelled and counts as unavailable: after 3 s for what is on offer, 4 s for a console or a
    quota, 60 s for power and rules, and 3 minutes for all else. What hangs holds up nothing but its own key.
    """

    name: ClassVar[str]
    Config: ClassVar[type[BaseModel]]

    def __init__(self, config: Any) -> None: ...

    async def start(self, changed: Callable[[str], None]) -> None:
        """Get ready; `changed(key)` is to be called whenever an instance changes by itself (it died, it came up)."""

    async def stop(self) -> None:
        """Let go of connections. Instances stay: a stop is never a delete."""

    def kinds(self) -> frozenset[str]:
        """The order kinds that it can make."""

    async def flavours(self) -> list[Flavour]:
        """Sizes on offer."""

    async def images(self) -> list[Image]:
        """Images on offer."""

    async def create(self, key: str, request: InstanceRequest) -> Owned:
        """Make the instance, or return the one that exists under `key`; it may still be `creating`.

        What takes long is not waited for: the answer is `creating` with a `reason` that tells how far it is, and the call is
        repeated. Raises a `MiddlewareError`; after a failure nothing is left under `key`, or `list_owned` names it.
        """

    async def get(self, key: str) -> Owned | None:
        """The instance under `key`, or None if there is none (never had, or gone)."""

    async def delete(self, key: str) -> None:
        """Remove the instance and all that was made for it; return when it is gone. Nothing there is success."""

    async def list_owned(self) -> list[Owned]:
        """Everything that the federation holds here, complete or not."""


@runtime_checkable
class KeepsAccounts(Protocol):
    """The capability `accounts`: a middleware that can make local accounts and change those that exist.

    `create` then refuses an account that does not exist. What the federation did to accounts is stored at the lender, as
    instances are. All calls may run at the same time, for different accounts.
    """

    async def ensure_account(self, account: AccountSpec) -> None:
        """Make the account, or give an existing one exactly these keys and rights, whatever it was given before.

        Raises `UnknownAccount` for one of the site's that is not there, `AccountInUse` if one of that name is not ours to make.
        """

    async def remove_account(self, name: str) -> None:
        """Undo what `ensure_account` did: remove what it made, withdraw what it gave. Nothing there is success.

        Raises `AccountInUse` while something runs under an account that would be removed.
        """

    async def list_accounts(self) -> list[AccountSpec]:
        """Every account that the federation made or gave something to."""


@dataclass(frozen=True)
class Quota:
    """What an account may have and has, whoever ordered it; None where the lender does not count."""

    total: Amounts
    used: Amounts


@runtime_checkable
class TellsQuota(Protocol):
    """The capability `quota`."""

    async def quota(self, account: Account) -> Quota:
        """What the account may have and has. Raises `UnknownAccount`, `NotAuthorised` or `Unavailable`."""


@runtime_checkable
class SetsPower(Protocol):
    """The capability `power`: machines can be stopped, paused and started again."""

    async def set_power(self, key: str, power: Power) -> Owned:
        """Make the machine so, or begin to; the answer's `instance.power` tells how it is. Repeating is harmless.

        Raises `UnusableSpec` for a power that is not to be had here.
        """


@runtime_checkable
class SetsRules(Protocol):
    """The capability `rules`: security rules of a network or public address can be changed."""

    async def set_rules(self, key: str, rules: Sequence[SecurityRule]) -> None:
        """Let exactly this traffic through from now on. Repeating is harmless. Raises `UnusableSpec`."""


@runtime_checkable
class ShowsConsole(Protocol):
    """The capability `console`."""

    async def console(self, key: str) -> str:
        """The end of what the machine wrote, at most `CONSOLE_LIMIT` characters, made printable."""


@runtime_checkable
class FetchesImages(Protocol):
    """The capability `image_urls`: `create` takes an image from a URL."""

    fetches_images: bool


@runtime_checkable
class GivesAddresses(Protocol):
    """The capability `addresses`: a machine has a public address from the start, so none gets a tunnel."""

    gives_addresses: bool


@dataclass(frozen=True)
class WireEnd:
    """Where a node is on a wire; a portal has no address there."""

    wire: str
    address: str | None = None
    shape: Shape = field(default_factory=Shape)


@dataclass(frozen=True)
class NodeRequest:
    """One node. `routes` are destination (a prefix) and neighbour; `startup` is what its author wants to run in it.

    With a `script` that alone decides about routes, forwarding and what is started. `way` is what the tunnel's server calls its port.
    At the folders `mounts` its root may have file systems of its own (FUSE).
    """

    name: str
    image: str
    flavour: Flavour
    way: str
    ends: tuple[WireEnd, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    forwards: bool = False
    startup: str = ""
    script: str = ""
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class PortalRequest:
    """One portal: a node without addresses, of which nobody but its script is root; its tunnels are the segment's."""

    name: str
    image: str
    flavour: Flavour
    wires: tuple[str, ...]
    script: str = field(repr=False)


@dataclass(frozen=True)
class SegmentRequest:
    """A whole segment: `wires` are prefixes by name, `hosts` names by address. Every node can be entered with `ssh_keys`."""

    account: Account
    wires: Mapping[str, str]
    nodes: tuple[NodeRequest, ...]
    portals: tuple[PortalRequest, ...] = ()
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ssh_keys: tuple[str, ...] = ()
    tunnel: TunnelAccess | None = None
    trusted_ca: str | None = None


@dataclass(frozen=True)
class Printed:
    """What a command printed, the end of it, and its exit status."""

    text: str = ""
    status: int = 0


@runtime_checkable
class HostsSegments(Protocol):
    """The capability to run segments as a whole, faster than machine by machine. Where it is missing the member embeds them.

    A segment is an instance like others: `get`, `delete` and `list_owned` know it, and its end is told by `changed`. Its
    `instance.segment` tells how its nodes and portals are.
    """

    def hosts_segments(self) -> bool:
        """Whether it can here."""

    async def start_segment(self, key: str, request: SegmentRequest) -> Owned:
        """Make the segment, or make the one under `key` so: portals come, go and change, nodes come.

        A node that cannot be made is there and `failed`, with the reason, and hinders no other. Whether a portal is joined is
        told by a middleware that asks the portal, and left unset where it cannot. After a failure of the whole nothing is left
        under `key`, or `list_owned` names it. Raises a `MiddlewareError`.
        """

    async def operate(self, key: str, operation: Operation, node: str, command: str = "") -> Printed:
        """Do that to a node; `command` belongs to `run`. Raises a `MiddlewareError` if it cannot be done."""


def hosts_segments(middleware: Middleware | None) -> HostsSegments | None:
    """The same middleware, if it runs segments as a whole."""
    return middleware if isinstance(middleware, HostsSegments) and middleware.hosts_segments() else None


def abilities(middleware: Middleware) -> frozenset[Ability]:
    """What a middleware declares by what it implements."""
    declared = {
        Ability.QUOTA: isinstance(middleware, TellsQuota),
        Ability.POWER: isinstance(middleware, SetsPower),
        Ability.RULES: isinstance(middleware, SetsRules),
        Ability.CONSOLE: isinstance(middleware, ShowsConsole),
        Ability.IMAGE_URLS: isinstance(middleware, FetchesImages) and middleware.fetches_images,
        Ability.ADDRESSES: isinstance(middleware, GivesAddresses) and middleware.gives_addresses,
    }
    return frozenset(ability for ability, there in declared.items() if there)
