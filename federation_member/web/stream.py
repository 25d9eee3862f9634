"""Live events over plain HTTP (server-sent events, HTML Living Standard §9.2).

    client ── GET /events, Last-Event-ID: 41 ──► the rows after 41, then each new one as it is committed

The table is the queue: a stream holds nothing but the number of the last event it sent, so a slow reader costs no
memory, a cut connection goes on where it was, and a lost wake-up delays an event until the next heartbeat at most.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress

import structlog
from aiohttp import web

from federation_member.accounts.errors import Unauthenticated
from federation_member.errors import UnknownOrder
from federation_member.orders.model import OrderEvent, User
from federation_member.web.errors import TooManyStreams
from federation_member.web.experiment_views import experiment_view
from federation_member.web.problem import problem_text
from federation_member.web.services import Services
from federation_member.web.views import event_view, order_view

PER_USER = 16
BATCH = 100
RECONNECT_MS = 1000
WRITE_SECONDS = 30  # a reader that takes nothing for so long is gone

STREAMS = web.AppKey("streams", Counter[User])
AUTHENTICATE: web.AppKey[Callable[[web.Request], Awaitable[User]]] = web.AppKey("authenticate")

log = structlog.get_logger()


class _ReaderGone(Exception):
    """The client closed the connection, or takes nothing any more."""


class Channel:
    """The way to one reader, and what wakes whoever writes to it."""

    def __init__(self, request: web.Request, heartbeat: float) -> None:
        self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        self._request = request
        self._heartbeat = heartbeat
        self._news = asyncio.Event()

    async def open(self, cursor: int) -> None:
        """Begin, and tell the number from which a reader goes on that is cut off at once."""
        await self.response.prepare(self._request)
        await self._write(f"retry: {RECONNECT_MS}\nid: {cursor}\n\n")

    async def send(self, name: str, data: str, number: int | None = None) -> None:
        """Write an event; `data` is JSON on one line. Without a number it is nothing that one goes on after."""
        cursor = "" if number is None else f"id: {number}\n"
        await self._write(f"{cursor}event: {name}\ndata: {data}\n\n")

    def wake(self) -> None:
        """There is something to tell."""
        self._news.set()

    async def wait(self) -> None:
        """Return when there is something to tell, or may be: every heartbeat, which the reader sees.

        Raises `Unauthenticated` if the token that the reader came with is worth nothing any more.
        """
        try:
            async with asyncio.timeout(self._heartbeat):
                await self._news.wait()
        except TimeoutError:
            await self._write(": still here\n\n")
        self._news.clear()
        await self._request.app[AUTHENTICATE](self._request)

    async def _write(self, text: str) -> None:
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self.response.write(text.encode())
        except (ConnectionResetError, TimeoutError) as error:
            raise _ReaderGone from error


async def serve_stream(
    request: web.Request, services: Services, user: User, follow: Callable[[Channel], Awaitable[None]]
) -> web.StreamResponse:
    """Let `follow` write to the caller until it returns, the caller goes away or their token ends; raises `TooManyStreams`."""
    streams = request.app[STREAMS]
    if streams[user] >= PER_USER:
        raise TooManyStreams(f"You follow {PER_USER} streams already; close one first.", retry_after=1)
    streams[user] += 1
    channel = Channel(request, services.heartbeat)
    try:
        await follow(channel)
    except Unauthenticated as error:
        with suppress(_ReaderGone):
            await channel.send("end", problem_text(error))
    except _ReaderGone:
        log.debug("stream_ended", user=user.name)
    finally:
        streams[user] -= 1
        if not streams[user]:
            del streams[user]
    return channel.response


async def stream_events(
    request: web.Request, services: Services, user: User, last_event_id: int | None
) -> web.StreamResponse:
    """Write what happens to a user's orders and experiments until the client goes away; raises `TooManyStreams`."""

    async def follow(channel: Channel) -> None:
        touched: set[str] = set()

        def look(experiment_id: str) -> None:
            touched.add(experiment_id)
            channel.wake()

        with ExitStack() as listening:
            listening.callback(services.orders.on_event(channel.wake))
            listening.callback(services.experiments.listen(look))
            cursor = last_event_id if last_event_id is not None else await services.orders.last_event()
            await channel.open(cursor)
            while True:
                cursor = await _send_orders(channel, services, user, cursor)
                await _send_experiments(channel, services, user, touched)
                await channel.wait()

    return await serve_stream(request, services, user, follow)


async def _send_orders(channel: Channel, services: Services, user: User, cursor: int) -> int:
    while events := await services.orders.events(user, cursor, BATCH):
        for event in events:
            await channel.send("order", await _render(services, user, event), event.sequence)
        cursor = events[-1].sequence
    return cursor


async def _render(services: Services, user: User, event: OrderEvent) -> str:
    data = event_view(event).model_dump(mode="json")
    try:
        order = await services.orders.get(user, event.order_id)
        data["now"] = order_view(order).model_dump(mode="json")
    except UnknownOrder:
        data["now"] = None  # forgotten since
    return json.dumps(data)


async def _send_experiments(channel: Channel, services: Services, user: User, touched: set[str]) -> None:
    """Those that were looked at, as they are now: they have no number, and who comes back reads the list first."""
    wanted = list(touched)
    touched.clear()
    for experiment in await services.experiments.own(user, wanted) if wanted else ():
        await channel.send("experiment", experiment_view(experiment).model_dump_json())
