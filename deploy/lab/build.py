"""Builds the lab inside its namespaces: network, certificates, configuration files, then all services at once."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from deploy.lab import components, dns, network, pki, world, xmpp
from deploy.lab.children import Children
from deploy.lab.errors import Unknown
from deploy.lab.places import RUN, directory
from deploy.lab.services import USERS, services
from deploy.lab.supervisor import Report, Supervisor
from deploy.lab.topology import Plan, Site, namespace
from fedkit.identity.keys import PrivateKey

BAD_CERTIFICATES = ("good", "expired", "wrong-name", "wrong-authority")


class Lab:
    """One lab: what was built, and what can be done to it while it runs."""

    def __init__(self, plan: Plan, children: Children, *, can_drop: bool) -> None:
        self.plan = plan
        self.can_drop = can_drop
        self._services = services(plan, can_drop=can_drop)
        self.supervisor = Supervisor(children, self._services)
        self._children = children
        self._authority = pki.Authority()

    async def build(self, report: Report) -> None:
        """Make everything and return when every service is ready."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await self._lay_network()
        report("network", loop.time() - begin)
        begin = loop.time()
        self._write_files()
        report("certificates and configuration", loop.time() - begin)
        report("dns", await self.supervisor.start("dns"))
        async with asyncio.TaskGroup() as group:
            starting: dict[str, asyncio.Task[None]] = {}
            for service in self._services:
                if service.role != "dns":
                    before = [starting[role] for role in service.after]
                    starting[service.role] = group.create_task(self._start(service.role, before, report))

    async def partition(self, site: str) -> None:
        """Cut a site off the internet: packets vanish without an answer."""
        found = self.plan.site(site)
        await self._nft(f"{found.name}/rt", network.partition(found))

    async def heal(self, site: str) -> None:
        """Undo `partition`."""
        await self._nft(f"{self.plan.site(site).name}/rt", network.HEAL)

    async def certificate(self, site: str, kind: str) -> None:
        """Give a site's XMPP server another certificate (`BAD_CERTIFICATES`) and restart it."""
        if kind not in BAD_CERTIFICATES:
            raise Unknown(f"No kind of certificate {kind!r}; there is {', '.join(BAD_CERTIFICATES)}.")
        found = self.plan.site(site)
        authority = pki.Authority() if kind == "wrong-authority" else self._authority
        names = [f"wrong.{found.domain}"] if kind == "wrong-name" else pki.names(found)
        place = directory(found, "xmpp")
        _write(place, xmpp.certificate_files(authority.issue(names, expired=kind == "expired")))
        world.give(place, self._user("xmpp"))
        role = f"{found.name}/xmpp"
        await self.supervisor.stop(role)
        await self.supervisor.start(role)

    async def _start(self, role: str, before: list[asyncio.Task[None]], report: Report) -> None:
        if before:
            await asyncio.wait(before)
        report(role, await self.supervisor.start(role))

    async def _nft(self, host: str, rules: str) -> None:
        await self._in_host(host, f"nft -f - <<'END'\n{rules}END\n")

    async def _in_host(self, host: str, script: str) -> None:
        await self._children.run("nsenter", f"--net=/run/netns/{namespace(host)}", "sh", "-e", text=script)

    async def _lay_network(self) -> None:
        hosts = "".join(f"netns add {namespace(host)}\n" for host in self.plan.hosts)
        await self._children.run("ip", "-batch", "-", text=hosts)
        await self._children.run("ip", "-batch", "-", text=network.cables(self.plan))
        async with asyncio.TaskGroup() as group:
            for setup in network.setups(self.plan):
                group.create_task(self._in_host(setup.host, network.script(setup)))

    def _user(self, kind: str) -> int:
        return USERS.get(kind, 0) if self.can_drop else 0

    def _write_files(self) -> None:
        (RUN / "dnsmasq.conf").write_text(dns.dnsmasq_config(self.plan))
        passwords = {c.domain: secrets.token_hex(16) for site in self.plan.sites for c in site.components}
        keys = {domain: PrivateKey.generate() for domain in passwords}
        federation = components.Federation(self.plan, {domain: key.fedid for domain, key in keys.items()})
        for site in self.plan.sites:
            self._write_xmpp(site, passwords)
            for kind in _component_kinds(site):
                domain = site.component(components.KINDS[kind]).domain
                place = directory(site, kind)
                _write(place, {"secret": passwords[domain], f"{kind}.toml": _config(federation, site, kind, place)})
                keys[domain].save(place / "key.pem")
                if kind == "member":
                    _write(place, {components.POLICY: components.to_toml(components.policy(federation, site))})
                if kind == "tunnel":
                    _write(place, {"host_key": _ssh_key()})
                world.give(place, self._user(kind))

    def _write_xmpp(self, site: Site, passwords: dict[str, str]) -> None:
        place = directory(site, "xmpp")
        (place / "data").mkdir(parents=True)
        mine = {component.kind: passwords[component.domain] for component in site.components}
        server = xmpp.ServerFiles(site, place, mine, as_root=not self.can_drop)
        _write(place, xmpp.SERVERS[site.server].files(server, self.plan))
        _write(place, xmpp.certificate_files(self._authority.issue(pki.names(site))))
        _write(place, {"ca.crt": self._authority.certificate})
        world.give(place, self._user("xmpp"))


def _component_kinds(site: Site) -> list[str]:
    kinds = {component.kind for component in site.components}
    return [kind for kind, component in components.KINDS.items() if component in kinds]


def _config(federation: components.Federation, site: Site, kind: str, place: Path) -> str:
    tables: dict[str, Any] = components.CONFIGS[kind](federation, site, place)
    return components.to_toml(tables)


def _ssh_key() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    openssh = serialization.PrivateFormat.OpenSSH
    return key.private_bytes(serialization.Encoding.PEM, openssh, serialization.NoEncryption()).decode()


def _write(place: Path, files: dict[str, str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / name).write_text(text)
