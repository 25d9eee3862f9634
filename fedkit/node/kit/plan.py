"""From a node's `client.conf` to the list of changes, in the order in which they are made.

    name, hosts ─► routing ─► accounts ─► exports ─► mounts ─► files, daemons, the agent ─► the start command, which finds all of it

Nothing is changed here. What the kit itself changed before is looked through, so that asking again gives the same list.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import asdict

from fedkit.node.kit import accounts, routing, smb
from fedkit.node.kit.conf import Conf
from fedkit.node.kit.doing import Change, Kinds
from fedkit.node.kit.files import Block, Folder, Records, Text
from fedkit.node.kit.journal import Journal
from fedkit.node.kit.network import Hostname, Kernel, Learned, Link, Route
from fedkit.node.kit.processes import Daemon, Startup, digest
from fedkit.node.kit.system import System

TITLE = "names of the federation kit"
AGENT = "agent"
KINDS: Kinds = {
    kind.__name__: kind
    for kind in (
        Text,
        Folder,
        Block,
        Records,
        Route,
        Learned,
        Link,
        Kernel,
        Hostname,
        Daemon,
        Startup,
        smb.Password,
        smb.Mount,
    )
}


def plan(conf: Conf, system: System, journal: Journal, conf_path: str) -> list[Change]:
    """All that a node is to be."""
    return list(_changes(conf, system, journal, conf_path))


def _changes(conf: Conf, system: System, journal: Journal, conf_path: str) -> Iterator[Change]:
    if conf.name:
        yield Hostname(conf.name)
    lines = hosts(conf)
    if lines:
        yield Block("/etc/hosts", TITLE, lines)
    yield from routing.changes(conf, system)
    found = accounts.people(conf, lambda path: _original(path, system, journal))
    yield from accounts.changes(conf, system, found)
    if conf.exports:
        yield from smb.exported(system, conf.exports, dict(found.owners))
    for share in conf.shares:
        yield from smb.mounted(system, share, found.owners[share.user])
    for path, mode, content in conf.files:
        *parents, _ = list(smb.folders(system, path, 0o755, smb.Owner("root", 0, 0)))
        yield from parents
        yield Text(path, content, mode)
    for name, command in conf.daemons.items():
        yield Daemon(name, ["/bin/sh", "-c", f"exec {command}"])
    for address in dict.fromkeys(conf.links.values()):
        yield Link(address)
    if conf.listens:
        serve = [*system.kit, "serve", "--conf", conf_path, "--state", system.state]
        yield Daemon(AGENT, serve, {"FEDERATION_CONF": _digest(conf)})
    if conf.startup:
        yield Startup(conf.startup)


def _digest(conf: Conf) -> str:
    """Alike in each run of the kit, which the order of a set is not."""
    return digest(json.dumps(asdict(conf), default=sorted))


def hosts(conf: Conf) -> list[str]:
    """The lines of the hosts file: without hidden nodes, and with the gateways' other names."""
    lines = []
    first = {names[0] for _, names in conf.hosts if any(name.startswith(f"{names[0]}-") for name in names[1:])}
    hidden = tuple(f"{name}-" for name in conf.hidden)
    addresses = {name: address for address, names in conf.hosts for name in names}
    for address, names in conf.hosts:
        shown = [n for n in names if n in first - conf.hidden or not (n in conf.hidden or n.startswith(hidden))]
        if shown:
            lines.append(f"{address} {' '.join(shown)}")
    for alias, gateway in conf.aliases.items():
        if alias not in addresses:
            lines.append(f"{addresses.get(gateway, gateway)} {alias}")
    return lines


def _original(path: str, system: System, journal: Journal) -> str:
    """A file as it was before the kit."""
    for entry in journal.entries.values():
        if entry.wants.get("path") == path:
            return "" if entry.before is None else b64decode(entry.before["content"]).decode(errors="surrogateescape")
    try:
        return system.path(path).read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ""
