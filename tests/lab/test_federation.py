"""What crosses between the sites, and a member that nobody can reach."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.topology import S2S_PORT, TUNNEL_PORT, TUNNEL_PORTS
from tests.lab.scan import scan

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def person(lab: Lab) -> Person:
    """A user at the first site who sees all members."""
    alice = Person(lab, "site-a")
    _sees_all(lab, alice)
    return alice


@pytest.fixture(scope="module")
def shut_in(lab: Lab) -> Person:
    """A user at the site that lets nothing in."""
    bob = Person(lab, "site-c", "bob")
    _sees_all(lab, bob)
    return bob


def _sees_all(lab: Lab, person: Person) -> None:
    def all_alive() -> bool:
        alive = [member for member in person.ask("members") if member["alive"]]
        return len(alive) == len(lab.plan.sites)

    until(all_alive, "all members are alive")


@pytest.fixture
def orders(person: Person) -> Iterator[list[tuple[Person, dict[str, Any]]]]:
    """Orders put here are deleted at the end, whatever happened."""
    made: list[tuple[Person, dict[str, Any]]] = []
    yield made
    for owner, order in made:
        owner.delete(order)


def test_a_closed_site_lends(lab: Lab, person: Person, orders: list[tuple[Person, dict[str, Any]]]) -> None:
    order = person.order("--location", "site-c.test", "--timeout", "120")
    orders.append((person, order))
    assert order["member"] == "site-c.test"
    # Its machine dials the tunnel server of another site, and is reached there.
    assert person.tunnel(order)["host"] == "tunnel.site-a.test"
    assert person.ssh(order, "echo hello").strip() == "hello"
    assert machines_at(lab, "site-c")


def test_a_closed_site_borrows(lab: Lab, shut_in: Person, orders: list[tuple[Person, dict[str, Any]]]) -> None:
    order = shut_in.order("--location", "site-a.test")
    orders.append((shut_in, order))
    assert order["member"] == "site-a.test"
    assert shut_in.ssh(order, "echo hello").strip() == "hello"


def test_between_the_sites_there_is_tls_and_ssh_only(
    lab: Lab, person: Person, orders: list[tuple[Person, dict[str, Any]]]
) -> None:
    capture = ["tshark", "-n", "-l", "-i", "br0", "-Y", "tcp.len > 0", "-T", "fields"]
    capture += ["-e", "tcp.srcport", "-e", "tcp.dstport", "-e", "tcp.payload"]
    with lab.popen("internet", capture, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tshark:
        assert tshark.stderr is not None
        assert tshark.stdout is not None
        next(line for line in tshark.stderr if "Capturing on" in line)
        # New connections, so that their beginnings are seen as well.
        for role in ("site-a/xmpp", "site-b/xmpp"):
            lab.restart(role)
        _sees_all(lab, person)
        order = person.order("--location", "site-b.test")
        orders.append((person, order))
        assert person.ssh(order, "echo a word in clear").strip() == "a word in clear"
        tshark.kill()
        # Its last line may be cut off.
        packets = [line.split("\t") for line in tshark.stdout if line.count("\t") == 2 and line.endswith("\n")]
    tunnel = person.tunnel(order)["port"]
    ports = {min(int(source), int(target)) for source, target, _ in packets}
    assert ports <= {S2S_PORT, TUNNEL_PORT, tunnel}
    clear = b"".join(bytes.fromhex(payload.strip()) for _, _, payload in packets)
    assert b"a word in clear" not in clear
    assert b"jabber:server" in clear  # the stream's opening, before TLS: the capture works
    for secret in (b"lease.create", b"tunnel.grant", order["id"].encode(), order["lease_id"].encode()):
        assert secret not in clear


def test_a_running_federation_answers_on_xmpp_and_tunnel_ports_only(
    lab: Lab, person: Person, orders: list[tuple[Person, dict[str, Any]]]
) -> None:
    order = person.order("--location", "site-b.test")
    orders.append((person, order))
    tunnel = person.tunnel(order)["port"]
    found = scan(lab, "user", [site.public for site in lab.plan.sites], [*range(1, 10000), *range(19990, 20110)])
    opened = {(address, port) for address, port, state in found if state == "open"}
    site_a, site_b, closed = lab.plan.sites
    # Other tests' machines may hold tunnel ports just now.
    assert {(address, port) for address, port in opened if port < TUNNEL_PORTS[0]} == {
        (site.public, port) for site in (site_a, site_b) for port in (S2S_PORT, TUNNEL_PORT)
    }
    assert (site_b.public, tunnel) in opened
    assert closed.public not in {address for address, _ in opened}


def test_a_lent_machine_reaches_its_tunnel_server_and_nothing_else(
    lab: Lab, person: Person, orders: list[tuple[Person, dict[str, Any]]]
) -> None:
    order = person.order("--location", "site-b.test")
    orders.append((person, order))
    site, other = lab.plan.site("site-b"), lab.plan.site("site-a")
    targets = [
        *((site.machines_gateway, port) for port in (22, 8080)),
        *((site.lan, port) for port in (22, 8080)),
        *((site.dmz, port) for port in (2222, 5269, 5347, 8082)),
        *((other.public, port) for port in (2222, 5269)),
        (site.public, TUNNEL_PORT),
    ]
    script = "; ".join(
        f"busybox nc -w 1 {host} {port} </dev/null >/dev/null 2>&1 && echo {host} {port}" for host, port in targets
    )
    assert person.ssh(order, script + "; true").split("\n")[:-1] == [f"{site.public} {TUNNEL_PORT}"]
