"""Orders and leases: the types, without any I/O.

A user's **order** lives at the home member. For each attempt to fulfil it the home member makes a **lease** id and asks a
lender (possibly itself) for it; the lender's own book of leases is what its middleware must make true:

    order (borrower's book)                      lease (lender's book)
    open ──► asked of a candidate ── lease.create ──► accepted ──► running ──► releasing ──► released
      ▲            │ refused, dead, failed               └──► failing ──► failed
      └────────────┘ next candidate
    pending ◄─ accepted;  fulfilled ◄─ running;  deleting ─ lease.release ─► deleted when `released` is confirmed

A local order goes the same way, without the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from federation_member.orders.wishes import NOTHING, RuleList, Wishes
from fedkit.protocol.lending import Instance, Name, Spec, Tunnel, UserSpec

LEASE_SECONDS = 600  # default: how long a lender cut off from us keeps the machine
MAX_COUNT = 100


class OrderKind(StrEnum):
    """What may be ordered."""

    COMPUTE = "compute"
    NETWORK = "network"
    VOLUME = "volume"
    ATTACHMENT = "attachment"
    PUBLIC_IP = "public_ip"
    SNAPSHOT = "snapshot"


NOUNS = {
    "compute": "machine",
    "network": "network",
    "volume": "volume",
    "attachment": "attachment",
    "public_ip": "public address",
    "snapshot": "snapshot",
}
"""What people call one of a kind."""


class OrderType(StrEnum):
    """`one-time` ends when its instance is lost; `persistent` opens again."""

    ONE_TIME = "one-time"
    PERSISTENT = "persistent"


class OrderState(StrEnum):
    """`open`: waits for a lender (or its valid-from). `pending`: a lender accepted. `fulfilled`: the instance runs.

    `closed`: ended by itself (lost, valid-until passed, impossible); kept until deleted. `deleting`: waits for the lender's
    word. `deleted`: every lender confirmed.
    """

    OPEN = "open"
    PENDING = "pending"
    FULFILLED = "fulfilled"
    CLOSED = "closed"
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass(frozen=True)
class User:
    """Who asked: the three-level name is (this member's fedid, project, user). What is theirs is so in all their projects."""

    project: str
    name: str
    operator: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Handle:
    """What the lender gave its user to handle the machine with; worth nothing once it is given back."""

    allocation: str  # fedid of the grant
    certificates: tuple[str, ...]  # OpenSSH, over the user's keys
    credentials: tuple[str, ...]  # compact


@dataclass(frozen=True)
class Order:
    """One order as its home member knows it."""

    id: str
    owner: User
    type: OrderType
    state: OrderState
    reason: str
    spec: Spec
    location: str | None  # name, address or fedid of the only member to ask; None asks all
    batch: str  # orders made by one request with count > 1 share it
    valid_from: datetime | None
    valid_until: datetime | None
    lease_seconds: int
    created: datetime
    changed: datetime
    revision: int
    member: str | None  # name of the lender that holds the instance or works on it
    member_fedid: str | None
    lease_id: str | None
    lease_expires: datetime | None
    instance: Instance | None
    tunnels: tuple[Tunnel, ...]
    code: str = ""  # stable error code that belongs to `reason`; empty where nothing is wrong
    handle: Handle | None = None
    wishes: Wishes = NOTHING  # what its lender is making of it now
    rules: RuleList | None = None  # that are in force, or were before its instance was lost; none: those of its spec
    used_by: tuple[str, ...] = ()  # ids of orders that it cannot be deleted before; looked up where an order is shown


def new_order(
    order_id: str,
    owner: User,
    spec: Spec,
    now: datetime,
    *,
    batch: str,
    order_type: OrderType = OrderType.ONE_TIME,
    location: str | None = None,
    valid_from: datetime | None = None,
    valid_until: datetime | None = None,
    lease_seconds: int = LEASE_SECONDS,
) -> Order:
    """An order for which nothing has been done yet."""
    return Order(
        id=order_id,
        owner=owner,
        type=order_type,
        state=OrderState.OPEN,
        reason="looks for a lender",
        spec=spec,
        location=location,
        batch=batch,
        valid_from=valid_from,
        valid_until=valid_until,
        lease_seconds=lease_seconds,
        created=now,
        changed=now,
        revision=1,
        member=None,
        member_fedid=None,
        lease_id=None,
        lease_expires=None,
        instance=None,
        tunnels=(),
    )


class NewOrder(BaseModel):
    """What a user asks for. Where `spec` names others it names the user's *orders*; the member turns them into leases."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: UserSpec = Field(discriminator="kind")
    type: OrderType = OrderType.ONE_TIME
    count: int = Field(default=1, ge=1, le=MAX_COUNT, description="so many equal orders, sharing a batch")
    project: Name | None = Field(default=None, description="one of the user's; without it, their default project")
    location: str | None = Field(
        default=None, min_length=1, max_length=253, description="name, address or fedid of the only member to ask"
    )
    valid_from: AwareDatetime | None = Field(default=None, description="not before")
    valid_until: AwareDatetime | None = Field(default=None, description="given back at this time")
    lease_seconds: int = Field(
        default=LEASE_SECONDS, ge=10, le=7 * 86400, description="how long a lender that lost contact keeps it"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.valid_from and self.valid_until and self.valid_until <= self.valid_from:
            raise ValueError("valid_until must be after valid_from")
        return self


class AttemptState(StrEnum):
    """Where one attempt at an order is. `refused`, `failed` and `released` are final: its lender holds nothing."""

    ASKED = "asked"
    ACCEPTED = "accepted"
    RUNNING = "running"
    REFUSED = "refused"
    FAILED = "failed"
    NO_ANSWER = "no_answer"  # it may have said yes: a release is on its way
    RELEASING = "releasing"
    RELEASED = "released"


@dataclass(frozen=True)
class Sent:
    """A credential that a lender was shown; `kept` are those that the user keeps and the lender had asked for."""

    id: str
    statement: str
    kept: bool = False


@dataclass(frozen=True)
class Access:
    """What a lender said of the user's right: the proof by which it lends, or sets of statements that would each have done."""

    missing: tuple[tuple[str, ...], ...] = ()
    proof: dict[str, Any] | None = None


@dataclass(frozen=True)
class Attempt:
    """One candidate that was asked for one order, as whom and with what, and what it said."""

    lease_id: str
    order_id: str
    member: str
    fedid: str
    address: str
    state: AttemptState
    code: str
    reason: str
    started: datetime
    changed: datetime
    expires: datetime | None  # when the lease ends by itself at the lender
    name: str = ""  # three-level
    sent: tuple[Sent, ...] = ()
    access: Access = field(default_factory=Access)


@dataclass(frozen=True)
class Explanation:
    """Why an order is where it is: its history, who was asked, and what happens next."""

    order: Order
    attempts: tuple[Attempt, ...]
    events: tuple[OrderEvent, ...]
    next_try: datetime | None


@dataclass(frozen=True)
class OrderEvent:
    """One line of an order's history."""

    order_id: str
    sequence: int  # over all orders, gapless to its reader: the cursor of the event stream
    at: datetime
    state: OrderState
    code: str
    reason: str
