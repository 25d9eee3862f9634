"""The user data that make a machine a portal, whatever its image has for it.

    portal.sh     the keys' files; which interface is which crossing; the passive end's port at the tunnel server
    program.sh    our program (service.py), if it is in the image with what it needs, for ever
    openssh.sh    else bridges, taps, and OpenSSH between the two ends, a connection for each crossing

    crossing ── eth1 ── br7 ── tap7 ──┐ ssh, active ──► passive ┌── tap7 ── br7 ── eth1 ── crossing
    crossing ── eth2 ── br9 ── tap9 ──┴═════════════════════════┴── tap9 ── br9 ── eth2 ── crossing

Either end may be of either kind: our program speaks OpenSSH's protocol to whoever has no other. Each crossing has a tap and a bridge
of its own, named by its tag, so crossings never mix. Taps stay in their bridges while a program dies and is started again; a connection
that breaks is made anew for ever, and frames wait for it nowhere. The passive end lets in the peer's key alone, on a port of its
own that its machine's tunnel makes reachable; that key opens crossings and nothing else. Nobody on a crossing reaches the machine,
or anything by way of it.

For the lender: the passive portal's machine has two tunnels, `ssh` (that every machine has) and `TUNNEL`, "portal". The host and
port of the latter, with the machine's host key, are what the other side's portal must be told. Where the lender makes the folder
`STATE` before the script runs, it finds `brief.json` in it (status.py); of it OpenSSH's kind knows `joined` and `plane`.

What a Linux bridge keeps to itself (IEEE 802.1D's reserved group) crosses no portal: STP and LACP anywhere, the rest of them, such
as LLDP, with OpenSSH in machines without a /sys (containers).

Needs root and an image with `deploy/portal`'s package in /usr/local/lib, its Python and iproute2; or with OpenSSH and `ip` (iproute2's,
or busybox's with its `tunctl`). The passive end needs OpenSSH's client. Source of the roles: the seed, federation kit (D58 to D60).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files

from fedkit.topology.shaping import Shape

PORT = 2022  # of the passive end's ssh server, inside its machine
TUNNEL = "portal"  # the name under which its port is reached from outside
PROGRAM = "usr/local/lib/fedmesh-portal"  # below /, in an image that has our program
STATE = "run/fed-portal"  # below /; a lender that watches its portals has it made
PARTS = ("portal.sh", "program.sh", "openssh.sh")
PLANES = ("superframes", "classic")  # an experiment's portals reach one another by a tunnel, which carries no datagrams


@dataclass(frozen=True)
class Relay:
    """Somebody else's tunnel server, which lets a portal hold a port by the key that the portal has."""

    host: str
    port: int
    host_key: str
    name: str  # of the port


@dataclass(frozen=True)
class PortalConfig:
    """One end. `tags` are those of its crossings, in the order of its networks.

    The passive end has no `host`; the active one knows `host`, `port` and `host_key` of its peer. Where its machine has
    no `tunnel` of its own, the passive end is reached at a `relay`. `lines` are the delays and losses of
    crossings, by tag: for those our program is needed, and where it does not run there is no portal.
    """

    tags: tuple[int, ...]
    private_key: str = field(repr=False)  # OpenSSH format
    peer_key: str
    host: str | None = None
    port: int | None = None
    host_key: str | None = None
    tunnel: str = TUNNEL
    relay: Relay | None = None
    lines: Mapping[int, Shape] = field(default_factory=dict)


def portal_script(config: PortalConfig) -> str:
    """Return the script; raises `ValueError` for a key or name that is more than one line."""
    said = {
        "TAGS": " ".join(str(tag) for tag in config.tags),
        "PEER_KEY": _line(config.peer_key),
        "PORT": str(config.port or PORT),
        "TUNNEL": _line(config.relay.name if config.relay else config.tunnel),
        "STATE": f"/{STATE}",
        "HOST": _line(config.host or ""),
        "HOST_KEY": _line(config.host_key or ""),
        "RELAY_HOST": _line(config.relay.host if config.relay else ""),
        "RELAY_PORT": str(config.relay.port if config.relay else ""),
        "RELAY_KEY": _line(config.relay.host_key if config.relay else ""),
        "PRIVATE_KEY": config.private_key.strip(),
        "SETTINGS": _settings(config),
        "LINES": "\n".join(f"{tag} {said}" for tag, shape in config.lines.items() for said in _said_of(shape)),
    }
    settings = [f"{name}={shlex.quote(value)}" for name, value in said.items()]
    program = "".join((files("fedkit.portal") / name).read_text() for name in PARTS)
    return "\n".join(["#!/bin/sh", *settings, program.removeprefix("#!/bin/sh\n")])


def _settings(config: PortalConfig) -> str:
    """Our program's file (config.py), but for what only the machine knows: its interfaces."""
    waits = config.host is None
    here = {"peer": [], "nat_partner": True, "tunnelip": True, "address": "127.0.0.1", "host_key": "/etc/fed/host_key"}
    there = {"peer": [config.host], "host_key": "/etc/fed/portal/host.pub"}
    said = {
        "active": not waits,
        **(here if waits else there),
        "port": config.port or PORT,
        "ssh_privkey": "/etc/fed/portal/key",
        "ssh_pubkey": "/etc/fed/portal/peer.pub",
        "planes": PLANES,
    }
    # What JSON writes of texts, numbers and lists is TOML as well.
    return "\n".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in said.items())


def _said_of(shape: Shape) -> Iterator[str]:
    """A crossing's keys in our program's file."""
    for end, way in (("", shape.to), ("_back", shape.back)):
        yield f"delay{end}_ms = {way.delay}"
        yield f"loss{end} = {way.loss}"


def _line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise ValueError("a key or name is one line")
    return text
