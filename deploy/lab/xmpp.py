"""The XMPP servers of the lab: which files they read, and how they are started.

The templates are those of `deploy/templates`, which operators use too; the lab only fills them in.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template

from deploy.lab.pki import Certificate
from deploy.lab.places import PROSODY_MODULES
from deploy.lab.topology import S2S_PORT, Component, Plan, Site

TEMPLATES = Path(__file__).parent.parent / "templates"
# libunbound answers NXDOMAIN for the reserved `.test` by itself (RFC 6761 §6.2) unless told that the lab has it.
UNBOUND_TEST = ', options = { ["local-zone:"] = "test. transparent" }'


@dataclass(frozen=True)
class ServerFiles:
    """What an XMPP server is given: its directory, component secrets and whether it keeps root's uid."""

    site: Site
    directory: Path
    secrets: dict[str, str]
    as_root: bool


@dataclass(frozen=True)
class ServerKind:
    """One implementation: the files it reads, its command line and environment, the ports that tell it is ready."""

    files: Callable[[ServerFiles, Plan], dict[str, str]]
    command: Callable[[Path], list[str]]
    environment: Callable[[Path], dict[str, str]]


def ready_ports(site: Site) -> list[int]:
    """The TCP ports that the server listens on once it is ready."""
    return [S2S_PORT, *(component.port for component in site.components)]


def certificate_files(certificate: Certificate) -> dict[str, str]:
    """The names under which both servers look for certificate and key."""
    return {
        "server.crt": certificate.certificate,
        "server.key": certificate.key,
        "server.pem": certificate.certificate + certificate.key,
    }


def _peers(plan: Plan, site: Site) -> list[str]:
    others = [other for other in plan.sites if other is not site]
    return [component.domain for other in others for component in other.components]


def _prosody_files(server: ServerFiles, plan: Plan) -> dict[str, str]:
    site = server.site
    folder = TEMPLATES / "prosody"
    component = Template((folder / "component.cfg.lua").read_text())
    main = Template((folder / "prosody.cfg.lua").read_text()).substitute(
        run_as_root=str(server.as_root).lower(),
        directory=server.directory,
        plugins=PROSODY_MODULES,
        address=site.dmz,
        component_ports=", ".join(str(c.port) for c in site.components),
        peers=", ".join(f'"{domain}"' for domain in _peers(plan, site)),
        unbound=UNBOUND_TEST,
        domain=site.domain,
        components="".join(component.substitute(_fields(server, c)) for c in site.components),
    )
    return {"prosody.cfg.lua": main}


def _prosody_command(directory: Path) -> list[str]:
    return ["prosody", "-F", "--config", str(directory / "prosody.cfg.lua")]


def _ejabberd_files(server: ServerFiles, plan: Plan) -> dict[str, str]:
    site = server.site
    folder = TEMPLATES / "ejabberd"
    component = Template((folder / "component.yml").read_text())
    main = Template((folder / "ejabberd.yml").read_text()).substitute(
        domain=site.domain,
        directory=server.directory,
        address=site.dmz,
        peers="\n".join(f"      - {domain}" for domain in _peers(plan, site)),
        components="".join(component.substitute(_fields(server, c)) for c in site.components),
    )
    return {"ejabberd.yml": main, "inetrc": (folder / "inetrc").read_text()}


def _ejabberd_command(directory: Path) -> list[str]:
    # Without ejabberdctl: it wants root or its own user, and starts epmd, a daemon that would outlive the server.
    return [
        *("erl", "-noinput", "+K", "true", "+sbwt", "none", "+S", "2"),
        *("-mnesia", "dir", f'"{directory}/data"', "-s", "ejabberd"),
    ]


def _ejabberd_environment(directory: Path) -> dict[str, str]:
    return {
        "ERL_LIBS": f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}",
        "ERL_INETRC": str(directory / "inetrc"),
        "EJABBERD_CONFIG_PATH": str(directory / "ejabberd.yml"),
        "EJABBERD_LOG_PATH": str(directory / "ejabberd.log"),
        "ERL_CRASH_DUMP_BYTES": "0",
        "HOME": str(directory),
    }


def _fields(server: ServerFiles, component: Component) -> dict[str, object]:
    return {
        "domain": component.domain,
        "secret": server.secrets[component.kind],
        "port": component.port,
        "address": server.site.dmz,
    }


SERVERS = {
    "prosody": ServerKind(_prosody_files, _prosody_command, lambda directory: {}),
    "ejabberd": ServerKind(_ejabberd_files, _ejabberd_command, _ejabberd_environment),
}
