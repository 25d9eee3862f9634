"""What an experiment would be, told before anything is asked of anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from federation_member.experiments import service
from federation_member.experiments.model import TEXT_LIMIT, NewExperiment
from federation_member.experiments.preview import Preview, preview
from federation_member.orders.candidates import KnownMember
from federation_member.web.at_once import DESCRIPTIONS, PICTURES, PREVIEWS
from tests.component.web.conftest import Site
from tests.component.web.test_experiments import PROGRAM

EVIL = "<script>alert(1)</script>"


async def _preview(site: Site, description: str = PROGRAM, **more: Any) -> dict[str, Any]:
    body = {"description": description, "file": "exp.ns"} | more
    status, shown = await site.call("POST", "/previews", body)
    assert status == 200, shown
    return dict(shown)


async def test_pieces_addresses_portals_and_a_layout(site: Site) -> None:
    shown = await _preview(site)
    assert shown["errors"] == []
    assert [(piece["testbed"], piece["member"]) for piece in shown["pieces"]] == [("deter", None), ("ucb", None)]
    (a,) = shown["pieces"][0]["computers"]
    assert [interface["ip4"] for interface in a["interfaces"]] == ["10.1.1.2"]
    (connector,) = shown["pieces"][0]["connectors"]
    assert connector["crossings"] == [{"substrate": "link0", "stands_for": ["b"], "ip4": ["10.1.1.3"]}]
    layout = shown["layout"]
    assert [frame["testbed"] for frame in layout["testbeds"]] == ["deter", "ucb"]
    assert {spot["name"] for spot in layout["computers"]} == {"a", "b"}
    assert {(gate["testbed"], gate["peer"]) for gate in layout["portals"]} == {("deter", "ucb"), ("ucb", "deter")}
    assert [way["substrates"] for way in layout["ways"]] == [["link0"]]
    assert (await site.call("GET", "/experiments"))[1]["items"] == []
    assert site.book.orders == {}


async def test_every_error_says_where_and_what(site: Site) -> None:
    shown = await _preview(site, PROGRAM.replace("$a deter", "deter deter").replace("$a $b", "deter $b"))
    assert [(error["file"], error["line"]) for error in shown["errors"]] == [("exp.ns", 6), ("exp.ns", 8)]
    assert all(error["code"].startswith("ns2.") and error["message"] for error in shown["errors"])
    assert (shown["pieces"], shown["layout"]) == ([], None)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"members": {"nowhere": "site-a.test"}}, "experiments.unusable_mapping"),
        ({"members": {"deter": "site-z.test"}}, "experiments.unusable_mapping"),
        ({"services": ["%"]}, "topology.bad_service"),
        ({"parties": {"blue": {"testbeds": ["nowhere"]}}}, "experiments.unusable_party"),
        ({"description": "set ns [new Simulator]\n$ns run\n"}, "experiments.nothing_to_run"),
    ],
)
async def test_what_has_no_line_is_told_as_well(site: Site, more: dict[str, Any], code: str) -> None:
    shown = await _preview(site, **more)
    assert [(error["file"], error["line"], error["code"]) for error in shown["errors"]] == [("exp.ns", None, code)]


async def test_what_may_stand_in_the_way_is_a_warning(site: Site) -> None:
    shown = await _preview(site)
    assert {warning["code"] for warning in shown["warnings"]} == {"experiments.nobody_lends"}


async def test_hostile_names_are_names(site: Site) -> None:
    shown = await _preview(site, PROGRAM.replace("deter", f"{{{EVIL}}}"))
    assert EVIL in str(shown["errors"] or shown["layout"]["testbeds"])


async def test_what_is_huge_is_refused_at_once(site: Site) -> None:
    status, problem = await site.call("POST", "/previews", {"description": "#" * (TEXT_LIMIT + 1)})
    assert (status, problem["code"]) == (400, "web.invalid")
    status, problem = await site.call("POST", "/previews", {"description": "#" * 8 * TEXT_LIMIT})
    assert (status, problem["code"]) == (413, "web.too_large")


async def test_a_user_has_few_looked_at_at_the_same_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(new: NewExperiment, members: Sequence[KnownMember], **more: Any) -> Preview:
        begun.release()
        await go_on.wait()
        return await preview(new, members, **more)

    monkeypatch.setattr(service, "preview", slow)
    asked = [asyncio.create_task(_preview(site)) for _ in range(PREVIEWS[1])]
    for _ in asked:
        await begun.acquire()
    status, problem = await site.call("POST", "/previews", {"description": PROGRAM})
    assert (status, problem["code"]) == (429, "web.too_many_previews")
    go_on.set()
    assert [shown["errors"] for shown in await asyncio.gather(*asked)] == [[]] * PREVIEWS[1]
    assert (await _preview(site))["errors"] == []


async def test_a_layout_of_what_runs_is_that_of_its_preview(site: Site) -> None:
    _, made = await site.call("POST", "/experiments", {"name": "mine", "description": PROGRAM, "portals": 2})
    status, layout = await site.call("GET", f"/experiments/{made['id']}/layout")
    assert status == 200
    assert layout == (await _preview(site, portals=2))["layout"]


@pytest.mark.parametrize(
    ("what", "most", "path"),
    [
        ("federation_member.experiments.service.described", DESCRIPTIONS[1], ""),
        ("federation_member.experiments.service.grow", DESCRIPTIONS[1], "/ID/extend"),
        ("federation_member.web.routes.previews.to_thread", PICTURES[1], "/ID/layout"),
        ("federation_member.web.routes.previews.to_thread", PICTURES[1], "/ID/picture"),
    ],
)
async def test_nobody_has_many_descriptions_read_or_pictures_drawn_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, what: str, most: int, path: str
) -> None:
    _, made = await site.call("POST", "/experiments", {"name": "mine", "description": PROGRAM})
    monkeypatch.setattr("federation_member.experiments.service._check_extensible", lambda *_: None)
    begun: list[object] = []

    async def never(*_: object, **__: object) -> None:
        begun.append(None)
        await asyncio.Event().wait()

    monkeypatch.setattr(what, never)

    def ask() -> Awaitable[tuple[int, Any]]:
        if path in ("", "/ID/extend"):
            named = {"name": f"more{len(begun)}"} if not path else {}
            return site.call("POST", f"/experiments{path}".replace("ID", made["id"]), {"description": PROGRAM} | named)
        return site.call("GET", f"/experiments{path}".replace("ID", made["id"]))

    asked = [asyncio.ensure_future(ask()) for _ in range(most)]
    while len(begun) < most:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    status, problem = await ask()
    assert (status, problem["code"]) == (429, "web.too_many_previews")
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
