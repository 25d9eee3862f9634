"""The configuration files of the lab's own components: member, Rendezvous and reverse tunnel server.

Written with their keys before anything starts, because each names the others by fedid.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.lab.lenders import LENDERS
from deploy.lab.topology import API_PORT, TUNNEL_PORT, TUNNEL_PORTS, Component, Plan, Site

COMMANDS = {"member": ["member"], "rendezvous": ["rendezvous"], "tunnel": ["tunnel-server"]}
KINDS = {"member": "fm", "rendezvous": "rendezvous", "tunnel": "tunnel"}  # the component that each one is
POLICY = "policy.toml"  # beside a member's configuration
HEALTH_PORT = {"rendezvous": 8081, "tunnel": 8082}


@dataclass(frozen=True)
class Federation:
    """Who is who: the fedid of every component, by its domain."""

    plan: Plan
    fedids: Mapping[str, str]

    def peer(self, component: Component) -> dict[str, str]:
        """Fedid and address of a component, as configuration files name a peer."""
        return {"fedid": self.fedids[component.domain], "address": component.domain}

    @property
    def rendezvous(self) -> Component:
        """The one Rendezvous."""
        return self.plan.sites[0].component("rendezvous")

    def tunnel_of(self, site: Site) -> Component:
        """The tunnel server that a site's machines dial: its own or, at a closed site, that of the first."""
        return (site if site.has_tunnel_server else self.plan.sites[0]).component("tunnel")

    def controllers(self, site: Site) -> list[str]:
        """Fedids of the members whose machines dial this site's tunnel server."""
        users = [other for other in self.plan.sites if self.tunnel_of(other).site is site]
        return [self.fedids[user.component("fm").domain] for user in users]


def member(federation: Federation, site: Site, place: Path) -> dict[str, Any]:
    """The member's configuration."""
    lender = LENDERS[federation.plan.lender(site)]
    config = {
        "name": site.domain,
        **_common(site, "member", place),
        "api": {"listen": f"{site.lan}:{API_PORT}"},
        "rendezvous": federation.peer(federation.rendezvous),
        "tunnel": federation.peer(federation.tunnel_of(site)),
        "offer": {"attributes": {"gpu": site.has_gpu}},
        "policy": {"file": str(place / POLICY)},
        "middleware": {"kind": lender.kind, "options": lender.options(site, place)},
    }
    if site.closed:
        # Others can reach it only over the connections that it holds open itself.
        config["xmpp"]["keepalive"] = [component.domain for component in federation.plan.sites[0].components]
    return config


def policy(federation: Federation, site: Site) -> dict[str, Any]:
    """A member's policy: it lends what it has to all users of the federation."""
    sites = federation.plan.sites
    account = LENDERS[federation.plan.lender(site)].account
    return {
        "principals": {site.name: federation.fedids[site.component("fm").domain] for site in sites},
        "rule": [
            {
                "name": "everybody",
                "who": [f"{site.name}/*/*" for site in sites],
                "may": ["*"],
                **({} if account is None else {"account": account}),
            }
        ],
    }


def rendezvous(federation: Federation, site: Site, place: Path) -> dict[str, Any]:
    """The Rendezvous' configuration: members of this federation may announce themselves."""
    members = [federation.fedids[other.component("fm").domain] for other in federation.plan.sites]
    return {
        **_common(site, "rendezvous", place),
        "http": {"listen": f"127.0.0.1:{HEALTH_PORT['rendezvous']}"},
        "rendezvous": {"allow": members},
    }


def tunnel(federation: Federation, site: Site, place: Path) -> dict[str, Any]:
    """The tunnel server's configuration."""
    return {
        **_common(site, "tunnel", place),
        "http": {"listen": f"127.0.0.1:{HEALTH_PORT['tunnel']}"},
        "tunnel": {
            "listen": f"{site.dmz}:{TUNNEL_PORT}",
            "host": f"tunnel.{site.domain}",
            "address": site.public,
            "bind": site.dmz,
            "ports": f"{TUNNEL_PORTS[0]}-{TUNNEL_PORTS[1]}",
            "host_key": str(place / "host_key"),
            "controllers": federation.controllers(site),
        },
    }


CONFIGS: dict[str, Callable[[Federation, Site, Path], dict[str, Any]]] = {
    "member": member,
    "rendezvous": rendezvous,
    "tunnel": tunnel,
}


def _common(site: Site, kind: str, place: Path) -> dict[str, Any]:
    component = site.component(KINDS[kind])
    return {
        "identity": {"key": str(place / "key.pem")},
        "xmpp": {
            "address": component.domain,
            "host": site.dmz,
            "port": component.port,
            "secret_file": str(place / "secret"),
        },
        "store": {"url": f"sqlite:///{place}/{kind}.db"},
    }


def to_toml(data: Mapping[str, Any], prefix: str = "") -> str:
    """Write tables of plain values as TOML: a JSON string, number, boolean or list of them is a TOML one, too."""
    plain = {key: value for key, value in data.items() if not isinstance(value, Mapping) and not _is_tables(value)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for key, value in data.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{prefix}{key}]", to_toml(value, f"{prefix}{key}.")]
        elif _is_tables(value):
            lines += [text for table in value for text in ("", f"[[{prefix}{key}]]", to_toml(table, f"{prefix}{key}."))]
    return "\n".join(lines)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
