"""One experiment live: each new line of its log, and the whole as it is now whenever anything of it has changed.

    client ── GET /experiments/ID/events, Last-Event-ID: 3 ──► log 4, log 5, now, …, log 6, now

Lines have numbers, by which a reader that was cut off goes on. What `now` tells is complete, so what was missed of it does not
matter; it comes after the lines that led to it, first when the stream opens, and not more often than a reader can use.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from federation_member.orders.model import User
from federation_member.web.experiment_views import event_view, whole_view
from federation_member.web.problem import problem_text
from federation_member.web.services import Services
from federation_member.web.stream import Channel, serve_stream
from fedkit.errors import FedError

PAUSE = 0.3  # seconds; nodes that come up together are told together


async def stream_experiment(
    request: web.Request,
    services: Services,
    user: User,
    wanted: str,
    shown: list[str],
    last_event_id: int | None,
) -> web.StreamResponse:
    """Write until the client goes away, or may not see it any more; raises as `Experiments.get` does, or `TooManyStreams`."""
    experiments = services.experiments
    first = (await experiments.get(user, wanted, shown)).experiment
    cursor = first.events if last_event_id is None else last_event_id

    async def follow(channel: Channel) -> None:
        stop = experiments.listen(lambda touched: channel.wake() if touched == first.id else None)
        try:
            await channel.open(cursor)
            await _tell(channel, cursor)
        except FedError as error:
            await channel.send("end", problem_text(error))
        finally:
            stop()

    async def _tell(channel: Channel, cursor: int) -> None:
        told = ""
        while True:
            now = whole_view(await experiments.get(user, first.id, shown)).model_dump_json()
            for event in await experiments.log(user, first.id, shown, after=cursor):
                await channel.send("log", event_view(event).model_dump_json(), event.number)
                cursor = event.number
            if now != told:
                await channel.send("now", now)
                told = now
            await channel.wait()
            await asyncio.sleep(PAUSE)

    return await serve_stream(request, services, user, follow)
