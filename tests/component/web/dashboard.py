"""Real members with their dashboards: what a person at a site sees of what was really decided."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from federation_member.access.log import AuditLog
from federation_member.accounts.providers import IdentityProvider
from federation_member.accounts.signing_in import SignIn
from federation_member.orders.candidates import KnownMember
from federation_member.usage.service import Usage
from federation_member.web.app import make_app
from federation_member.web.services import Services
from fedkit.service import HttpServer
from tests.component.web.conftest import PASSWORD
from tests.support.browser import Browser
from tests.support.federation import FakeDirectory, Member


@dataclass
class Known:
    """A member's directory, as the API asks for it."""

    directory: FakeDirectory

    def members(self) -> Sequence[KnownMember]:
        """Everybody."""
        return self.directory.members()

    def freshness(self) -> str:
        """As good as it gets."""
        return "fresh"


@asynccontextmanager
async def dashboard(member: Member, providers: Mapping[str, IdentityProvider] | None = None) -> AsyncIterator[str]:
    """Serve a member's dashboard; yields its address. `olga` is its operator, `ulf` a user."""
    services = Services(
        orders=member.orders,
        experiments=member.experiments,
        federation=Known(member.directory),
        accounts=member.accounts,
        sign_in=SignIn(member.accounts, providers or {}),
        credentials=member.credentials,
        audit=AuditLog(member.db, member.key.public),
        usage=Usage(member.db, member.federation.clock),
        fedid=member.key.fedid,
        name=member.name,
        missing=list,
    )
    for name in ("olga", "ulf"):
        await member.accounts.add(name, "proj1", PASSWORD, operator=name == "olga")
    async with HttpServer(make_app(services, CollectorRegistry()), "127.0.0.1:0") as server:
        yield f"http://127.0.0.1:{server.port}"


async def sign_in(browser: Browser, url: str, user: str = "olga") -> None:
    """Sign in as a person does, and wait until the page is ready."""
    await browser.open(url)
    await browser.type("[name=user]", user)
    await browser.type("[name=password]", PASSWORD)
    await browser.click("#sign-in-form button")
    await browser.find("#who")


async def count(browser: Browser, css: str) -> int:
    """How many elements a selector finds."""
    return int(await browser.run("return document.querySelectorAll(arguments[0]).length", css))
