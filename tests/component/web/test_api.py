"""The REST API as its clients see it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from federation_member.web import routing
from federation_member.web.app import BODY_LIMIT
from tests.component.web.conftest import ME, PASSWORD, Site

ORDER: dict[str, Any] = {"spec": {"kind": "compute", "image": "debian"}}


async def _token_of(site: Site, user: str) -> str:
    await site.accounts.add(user, "physics", PASSWORD)
    _status, made = await site.call("POST", "/tokens", {"user": user, "password": PASSWORD})
    return str(made["token"])


async def test_a_password_becomes_a_token_that_says_who_one_is(site: Site) -> None:
    status, made = await site.call("POST", "/tokens", {"user": "alice", "password": PASSWORD, "label": "laptop"})
    assert status == 201
    site.token = made["token"]
    _status, me = await site.call("GET", "/me")
    principal = (await site.accounts.get("alice")).principal
    assert me.pop("principal") == principal != ME
    assert me == {"member": "site-a.test", "fedid": ME, "project": "physics", "user": "alice", "operator": False}
    _status, tokens = await site.call("GET", "/tokens")
    assert "laptop" in {token["label"] for token in tokens["items"]}
    assert all("token" not in token for token in tokens["items"])


async def test_a_revoked_token_is_refused(site: Site) -> None:
    _status, made = await site.call("POST", "/tokens", {"user": "alice", "password": PASSWORD})
    site.token = made["token"]
    assert (await site.call("DELETE", f"/tokens/{made['id']}"))[0] == 204
    status, problem = await site.call("GET", "/me")
    assert (status, problem["code"]) == (401, "account.unauthenticated")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YWxpY2U6", "Bearer nonsense", "Bearer " + "x" * 300]
)
async def test_without_a_good_token_nothing_is_told(site: Site, header: str) -> None:
    headers = {"Authorization": header}
    async with site.session.get(f"{site.url}/api/v1/orders", headers=headers) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.content_type == "application/problem+json"


async def test_wrong_passwords_end_in_a_pause(site: Site) -> None:
    answers = [await site.call("POST", "/tokens", {"user": "alice", "password": "guess"}) for _ in range(11)]
    assert [status for status, _ in answers] == [401] * 10 + [429]
    assert answers[-1][1]["code"] == "account.too_many_attempts"
    assert answers[-1][1]["details"]["retry_after"] > 0


async def test_an_order_is_made_shown_and_deleted(site: Site) -> None:
    status, made = await site.call("POST", "/orders", ORDER | {"count": 2})
    assert (status, len(made["items"])) == (201, 2)
    order = made["items"][0]
    assert (order["state"], order["user"], order["spec"]["image"]) == ("open", "alice", "debian")
    site.book.fulfil(order["id"])
    _status, shown = await site.call("GET", f"/orders/{order['id']}")
    assert shown["tunnels"][0]["command"] == "ssh -p 20001 fed@tunnel.site-b.test"
    status, going = await site.call("DELETE", f"/orders/{order['id']}")
    assert (status, going["state"]) == (202, "deleting")
    _status, why = await site.call("GET", f"/orders/{order['id']}/why")
    assert [event["state"] for event in why["events"]] == ["open", "fulfilled", "deleting"]


async def test_the_same_key_gives_the_same_order(site: Site) -> None:
    first = await site.call("POST", "/orders", ORDER, Idempotency_Key="once")
    again = await site.call("POST", "/orders", ORDER, Idempotency_Key="once")
    assert [item["id"] for item in first[1]["items"]] == [item["id"] for item in again[1]["items"]]
    status, problem = await site.call("POST", "/orders", ORDER | {"count": 2}, Idempotency_Key="once")
    assert (status, problem["code"]) == (409, "orders.idempotency_conflict")


async def test_pages_follow_one_another(site: Site) -> None:
    await site.call("POST", "/orders", ORDER | {"count": 5})
    seen: list[str] = []
    cursor = ""
    while True:
        _status, page = await site.call("GET", f"/orders?limit=2{cursor}")
        seen += [order["id"] for order in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert len(seen) == len(set(seen)) == 5


async def test_networks_are_orders_of_their_kind(site: Site) -> None:
    await site.call("POST", "/orders", ORDER)
    await site.call("POST", "/orders", {"spec": {"kind": "network", "cidr": "10.8.0.0/24"}})
    _status, networks = await site.call("GET", "/networks")
    assert [order["spec"]["cidr"] for order in networks["items"]] == ["10.8.0.0/24"]


async def test_user_data_is_not_told_to_anybody(site: Site) -> None:
    spec = {"kind": "compute", "image": "debian", "user_data": "#!/bin/sh\necho s3cret ü\n"}
    _status, made = await site.call("POST", "/orders", {"spec": spec})
    assert "s3cret" not in str(made)
    assert made["items"][0]["spec"]["user_data_octets"] == len(spec["user_data"].encode())


async def test_anothers_order_does_not_exist(site: Site) -> None:
    _status, made = await site.call("POST", "/orders", ORDER)
    order_id = made["items"][0]["id"]
    site.token = await _token_of(site, "bob")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/why"), ("GET", "/tunnels"), ("GET", "/events")):
        status, problem = await site.call(method, f"/orders/{order_id}{path}")
        assert (status, problem["code"]) == (404, "orders.unknown_order")
    assert (await site.call("GET", "/orders"))[1]["items"] == []


async def test_tunnels_open_and_close(site: Site) -> None:
    _status, made = await site.call("POST", "/orders", ORDER)
    path = f"/orders/{made['items'][0]['id']}/tunnels"
    status, problem = await site.call("POST", path, {"name": "web"})
    assert (status, problem["code"]) == (409, "orders.not_running")
    site.book.fulfil(made["items"][0]["id"])
    status, tunnel = await site.call("POST", path, {"name": "web"})
    assert (status, tunnel["name"], tunnel["host"]) == (201, "web", "tunnel.site-b.test")
    assert len((await site.call("GET", path))[1]["items"]) == 2
    assert (await site.call("DELETE", f"{path}/web"))[0] == 204
    assert len((await site.call("GET", path))[1]["items"]) == 1


async def test_offers_are_listed_by_member(site: Site) -> None:
    _status, members = await site.call("GET", "/members")
    assert [(member["name"], member["self"]) for member in members["items"]] == [
        ("site-a.test", True),
        ("site-b.test", False),
    ]
    _status, images = await site.call("GET", "/images?member=site-b.test")
    assert [(image["member"], image["name"]) for image in images["items"]] == [("site-b.test", "alpine")]
    _status, flavours = await site.call("GET", "/flavours")
    assert {flavour["name"] for flavour in flavours["items"]} == {"small", "large"}


async def test_health_says_what_is_missing(site: Site) -> None:
    assert (await site.call("GET", "/health"))[1] == {"ready": True, "missing": []}
    site.missing.append("The link to the XMPP server is down.")
    assert (await site.call("GET", "/health"))[1]["ready"] is False
    async with site.session.get(f"{site.url}/readyz") as answer:
        assert answer.status == 503


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "web.malformed"),
        (b"\xff", "application/json", 400, "web.malformed"),
        (b"[" * 10_000, "application/json", 400, "web.malformed"),
        (b'{"spec": {"kind": "compute", "image": "a\\u0000"}}', "application/json", 400, "web.malformed"),
        (b"[]", "application/json", 400, "web.invalid"),
        (b'{"spec": {"kind": "castle"}}', "application/json", 400, "web.invalid"),
        (b'{"spec": {"kind": "compute", "image": "a"}, "count": "2"}', "application/json", 400, "web.invalid"),
        (b'{"spec": {"kind": "compute", "image": "a"}, "wish": 1}', "application/json", 400, "web.invalid"),
        (b"{}", "text/plain", 415, "web.media_type"),
        (b" " * (BODY_LIMIT + 1), "application/json", 413, "web.too_large"),
    ],
)
async def test_bad_bodies_are_refused(site: Site, body: bytes, content_type: str, status: int, code: str) -> None:
    headers = site.headers | {"Content-Type": content_type}
    async with site.session.post(f"{site.url}/api/v1/orders", data=body, headers=headers) as answer:
        problem = await answer.json(content_type=None)
        assert (answer.status, problem["code"], problem["status"]) == (status, code, status)
        assert answer.content_type == "application/problem+json"
    assert not site.book.orders


@pytest.mark.parametrize("size", [None, 1000])
async def test_a_body_of_unknown_length_is_bounded_too(site: Site, size: int | None) -> None:
    async def endless() -> Any:
        for _ in range(BODY_LIMIT // 1000 + 10):
            yield b" " * 1000

    headers = site.headers | {"Content-Type": "application/json"}
    async with site.session.post(f"{site.url}/api/v1/orders", data=endless(), headers=headers) as answer:
        assert answer.status == 413


async def test_a_body_that_never_ends_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "BODY_SECONDS", 0.05)

    async def stuck() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    headers = site.headers | {"Content-Type": "application/json"}
    async with site.session.post(f"{site.url}/api/v1/orders", data=stuck(), headers=headers) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (408, "web.too_slow")


async def test_answers_are_counted_without_names_of_a_strangers_choice(site: Site) -> None:
    async with site.session.request("PROPFIND", f"{site.url}/api/v1/orders") as answer:
        assert answer.status == 405
    async with site.session.get(f"{site.url}/metrics") as answer:
        text = await answer.text()
    assert 'fedmesh_http_answers_total{method="other",status="405"} 1.0' in text
    assert "PROPFIND" not in text


async def test_a_refusal_names_the_place_but_never_the_value(site: Site) -> None:
    _status, problem = await site.call("POST", "/tokens", {"user": "alice", "password": ["s3cret"]})
    assert problem["details"]["problems"][0]["at"] == "password"
    assert "s3cret" not in str(problem)


@pytest.mark.parametrize("query", ["limit=0", "limit=many", "state=gone", "limit=1&limit=2", "wish=1", "batch=x"])
async def test_bad_queries_are_refused(site: Site, query: str) -> None:
    status, problem = await site.call("GET", f"/orders?{query}")
    assert (status, problem["code"]) == (400, "web.invalid")


@pytest.mark.parametrize("path", ["/nothing", "/orders/42", "/orders/%00", "/orders/..%2f..%2fetc", "/orders/%ff"])
async def test_paths_that_are_not_there(site: Site, path: str) -> None:
    status, problem = await site.call("GET", path)
    assert (status, problem["code"]) == (404, "web.not_found")


async def test_a_wrong_method_is_told_the_right_ones(site: Site) -> None:
    async with site.session.put(f"{site.url}/api/v1/orders", headers=site.headers) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD, POST" or answer.headers["Allow"] == "GET, POST"


async def test_every_answer_carries_the_security_headers(site: Site) -> None:
    for path in ("/", "/app.js", "/style.css", "/api/v1/health", "/api/v1/orders", "/nothing", "/api/v1/openapi.json"):
        async with site.session.get(site.url + path) as answer:
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "Set-Cookie" not in answer.headers


async def test_what_nobody_foresaw_is_a_problem_without_details_of_ours(site: Site) -> None:
    async def broken(*_arguments: object) -> None:
        raise RuntimeError("a secret of the inside")

    site.book.get = broken  # type: ignore[assignment,method-assign]
    status, problem = await site.call("GET", "/orders/00000000-0000-0000-0000-000000000000")
    assert (status, problem["code"]) == (500, "internal")
    assert "secret" not in str(problem)
    assert problem["details"]["incident"]


async def test_many_clients_at_once(site: Site) -> None:
    answers = await asyncio.gather(
        *(site.call("POST", "/orders", ORDER, Idempotency_Key=f"k{n % 5}") for n in range(50))
    )
    assert {status for status, _ in answers} == {201}
    assert len(site.book.orders) == 5
