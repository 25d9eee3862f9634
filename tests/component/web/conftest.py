"""The API on a real port, with real accounts and a book of orders that the test owns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from federation_member.access.log import AuditLog
from federation_member.accounts.providers import IdentityProvider
from federation_member.accounts.service import Accounts
from federation_member.accounts.signing_in import SignIn
from federation_member.credentials.revoking import Revoking
from federation_member.credentials.service import Credentials
from federation_member.directory.model import KnownMember
from federation_member.usage.service import Usage
from federation_member.web.app import make_app
from federation_member.web.services import Services
from fedkit.clock import now
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.node import MeshNode
from fedkit.migrations import upgrade
from fedkit.protocol.lending import Flavour, Image, Offer
from fedkit.protocol.rendezvous import Announcement
from fedkit.service import HttpServer
from fedkit.store import Database
from tests.support.experiments import idle_experiments
from tests.support.memory_network import MemoryNetwork
from tests.support.order_book import OrderBook

PASSWORD = "correct horse battery"
MEMBER_KEY = PrivateKey.generate()
ME, OTHER = MEMBER_KEY.fedid, "b" * 40
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class TwoSites:
    """A federation of two members."""

    def members(self) -> list[KnownMember]:
        """Ourselves first."""
        return [_member("site-a.test", ME, "debian", "small"), _member("site-b.test", OTHER, "alpine", "large")]

    def freshness(self) -> str:
        """As good as it gets."""
        return "fresh"


def _member(name: str, fedid: str, image: str, flavour: str) -> KnownMember:
    offer = Offer(
        kinds=["compute", "network"],
        images=[Image(name=image, description=f"{image} of {name}")],
        flavours=[Flavour(name=flavour, vcpu=2, ram_mb=1024, disk_gb=4)],
    )
    said = Announcement(fedid=fedid, name=name, address=f"fm.{name}", serial=1, protocol=[1], issued=NOW, offer=offer)
    return KnownMember(said, alive=True, last_seen=NOW)


@dataclass
class Site:
    """A running API, and a client of it."""

    url: str
    book: OrderBook
    accounts: Accounts
    session: aiohttp.ClientSession
    token: str = ""
    missing: list[str] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        """The header that says who we are."""
        return {"Authorization": f"Bearer {self.token}"}

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Make one request; return status and JSON."""
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, f"{self.url}/api/v1{path}", json=body, headers=sent) as answer:
            return answer.status, await answer.json(content_type=None) if answer.status != 204 else None


@asynccontextmanager
async def open_site(
    folder: Path, heartbeat: float = 15.0, providers: Mapping[str, IdentityProvider] | None = None
) -> AsyncIterator[Site]:
    """Serve the API from an empty database with the user alice of physics."""
    async with Database(f"sqlite:///{folder}/member.db") as db, aiohttp.ClientSession() as session:
        await asyncio.to_thread(upgrade, db.engine, "federation_member.migrations")
        site = Site("", OrderBook(), Accounts(db), session)
        mesh = MeshNode(MEMBER_KEY, "fm.site-a.test", db, MemoryNetwork().link("fm.site-a.test"))
        revoking = Revoking(db, mesh, MEMBER_KEY, None, now, lambda _tx, _list: True)
        services = Services(
            orders=site.book,
            experiments=idle_experiments(db, mesh, MEMBER_KEY),
            federation=TwoSites(),
            accounts=site.accounts,
            sign_in=SignIn(site.accounts, providers or {}),
            credentials=Credentials(db, revoking, now, lambda: None),
            audit=AuditLog(db, MEMBER_KEY.public),
            usage=Usage(db, now),
            fedid=ME,
            name="site-a.test",
            missing=lambda: site.missing,
            heartbeat=heartbeat,
        )
        async with HttpServer(make_app(services, CollectorRegistry()), "127.0.0.1:0") as server:
            site.url = f"http://127.0.0.1:{server.port}"
            await site.accounts.add("alice", "physics", PASSWORD)
            _token, site.token = await site.accounts.issue("alice", "test", 1)
            yield site
        site.accounts.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path) as opened:
        yield opened
