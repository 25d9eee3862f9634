"""How much of what takes a processor for a while one user may ask for at the same time: descriptions to be read, pictures to be drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from federation_member.orders.model import User
from federation_member.web.errors import TooManyPreviews
from federation_member.web.routing import Call
from federation_member.web.services import Services

PREVIEWS, DESCRIPTIONS, PICTURES = ("previews", 2), ("descriptions", 2), ("pictures", 4)  # of one user
Kind = tuple[str, int]

AT_ONCE = web.AppKey("at_once", Counter[tuple[User, Kind]])


@contextmanager
def one_of_few(call: Call[Services], kind: Kind) -> Iterator[None]:
    """Count while the context is open; raises `TooManyPreviews` where the user has as many as allowed."""
    running, this, (name, most) = call.request.app[AT_ONCE], (call.user, kind), kind
    if running[this] >= most:
        raise TooManyPreviews(f"{most} {name} of yours are being made; wait for one of them.", retry_after=1)
    running[this] += 1
    try:
        yield
    finally:
        running[this] -= 1
        if not running[this]:
            del running[this]
