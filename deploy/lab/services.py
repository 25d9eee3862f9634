"""The long-lived processes of the lab, one role each: `dns`, `site-a/xmpp`, `site-a/member`, …

A service is started in the network namespace of its host and, where the lab can choose, under a user of its own without any
privilege. Only a member keeps root's, because its embedded middleware makes machines of namespaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from deploy.lab import components, xmpp
from deploy.lab.lenders import LENDERS
from deploy.lab.places import LOGS, NOTIFY, PATH, PYTHON, RUN, SOURCES, TEMPORARY, directory
from deploy.lab.topology import INTERNET, Plan, Site, namespace

# Users of the lab; they exist only in its own /etc/passwd. Kept below 65534 so that a range of subordinate ids holds them.
USERS = {"dns": 64901, "xmpp": 64902, "tunnel": 64903, "rendezvous": 64904}
MEMBER_USER = 0
READY_TIMEOUT = 30.0  # seconds
LENDER_TIMEOUT = 300.0  # seconds; half a minute where nothing else runs


@dataclass(frozen=True)
class Service:
    """One process: how it is started and how it shows that it is ready.

    Ready means that it listens on all of `ports`, or, where there are none, that it says so (sd_notify(3)).
    """

    role: str
    host: str
    command: list[str]
    user: int
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    udp: bool = False
    after: tuple[str, ...] = ()
    """Roles that are ready before it starts."""
    patience: float = READY_TIMEOUT
    """Seconds until it must be ready."""
    whole: bool = False
    """Whether a signal means all processes that it started as well."""

    @property
    def log(self) -> Path:
        """Where its stdout and stderr go."""
        return LOGS / f"{namespace(self.role)}.log"

    @property
    def notify_socket(self) -> Path:
        """Where it reports its state (sd_notify(3))."""
        return NOTIFY / namespace(self.role)

    def full_command(self) -> list[str]:
        """The command line that enters the host and drops privileges; every step execs, so the pid stays."""
        enter = ["nsenter", f"--net=/run/netns/{namespace(self.host)}"]
        return [*enter, *as_user(self.user), *self.command]

    def full_environment(self) -> dict[str, str]:
        """A clean environment: nothing of the person's that started the lab reaches a service."""
        base = {
            "PATH": PATH,
            "HOME": "/nonexistent",
            "LANG": "C.UTF-8",
            "TMPDIR": str(TEMPORARY),
            "PYTHONPATH": str(SOURCES),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if not self.ports:
            base["NOTIFY_SOCKET"] = str(self.notify_socket)
        return {**base, **self.environment}


def as_user(user: int) -> list[str]:
    """The prefix that runs a command as `user` without any privilege; nothing for root."""
    if user == 0:
        return []
    ids = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]


def services(plan: Plan, *, can_drop: bool) -> list[Service]:
    """All services of a lab; without `can_drop` (only one uid is mapped) all of them keep the one uid there is."""
    users = USERS if can_drop else dict.fromkeys(USERS, 0)
    dnsmasq = ["dnsmasq", "--no-daemon", f"--conf-file={RUN}/dnsmasq.conf"]
    result = [Service("dns", INTERNET, dnsmasq, users["dns"], ports=(53,), udp=True)]
    for site in plan.sites:
        if "xmpp" in plan.services:
            result.append(_xmpp(site, users["xmpp"]))
        if "rendezvous" in plan.services and site.has_rendezvous:
            result.append(_fed(site, "rendezvous", "dmz", users["rendezvous"]))
        if "tunnel" in plan.services and site.has_tunnel_server:
            result.append(_fed(site, "tunnel", "dmz", users["tunnel"]))
        if "member" in plan.services:
            lender = _lender(plan, site)
            result += lender
            result.append(replace(_fed(site, "member", "lan", MEMBER_USER), after=tuple(each.role for each in lender)))
    return result


def _xmpp(site: Site, user: int) -> Service:
    server = xmpp.SERVERS[site.server]
    place = directory(site, "xmpp")
    environment = {"HOME": str(place), **server.environment(place)}
    ports = tuple(xmpp.ready_ports(site))
    return Service(f"{site.name}/xmpp", f"{site.name}/dmz", server.command(place), user, environment, ports)


def _lender(plan: Plan, site: Site) -> list[Service]:
    command = LENDERS[plan.lender(site)].command
    if command is None:
        return []
    role, host = f"{site.name}/lender", f"{site.name}/lan"
    return [Service(role, host, [str(PYTHON), *command(site)], MEMBER_USER, patience=LENDER_TIMEOUT, whole=True)]


def _fed(site: Site, kind: str, zone: str, user: int) -> Service:
    place = directory(site, kind)
    command = [str(PYTHON), "-m", "deploy.cli", *components.COMMANDS[kind], "serve", "-c", str(place / f"{kind}.toml")]
    return Service(f"{site.name}/{kind}", f"{site.name}/{zone}", command, user, {"HOME": str(place)})
