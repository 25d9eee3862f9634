"""The user data that make a machine a portal: bridges, taps, and OpenSSH between the two ends.

    crossing ── eth1 ─┐                                                    ┌─ eth1 ── crossing
                      br7 ── tap7 ══ ssh -w 7:7 (active ──► passive) ══ tap7 ── br7
    crossing ── eth2 ─┘ br9 ── tap9 ══ ssh -w 9:9 ═══════════════════════ tap9 ── br9

Each crossing has a connection, a tap and a bridge of its own, named by its tag, so crossings never mix. The taps are made once and
stay in their bridges; a connection that breaks is made anew for ever, and frames wait for it nowhere. The passive end serves the
peer's key alone, on a port of its own that its machine's tunnel makes reachable; that key opens taps and nothing else.

For the lender: the passive portal's machine has two tunnels, `ssh` (that every machine has) and `TUNNEL`, "portal". The host and
port of the latter, with the machine's host key, are what the other side's portal must be told.

What a Linux bridge keeps to itself (IEEE 802.1D's reserved group) crosses no portal: STP and LACP anywhere, the rest of them, such
as LLDP, in machines without a /sys (containers).

Needs root, OpenSSH, and `ip` (iproute2's, or busybox's with its `tunctl`). Source of the roles: the seed, federation kit (D58 to D60).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from importlib.resources import files

PORT = 2022  # of the passive end's ssh server, inside its machine
TUNNEL = "portal"  # the name under which its port is reached from outside
PROGRAM = files("fedkit.portal") / "portal.sh"


@dataclass(frozen=True)
class PortalConfig:
    """One end. `tags` are those of its crossings, in the order of its networks.

    The passive end has no `host`; the active one knows `host`, `port` and `host_key` of its peer.
    """

    tags: tuple[int, ...]
    private_key: str = field(repr=False)  # OpenSSH format
    peer_key: str
    host: str | None = None
    port: int | None = None
    host_key: str | None = None
    tunnel: str = TUNNEL


def portal_script(config: PortalConfig) -> str:
    """Return the script; raises `ValueError` for a key or name that is more than one line."""
    said = {
        "TAGS": " ".join(str(tag) for tag in config.tags),
        "PEER_KEY": _line(config.peer_key),
        "PORT": str(config.port or PORT),
        "TUNNEL": _line(config.tunnel),
        "HOST": _line(config.host or ""),
        "HOST_KEY": _line(config.host_key or ""),
        "PRIVATE_KEY": config.private_key.strip(),
    }
    settings = [f"{name}={shlex.quote(value)}" for name, value in said.items()]
    return "\n".join(["#!/bin/sh", *settings, PROGRAM.read_text().removeprefix("#!/bin/sh\n")])


def _line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise ValueError("a key or name is one line")
    return text
