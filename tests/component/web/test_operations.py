"""Stopping, rules, consoles and quotas, as clients of the API see them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.component.web.conftest import Site

MACHINE: dict[str, Any] = {"spec": {"kind": "compute", "image": "debian"}}
NETWORK: dict[str, Any] = {"spec": {"kind": "network", "cidr": "10.8.0.0/24"}}
SSH = {"direction": "in", "protocol": "tcp", "ports": [22, 22], "cidr": "192.0.2.0/24"}


async def running(site: Site, body: dict[str, Any]) -> str:
    """The path of an order that runs."""
    _status, made = await site.call("POST", "/orders", body)
    site.book.fulfil(made["items"][0]["id"])
    return f"/orders/{made['items'][0]['id']}"


async def test_a_machine_is_stopped_and_started(site: Site) -> None:
    path = await running(site, MACHINE)
    for power in ("stopped", "running", "paused"):
        status, order = await site.call("PATCH", path, {"power": power})
        assert (status, order["power"], order["wanted_power"], order["state"]) == (200, power, None, "fulfilled")
    assert order["rules"] is None


async def test_what_takes_longer_stands_there_as_wanted(site: Site) -> None:
    path = await running(site, MACHINE)
    site.book.slow = True
    status, order = await site.call("PATCH", path, {"power": "stopped"})
    assert (status, order["power"], order["wanted_power"]) == (200, "running", "stopped")


async def test_rules_are_replaced_as_a_whole(site: Site) -> None:
    path = await running(site, NETWORK)
    status, order = await site.call("PATCH", path, {"rules": [SSH, {"protocol": "icmp"}]})
    assert status == 200
    assert order["rules"][0] == SSH
    assert order["rules"][1] == {"direction": "in", "protocol": "icmp", "ports": None, "cidr": None}
    assert (await site.call("PATCH", path, {"rules": []}))[1]["rules"] == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"power": None},
        {"power": "off"},
        {"power": "stopped", "more": 1},
        {"rules": [{"protocol": "icmp", "ports": [1, 2]}]},
        {"rules": [{"ports": [23, 22]}]},
        {"rules": [{"ports": [0, 22]}]},
        {"rules": [{"cidr": "10.0.0.1/8"}]},
        {"rules": [SSH] * 65},
        {"rules": "tcp 22"},
        [],
    ],
)
async def test_bad_changes_are_refused_before_anybody_is_asked(site: Site, body: Any) -> None:
    path = await running(site, NETWORK)
    status, problem = await site.call("PATCH", path, body)
    assert (status, problem["code"]) == (400, "web.invalid")


async def test_what_cannot_be_says_so(site: Site) -> None:
    status, problem = await site.call("PATCH", await running(site, NETWORK), {"power": "stopped"})
    assert (status, problem["code"]) == (409, "lease.cannot")
    _status, made = await site.call("POST", "/orders", MACHINE)
    status, problem = await site.call("PATCH", f"/orders/{made['items'][0]['id']}", {"power": "stopped"})
    assert (status, problem["code"]) == (409, "orders.not_running")
    status, problem = await site.call("PATCH", f"/orders/{'0' * 8}-0000-4000-8000-{'0' * 12}", {"power": "stopped"})
    assert (status, problem["code"]) == (404, "orders.unknown_order")


async def test_a_console_is_shown(site: Site) -> None:
    status, console = await site.call("GET", f"{await running(site, MACHINE)}/console")
    assert (status, console) == (200, {"text": "login: "})


async def test_quota_is_shown_by_member_and_silence_as_such(site: Site) -> None:
    status, page = await site.call("GET", "/quota")
    told, silent = page["items"]
    assert status == 200
    assert (told["account"], told["total"]["machines"], told["used"]["machines"], told["mine"]["machines"]) == (
        "federation",
        10,
        4,
        1,
    )
    assert (silent["account"], silent["total"], silent["code"]) == (None, None, "mesh.no_answer")
    assert [one["member"] for one in (await site.call("GET", "/quota?member=site-b.test"))[1]["items"]] == [
        "site-b.test"
    ]
    status, problem = await site.call("GET", "/quota?member=nobody")
    assert (status, problem["code"]) == (404, "directory.unknown_member")


async def test_a_member_is_shown_with_what_it_can_do(site: Site) -> None:
    _status, members = await site.call("GET", "/members")
    name = members["items"][0]["name"]
    status, member = await site.call("GET", f"/members/{name}")
    assert (status, member) == (200, members["items"][0])
    assert isinstance(member["abilities"], list)
    status, problem = await site.call("GET", "/members/nobody")
    assert (status, problem["code"]) == (404, "directory.unknown_member")
