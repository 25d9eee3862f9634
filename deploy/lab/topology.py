"""What stands where in the lab: sites, hosts, addresses and names. Data only.

    internet  198.51.100.0/24 (TEST-NET-2)      user .200   dns .1
        │ .11             │ .12             │ .13
    site-a/rt         site-b/rt         site-c/rt        router: nftables firewall and NAT
      │   │             │   │
     dmz lan           dmz lan                           dmz 192.168.N.2, lan 192.168.N.130
          └ bridge `machines` 10.50.N.1/24               what the site lends

A *host* is one network namespace, written `site-a/dmz` (`internet` and `user` belong to no site). The domain of a site
is its name with `.test` (RFC 2606).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property

from deploy.lab.errors import Unknown

XMPP_SERVERS = ("prosody", "ejabberd", "prosody")  # of the first three sites; later ones run Prosody
CLOSED_SITE = 3  # the third site lets nothing in
MAXIMUM_SITES = 50
INTERNET = "internet"
USER = "user"
DNS_ADDRESS = "198.51.100.1"
USER_ADDRESS = "198.51.100.200"
S2S_PORT = 5269
COMPONENT_PORT = 5347
TUNNEL_PORT = 2222
TUNNEL_PORTS = (20000, 20999)  # a port for every node of an experiment
API_PORT = 8080
ZONES = ("rt", "dmz", "lan")
LENDERS = ("containers", "libvirt", "openstack", "openstack-small")  # what a site can lend with; see deploy.lab.lenders


@dataclass(frozen=True)
class Site:
    """One site; everything else about it follows from its number (from 1)."""

    number: int

    @property
    def name(self) -> str:
        """Such as `site-a`."""
        letters = "abcdefghijklmnopqrstuvwxyz"
        rounds, letter = divmod(self.number - 1, len(letters))
        return f"site-{letters[letter] * (rounds + 1)}"

    @property
    def domain(self) -> str:
        """The DNS name, such as `site-a.test`."""
        return f"{self.name}.test"

    @property
    def server(self) -> str:
        """The XMPP server: `prosody` or `ejabberd`."""
        return XMPP_SERVERS[self.number - 1] if self.number <= len(XMPP_SERVERS) else "prosody"

    @property
    def closed(self) -> bool:
        """Whether the firewall lets nothing in at all, not even 5269."""
        return self.number == CLOSED_SITE

    @property
    def has_rendezvous(self) -> bool:
        """The first site runs the federation's Rendezvous."""
        return self.number == 1

    @property
    def has_tunnel_server(self) -> bool:
        """A site that lets nothing in has no use for its own."""
        return not self.closed

    @property
    def has_gpu(self) -> bool:
        """An attribute of the second site alone, for orders with a requirement that only one site meets."""
        return self.number == 2

    @property
    def public(self) -> str:
        """Address on the internet."""
        return f"198.51.100.{10 + self.number}"

    @property
    def dmz(self) -> str:
        """Address of the DMZ host."""
        return f"192.168.{self.number}.2"

    @property
    def dmz_gateway(self) -> str:
        """The router's address in the DMZ."""
        return f"192.168.{self.number}.1"

    @property
    def lan(self) -> str:
        """Address of the host in the intranet."""
        return f"192.168.{self.number}.130"

    @property
    def lan_gateway(self) -> str:
        """The router's address in the intranet."""
        return f"192.168.{self.number}.129"

    @property
    def machines(self) -> str:
        """Prefix of the machines that the site lends."""
        return f"10.50.{self.number}.0/24"

    @property
    def machines_gateway(self) -> str:
        """Address of the intranet's host on the bridge `machines`."""
        return f"10.50.{self.number}.1"

    @property
    def components(self) -> tuple[Component, ...]:
        """The XMPP components of the site; the member is the first."""
        kinds = ["fm"]
        kinds += ["tunnel"] if self.has_tunnel_server else []
        kinds += ["rendezvous"] if self.has_rendezvous else []
        return tuple(Component(kind, self, COMPONENT_PORT + i) for i, kind in enumerate(kinds))

    def component(self, kind: str) -> Component:
        """The component of that kind: `fm`, `tunnel` or `rendezvous`."""
        return next(c for c in self.components if c.kind == kind)


@dataclass(frozen=True)
class Component:
    """An XMPP component (XEP-0114) of a site.

    Each has a port of its own, because ejabberd binds the domains of a listener to whoever connects to it.
    """

    kind: str
    site: Site
    port: int

    @property
    def domain(self) -> str:
        """Its address in the mesh, such as `fm.site-a.test`."""
        return f"{self.kind}.{self.site.domain}"


@dataclass(frozen=True)
class Plan:
    """What a lab is made of: how many sites, and which kinds of service run beside the network and its DNS.

    `services` holds any of `xmpp`, `rendezvous`, `tunnel`, `member`. `middleware` names, by site, what it lends with where
    that is not the embedded `containers` (see `deploy.lab.lenders`).
    """

    count: int = 2
    services: tuple[str, ...] = ("xmpp", "rendezvous", "tunnel", "member")
    middleware: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAXIMUM_SITES:
            raise Unknown(f"A lab has 1 to {MAXIMUM_SITES} sites, not {self.count}.")
        for site, lender in self.middleware.items():
            self.site(site)
            if lender not in LENDERS:
                raise Unknown(f"No site lends with {lender!r}; there is {', '.join(LENDERS)}.")

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """All sites."""
        return tuple(Site(number) for number in range(1, self.count + 1))

    @property
    def hosts(self) -> list[str]:
        """All hosts; a site's own name stands for its intranet."""
        return [INTERNET, USER, *(f"{site.name}/{zone}" for site in self.sites for zone in ZONES)]

    def site(self, name: str) -> Site:
        """Find a site by its name or domain."""
        for site in self.sites:
            if name in (site.name, site.domain):
                return site
        raise Unknown(f"No site {name!r} here; there is {', '.join(s.name for s in self.sites)}.")

    def host(self, name: str) -> str:
        """Complete the name of a host: `site-a` and `site-a.test` mean `site-a/lan`."""
        if name in (INTERNET, USER):
            return name
        site, _, zone = name.partition("/")
        if (zone or "lan") not in ZONES:
            raise Unknown(f"No host {name!r}; a site has {', '.join(ZONES)}.")
        return f"{self.site(site).name}/{zone or 'lan'}"

    def lender(self, site: Site) -> str:
        """What a site lends with."""
        return self.middleware.get(site.name, LENDERS[0])

    def to_json(self) -> str:
        """One line, for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        return cls(data["count"], tuple(data["services"]), data["middleware"])


def namespace(host: str) -> str:
    """The name of a host's network namespace (a file name, so without slash)."""
    return host.replace("/", "-")
