"""Networks that frames pass as they are, and exact addresses in them, at a real Neutron."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from deploy.openstack.api import Client
from federation_member.middleware.contract import NoCapacity, UnusableSpec
from fedkit.protocol.lending import NetworkSpec, SecurityRule
from tests.component.middleware.contract import compute, made, new_key, plain, running
from tests.component.middleware.openstack.place import OpenStackSite


def ports(site: OpenStackSite, key: str, network: str) -> list[dict[str, Any]]:
    """Those of a machine in a network, as Neutron tells them."""
    admin = Client.administrator(site.openstack)
    (found,) = [one for one in admin.get("neutron", "/v2.0/networks")["networks"] if network in one["description"]]
    every = admin.get("neutron", "/v2.0/ports")["ports"]
    return [port for port in every if key in port["description"] and port["network_id"] == found["id"]]


async def test_machines_in_a_network_that_frames_pass_as_they_are(site: OpenStackSite) -> None:
    async with running(site) as middleware:
        network = (await made(middleware, new_key(), plain(site, NetworkSpec(cidr="10.8.0.0/24", verbatim=True)))).key
        order = compute(site, (network,), addresses={network: "10.8.0.2"})
        machine = await made(middleware, new_key(), order)
        portal = await made(middleware, new_key(), compute(site, (network,), carries_frames=True))
        (of_machine,), (of_portal,) = (ports(site, key, network) for key in (machine.key, portal.key))
        assert not of_machine["port_security_enabled"]
        assert not of_portal["port_security_enabled"]
        assert [fixed["ip_address"] for fixed in of_machine["fixed_ips"]] == ["10.8.0.2"]
        (taken,) = [ip_address(fixed["ip_address"]) for fixed in of_portal["fixed_ips"]]
        assert taken in ip_network("10.8.0.128/25")  # away from the addresses that are ordered
        with pytest.raises(NoCapacity, match=r"10\.8\.0\.2"):
            await made(middleware, new_key(), order)
        for owned in sorted(await middleware.list_owned(), key=lambda owned: owned.kind):
            await middleware.delete(owned.key)
    assert await site.leftovers() == []


async def test_such_a_network_takes_no_rules(site: OpenStackSite) -> None:
    spec = NetworkSpec(cidr="10.8.0.0/24", verbatim=True, rules=[SecurityRule(protocol="icmp")])
    async with running(site) as middleware:
        with pytest.raises(UnusableSpec, match="no rules"):
            await middleware.create(new_key(), plain(site, spec))
    assert await site.leftovers() == []
