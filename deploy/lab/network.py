"""The lab's network as scripts for `ip -batch`, `nft -f` and `sysctl`: pure functions of the topology.

One process for each namespace instead of one for each interface: three sites are up in a quarter of a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Template

from deploy.lab.lenders import LENDERS
from deploy.lab.topology import (
    COMPONENT_PORT,
    DNS_ADDRESS,
    INTERNET,
    S2S_PORT,
    TUNNEL_PORT,
    TUNNEL_PORTS,
    USER,
    USER_ADDRESS,
    Plan,
    Site,
    namespace,
)

TEMPLATES = Path(__file__).parent.parent / "templates"
NO_IPV6 = ("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
FORWARDING = "net.ipv4.ip_forward=1"
UNPRIVILEGED_PORTS = "net.ipv4.ip_unprivileged_port_start=53"  # dnsmasq needs no privilege then
# What one machine says to another in their private network is no business of the site's firewall.
UNFILTERED_BRIDGES = "net.bridge.bridge-nf-call-iptables=0"
TUNNELLED = f"{TUNNEL_PORTS[0]}-{TUNNEL_PORTS[1]}"  # where machines are reached
TUNNELS = f"{{ {TUNNEL_PORT}, {TUNNELLED} }}"
# A dead path is given up after about 13 s instead of 15 minutes, so that requests fail instead of arriving late.
GIVE_UP_EARLY = "net.ipv4.tcp_retries2=5"


@dataclass(frozen=True)
class HostSetup:
    """What makes one host: kernel settings, an `ip -batch` script and a firewall, to be applied in that order."""

    host: str
    sysctls: tuple[str, ...]
    ip: str
    nft: str = ""


def setups(plan: Plan) -> list[HostSetup]:
    """The set-up of every host, in an order in which the far end of each cable exists."""
    result = [_internet(plan), _user()]
    for site in plan.sites:
        result += [_router(site, plan), _dmz(site), _lan(site)]
    return result


def cables(plan: Plan) -> str:
    """An `ip -batch` script that lays every cable between two namespaces."""
    lines = [_cable(INTERNET, "user", USER, "eth0")]
    for site in plan.sites:
        router = f"{site.name}/rt"
        lines.append(_cable(INTERNET, site.name, router, "wan"))
        lines += [_cable(router, zone, f"{site.name}/{zone}", "eth0") for zone in ("dmz", "lan")]
    return "\n".join(lines) + "\n"


def script(setup: HostSetup) -> str:
    """The shell script that applies a set-up from inside its namespace."""
    files = {name.replace(".", "/"): value for name, value in (item.split("=") for item in setup.sysctls)}
    # Without IPv6 in the kernel there is nothing to switch off.
    lines = [f"[ ! -e /proc/sys/{file} ] || echo {value} > /proc/sys/{file}" for file, value in files.items()]
    lines.append(f"ip -batch - <<'END'\n{setup.ip}END")
    if setup.nft:
        lines.append(f"nft -f - <<'END'\n{setup.nft}END")
    return "\n".join(lines) + "\n"


def partition(site: Site) -> str:
    """An `nft` script that cuts a site off the internet, connections included."""
    return (
        f"flush chain inet site fault\n"
        f'add rule inet site fault iifname "wan" counter drop comment "{site.name} is cut off"\n'
        f'add rule inet site fault oifname "wan" counter drop comment "{site.name} is cut off"\n'
    )


HEAL = "flush chain inet site fault\n"


def _cable(host: str, name: str, peer: str, peer_name: str) -> str:
    ends = f"{name} netns {namespace(host)} type veth peer name {peer_name} netns {namespace(peer)}"
    return f"link add {ends}"


def _up(name: str, address: str) -> str:
    return f"address add {address} dev {name}\nlink set {name} up\n"


def _internet(plan: Plan) -> HostSetup:
    ports = ["user", *(site.name for site in plan.sites)]
    ip = "link set lo up\nlink add br0 type bridge\n" + _up("br0", f"{DNS_ADDRESS}/24")
    ip += "".join(f"link set {port} master br0 up\n" for port in ports)
    return HostSetup(INTERNET, (*NO_IPV6, UNPRIVILEGED_PORTS), ip)


def _user() -> HostSetup:
    return HostSetup(USER, NO_IPV6, "link set lo up\n" + _up("eth0", f"{USER_ADDRESS}/24"))


def _router(site: Site, plan: Plan) -> HostSetup:
    ip = "link set lo up\n"
    ip += _up("wan", f"{site.public}/24")
    ip += _up("dmz", f"{site.dmz_gateway}/25")
    ip += _up("lan", f"{site.lan_gateway}/25")
    ip += f"route add {site.machines} via {site.lan}\n"
    return HostSetup(
        f"{site.name}/rt", (*NO_IPV6, FORWARDING), ip, firewall(site, fetches=LENDERS[plan.lender(site)].fetches)
    )


def _dmz(site: Site) -> HostSetup:
    ip = "link set lo up\n" + _up("eth0", f"{site.dmz}/25") + f"route add default via {site.dmz_gateway}\n"
    return HostSetup(f"{site.name}/dmz", (*NO_IPV6, GIVE_UP_EARLY), ip)


def _lan(site: Site) -> HostSetup:
    ip = "link set lo up\n" + _up("eth0", f"{site.lan}/25") + f"route add default via {site.lan_gateway}\n"
    ip += "link add machines type bridge\n" + _up("machines", f"{site.machines_gateway}/24")
    nft = Template((TEMPLATES / "machines.nft").read_text()).substitute(tunnel=TUNNELS)
    return HostSetup(f"{site.name}/lan", (*NO_IPV6, FORWARDING, UNFILTERED_BRIDGES), ip, nft)


def firewall(site: Site, *, fetches: bool = False) -> str:
    """The `nft` rules of a site's router; a closed site has none that lets anything in. `fetches`: images, from the web."""
    inward = f"tcp dport {{ {S2S_PORT}, {TUNNEL_PORT}, {TUNNELLED} }}"
    rules = {
        "from_internet": "" if site.closed else f'\t\toifname "dmz" ct status dnat {inward} accept',
        # By public address also from the site's own machines and member, which dial where everybody dials.
        "forwarded": "" if site.closed else f"\t\tip daddr {site.public} {inward} dnat ip to {site.dmz}",
        "to_internet": "\n".join(f"\t\tip saddr {rule} accept" for rule in _outward(site, fetches=fetches)),
    }
    return Template((TEMPLATES / "site.nft").read_text()).substitute(
        rules, lan=site.lan, machines=site.machines, component=COMPONENT_PORT, tunnel=TUNNELS
    )


def _outward(site: Site, *, fetches: bool) -> list[str]:
    rules = [f"{site.lan} udp dport 53", *([f"{site.lan} tcp dport {{ 80, 443 }}"] if fetches else [])]
    # A portal dials another site's portal by its tunnel; a closed site's machines dial the tunnel server of another site, where its
    # member enters the nodes of experiments.
    return [*rules, f"{{ {site.lan}, {site.machines} }} tcp dport {TUNNELS if site.closed else TUNNELLED}"]
