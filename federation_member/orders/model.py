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

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fedkit.protocol.lending import Instance, Spec, Tunnel


class OrderKind(StrEnum):
    """What may be ordered in this version."""

    COMPUTE = "compute"
    NETWORK = "network"


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
    """Who asked: the three-level name is (this member's fedid, project, user)."""

    project: str
    name: str


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


@dataclass(frozen=True)
class OrderEvent:
    """One line of an order's history."""

    order_id: str
    sequence: int  # over all orders, gapless to its reader: the cursor of the event stream
    at: datetime
    state: OrderState
    code: str
    reason: str
