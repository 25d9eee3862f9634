"""Orders of every kind by REST: what may be asked for, and what is shown of it."""

from __future__ import annotations

from typing import Any

import pytest

from fedkit.protocol.lending import Instance
from tests.component.web.conftest import Site

ONE, OTHER = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
SSH = {"direction": "in", "protocol": "tcp", "ports": [22, 22], "cidr": None}
KINDS: list[tuple[dict[str, Any], list[str]]] = [
    ({"kind": "volume", "name": "data", "size_gb": 10, "requirements": "member == 'b'"}, []),
    ({"kind": "attachment", "name": "disk", "machine": ONE, "volume": OTHER, "device": "/dev/vdb"}, [ONE, OTHER]),
    ({"kind": "public_ip", "name": "front", "machine": ONE, "rules": [SSH]}, [ONE]),
    ({"kind": "snapshot", "name": "kept", "machine": ONE}, [ONE]),
    ({"kind": "network", "name": "lan", "cidr": "10.8.0.0/24", "gateway": None, "rules": [], "requirements": ""}, []),
]


@pytest.mark.parametrize(("spec", "uses"), KINDS, ids=[str(spec["kind"]) for spec, _uses in KINDS])
async def test_each_kind_is_ordered_shown_and_found(site: Site, spec: dict[str, Any], uses: list[str]) -> None:
    status, made = await site.call("POST", "/orders", {"spec": spec})
    assert status == 201, made
    (order,) = made["items"]
    assert spec.items() <= order["spec"].items() or spec["kind"] in ("public_ip", "network")
    assert (order["uses"], order["used_by"]) == (uses, [])
    _status, page = await site.call("GET", f"/orders?kind={spec['kind']}")
    assert [found["id"] for found in page["items"]] == [order["id"]]


async def test_a_machine_says_what_it_boots_and_needs(site: Site) -> None:
    spec = {"kind": "compute", "image": f"snapshot:{ONE}", "networks": [OTHER]}
    _status, made = await site.call("POST", "/orders", {"spec": spec})
    assert made["items"][0]["spec"]["image"] == f"snapshot:{ONE}"
    assert sorted(made["items"][0]["uses"]) == [ONE, OTHER]


async def test_a_machine_with_a_public_address_is_entered_by_it(site: Site) -> None:
    _status, made = await site.call("POST", "/orders", {"spec": {"kind": "compute", "image": "debian"}})
    order_id = made["items"][0]["id"]
    assert made["items"][0]["command"] is None
    site.book.fulfil(order_id)
    _status, shown = await site.call("GET", f"/orders/{order_id}")
    assert shown["command"] == "ssh -p 20001 fed@tunnel.site-b.test"
    site.book.change(order_id, tunnels=(), instance=Instance(name="m", user="fed", public_address="203.0.113.7"))
    _status, shown = await site.call("GET", f"/orders/{order_id}")
    assert shown["command"] == "ssh fed@203.0.113.7"
    assert shown["instance"]["public_address"] == "203.0.113.7"


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "castle"},
        {"size_gb": 1},
        {"kind": "volume", "size_gb": 0},
        {"kind": "volume", "size_gb": 2**40},
        {"kind": "volume", "size_gb": 1, "image": "debian"},
        {"kind": "attachment", "machine": ONE},
        {"kind": "attachment", "machine": ONE, "volume": OTHER, "device": "/etc/passwd"},
        {"kind": "public_ip", "machine": "mine"},
        {"kind": "public_ip", "machine": ONE, "rules": [{"protocol": "icmp", "ports": [1, 2]}]},
        {"kind": "compute", "image": "https://images.test/disk"},
        {"kind": "compute", "image": "debian", "image_sha256": "0" * 64},
    ],
)
async def test_what_is_no_order_is_refused(site: Site, spec: dict[str, Any]) -> None:
    status, problem = await site.call("POST", "/orders", {"spec": spec})
    assert (status, problem["code"]) == (400, "web.invalid"), problem
    assert not site.book.orders


async def test_the_description_tells_the_kinds_apart(site: Site) -> None:
    _status, described = await site.call("GET", "/openapi.json")
    schemas = described["components"]["schemas"]
    asked = schemas["NewOrder"]["properties"]["spec"]["discriminator"]
    shown = schemas["OrderView"]["properties"]["spec"]["discriminator"]
    assert asked["propertyName"] == shown["propertyName"] == "kind"
    assert {str(spec["kind"]) for spec, _uses in KINDS} <= asked["mapping"].keys() & shown["mapping"].keys()
