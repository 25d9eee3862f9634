"""What the API needs of the rest of the member, and nothing more.

The order service and the directory are named here by the few calls that are made, so that the API can be run and
tested with anything that answers them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from federation_member.access.log import AuditLog
from federation_member.accounts.service import Accounts
from federation_member.accounts.signing_in import SignIn
from federation_member.credentials.service import Credentials
from federation_member.experiments.service import Experiments
from federation_member.orders.candidates import KnownMember
from federation_member.orders.model import Explanation, NewOrder, Order, OrderEvent, OrderKind, OrderState, User
from federation_member.orders.operations import OrderChange, QuotaAt
from federation_member.usage.service import Usage


class Orders(Protocol):
    """A user's orders. Somebody else's order is as unknown as one that never was."""

    async def create(self, user: User, new: NewOrder, idempotency_key: str | None) -> list[Order]:
        """Make `new.count` orders, or return those that the same key made before."""

    async def get(self, user: User, order_id: str) -> Order:
        """One order."""

    async def page(
        self,
        user: User,
        *,
        state: OrderState | None,
        kind: OrderKind | None,
        batch: str | None,
        after: str | None,
        limit: int,
    ) -> tuple[list[Order], str | None]:
        """A page of orders, newest first, and the cursor of the next."""

    async def delete(self, user: User, order_id: str) -> Order:
        """Start to give back what the order holds."""

    async def why(self, user: User, order_id: str) -> Explanation:
        """Why it is where it is."""

    async def modify(self, user: User, order_id: str, wanted: OrderChange) -> Order:
        """Have what it holds be otherwise from now on."""

    async def console(self, user: User, order_id: str) -> str:
        """What its machine wrote last."""

    async def quota(self, user: User, member: str | None) -> list[QuotaAt]:
        """What the user may have at each member, or at one."""

    async def open_tunnel(self, user: User, order_id: str, name: str) -> Order:
        """Reserve a port under a name."""

    async def close_tunnel(self, user: User, order_id: str, name: str) -> Order:
        """Give the port back."""

    async def events(self, user: User, after: int, limit: int) -> list[OrderEvent]:
        """At most `limit` of this user's events after the sequence number `after`."""

    async def last_event(self) -> int:
        """The newest sequence number."""

    def on_event(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when there are new events, until the returned function is called."""


class Federation(Protocol):
    """Who is there."""

    def members(self) -> Sequence[KnownMember]:
        """Everybody known, ourselves first."""

    def freshness(self) -> str:
        """`fresh`, or since when and why the list is old."""


@dataclass(frozen=True)
class Services:
    """All of it, as every handler sees it."""

    orders: Orders
    experiments: Experiments
    federation: Federation
    accounts: Accounts
    sign_in: SignIn
    credentials: Credentials
    audit: AuditLog
    usage: Usage
    fedid: str
    name: str
    missing: Callable[[], list[str]]
    heartbeat: float = 15.0  # seconds between signs of life in a silent event stream
