"""Experiments over the API, of a member that knows nobody: what is refused, and what is shown."""

from __future__ import annotations

import pytest

from tests.component.web.conftest import Site

PROGRAM = """
set ns [new Simulator]
source tb_compat.tcl
set a [$ns node]
set b [$ns node]
tb-set-node-testbed $a deter
tb-set-node-testbed $b ucb
set link0 [$ns duplex-link $a $b 100Mb 0ms DropTail]
$ns rtproto Static
$ns run
"""


async def test_one_is_made_shown_and_terminated(site: Site) -> None:
    status, made = await site.call("POST", "/experiments", {"name": "mine", "description": PROGRAM})
    assert status == 201, made
    assert [segment["testbed"] for segment in made["segments"]] == ["deter", "ucb"]
    assert made["private_key"].startswith("-----BEGIN")
    status, shown = await site.call("GET", "/experiments/mine")
    assert (status, shown["id"]) == (200, made["id"])
    assert "private_key" not in shown
    _, listed = await site.call("GET", "/experiments")
    assert [one["id"] for one in listed["items"]] == [made["id"]]
    _, topology = await site.call("GET", "/experiments/mine/topology")
    assert [(c["name"], c["testbed"]) for c in topology["computers"]] == [("a", "deter"), ("b", "ucb")]
    assert topology["routing"] == "Static"
    status, log = await site.call("GET", "/experiments/mine/log")
    assert log["items"][0]["state"] == "allocating"
    async with site.session.get(f"{site.url}/api/v1/experiments/mine/picture", headers=site.headers) as answer:
        assert answer.content_type == "image/svg+xml"
        assert "<svg" in await answer.text()
    status, _ = await site.call("DELETE", "/experiments/mine")
    assert status == 202


async def test_a_topology_is_as_it_was_described_or_has_what_services_brought(site: Site) -> None:
    wish = {"name": "mine", "description": PROGRAM, "services": ["local_seer_control:ucb"]}
    await site.call("POST", "/experiments", wish)
    found = {}
    for query in ("", "?services=false", "?services=true"):
        _, topology = await site.call("GET", f"/experiments/mine/topology{query}")
        found[query] = {c["name"]: [i["ip4"] for i in c["interfaces"]] for c in topology["computers"]}
    assert found[""] == found["?services=false"] == {"a": ["10.1.1.2"], "b": ["10.1.1.3"]}
    assert found["?services=true"] == {"a": ["10.1.1.2"], "b": ["10.1.1.3", "10.1.2.2"], "control": ["10.1.2.3"]}
    status, problem = await site.call("GET", "/experiments/mine/topology?all=true")
    assert (status, problem["code"]) == (400, "web.invalid")


async def test_errors_of_a_description_say_where(site: Site) -> None:
    broken = PROGRAM.replace("$ns rtproto Static", "$nobody rtproto Static")
    status, problem = await site.call("POST", "/experiments", {"name": "x", "file": "exp.ns", "description": broken})
    assert (status, problem["code"]) == (400, "topology.bad_description")
    assert problem["details"]["errors"][0]["file"] == "exp.ns"
    assert problem["details"]["errors"][0]["line"] == 9


async def test_a_name_is_taken_until_its_experiment_has_ended(site: Site) -> None:
    body = {"name": "mine", "description": PROGRAM}
    await site.call("POST", "/experiments", body)
    status, problem = await site.call("POST", "/experiments", body)
    assert (status, problem["code"]) == (409, "experiments.name_taken")
    await site.call("DELETE", "/experiments/mine")
    status, _ = await site.call("POST", "/experiments", body)
    assert status == 201


async def test_mappings_of_what_is_not_there_are_refused(site: Site) -> None:
    for members in ({"nowhere": "site-a.test"}, {"deter": "site-z.test"}):
        body = {"name": "mine", "description": PROGRAM, "members": members}
        status, problem = await site.call("POST", "/experiments", body)
        assert (status, problem["code"]) == (400, "experiments.unusable_mapping")
    assert (await site.call("GET", "/experiments"))[1]["items"] == []


async def test_an_experiment_of_somebody_else_is_unknown(site: Site) -> None:
    _, made = await site.call("POST", "/experiments", {"name": "mine", "description": PROGRAM})
    await site.accounts.add("bob", "physics", "correct horse battery")
    _token, theirs = await site.accounts.issue("bob", "test", 1)
    site.token = theirs
    for wanted in ("mine", made["id"]):
        status, problem = await site.call("GET", f"/experiments/{wanted}")
        assert (status, problem["code"]) == (404, "experiments.unknown")


@pytest.mark.parametrize(
    ("service", "code"),
    [
        ("no_such_thing:deter", "services.unknown"),
        ("SMB:deter,ucb:ucb", "services.unusable"),
        ("hide_hosts:deter::hosts=b", "topology.bad_service"),
    ],
)
async def test_what_is_wrong_with_services_has_a_code_that_is_documented(site: Site, service: str, code: str) -> None:
    body = {"name": "mine", "description": PROGRAM, "services": [service]}
    status, problem = await site.call("POST", "/experiments", body)
    assert problem["code"] == code, problem
    _, described = await site.call("GET", "/openapi.json")
    for path in ("/experiments", "/experiments/{experiment}/extend"):
        told = described["paths"][f"/api/v1{path}"]["post"]["responses"]
        assert code in told[str(status)]["description"]
        assert "experiments.no_way" in told["409"]["description"]
