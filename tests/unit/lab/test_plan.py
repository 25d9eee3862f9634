"""The lab's topology and what is derived from it, without any lab."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from deploy.lab import components, lenders, pki
from deploy.lab.errors import Unknown
from deploy.lab.network import firewall
from deploy.lab.services import services
from deploy.lab.topology import LENDERS, MAXIMUM_SITES, Plan, Site, namespace
from federation_member.access.policy_file import read
from federation_member.config import MemberConfig
from federation_member.middleware.containers.config import ContainersConfig
from federation_member.middleware.libvirt.config import LibvirtConfig
from federation_member.middleware.openstack.config import OpenStackConfig
from fedkit.config import Section, load
from rendezvous.config import RendezvousConfig
from reverse_tunnel.config import TunnelConfig

KINDS: dict[str, type[Section]] = {
    "containers": ContainersConfig,
    "libvirt": LibvirtConfig,
    "openstack": OpenStackConfig,
}
SITES = Plan(MAXIMUM_SITES).sites
plain = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])),
)
keys = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
tables = st.recursive(
    st.dictionaries(keys, plain, max_size=3),
    lambda inner: st.dictionaries(
        keys, st.one_of(plain, st.lists(plain), inner, st.lists(inner, min_size=1, max_size=2)), max_size=4
    ),
    max_leaves=8,
)


@given(tables)
def test_toml_reads_back_as_it_was(data: Mapping[str, Any]) -> None:
    assert tomllib.loads(components.to_toml(data)) == data


def test_no_two_sites_share_anything() -> None:
    for attribute in ("name", "domain", "public", "dmz", "lan", "machines"):
        assert len({getattr(site, attribute) for site in SITES}) == MAXIMUM_SITES, attribute
    hosts = Plan(MAXIMUM_SITES).hosts
    assert len({namespace(host) for host in hosts}) == len(hosts)


@pytest.mark.parametrize("site", SITES[:4], ids=lambda site: site.name)
def test_addresses_lie_where_they_belong(site: Site) -> None:
    assert ip_address(site.public) in ip_network("198.51.100.0/24")
    assert ip_address(site.machines_gateway) in ip_network(site.machines)
    assert ip_address(site.dmz) in ip_network(f"{site.dmz_gateway}/25", strict=False)
    assert ip_address(site.lan) in ip_network(f"{site.lan_gateway}/25", strict=False)


def test_hosts_are_named_in_short() -> None:
    plan = Plan(2)
    assert [plan.host(name) for name in ("site-a", "site-b.test", "site-a/dmz", "user")] == [
        "site-a/lan",
        "site-b/lan",
        "site-a/dmz",
        "user",
    ]
    for wrong in ("site-c", "site-a/wan", "internet/dmz", ""):
        with pytest.raises(Unknown):
            plan.host(wrong)


@pytest.mark.parametrize("count", [0, MAXIMUM_SITES + 1])
def test_the_number_of_sites_is_bounded(count: int) -> None:
    with pytest.raises(Unknown):
        Plan(count)


def test_a_plan_survives_the_way_to_pid_1() -> None:
    plan = Plan(3, ("xmpp",))
    assert Plan.from_json(plan.to_json()) == plan


def test_a_closed_firewall_lets_nothing_in() -> None:
    for site in SITES[:4]:
        rules = firewall(site)
        assert ("dnat ip to" in rules) is not site.closed
        assert ('oifname "dmz" ct status dnat tcp dport { 5269' in rules) is not site.closed


def test_certificates_name_every_component() -> None:
    authority = pki.Authority(datetime(2026, 1, 15, tzinfo=UTC))
    for expired in (False, True):
        issued = authority.issue(pki.names(SITES[0]), expired=expired)
        certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [
            "site-a.test",
            "fm.site-a.test",
            "tunnel.site-a.test",
            "rendezvous.site-a.test",
        ]
        assert (certificate.not_valid_after_utc < datetime(2026, 1, 15, tzinfo=UTC)) is expired
        root = x509.load_pem_x509_certificate(authority.certificate.encode())
        certificate.verify_directly_issued_by(root)


def test_what_is_written_for_the_components_is_what_they_read(tmp_path: Path) -> None:
    plan = Plan(3)
    fedids = {c.domain: f"{i:040x}" for i, c in enumerate(c for site in plan.sites for c in site.components)}
    federation = components.Federation(plan, fedids)
    models: dict[str, type[Section]] = {"member": MemberConfig, "rendezvous": RendezvousConfig, "tunnel": TunnelConfig}
    for site in plan.sites:
        for kind, model in models.items():
            if components.KINDS[kind] in {component.kind for component in site.components}:
                path = tmp_path / f"{site.name}-{kind}.toml"
                path.write_text(components.to_toml(components.CONFIGS[kind](federation, site, tmp_path)))
                load(path, model, "UNUSED")
        policy = read(components.to_toml(components.policy(federation, site)).encode(), "policy.toml")
        assert [rule.name for rule in policy.rules] == ["everybody"]
    # A closed site's machines dial the first site, whose tunnel server must let its member grant.
    assert components.member(federation, plan.sites[2], tmp_path)["tunnel"]["address"] == "tunnel.site-a.test"
    assert fedids["fm.site-c.test"] in components.tunnel(federation, plan.sites[0], tmp_path)["tunnel"]["controllers"]


def test_a_site_that_lends_with_a_cloud_is_told_of_it(tmp_path: Path) -> None:
    plan = Plan(2, middleware={"site-b": "openstack-small"})
    assert Plan.from_json(plan.to_json()) == plan
    fedids = {c.domain: f"{i:040x}" for i, c in enumerate(c for site in plan.sites for c in site.components)}
    federation = components.Federation(plan, fedids)
    kinds = [components.member(federation, site, tmp_path)["middleware"]["kind"] for site in plan.sites]
    assert kinds == ["containers", "openstack"]
    (member,) = (each for each in services(plan, can_drop=True) if each.role == "site-b/member")
    assert member.after == ("site-b/lender",)
    with pytest.raises(Unknown):
        Plan(2, middleware={"site-b": "punched cards"})
    with pytest.raises(Unknown):
        Plan(2, middleware={"site-c": "containers"})


@pytest.mark.parametrize("lender", LENDERS)
def test_what_a_site_lends_with_is_told_in_its_own_words(lender: str, tmp_path: Path) -> None:
    site = Plan(1).sites[0]
    found = lenders.LENDERS[lender]
    KINDS[found.kind].model_validate(found.options(site, tmp_path))
    assert set(lenders.LENDERS) == set(LENDERS)
