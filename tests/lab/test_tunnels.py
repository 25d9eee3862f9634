"""The tunnels of a machine lent at another site: on demand with stock clients, for nobody else, through cuts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until

pytestmark = pytest.mark.lab
LENDER = "site-b"
HOLD_TUNNEL = "ssh -N -R ssh:0:127.0.0.1:22 tunnel"  # what a machine does from its start to its end
PAGE = "a page of the machine"
DROPBEAR = (
    "[ -e tunnel.key ] || dropbearconvert openssh dropbear /etc/fed/tunnel_key tunnel.key; mkdir -p .ssh; "
    "cat /etc/fed/tunnel_known_hosts >>.ssh/known_hosts; dbclient -i tunnel.key"
)

Order = dict[str, Any]


@pytest.fixture(scope="module")
def person(lab: Lab) -> Person:
    """A user at the first site who sees the lender."""
    alice = Person(lab, "site-a", "tunneller")
    until(lambda: any(m["alive"] and m["name"] == f"{LENDER}.test" for m in alice.ask("members")), "the lender is seen")
    return alice


@pytest.fixture(scope="module")
def order(lab: Lab, person: Person) -> Iterator[Order]:
    """A machine at the lender with a page on its own port 8000."""
    made = person.order("--location", f"{LENDER}.test")
    serve = f"mkdir -p www && echo '{PAGE}' >www/index.html && busybox httpd -p 127.0.0.1:8000 -h www"
    person.ssh(made, serve)
    yield made
    person.delete(made)
    assert machines_at(lab, LENDER) == []


def _target(lab: Lab) -> str:
    return f"tunnel@{lab.plan.site(LENDER).public}/2222"


def _try(person: Person, order: Order, command: str) -> tuple[int, str]:
    """Run a command on the machine that may fail, for ten seconds at most; status and all that it said."""
    text = person.ssh(order, f"timeout 10 sh -c {shlex.quote(command)} </dev/null 2>&1; echo $?")
    said, _, status = text.rstrip("\n").rpartition("\n")
    return int(status), said


@pytest.mark.parametrize("client", ["openssh", "dropbear"])
def test_a_second_tunnel_on_demand(lab: Lab, person: Person, order: Order, client: str) -> None:
    dial = "ssh -N" if client == "openssh" else f"{DROPBEAR} -N"
    target = "tunnel" if client == "openssh" else _target(lab)
    command = f"{dial} -R {client}:0:127.0.0.1:8000 {target}"
    person.ssh(order, f"sh -c {shlex.quote(f'{command} & echo $! >{client}.pid')} >{client}.log 2>&1 </dev/null")
    tunnel = person.tunnel(order, client)
    assert tunnel["port"] != person.tunnel(order)["port"]
    assert person.fetch(f"http://{tunnel['host']}:{tunnel['port']}/") == PAGE
    person.ssh(order, f"kill $(cat {client}.pid)")
    until(lambda: person.refused(tunnel), "the port is closed when its client is gone")
    person.fed("tunnel", "close", order["id"], client)
    assert client not in {each["name"] for each in person.ask("tunnel", "list", order["id"])}


def test_a_port_asked_for_from_outside_is_the_machine_s(person: Person, order: Order) -> None:
    person.fed("tunnel", "open", order["id"], "web")
    reserved = next(t for t in person.ask("tunnel", "list", order["id"]) if t["name"] == "web")
    assert not reserved["up"]
    person.ssh(order, "ssh -f -N -R web:0:127.0.0.1:8000 tunnel >web.log 2>&1 </dev/null")
    assert person.tunnel(order, "web")["port"] == reserved["port"]
    assert person.fetch(f"http://{reserved['host']}:{reserved['port']}/") == PAGE
    person.fed("tunnel", "close", order["id"], "web")
    until(lambda: person.refused(reserved), "a port given back is closed, its client still there")
    assert [t["name"] for t in person.ask("tunnel", "list", order["id"])] == ["ssh"]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param("tunnel true", id="command"),
        pytest.param("-T tunnel", id="shell"),
        pytest.param("-tt tunnel", id="terminal"),
        pytest.param("-A tunnel true", id="agent"),
        pytest.param("-X tunnel true", id="x11"),
        pytest.param("-s tunnel sftp", id="sftp"),
        pytest.param("-W 192.168.2.130:8080 tunnel", id="into-the-intranet"),
        pytest.param("-W 127.0.0.1:8082 tunnel", id="into-the-dmz"),
        pytest.param("-N -R /tmp/socket:127.0.0.1:22 tunnel", id="socket"),
    ],
)
def test_a_machine_s_key_opens_nothing_else(lab: Lab, person: Person, order: Order, arguments: str) -> None:
    before = _events(lab, order).count("tunnel.only_tunnels")
    # What an agent and a display would be: the client asks for them only where it has some itself.
    status, said = _try(person, order, f"ssh-agent env DISPLAY=127.0.0.1:0 ssh {arguments}")
    assert status not in (0, 124), said
    assert _events(lab, order).count("tunnel.only_tunnels") > before


@pytest.mark.parametrize(
    ("forward", "greeting"),
    [
        pytest.param("-L 9000:127.0.0.1:8082", "", id="local-forward"),
        pytest.param("-L 9000:/run/dbus/system_bus_socket", "", id="local-forward-to-socket"),
        # SOCKS 5 (RFC 1928): no authentication, CONNECT 127.0.0.1:8082.
        pytest.param("-D 9000", r"\005\001\000\005\001\000\001\177\000\000\001\037\222", id="dynamic-forward"),
    ],
)
def test_no_forward_inwards(lab: Lab, person: Person, order: Order, forward: str, greeting: str) -> None:
    """The client listens at the machine, so the server is asked only when somebody connects there."""
    before = _events(lab, order).count("tunnel.only_tunnels")
    dial = f"ssh -q -f -N -M -S forward {forward} tunnel"
    wish = rf"{greeting}GET /healthz HTTP/1.0\r\n\r\n"
    ask = f"{{ printf '{wish}'; sleep 1; }} | busybox nc -w 5 127.0.0.1 9000 | grep -c HTTP"
    status, said = _try(person, order, f"{dial} && {{ {ask}; ssh -q -S forward -O exit tunnel; }}")
    assert (status, said) == (0, "0")
    assert _events(lab, order).count("tunnel.only_tunnels") == before + 1


def test_dropbear_opens_nothing_else_either(lab: Lab, person: Person, order: Order) -> None:
    """Its client tells neither why nor by its status, so the server is asked."""
    wishes = (f"{_target(lab)} echo done", f"-s {_target(lab)} sftp", f"-B 192.168.2.130:8080 {_target(lab)}")
    before = _events(lab, order).count("tunnel.only_tunnels")
    for number, wish in enumerate(wishes, before + 1):
        status, said = _try(person, order, f"{DROPBEAR} {wish}")
        assert status != 124, said
        assert "done" not in said.split()
        assert _events(lab, order).count("tunnel.only_tunnels") == number


def test_a_machine_opens_no_port_of_another(person: Person, order: Order) -> None:
    other = person.order("--location", f"{LENDER}.test")
    try:
        foreign = person.tunnel(order)["port"]
        status, said = _try(person, other, f"ssh -N -R {foreign}:127.0.0.1:22 tunnel")
        assert status not in (0, 124), said
        assert "tunnel.foreign_port" in said
        wishes = " ".join(f"-R {name}:0:127.0.0.1:22" for name in "abc")
        person.ssh(other, f"ssh -f -N {wishes} tunnel >more.log 2>&1 </dev/null")
        status, said = _try(person, other, "ssh -N -R one-too-many:0:127.0.0.1:22 tunnel")
        assert status not in (0, 124), said
        assert "tunnel.port_limit" in said
    finally:
        person.delete(other)
    assert person.ssh(order, "echo still here").strip() == "still here"


def test_after_a_cut_without_fin_the_same_port_comes_back(lab: Lab, person: Person, order: Order) -> None:
    before = person.tunnel(order)
    try:
        for end in ("sport", "dport"):
            lab.run(f"{LENDER}/rt", ["nft", "add", "rule", "inet", "site", "fault", "tcp", end, "2222", "drop"])
        # The machine's client ends, and the server cannot hear of it.
        clients = lab.run(LENDER, ["pgrep", "-xf", HOLD_TUNNEL]).stdout.split()
        lab.run(LENDER, ["kill", "-KILL", *clients])
    finally:
        lab.run(f"{LENDER}/rt", ["nft", "flush", "chain", "inet", "site", "fault"])
    until(lambda: _newer_connection(lab, order), "the machine has dialled again")
    assert person.tunnel(order)["port"] == before["port"]
    assert person.ssh(order, "cat www/index.html").strip() == PAGE


def _newer_connection(lab: Lab, order: Order) -> bool:
    """Whether the machine has come a second time, since or before the server let go of the first."""
    return _events(lab, order)[-2:] in (["machine_connected", "machine_gone"], ["machine_gone", "machine_connected"])


def _events(lab: Lab, order: Order) -> list[str]:
    """What the tunnel server has logged of a machine: codes of refusals, names of other events."""
    lines = lab.log(f"{LENDER}/tunnel", 1 << 20).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return [event.get("code") or event["event"] for event in events if event.get("lease") == order["lease_id"]]
