"""The user data of an experiment's machine: its hosts file, its routes, and the command that its author wants to run.

    node_script(NodeConfig) ──► POSIX sh, run as root at the end of boot; all that it says stands in /tmp/federate

It may run at every boot: each step replaces what it did before. Networks may come up later than the script, so routes are tried until
they hold, for a minute. Where routing is dynamic and the machine has FRR, its daemons (started by the kit) find the ways, and those that
are set hold only where the daemons know none. A machine that several parties of an experiment share forwards nothing before it keeps
them apart.
What services want besides is done by the federation's kit (kit/), which comes along where there are any, and needs Python.
Every text of the description is quoted or stands in a here-document that it cannot end. A long
script is packed, because clouds bound user data (OpenStack: 64 KiB in base64).
"""

from __future__ import annotations

import base64
import gzip
import shlex
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from fedkit.node.archive import archive
from fedkit.node.kit.conf import write
from fedkit.node.queues import words
from fedkit.topology.shaping import Shape

LOG = "/tmp/federate"  # noqa: S108  where experimenters look for it since DETER's first federation
PLAIN_LIMIT = 16 * 1024  # octets above which a script is packed
ROOM = 48 * 1024  # octets that every cloud takes
PROGRAM = files("fedkit.node") / "node.sh"


@dataclass(frozen=True)
class NodeConfig:
    """One machine. `hosts` are names by address, `routes` destination (a prefix) and neighbour.

    `shapes` are those of its interfaces, by address. `apart` are addresses of its own with networks: what enters there neither goes to
    that network nor comes from it.
    `networks` are those over which routing daemons speak with one another; none: the routes are all.
    `settings` is the `client.conf` of its services, carried out by the federation kit (kit/) where the machine has Python.
    """

    name: str
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    routes: Sequence[tuple[str, str]] = ()
    apart: Sequence[tuple[str, str]] = ()
    networks: Sequence[str] = ()
    forwards: bool = False
    startup: str = ""
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    settings: str = field(default="", repr=False)  # holds secrets
    log: str = LOG


def node_script(config: NodeConfig) -> str:
    """Return the script; raises `ValueError` for a name or address that has white space in it.

    Where it would become too long by what only daemons of routing need, they are left out.
    """
    script = _script(config, has_daemons=bool(config.networks))
    is_too_long = len(script.encode()) > ROOM and config.networks and not config.settings
    return _script(config, has_daemons=False) if is_too_long else script


def _script(config: NodeConfig, *, has_daemons: bool) -> str:
    said = {
        "NAME": _word(config.name),
        "HOSTS": "\n".join(f"{_word(ip)} {' '.join(map(_word, names))}" for ip, names in config.hosts.items()),
        "APART": "\n".join(f"{_word(address)} {_word(network)}" for address, network in config.apart),
        "ROUTES": "\n".join(f"{_word(destination)} {_word(via)}" for destination, via in config.routes),
        "SHAPES": "\n".join(_shape(_word(address), shape) for address, shape in config.shapes.items() if shape),
        "FORWARDS": "yes" if config.forwards else "",
        "SETTINGS": config.settings,
        "NETWORKS": " ".join(map(_word, config.networks)),
        "ROUTING": _routing(config) if has_daemons else "",
        "KIT": _kit() if config.settings or has_daemons else "",
        "STARTUP": config.startup,
        "LOG": config.log,
    }
    settings = [f"{name}={shlex.quote(value)}" for name, value in said.items()]
    script = "\n".join(["#!/bin/sh", *settings, PROGRAM.read_text().removeprefix("#!/bin/sh\n")])
    return script if len(script.encode()) <= PLAIN_LIMIT else _packed(script)


def _routing(config: NodeConfig) -> str:
    """What the kit is told for its daemons to find the ways, behind what services tell it."""
    name = [] if config.settings else [("Name", config.name)]
    return "\n" + write([*name, ("Routing", "ospf"), *(("Network", network) for network in config.networks)])


@cache
def _kit() -> str:
    """The federation's kit, compressed as a whole."""
    return base64.b64encode(zlib.compress(archive(compressed=False), 9)).decode()


def _shape(address: str, shape: Shape) -> str:
    """A line: the address, whether it is no link without this, and what is done to what leaves there and what enters there."""
    ways = (shape.to, shape.back)
    is_vital = any(way.delay or way.loss for way in ways)
    return "|".join([address, "yes" * is_vital, *(words(way.rate, way.delay, way.loss, shape.queue) for way in ways)])


def _packed(script: str) -> str:
    """The same as a script that unpacks itself."""
    packed = base64.encodebytes(gzip.compress(script.encode(), mtime=0)).decode()
    unpack = 'file=$(mktemp) && base64 -d <<"END" | gzip -dc >"$file" && exec /bin/sh "$file"'
    return f"#!/bin/sh\n{unpack}\n{packed}END\n"


def _word(text: str) -> str:
    if not text or any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError(f"{text!r} is to be one word")
    return text
