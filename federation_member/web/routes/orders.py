"""Orders, their history, their tunnels, and the live stream of their events."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from federation_member.errors import (
    IdempotencyConflict,
    InUse,
    NotRunning,
    NoTunnel,
    NotYourProject,
    UnknownNetwork,
    UnknownOrder,
    UnknownReference,
    UnknownRequirement,
    UnusableCursor,
    UnusableRequirements,
)
from federation_member.orders.model import NewOrder, OrderKind, OrderState
from federation_member.web.errors import TooManyStreams
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from federation_member.web.stream import stream_events
from federation_member.web.views import (
    EventPage,
    OrderPage,
    OrderView,
    TunnelPage,
    TunnelView,
    WhyView,
    event_view,
    order_view,
    tunnel_view,
    why_view,
)
from fedkit.protocol.lending import Name, Uuid

CURSOR = r"^[0-9]{1,17}\.[0-9a-f-]{36}$"  # microseconds since 1970 (up to the year 5138) and id of the last order seen

routes = Routes("orders")


class OrderPath(BaseModel):
    """Which order."""

    order_id: Uuid


class TunnelPath(OrderPath):
    """Which tunnel of which order."""

    name: Name


class TunnelName(BaseModel):
    """What the machine's user wants to call the port."""

    model_config = ConfigDict(extra="forbid")

    name: Name


class IdempotencyHeader(BaseModel):
    """Makes repeating harmless: the same key gives the orders that it made the first time."""

    idempotency_key: str | None = Field(
        default=None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[!-~]+$",
        description="any text of up to 128 visible characters that the client chooses once for each request",
    )


class NetworkQuery(BaseModel):
    """Which networks, and which page."""

    model_config = ConfigDict(extra="forbid")

    state: OrderState | None = Field(default=None, description="only orders in this state")
    batch: Uuid | None = Field(default=None, description="only orders made by this request")
    cursor: str | None = Field(default=None, pattern=CURSOR, description="`next` of the page before")
    limit: int = Field(default=50, ge=1, le=200, description="how many at most")


class OrderQuery(NetworkQuery):
    """Which orders, and which page."""

    kind: OrderKind | None = Field(default=None, description="only orders of this kind")


class StreamHeader(BaseModel):
    """Where to go on."""

    last_event_id: int | None = Field(
        default=None, alias="Last-Event-ID", ge=0, le=2**62, description="the last `id` seen; without it, from now on"
    )


@routes.add(
    "POST",
    "/orders",
    status=201,
    makes=("order_id", "$response.body#/items/0/id"),
    errors=(
        IdempotencyConflict,
        NotYourProject,
        UnknownNetwork,
        UnknownReference,
        UnusableRequirements,
        UnknownRequirement,
    ),
)
async def create_orders(call: Call[Services], body: NewOrder, headers: IdempotencyHeader) -> OrderPage:
    """Order machines, networks, volumes, attachments, public addresses or snapshots.

    Where a `spec` names others (`networks`, `machine`, `volume`, an image `snapshot:ID`), it names the caller's orders. Such
    an order goes to their lender as soon as they run, and they cannot be deleted before it.
    """
    made = await call.services.orders.create(call.user, body, headers.idempotency_key)
    return OrderPage(items=[order_view(order) for order in made])


@routes.add("GET", "/orders", errors=(UnusableCursor,))
async def list_orders(call: Call[Services], query: OrderQuery) -> OrderPage:
    """List the caller's orders, newest first."""
    return await _page(call, query, query.kind)


@routes.add("GET", "/orders/{order_id}", errors=(UnknownOrder,))
async def get_order(call: Call[Services], path: OrderPath) -> OrderView:
    """Show one order."""
    return order_view(await call.services.orders.get(call.user, path.order_id))


@routes.add("DELETE", "/orders/{order_id}", status=202, errors=(UnknownOrder, InUse))
async def delete_order(call: Call[Services], path: OrderPath) -> OrderView:
    """Give back what an order holds.

    The order is `deleting` until its lender confirms that the instance is gone, then `deleted`. Repeating is harmless.
    What others use is refused; `users` in the details are the orders to delete first.
    """
    return order_view(await call.services.orders.delete(call.user, path.order_id))


@routes.add("GET", "/orders/{order_id}/why", errors=(UnknownOrder,))
async def explain_order(call: Call[Services], path: OrderPath) -> WhyView:
    """Tell why an order is where it is: who was asked and what they said."""
    return why_view(await call.services.orders.why(call.user, path.order_id))


@routes.add("GET", "/orders/{order_id}/events", errors=(UnknownOrder,))
async def list_order_events(call: Call[Services], path: OrderPath) -> EventPage:
    """Show an order's history, oldest first."""
    explanation = await call.services.orders.why(call.user, path.order_id)
    return EventPage(items=[event_view(event) for event in explanation.events])


@routes.add("GET", "/networks", errors=(UnusableCursor,))
async def list_networks(call: Call[Services], query: NetworkQuery) -> OrderPage:
    """List the caller's networks: `/orders` with the kind `network`."""
    return await _page(call, query, OrderKind.NETWORK)


async def _page(call: Call[Services], query: NetworkQuery, kind: OrderKind | None) -> OrderPage:
    found, following = await call.services.orders.page(
        call.user, state=query.state, kind=kind, batch=query.batch, after=query.cursor, limit=query.limit
    )
    return OrderPage(items=[order_view(order) for order in found], next=following)


@routes.add("GET", "/orders/{order_id}/tunnels", errors=(UnknownOrder,))
async def list_tunnels(call: Call[Services], path: OrderPath) -> TunnelPage:
    """List the tunnels of a machine."""
    order = await call.services.orders.get(call.user, path.order_id)
    return TunnelPage(items=[tunnel_view(order, tunnel) for tunnel in order.tunnels])


@routes.add("POST", "/orders/{order_id}/tunnels", status=201, errors=(UnknownOrder, NotRunning, NoTunnel))
async def open_tunnel(call: Call[Services], path: OrderPath, body: TunnelName) -> TunnelView:
    """Reserve a public port for a machine under a name; the machine then opens it with `ssh -R NAME:…`."""
    order = await call.services.orders.open_tunnel(call.user, path.order_id, body.name)
    return next(tunnel_view(order, tunnel) for tunnel in order.tunnels if tunnel.name == body.name)


@routes.add("DELETE", "/orders/{order_id}/tunnels/{name}", status=204, errors=(UnknownOrder, NotRunning, NoTunnel))
async def close_tunnel(call: Call[Services], path: TunnelPath) -> None:
    """Give a port back. Repeating is harmless."""
    await call.services.orders.close_tunnel(call.user, path.order_id, path.name)


@routes.add("GET", "/events", media_type="text/event-stream", errors=(TooManyStreams,))
async def follow_events(call: Call[Services], headers: StreamHeader) -> web.StreamResponse:
    """Follow the events of all of the caller's orders and experiments as they happen (server-sent events).

    Each `order` event has the sequence number as its `id` and, as its data, the event with the order as it is now. An `experiment`
    event, without an `id`, is one of the caller's experiments as it is now.
    """
    return await stream_events(call.request, call.services, call.user, headers.last_event_id)
