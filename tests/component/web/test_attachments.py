"""Desktops over the API, of an experiment that is not active yet: who may ask, and what is refused with which code."""

from __future__ import annotations

import uuid

from federation_member.orders.ssh_keys import new_key, public_half
from tests.component.web.conftest import Site
from tests.component.web.test_experiments import PROGRAM

KEY = public_half(new_key())


async def test_an_experiment_that_is_not_active_has_none_and_gets_none(site: Site) -> None:
    await site.call("POST", "/experiments", {"name": "mine", "description": PROGRAM})
    path, one = "/experiments/mine/attachments", str(uuid.uuid4())
    status, problem = await site.call("POST", path, {"id": one, "public_key": KEY})
    assert (status, problem["code"]) == (409, "experiments.not_attachable")
    assert await site.call("GET", path) == (200, {"items": []})
    status, problem = await site.call("GET", f"{path}/{one}")
    assert (status, problem["code"]) == (404, "experiments.unknown_attachment")
    assert await site.call("DELETE", f"{path}/{one}") == (202, {"items": []})


async def test_somebody_else_finds_no_experiment_to_attach_to(site: Site) -> None:
    _, made = await site.call("POST", "/experiments", {"name": "mine", "description": PROGRAM})
    await site.accounts.add("bob", "physics", "correct horse battery")
    _token, site.token = await site.accounts.issue("bob", "test", 1)
    path, one = f"/experiments/{made['id']}/attachments", str(uuid.uuid4())
    for method, where, body in (
        ("POST", path, {"id": one, "public_key": KEY}),
        ("GET", path, None),
        ("GET", f"{path}/{one}", None),
        ("DELETE", f"{path}/{one}", None),
    ):
        status, problem = await site.call(method, where, body)
        assert (status, problem["code"]) == (404, "experiments.unknown")


WRONG: list[dict[str, str]] = [
    {},
    {"id": "1"},
    {"public_key": "none"},
    {"public_key": f"{KEY}\nssh-ed25519 AAAA"},
    {"name": "a.b"},
    {"at": ""},
    {"ip4": "10.0.0.1"},
]


async def test_what_is_no_request_is_refused(site: Site) -> None:
    await site.call("POST", "/experiments", {"name": "mine", "description": PROGRAM})
    for wrong in WRONG:
        body = {"id": str(uuid.uuid4()), "public_key": KEY} | wrong if wrong else {}
        status, problem = await site.call("POST", "/experiments/mine/attachments", body)
        assert (status, problem["code"]) == (400, "web.invalid"), wrong
