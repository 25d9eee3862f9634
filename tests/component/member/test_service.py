"""The member's life: what it does without its XMPP server, and what a restart leaves."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from federation_member.plugins import load_middleware
from federation_member.service import open_member
from fedkit.config import UnusableConfig
from tests.component.member.conftest import PASSWORD, make_config, open_site
from tests.support.fake_middleware import Cloud, FakeMiddleware

ORDER = {"spec": {"kind": "compute", "image": "debian"}}


async def test_without_its_xmpp_server_a_member_serves_its_users_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    async with (
        open_member(make_config(tmp_path), middleware=FakeMiddleware(Cloud())) as member,
        aiohttp.ClientSession(f"http://127.0.0.1:{member.http.port}") as http,
    ):
        async with http.get("/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["missing"][0].startswith("no link to the XMPP server")
        async with http.get("/metrics") as answer:
            assert "fedmesh_mesh_connected 0.0" in await answer.text()
        await member.accounts.add("alice", "physics", PASSWORD)
        _token, secret = await member.accounts.issue("alice", "", 1)
        headers = {"Authorization": f"Bearer {secret}"}
        async with http.post("/api/v1/orders", json=ORDER, headers=headers) as answer:
            assert answer.status == 201


async def test_orders_accounts_and_tokens_survive_a_restart(tmp_path: Path) -> None:
    cloud = Cloud()
    async with open_site(tmp_path, cloud) as (_member, url, token), aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {token}"}
        async with http.post(f"{url}/api/v1/orders", json=ORDER, headers=headers) as answer:
            (order,) = (await answer.json())["items"]
    async with (
        open_site(tmp_path, cloud) as (_member, url, _token),
        aiohttp.ClientSession() as http,
        http.get(f"{url}/api/v1/orders/{order['id']}", headers=headers) as answer,
    ):
        assert (answer.status, (await answer.json())["id"]) == (200, order["id"])


def test_an_unknown_kind_of_middleware_names_the_known_ones() -> None:
    with pytest.raises(UnusableConfig, match="containers"):
        load_middleware("castle", {})


def test_bad_options_are_named() -> None:
    with pytest.raises(UnusableConfig, match="subnet"):
        load_middleware("containers", {"subnet": "not a prefix"})
