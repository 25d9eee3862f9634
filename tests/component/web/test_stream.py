"""The live event stream: nothing is missed, nothing comes twice, nothing of others is seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from federation_member.orders.model import NewOrder, OrderState, User
from federation_member.web.stream import PER_USER
from fedkit.protocol.lending import ComputeSpec
from tests.component.web.conftest import Site, open_site
from tests.component.web.test_experiments import PROGRAM

ALICE, BOB = User("physics", "alice"), User("physics", "bob")
NEW = NewOrder(spec=ComputeSpec(image="debian"))


class Reader:
    """Reads server-sent events."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def block(self) -> dict[str, str]:
        """The next block: its fields, a comment under the empty name."""
        fields: dict[str, str] = {}
        while line := (await self.answer.content.readline()).decode().rstrip("\n"):
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        return fields

    async def blocks(self) -> AsyncIterator[dict[str, str]]:
        """All, until the stream ends."""
        while block := await self.block():
            yield block

    async def event(self) -> dict[str, Any]:
        """The data of the next order event."""
        while (block := await self.block()).get("event") != "order":
            pass
        return dict(json.loads(block["data"]))


@asynccontextmanager
async def stream(site: Site, **headers: str) -> AsyncIterator[Reader]:
    """Open the stream and wait until it really runs."""
    sent = site.headers | {name.replace("_", "-"): value for name, value in headers.items()}
    async with site.session.get(f"{site.url}/api/v1/events", headers=sent) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        reader = Reader(answer)
        assert "retry" in await reader.block()
        yield reader


async def test_events_come_as_they_happen(site: Site) -> None:
    async with stream(site) as reader:
        (order,) = await site.book.create(ALICE, NEW, None)
        event = await reader.event()
        assert (event["order"], event["state"], event["now"]["id"]) == (order.id, "open", order.id)
        site.book.fulfil(order.id)
        assert (await reader.event())["state"] == "fulfilled"


async def test_a_cut_stream_goes_on_where_it_was(site: Site) -> None:
    (order,) = await site.book.create(ALICE, NEW, None)
    async with stream(site, Last_Event_ID="0") as reader:
        first = await reader.event()
    site.book.fulfil(order.id)
    await site.book.delete(ALICE, order.id)
    async with stream(site, Last_Event_ID=str(first["sequence"])) as reader:
        assert [(await reader.event())["state"] for _ in range(2)] == ["fulfilled", "deleting"]


async def test_only_own_events_are_seen(site: Site) -> None:
    async with stream(site) as reader:
        await site.book.create(BOB, NEW, None)
        (mine,) = await site.book.create(ALICE, NEW, None)
        assert (await reader.event())["order"] == mine.id


async def test_more_than_a_batch_arrives_complete_and_in_order(site: Site) -> None:
    (order,) = await site.book.create(ALICE, NEW, None)
    for number in range(250):
        site.book.change(order.id, state=OrderState.OPEN, reason=str(number))
    async with stream(site, Last_Event_ID="1") as reader:
        assert [int((await reader.event())["reason"]) for _ in range(250)] == list(range(250))


async def test_a_silent_stream_gives_signs_of_life(tmp_path: Path) -> None:
    async with open_site(tmp_path, heartbeat=0.01) as site, stream(site) as reader:
        assert (await reader.block())[""] == "still here"


async def test_streams_are_limited_and_a_closed_one_makes_room(site: Site) -> None:
    answers = [await site.session.get(f"{site.url}/api/v1/events", headers=site.headers) for _ in range(PER_USER)]
    status, problem = await site.call("GET", "/events")
    assert (status, problem["code"]) == (429, "web.too_many_streams")
    answers[0].close()
    while True:  # an event makes the server notice that the reader has gone
        await site.book.create(ALICE, NEW, None)
        async with site.session.get(f"{site.url}/api/v1/events", headers=site.headers) as again:
            if again.status == 200:
                break
        await asyncio.sleep(0.01)
    for answer in answers:
        answer.close()


@pytest.mark.parametrize("header", ["-1", "x", "1.5", "9" * 30])
async def test_a_bad_last_event_id_is_refused(site: Site, header: str) -> None:
    status, problem = await site.call("GET", "/events", Last_Event_ID=header)
    assert (status, problem["code"]) == (400, "web.invalid")


@pytest.mark.parametrize("path", ["/events", "/experiments/mine/events"])
async def test_a_stream_ends_with_its_token_and_tells_nothing_more(tmp_path: Path, path: str) -> None:
    async with open_site(tmp_path, heartbeat=0.05) as site:
        await site.call("POST", "/experiments", {"name": "mine", "description": PROGRAM})
        token, secret = await site.accounts.issue(ALICE.name, "another", 1)
        async with site.session.get(
            f"{site.url}/api/v1{path}", headers={"Authorization": f"Bearer {secret}"}
        ) as answer:
            reader = Reader(answer)
            assert "retry" in await reader.block()
            await site.accounts.revoke(ALICE.name, token.id)
            await site.book.create(ALICE, NEW, None)
            told = [block async for block in reader.blocks()]
        assert "order" not in [block.get("event") for block in told]
        assert (told[-1]["event"], json.loads(told[-1]["data"])["code"]) == ("end", "account.unauthenticated")
