"""Networks that frames pass as they are, and exact addresses in them, at a real Neutron."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from deploy.openstack.api import Client
from federation_member.middleware.contract import NoCapacity, UnusableSpec
from federation_member.middleware.openstack import networks
from fedkit.protocol.lending import NetworkSpec, SecurityRule
from tests.component.middleware.contract import compute, made, new_key, plain, running
from tests.component.middleware.openstack.place import OpenStackSite


def network_of(site: OpenStackSite, key: str) -> dict[str, Any]:
    """One network, as Neutron tells it."""
    every = Client.administrator(site.openstack).get("neutron", "/v2.0/networks")["networks"]
    (found,) = [one for one in every if key in one["description"]]
    return dict(found)


def ports(site: OpenStackSite, key: str, network: str) -> list[dict[str, Any]]:
    """Those of a machine in a network, as Neutron tells them."""
    every = Client.administrator(site.openstack).get("neutron", "/v2.0/ports")["ports"]
    found = network_of(site, network)["id"]
    return [port for port in every if key in port["description"] and port["network_id"] == found]


async def test_a_cloud_whose_networks_pass_no_whole_frames_says_so(
    site: OpenStackSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "WHOLE", 9000)  # more than the cloud passes
    async with running(site) as middleware:
        with pytest.raises(UnusableSpec, match=r"9000 octets.*MTU"):
            await made(middleware, new_key(), plain(site, NetworkSpec(cidr="10.8.0.0/24", verbatim=True)))
        assert await middleware.list_owned() == []


async def test_machines_in_a_network_that_frames_pass_as_they_are(site: OpenStackSite) -> None:
    async with running(site) as middleware:
        network = (await made(middleware, new_key(), plain(site, NetworkSpec(cidr="10.8.0.0/24", verbatim=True)))).key
        made_of_it = network_of(site, network)
        assert made_of_it["mtu"] == 1500
        subnet = f"/v2.0/subnets/{made_of_it['subnets'][0]}"
        assert not Client.administrator(site.openstack).get("neutron", subnet)["subnet"]["enable_dhcp"]
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
