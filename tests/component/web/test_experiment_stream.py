"""An experiment followed live: its log goes on where it was cut off, the whole comes after the lines that led to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.component.web.conftest import Site
from tests.component.web.dashboard import dashboard
from tests.component.web.test_experiment_parties import SECRETS, bob_of, is_in
from tests.component.web.test_experiments import PROGRAM
from tests.component.web.test_stream import Reader
from tests.support.experiments import sites
from tests.support.federation import Federation
from tests.support.order_book import OrderBook


@pytest.fixture
async def living(tmp_path: Path) -> AsyncIterator[Site]:
    """A whole member whose machines are in memory, as its user ulf finds it."""
    async with (
        Federation(tmp_path) as world,
        sites(world, "h") as (member,),
        dashboard(member) as url,
        aiohttp.ClientSession() as session,
    ):
        site = Site(url, OrderBook(), member.accounts, session)
        _token, site.token = await site.accounts.issue("ulf", "test", 1)
        yield site


async def _made(site: Site, name: str = "mine") -> dict[str, Any]:
    status, made = await site.call("POST", "/experiments", {"name": name, "description": PROGRAM})
    assert status == 201, made
    return dict(made)


@asynccontextmanager
async def _following(site: Site, path: str, **headers: str) -> AsyncIterator[Reader]:
    sent = site.headers | {name.replace("_", "-"): value for name, value in headers.items()}
    async with site.session.get(f"{site.url}/api/v1{path}", headers=sent) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield Reader(answer)


async def _next(reader: Reader, *names: str) -> tuple[dict[str, str], Any]:
    """The next event of these names: its fields and its data."""
    while (block := await reader.block()).get("event") not in names:
        pass
    return block, json.loads(block["data"])


async def test_the_whole_comes_at_first_and_whenever_something_changed(living: Site) -> None:
    made = await _made(living)
    lines: set[str] = set()
    seen: list[str] = []
    async with _following(living, "/experiments/mine/events", Last_Event_ID="0") as reader:
        while "terminated" not in seen:
            block, told = await _next(reader, "now", "log")
            if block["event"] == "log":
                lines.add(told["state"])
                continue
            assert ("id" in block, told["id"], len(told["segments"])) == (False, made["id"], 2)
            assert told["state"] in lines  # the line that tells of it came before
            if not seen:
                await living.call("DELETE", "/experiments/mine")
            seen.append(told["state"])


async def test_a_cut_stream_goes_on_after_the_last_line(living: Site) -> None:
    made = await _made(living)
    path = f"/experiments/{made['id']}/events"
    async with _following(living, path, Last_Event_ID="0") as reader:
        block, line = await _next(reader, "log")
        assert (block["id"], line["number"], line["state"]) == ("1", 1, "allocating")
    await living.call("DELETE", f"/experiments/{made['id']}")
    numbers: list[int] = []
    async with _following(living, path, Last_Event_ID="1") as reader:
        while (data := (await _next(reader, "log"))[1])["state"] != "terminated":
            numbers.append(data["number"])
    assert numbers == list(range(2, data["number"]))


async def test_one_s_own_experiments_are_told_beside_the_orders(living: Site) -> None:
    _token, theirs = await living.accounts.issue("olga", "test", 1)
    async with _following(living, "/events") as reader:
        assert "retry" in await reader.block()
        mine, living.token = living.token, theirs
        await _made(living, "not-mine")
        living.token = mine
        made = await _made(living)
        block, told = await _next(reader, "experiment")
        assert (told["id"], "id" in block) == (made["id"], False)


async def test_who_may_not_see_it_any_more_is_told_so_and_let_go(living: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await _made(living)
    olga = await living.accounts.get("olga")
    grant = {"principal": olga.principal, "expires": "2999-01-31T12:00:00Z"}
    _, granted = await living.call("POST", "/experiments/mine/grants", grant)
    mine = living.token
    _token, living.token = await living.accounts.issue("olga", "test", 1)
    path, credential = f"/experiments/{made['id']}/events", granted["credential"]
    assert (await living.call("GET", path))[0] == 404
    async with _following(living, path, Experiment_Credential=credential) as reader:
        await _next(reader, "now")
        monkeypatch.setattr("federation_member.experiments.capability.proved", lambda *_: frozenset())
        living.token = mine
        await living.call("POST", "/experiments/mine/grants", grant)  # something happens
        _block, problem = await _next(reader, "end")
        assert problem["code"] == "experiments.not_granted"
        assert await reader.answer.content.read() == b""


@pytest.mark.parametrize(("party", "other"), [("attacker", "defender"), ("defender", "attacker")])
async def test_a_party_follows_what_it_may_see(site: Site, party: str, other: str) -> None:
    wanted, headers = await bob_of(site, party)
    async with _following(site, f"/experiments/{wanted}/events", **headers, Last_Event_ID="0") as reader:
        told = ""
        while "now" not in (block := await reader.block()).values():
            told += str(block)
        told += str(block)
    assert "log" in told
    assert [secret for secret in SECRETS[other] if is_in(secret, told)] == []
    assert all(is_in(name, told) for name in (f"deter/{'attack' if party == 'attacker' else 'defend'}", "hall"))
