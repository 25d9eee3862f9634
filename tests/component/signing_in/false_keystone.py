"""A Keystone that says what a test wants it to say, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

DOMAIN = {"id": "default", "name": "Default"}


@dataclass
class FalseKeystone:
    """By default it knows `alice` with the password `secret`, in the projects that it is given."""

    url: str = ""
    subject: str = "u-1"
    user: str = "alice"
    domain: dict[str, Any] = field(default_factory=lambda: dict(DOMAIN))
    projects: dict[str, list[str]] = field(default_factory=lambda: {"physics": ["member"]})  # with roles there
    until: datetime = field(default_factory=lambda: datetime.now(UTC) + timedelta(hours=1))
    asked: list[tuple[str, str]] = field(default_factory=list)
    instead: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = (
        None  # of every answer to POST /auth/tokens
    )

    async def tokens(self, request: web.Request) -> web.StreamResponse:
        """POST /v3/auth/tokens."""
        self.asked.append(("POST", request.path))
        if self.instead is not None:
            return await self.instead(request)
        auth = (await request.json())["auth"]
        if "password" in auth["identity"]:
            given = auth["identity"]["password"]["user"]
            if (given["name"], given["password"], given["domain"]["name"]) != (self.user, "secret", "Default"):
                return web.json_response({"error": {"code": 401}}, status=401)
        token: dict[str, Any] = {
            "user": {"id": self.subject, "name": self.user, "domain": self.domain},
            "expires_at": self.until.isoformat(),
        }
        if auth["scope"] != "unscoped":
            roles = self.projects[auth["scope"]["project"]["id"].removeprefix("p-")]
            token["roles"] = [{"id": f"r-{role}", "name": role} for role in roles]
        return web.json_response({"token": token}, status=201, headers={"X-Subject-Token": "gAAAA-token"})

    async def listing(self, request: web.Request) -> web.StreamResponse:
        """GET /v3/auth/projects."""
        self.asked.append(("GET", request.path))
        assert request.headers["X-Auth-Token"] == "gAAAA-token"
        found = [{"id": f"p-{name}", "name": name, "domain_id": "default", "enabled": True} for name in self.projects]
        return web.Response(text=json.dumps({"projects": found}), content_type="application/json")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FalseKeystone]:
        """Serve it on a port of the kernel's choice."""
        app = web.Application()
        app.router.add_post("/v3/auth/tokens", self.tokens)
        app.router.add_get("/v3/auth/projects", self.listing)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v3"
        try:
            yield self
        finally:
            await runner.cleanup()
