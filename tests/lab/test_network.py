"""What the firewalls of the lab let through, and what its XMPP servers accept from one another."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from deploy.lab.client import CertificateKind, Lab
from deploy.lab.topology import API_PORT, S2S_PORT, TUNNEL_PORT, TUNNEL_PORTS
from tests.lab.components import component, member, ping
from tests.lab.scan import scan

pytestmark = pytest.mark.lab
ALLOWED_IN = {S2S_PORT, TUNNEL_PORT, *range(TUNNEL_PORTS[0], TUNNEL_PORTS[1] + 1)}
INTERESTING = [*range(1, 1025), *range(2000, 2300), *range(5000, 5400), *range(7900, 8200)]
INTERESTING += range(TUNNEL_PORTS[0] - 10, TUNNEL_PORTS[1] + 11)


def test_from_the_internet_only_xmpp_and_tunnel_ports_answer(servers: Lab) -> None:
    found = scan(servers, "user", [site.public for site in servers.plan.sites], INTERESTING)
    opened = {(address, port) for address, port, state in found if state == "open"}
    assert opened == {(site.public, S2S_PORT) for site in servers.plan.sites if not site.closed}
    # A tunnel port that nobody holds refuses; all others are silent.
    assert {port for _, port, state in found if state == "refused"} == ALLOWED_IN - {S2S_PORT}


def test_a_closed_site_answers_nothing(servers: Lab) -> None:
    closed = next(site for site in servers.plan.sites if site.closed)
    assert scan(servers, "user", [closed.public], [22, S2S_PORT, TUNNEL_PORT, TUNNEL_PORTS[0], API_PORT]) == set()


@pytest.mark.parametrize("host", ["user", "internet", "site-b/dmz", "site-b/lan", "site-a/dmz"])
def test_the_intranet_cannot_be_reached(servers: Lab, host: str) -> None:
    site = servers.plan.site("site-a")
    if host in ("user", "internet"):
        # Even from somebody who forges a route to it.
        servers.run(host, ["ip", "route", "replace", f"192.168.{site.number}.0/24", "via", site.public])
        servers.run(host, ["ip", "route", "replace", site.machines, "via", site.public])
    assert scan(servers, host, [site.lan, site.machines_gateway], [22, 80, 5347, API_PORT]) == set()


def test_the_intranet_reaches_its_own_xmpp_server_and_nothing_else(servers: Lab) -> None:
    site, other = servers.plan.site("site-a"), servers.plan.site("site-b")
    member_port = site.component("fm").port
    found = scan(servers, "site-a", [site.dmz, other.public, "198.51.100.1"], [53, 5269, 2222, *range(5347, 5350)])
    assert found == {(site.dmz, member_port, "open")}


def test_names_resolve_in_the_dmz(servers: Lab) -> None:
    script = "import socket; print(socket.gethostbyname('tunnel.site-b.test'))"
    told = servers.run("site-a/dmz", ["python3", "-c", script]).stdout.strip()
    assert told == servers.plan.site("site-b").public


@pytest.mark.parametrize(("one", "other"), [("site-a", "site-b"), ("site-b", "site-a")])
def test_prosody_and_ejabberd_carry_requests_between_components(servers: Lab, one: str, other: str) -> None:
    with component(servers, other):
        assert ping(servers, one, member(servers, other), 3) == [{"ok": True, "condition": "", "text": ""}] * 3


def test_a_closed_site_is_reached_over_its_own_connection(servers: Lab) -> None:
    with component(servers, "site-a"):
        assert ping(servers, "site-c", member(servers, "site-a"))[0]["ok"]
    with component(servers, "site-c"):
        assert ping(servers, "site-a", member(servers, "site-c"))[0]["ok"]


def test_server_to_server_connections_are_encrypted_and_verified(servers: Lab) -> None:
    with component(servers, "site-b"):
        assert ping(servers, "site-a", member(servers, "site-b"))[0]["ok"]
    log = servers.log("site-b/xmpp", 1 << 20)
    assert "Accepted inbound s2s EXTERNAL authentication fm.site-a.test -> fm.site-b.test" in log
    assert "TLSv1.3" in servers.log("site-a/xmpp", 1 << 20)


@pytest.fixture
def good_again(servers: Lab) -> Iterator[Lab]:
    yield servers
    servers.certificate("site-b", "good")


@pytest.mark.parametrize("kind", ["expired", "wrong-name", "wrong-authority"])
def test_a_server_with_a_bad_certificate_is_refused(good_again: Lab, kind: CertificateKind) -> None:
    good_again.certificate("site-b", kind)
    with component(good_again, "site-b"):
        outcome = ping(good_again, "site-a", member(good_again, "site-b"))[0]
    assert not outcome["ok"]
    assert outcome["condition"] in ("remote-server-timeout", "remote-server-not-found")


@pytest.mark.parametrize(("at", "peer"), [("site-a", "conference.site-b.test"), ("site-b", "conference.site-a.test")])
def test_a_domain_outside_of_the_federation_is_refused(servers: Lab, at: str, peer: str) -> None:
    assert not ping(servers, at, peer)[0]["ok"]


def test_a_partition_cuts_and_heals(servers: Lab) -> None:
    with component(servers, "site-b"):
        assert ping(servers, "site-a", member(servers, "site-b"))[0]["ok"]
        servers.partition("site-b")
        try:
            assert not ping(servers, "site-a", member(servers, "site-b"))[0]["ok"]
            assert scan(servers, "user", [servers.plan.site("site-b").public], [S2S_PORT]) == set()
        finally:
            servers.heal("site-b")
        _until_answered(servers)


def test_a_server_killed_and_started_again_carries_requests(servers: Lab) -> None:
    for role in ("site-a/xmpp", "site-b/xmpp"):
        servers.restart(role)
    with component(servers, "site-b"):
        _until_answered(servers)


def _until_answered(lab: Lab) -> None:
    deadline = time.monotonic() + 60
    while not ping(lab, "site-a", member(lab, "site-b"))[0]["ok"]:
        assert time.monotonic() < deadline, "site-b is not reached any more"


def test_each_service_has_its_directory_for_itself(servers: Lab) -> None:
    told = servers.run("internet", ["find", "/run/fedlab/site-a", "-mindepth", "1", "-maxdepth", "1", "-perm", "/077"])
    assert told.stdout == ""
