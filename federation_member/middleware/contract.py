"""The contract between the member and whatever really makes machines.

The member's books (its leases) say what should exist; a middleware makes that true. Every call names the instance by
`key`, the lease id, which the middleware stores at the lender itself (a tag, a name, a label), never only in memory:
so `create` and `delete` may be repeated, and `list_owned` names all that the federation holds there, whatever crashed.

A kind is found by entry point (`fedmesh.middleware`): a class whose `Config` is a pydantic model and whose constructor takes
one; constructing it has no side effects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from fedkit.errors import Exit, FedError
from fedkit.protocol.lending import ComputeSpec, Flavour, Image, Instance, NetworkSpec


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


class Unavailable(MiddlewareError):
    """Does not answer now; the caller repeats the call later."""

    code = "middleware.unavailable"
    http = 503
    exit = Exit.NOT_REACHABLE


class Status(StrEnum):
    """What the lender says of an instance."""

    CREATING = "creating"
    RUNNING = "running"
    FAILED = "failed"


@dataclass(frozen=True)
class Account:
    """The local account that a global identity was mapped to."""

    name: str


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
    """One machine to make: `flavour` is already chosen, `networks` are keys of networks made here."""

    spec: ComputeSpec
    flavour: Flavour
    account: Account
    networks: tuple[str, ...] = ()
    tunnel: TunnelAccess | None = None


@dataclass(frozen=True)
class NetworkRequest:
    """One private network to make."""

    spec: NetworkSpec
    account: Account


InstanceRequest = ComputeRequest | NetworkRequest


@dataclass(frozen=True)
class Owned:
    """One instance of the federation at the lender, as the lender sees it."""

    key: str
    kind: str
    status: Status
    instance: Instance
    reason: str = ""


class Middleware(Protocol):
    """What every kind provides. All calls may run at the same time, for different keys."""

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

        Raises a `MiddlewareError`; after a failure nothing is left under `key`, or `list_owned` names it.
        """

    async def get(self, key: str) -> Owned | None:
        """The instance under `key`, or None if there is none (never had, or gone)."""

    async def delete(self, key: str) -> None:
        """Remove the instance and all that was made for it; return when it is gone. Nothing there is success."""

    async def list_owned(self) -> list[Owned]:
        """Everything that the federation holds here, complete or not."""
