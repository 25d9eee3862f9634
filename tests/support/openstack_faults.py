"""A proxy in front of a cloud that does to chosen calls what bad networks and bad clouds do.

    async with FaultyCloud("http://127.0.50.1") as cloud:
        config.auth_url = cloud.auth_url
        with cloud.fault("POST", r"/servers$", lose_answer()):  # carried out, but nobody hears of it
            …

All services are reached through it: what the cloud says of its own addresses is rewritten to http://PROXY/PORT/….
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

from aiohttp import ClientSession, web

Forward = Callable[[], Awaitable[web.Response]]
Fault = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]
HOP_BY_HOP = frozenset({"host", "connection", "transfer-encoding", "content-length", "content-encoding", "keep-alive"})


def fail(status: int, text: str = "<html><h1>Oh no</h1></html>") -> Fault:
    """Answer with `status`, and do nothing."""

    async def act(_: web.Request, __: Forward) -> web.StreamResponse:
        return web.Response(status=status, text=text, content_type="text/html")

    return act


def hang(seconds: float = 3600.0) -> Fault:
    """Say nothing for so long, then answer truly, if somebody still listens."""

    async def act(request: web.Request, forward: Forward) -> web.StreamResponse:
        with suppress(TimeoutError):
            await asyncio.wait_for(_left(request), seconds)
            return web.Response()
        return await forward()

    return act


def lose_answer() -> Fault:
    """Do it, and drop the connection instead of answering."""

    async def act(request: web.Request, forward: Forward) -> web.StreamResponse:
        await forward()
        return _drop(request)

    return act


def do_late(seconds: float) -> Fault:
    """Drop the connection at once, and do it after a while."""

    async def act(request: web.Request, forward: Forward) -> web.StreamResponse:
        _drop(request)
        await asyncio.sleep(seconds)
        await forward()
        return web.Response()

    return act


def cut_answer(part: float = 0.5) -> Fault:
    """Do it, and send only a part of the answer."""

    async def act(request: web.Request, forward: Forward) -> web.StreamResponse:
        whole = await forward()
        assert isinstance(whole.body, bytes)
        answer = web.StreamResponse(status=whole.status, headers={"Content-Length": str(len(whole.body))})
        answer.content_type = "application/json"
        await answer.prepare(request)
        await answer.write(whole.body[: int(len(whole.body) * part)])
        return _drop(request)

    return act


def say(body: str, status: int = 200) -> Fault:
    """Do nothing, and answer with this body."""

    async def act(_: web.Request, __: Forward) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type="application/json")

    return act


def rewrite(change: Callable[[str], str]) -> Fault:
    """Do it, and change the answer."""

    async def act(_: web.Request, forward: Forward) -> web.StreamResponse:
        answer = await forward()
        answer.text = change(answer.text or "")
        return answer

    return act


async def _left(request: web.Request) -> None:
    """Return when who asked has gone; aiohttp tells of that in no other way than by taking the transport away."""
    while request.transport is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def _drop(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@dataclass
class _Chosen:
    method: str
    path: re.Pattern[str]
    fault: Fault
    times: int


@dataclass
class FaultyCloud:
    """The proxy; `base` is the real cloud's scheme and host. `calls` has METHOD and path of all that was asked."""

    base: str
    calls: list[str] = field(default_factory=list)
    most_at_once: int = 0
    _chosen: list[_Chosen] = field(default_factory=list)
    _under_way: list[web.Request] = field(default_factory=list)
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def auth_url(self) -> str:
        """Keystone, through the proxy."""
        return f"{self._own}/5000/v3"

    @contextmanager
    def fault(self, method: str, path: str, fault: Fault, times: int = 1 << 30) -> Iterator[None]:
        """Let `fault` happen to the next `times` calls of the method whose path, from the port on, matches."""
        chosen = _Chosen(method, re.compile(path), fault, times)
        self._chosen.append(chosen)
        try:
            yield
        finally:
            self._chosen.remove(chosen)

    async def __aenter__(self) -> Self:
        """Listen on a port that the kernel chooses."""
        self._client = ClientSession(skip_auto_headers=("Content-Type", "Accept-Encoding"))
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{tail:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self._own = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop; what hangs is cut."""
        await self._runner.cleanup()
        await self._client.close()

    async def quiet(self) -> None:
        """Wait until nothing is under way."""
        await self._quiet.wait()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.calls.append(f"{request.method} {request.path_qs}")
        self._under_way.append(request)
        self._quiet.clear()
        waiting = [one for one in self._under_way if one.transport is not None]  # who has gone asks no more
        self.most_at_once = max(self.most_at_once, len(waiting))
        try:
            for chosen in self._chosen:
                if chosen.times > 0 and chosen.method == request.method and chosen.path.search(request.path):
                    chosen.times -= 1
                    return await chosen.fault(request, lambda: self._forward(request, body))
            return await self._forward(request, body)
        finally:
            self._under_way.remove(request)
            if not self._under_way:
                self._quiet.set()

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        port, _, path = request.raw_path.removeprefix("/").partition("/")
        if not port.isdigit():  # somebody looks for a service at the root
            return web.Response(status=404)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        url = f"{self.base}:{port}/{path}"
        async with self._client.request(
            request.method, url, data=body, headers=headers, allow_redirects=False
        ) as answer:
            content = (await answer.read()).replace(f"{self.base}:".encode(), f"{self._own}/".encode())
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            if "Location" in kept:
                kept["Location"] = kept["Location"].replace(f"{self.base}:", f"{self._own}/")
            return web.Response(status=answer.status, body=content, headers=kept)
