"""Routing: static ways, or FRR's ospfd over the networks of the experiment, as `rtproto` says.

`Static`, `Session` and `ospf` may all come as routes of the description, computed; where the description asks for dynamic routing and FRR
is installed, its daemons find the ways and none is set. `Manual` sets nothing. FRR runs with files and sockets of its own, beside whatever
else of it the image may run; hello and dead intervals are short, because an experiment is small and its author is waiting.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator

from fedkit.node.kit.conf import Conf
from fedkit.node.kit.doing import Change
from fedkit.node.kit.files import Folder, Text
from fedkit.node.kit.network import Kernel, Learned, Route, routes
from fedkit.node.kit.processes import Daemon, digest
from fedkit.node.kit.system import System

DYNAMIC = {"session", "ospf"}
FRR = "/usr/lib/frr"
FRR_USER = "frr"


def changes(conf: Conf, system: System) -> Iterator[Change]:
    """What routing changes."""
    if conf.forwards:
        yield Kernel("net/ipv4/ip_forward", "1")
    if conf.routing == "manual":
        return
    if conf.routing in DYNAMIC and conf.networks and _has_frr(system):
        yield from _frr(conf, system)
        return
    for destination, via in conf.routes:
        yield Route(destination, via)


def _has_frr(system: System) -> bool:
    return all(system.path(f"{FRR}/{name}").exists() for name in ("zebra", "ospfd"))


def _frr(conf: Conf, system: System) -> Iterator[Change]:
    folder = f"{system.state}/frr"
    uid, gid = pwd.getpwnam(FRR_USER).pw_uid, grp.getgrnam(FRR_USER).gr_gid
    areas = "".join(f" network {network} area 0\n" for network in conf.networks)
    timers = "".join(
        f"interface {device}\n ip ospf hello-interval 1\n ip ospf dead-interval 4\n"
        for device in _devices(conf, system)
    )
    yield Learned("FRR")
    yield Folder(folder, 0o750, uid, gid)
    yield Text(f"{folder}/zebra.conf", f"hostname {conf.name}\n", 0o640, uid, gid)
    yield Text(f"{folder}/ospfd.conf", f"hostname {conf.name}\n{timers}router ospf\n{areas}", 0o640, uid, gid)
    read = {"FEDERATION_CONF": digest(areas + timers)}
    for name in ("zebra", "ospfd"):
        own = ["-f", f"{folder}/{name}.conf", "-i", f"{folder}/{name}.pid", "-z", f"{folder}/zserv.api"]
        own += ["--vty_socket", folder, "-A", "127.0.0.1", "-P", "0", "--log", "stdout"]
        yield Daemon(name, [f"{FRR}/{name}", *own], read)


def _devices(conf: Conf, system: System) -> list[str]:
    """The interfaces on the experiment's networks."""
    return sorted({hop.device for hop in routes() if not hop.via and hop.destination in conf.networks})
