"""Live events over plain HTTP (server-sent events, HTML Living Standard §9.2).

    client ── GET /events, Last-Event-ID: 41 ──► the rows after 41, then each new one as it is committed

The table is the queue: a stream holds nothing but the number of the last event it sent, so a slow reader costs no
memory, a cut connection goes on where it was, and a lost wake-up delays an event until the next heartbeat at most.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import structlog
from aiohttp import web

from federation_member.errors import UnknownOrder
from federation_member.orders.model import OrderEvent, User
from federation_member.web.errors import TooManyStreams
from federation_member.web.services import Services
from federation_member.web.views import event_view, order_view

PER_USER = 16
BATCH = 100
RECONNECT_MS = 1000
WRITE_SECONDS = 30  # a reader that takes nothing for so long is gone

STREAMS = web.AppKey("streams", Counter[User])

log = structlog.get_logger()


class _ReaderGone(Exception):
    """The client closed the connection, or takes nothing any more."""


async def stream_events(
    request: web.Request, services: Services, user: User, last_event_id: int | None
) -> web.StreamResponse:
    """Write events until the client goes away; raises `TooManyStreams`."""
    streams = request.app[STREAMS]
    if streams[user] >= PER_USER:
        raise TooManyStreams(f"You follow {PER_USER} streams already; close one first.", retry_after=1)
    streams[user] += 1
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    try:
        await _stream(request, response, services, user, last_event_id)
    except _ReaderGone:
        log.debug("stream_ended", user=user.name)
    finally:
        streams[user] -= 1
        if not streams[user]:
            del streams[user]
    return response


async def _stream(
    request: web.Request, response: web.StreamResponse, services: Services, user: User, last_event_id: int | None
) -> None:
    wake = asyncio.Event()
    stop_listening = services.orders.on_event(wake.set)
    try:
        cursor = last_event_id if last_event_id is not None else await services.orders.last_event()
        await response.prepare(request)
        await _write(response, f"retry: {RECONNECT_MS}\nid: {cursor}\n\n")
        while True:
            wake.clear()
            cursor = await _send_news(response, services, user, cursor)
            await _wait_or_beat(response, wake, services.heartbeat)
    finally:
        stop_listening()


async def _send_news(response: web.StreamResponse, services: Services, user: User, cursor: int) -> int:
    while events := await services.orders.events(user, cursor, BATCH):
        for event in events:
            await _write(response, await _render(services, user, event))
        cursor = events[-1].sequence
    return cursor


async def _render(services: Services, user: User, event: OrderEvent) -> str:
    data = event_view(event).model_dump(mode="json")
    try:
        order = await services.orders.get(user, event.order_id)
        data["now"] = order_view(order).model_dump(mode="json")
    except UnknownOrder:
        data["now"] = None  # forgotten since
    return f"id: {event.sequence}\nevent: order\ndata: {json.dumps(data)}\n\n"


async def _wait_or_beat(response: web.StreamResponse, wake: asyncio.Event, heartbeat: float) -> None:
    try:
        async with asyncio.timeout(heartbeat):
            await wake.wait()
    except TimeoutError:
        await _write(response, ": still here\n\n")


async def _write(response: web.StreamResponse, text: str) -> None:
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await response.write(text.encode())
    except (ConnectionResetError, TimeoutError) as error:
        raise _ReaderGone from error
