"""Orders in memory: what the API asks of the order service, where a test decides what happens to each order."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from federation_member.directory.errors import UnknownMember
from federation_member.errors import IdempotencyConflict, NotRunning, UnknownOrder
from federation_member.orders.model import (
    Explanation,
    NewOrder,
    Order,
    OrderEvent,
    OrderKind,
    OrderState,
    User,
    new_order,
)
from federation_member.orders.operations import OrderChange, QuotaAt
from federation_member.orders.wishes import Wishes, check
from fedkit.protocol.lending import Ability, Amounts, Flavour, Instance, LeaseChange, Power, QuotaView, Tunnel

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class OrderBook:
    """Keeps orders, and does with them what it is told."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.history: list[OrderEvent] = []
        self.listeners: list[Callable[[], None]] = []
        self.slow = False  # a change is only begun
        self._keys: dict[tuple[User, str], tuple[str, list[str]]] = {}

    async def create(self, user: User, new: NewOrder, idempotency_key: str | None) -> list[Order]:
        """Make orders that stay open until the test says otherwise."""
        digest = hashlib.sha256(new.model_dump_json().encode()).hexdigest()
        if idempotency_key and (user, idempotency_key) in self._keys:
            before, ids = self._keys[user, idempotency_key]
            if before != digest:
                raise IdempotencyConflict("This key came with another request.")
            return [self.orders[order_id] for order_id in ids]
        batch = str(uuid.uuid4())
        made = [self._make(user, new, batch) for _ in range(new.count)]
        if idempotency_key:
            self._keys[user, idempotency_key] = digest, [order.id for order in made]
        return made

    def _make(self, user: User, new: NewOrder, batch: str) -> Order:
        order = new_order(
            str(uuid.uuid4()),
            user,
            new.spec,
            START,
            batch=batch,
            order_type=new.type,
            location=new.location,
            valid_from=new.valid_from,
            valid_until=new.valid_until,
            lease_seconds=new.lease_seconds,
        )
        self.orders[order.id] = order
        return self.change(order.id, state=OrderState.OPEN, reason="Looking for a lender.")

    def change(self, order_id: str, **values: Any) -> Order:
        """Change an order, write the event and tell everybody."""
        order = self.orders[order_id]
        order = replace(order, revision=order.revision + 1, **values)
        self.orders[order_id] = order
        self.history.append(
            OrderEvent(order_id, len(self.history) + 1, order.changed, order.state, order.code, order.reason)
        )
        for listener in list(self.listeners):
            listener()
        return order

    def fulfil(self, order_id: str) -> Order:
        """Let a lender's machine run."""
        flavour = Flavour(name="small", vcpu=2, ram_mb=1024, disk_gb=4)
        is_machine = self.orders[order_id].spec.kind == "compute"
        power = Power.RUNNING if is_machine else None
        instance = Instance(name="machine", flavour=flavour, address="10.2.0.7", user="fed", power=power)
        tunnel = Tunnel(name="ssh", host="tunnel.site-b.test", port=20001, up=True)
        return self.change(
            order_id,
            state=OrderState.FULFILLED,
            reason="The machine runs at site-b.test.",
            member="site-b.test",
            instance=instance,
            tunnels=(tunnel,),
        )

    async def get(self, user: User, order_id: str) -> Order:
        """One of this user's orders."""
        order = self.orders.get(order_id)
        if order is None or order.owner != user:
            raise UnknownOrder(f"You have no order {order_id}.")
        return order

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
        """A page; the cursor is a position."""
        found = [
            order
            for order in reversed(self.orders.values())
            if order.owner == user
            and state in (None, order.state)
            and kind in (None, order.spec.kind)
            and batch in (None, order.batch)
        ]
        start = int(after.partition(".")[0]) if after else 0
        following = f"{start + limit}.{uuid.UUID(int=0)}" if len(found) > start + limit else None
        return found[start : start + limit], following

    async def delete(self, user: User, order_id: str) -> Order:
        """Begin to delete; the test says when it is done."""
        order = await self.get(user, order_id)
        if order.state in (OrderState.DELETING, OrderState.DELETED):
            return order
        return self.change(order_id, state=OrderState.DELETING, reason="You deleted it.")

    async def why(self, user: User, order_id: str) -> Explanation:
        """Its history."""
        order = await self.get(user, order_id)
        events = tuple(event for event in self.history if event.order_id == order_id)
        return Explanation(order, (), events, None)

    async def modify(self, user: User, order_id: str, wanted: OrderChange) -> Order:
        """Make it so at once, or remember what is wanted while `slow`."""
        order = await self.get(user, order_id)
        if order.state is not OrderState.FULFILLED or order.instance is None:
            raise NotRunning("It does not run.")
        check(
            order.spec.kind, LeaseChange(lease_id=order_id, power=wanted.power, rules=wanted.rules), frozenset(Ability)
        )
        rules = None if wanted.rules is None else tuple(wanted.rules)
        if self.slow:
            return self.change(order_id, wishes=Wishes(wanted.power, rules))
        instance = order.instance.model_copy(update={"power": wanted.power or order.instance.power})
        rules = order.rules if rules is None else rules
        return self.change(order_id, instance=instance, rules=rules, wishes=Wishes())

    async def console(self, user: User, order_id: str) -> str:
        """What the machine wrote."""
        await self.get(user, order_id)
        return "login: "

    async def quota(self, user: User, member: str | None) -> list[QuotaAt]:
        """One member that tells and one that is away."""
        if member not in (None, "site-b.test"):
            raise UnknownMember("No such member.")
        view = QuotaView(
            account="federation", total=Amounts(machines=10), used=Amounts(machines=4), mine=Amounts(machines=1)
        )
        told = [QuotaAt("site-b.test", "b" * 40, view)]
        away = [QuotaAt("site-c.test", "c" * 40, None, "mesh.no_answer", "It did not answer.")]
        return told if member else told + away

    async def open_tunnel(self, user: User, order_id: str, name: str) -> Order:
        """Give the next port."""
        order = await self.get(user, order_id)
        if order.state is not OrderState.FULFILLED:
            raise NotRunning("It does not run.")
        if any(tunnel.name == name for tunnel in order.tunnels):
            return order
        tunnel = Tunnel(name=name, host="tunnel.site-b.test", port=20001 + len(order.tunnels), up=False)
        return self.change(order_id, tunnels=(*order.tunnels, tunnel))

    async def close_tunnel(self, user: User, order_id: str, name: str) -> Order:
        """Take the port back."""
        order = await self.get(user, order_id)
        return self.change(order_id, tunnels=tuple(tunnel for tunnel in order.tunnels if tunnel.name != name))

    async def events(self, user: User, after: int, limit: int) -> list[OrderEvent]:
        """This user's events after a sequence number."""
        return [event for event in self.history[after:] if self.orders[event.order_id].owner == user][:limit]

    async def last_event(self) -> int:
        """The newest sequence number."""
        return len(self.history)

    def on_event(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when something happened."""
        self.listeners.append(callback)
        return lambda: self.listeners.remove(callback)
