"""Over the API: who was granted an experiment shows and terminates it; who shows what expired, was revoked or forged does neither."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from federation_member.experiments import capability
from fedkit.identity.keys import PrivateKey
from tests.component.web.conftest import Site
from tests.component.web.test_experiments import PROGRAM

LATER = "2999-01-31T12:00:00+00:00"


async def shared(site: Site) -> tuple[dict[str, Any], str, str]:
    """An experiment of alice's; bob's fedid, and the token of whom the site now is: bob."""
    _, made = await site.call("POST", "/experiments", {"name": "mine", "description": PROGRAM})
    await site.accounts.add("bob", "physics", "correct horse battery")
    _token, theirs = await site.accounts.issue("bob", "test", 1)
    return made, (await site.accounts.get("bob")).principal, theirs


async def granted(site: Site, principal: str, expires: str = LATER) -> str:
    """A credential from alice."""
    status, grant = await site.call("POST", "/experiments/mine/grants", {"principal": principal, "expires": expires})
    assert status == 201, grant
    return str(grant["credential"])


async def test_a_granted_one_shows_and_terminates(site: Site) -> None:
    made, bob, theirs = await shared(site)
    credential = await granted(site, bob)
    site.token = theirs
    path = f"/experiments/{made['id']}"
    status, shown = await site.call("GET", path, Experiment_Credential=credential)
    assert (status, shown["name"]) == (200, "mine")
    status, entered = await site.call("GET", f"{path}/credentials", Experiment_Credential=credential)
    assert (status, entered["credential"], len(entered["segments"])) == (200, None, 2)
    status, ended = await site.call("DELETE", path, Experiment_Credential=credential)
    assert (status, ended["state"]) == (202, "terminated")  # nobody had lent anything yet


async def test_expired_revoked_and_forged_ones_do_neither(site: Site) -> None:
    made, bob, theirs = await shared(site)
    expired, revoked = await granted(site, bob, "2020-01-31T12:00:00+00:00"), await granted(site, bob)
    status, left = await site.call("DELETE", f"/experiments/mine/grants/{bob}")
    assert (status, [one["revoked"] is not None for one in left["items"]]) == (200, [True])
    forged = capability.issue(PrivateKey.generate(), bob, datetime.fromisoformat(LATER)).credential
    owners = made["credential"]
    alice, site.token = site.token, theirs
    for credential in (expired, revoked, forged, owners):
        for method in ("GET", "DELETE"):
            path = f"/experiments/{made['id']}"
            status, problem = await site.call(method, path, Experiment_Credential=credential)
            assert (status, problem["code"]) == (403, "experiments.not_granted")
    for method, path in (("GET", "grants"), ("DELETE", f"grants/{bob}")):
        status, problem = await site.call(method, f"/experiments/{made['id']}/{path}")
        assert (status, problem["code"]) == (404, "experiments.unknown")
    site.token = alice
    _, shown = await site.call("GET", "/experiments/mine")
    assert shown["state"] == "allocating"


async def test_the_keys_of_an_experiment_are_shown_once(site: Site) -> None:
    _, made = await site.call("POST", "/experiments", {"name": "mine", "description": PROGRAM})
    assert made["private_key"].count("-----BEGIN PRIVATE KEY-----") == 2
    status, entered = await site.call("GET", "/experiments/mine/credentials")
    assert (status, entered["fedid"]) == (200, made["fedid"])
    assert entered["credential"].count(".") == 2
    assert all(part["sealed"] is None for part in entered["segments"])  # nobody has promised anything
    assert "PRIVATE KEY" not in str(entered)


async def test_a_command_belongs_to_run(site: Site) -> None:
    await site.call("POST", "/experiments", {"name": "mine", "description": PROGRAM})
    for body in ({"operation": "run"}, {"operation": "stop", "command": "true"}, {"operation": "dance"}):
        status, _ = await site.call("POST", "/experiments/mine/operate", body)
        assert status == 400
    status, done = await site.call("POST", "/experiments/mine/operate", {"operation": "run", "command": "true"})
    assert (status, set(done["failed"]), done["status"]) == (200, {"a", "b"}, {})
