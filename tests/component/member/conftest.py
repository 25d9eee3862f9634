"""Whole members as their processes open them: real books, mesh, directory and API; only wire and cloud are in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from federation_member.config import MemberConfig
from federation_member.service import Member, open_member
from fedkit.identity.keys import PrivateKey
from tests.support.fake_middleware import Cloud, FakeMiddleware
from tests.support.memory_network import MemoryNetwork

PASSWORD = "correct horse battery"


def make_config(folder: Path, port: int = 0) -> MemberConfig:
    """The configuration of site-a.test, with its key."""
    name = "site-a.test"
    key = folder / f"{name}.pem"
    if not key.exists():
        PrivateKey.generate().save(key)
    return MemberConfig.model_validate(
        {
            "name": name,
            "identity": {"key": key},
            "xmpp": {"address": f"fm.{name}", "host": "127.0.0.1", "secret_file": folder / "secret"},
            "store": {"url": f"sqlite:///{folder}/{name}.db"},
            "api": {"listen": f"127.0.0.1:{port}"},
        }
    )


@asynccontextmanager
async def open_site(folder: Path, cloud: Cloud | None = None, port: int = 0) -> AsyncIterator[tuple[Member, str, str]]:
    """Open a member alone in the world, with the user alice of physics; gives it, its URL and a token."""
    link = MemoryNetwork().link("fm.site-a.test")
    async with open_member(make_config(folder, port), link, FakeMiddleware(cloud or Cloud())) as member:
        if "alice" not in {account.name for account in await member.accounts.everybody()}:
            await member.accounts.add("alice", "physics", PASSWORD)
        _token, secret = await member.accounts.issue("alice", "test", 1)
        yield member, f"http://127.0.0.1:{member.http.port}", secret


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[Member, str, str]]:
    async with open_site(tmp_path) as opened:
        yield opened
