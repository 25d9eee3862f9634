"""What people see of accounts: over REST, on the command line, on the dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from federation_member.orders.model import OrderState, User
from tests.component.web.conftest import PASSWORD
from tests.component.web.dashboard import dashboard, sign_in
from tests.support.browser import Browser, installed, open_browser
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import Federation, Member, machine

HOURS = 30
ULF = User("proj1", "ulf")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[Member, Member, str]]:
    """A site whose users have had a machine at home and one elsewhere for some hours; `olga` is operator of both."""
    async with Federation(tmp_path) as world:
        a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")
        async with dashboard(a) as url:
            for name, requirements in (("ulf", "vcpu >= 4"), ("olga", "")):
                user = User("proj1", name)
                order = (await a.orders.create(user, machine(requirements=requirements, lease_seconds=604800), None))[0]
                await world.settle(partial(_runs, a, user, order.id))
            world.advance(HOURS * 3600)
            yield a, b, url


async def _runs(member: Member, user: User, order_id: str) -> bool:
    return (await member.orders.get(user, order_id)).state is OrderState.FULFILLED


async def ask(url: str, user: str, query: str) -> tuple[int, Any]:
    """Ask as a user, with the API alone."""
    async with aiohttp.ClientSession() as http:
        body = {"user": user, "password": PASSWORD, "label": "", "days": 1}
        async with http.post(f"{url}/api/v1/tokens", json=body) as answer:
            token = (await answer.json())["token"]
        headers = {"Authorization": f"Bearer {token}"}
        async with http.get(f"{url}/api/v1/usage?{query}", headers=headers) as answer:
            return answer.status, await answer.json()


async def test_users_see_their_own_and_operators_everything(site: tuple[Member, Member, str]) -> None:
    _a, b, url = site
    to = (b.federation.clock()).isoformat().replace("+", "%2B")
    status, own = await ask(url, "ulf", f"to={to}&by=user,member")
    assert status == 200
    (line,) = own["items"]
    assert (line["user"], line["member"], line["member_fedid"]) == ("ulf", "b.test", b.key.fedid)
    assert line["vcpu_hours"] == pytest.approx(4 * HOURS, abs=0.2)
    assert line["ram_gb_hours"] == pytest.approx(4 * HOURS, abs=0.2)
    assert line["disk_gb_hours"] == pytest.approx(20 * HOURS, abs=1)
    _status, everybody = await ask(url, "olga", f"to={to}&by=user")
    assert [line["user"] for line in everybody["items"]] == ["olga", "ulf"]
    _status, lent = await ask(url, "olga", f"to={to}&by=user&role=lent")
    assert [(line["member"], line["user"]) for line in lent["items"]] == [("a.test", "olga")]
    status, refused = await ask(url, "ulf", "role=lent")
    assert (status, refused["code"]) == (403, "web.operators_only")


async def test_days_add_up_to_the_whole(site: tuple[Member, Member, str]) -> None:
    _a, b, url = site
    to = b.federation.clock().isoformat().replace("+", "%2B")
    _status, daily = await ask(url, "olga", f"to={to}&by=&daily=true")
    items = daily["items"]
    assert len({line["day"] for line in items}) == len(items) >= 2
    whole = daily["total"]["hours"]
    assert sum(line["hours"] for line in items) == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize(
    "query",
    [
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "from=yesterday",
        "from=2026-01-01T00:00:00",
        "by=flavour",
        "by=user,",
        "role=stolen",
        "daily=true&from=2020-01-01T00:00:00Z",
        "from=9999-01-01T00:00:00Z",
    ],
)
async def test_what_cannot_be_meant_is_refused(site: tuple[Member, Member, str], query: str) -> None:
    status, told = await ask(site[2], "olga", query)
    assert (status, told["code"]) == (400, "web.invalid")


async def test_the_command_line_shows_the_same(
    site: tuple[Member, Member, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from deploy.cli import main

    a, _b, url = site
    _token, secret = await a.accounts.issue("olga", "test", 1)
    monkeypatch.setenv("FED_URL", url)
    monkeypatch.setenv("FED_TOKEN", secret)
    to = a.federation.clock().isoformat()
    assert await asyncio.to_thread(main, ["usage", "--to", to, "--by", "user,kind"]) == 0
    heading, olga, ulf, total = capsys.readouterr().out.splitlines()
    assert heading.split() == ["USER", "KIND", "VCPU·H", "RAM", "GIB·H", "DISK", "GIB·H", "H"]
    assert [olga.split()[:2], ulf.split()[:2], total.split()[:2]] == [
        ["olga", "compute"],
        ["ulf", "compute"],
        ["total", "-"],
    ]
    assert await asyncio.to_thread(main, ["usage", "--lent", "-o", "json"]) == 0
    assert '"role": "lent"' in capsys.readouterr().out
    assert await asyncio.to_thread(main, ["usage", "--from", "yesterday"]) == 2
    assert "cli.unusable_time" in capsys.readouterr().err
    assert await asyncio.to_thread(main, ["audit", "list", "--kind", "usage"]) == 0
    assert "proj1/olga at fm.a.test: compute (1 vCPU, 512 MiB, 1 GiB) began" in capsys.readouterr().out
    assert await asyncio.to_thread(main, ["audit", "verify"]) == 0


@pytest.mark.skipif(not installed(), reason="no Chromium")
async def test_the_dashboard_shows_a_table_and_bars(site: tuple[Member, Member, str]) -> None:
    _a, _b, url = site
    async with open_browser() as browser:
        await sign_in(browser, url)
        await browser.click("#views a[href='#usage']")
        await browser.find("[data-usage='b.test proj1 ulf']")
        assert len(await _texts(browser, "#usage-rows tr")) == 3
        assert len(await _texts(browser, ".bar-of-day")) == 30
        await browser.run(
            "const s = document.getElementById('usage-role'); s.value = 'lent'; s.dispatchEvent(new Event('change'))"
        )
        await browser.find("[data-usage='a.test proj1 olga']")
        assert await browser.console() == []
        await browser.click("#sign-out")
        await browser.find("#sign-in")
        await sign_in(browser, f"{url}/#usage", "ulf")
        await browser.find("[data-usage='b.test proj1 ulf']")
        assert await browser.run("return document.getElementById('usage-role').parentElement.hidden")


async def _texts(browser: Browser, css: str) -> list[str]:
    return list(await browser.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css))
