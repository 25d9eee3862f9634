"""Routing: static ways, or FRR's ospfd over the networks of the experiment, as `rtproto` says.

`Static`, `Session` and `ospf` may all come as routes of the description, computed; where the description asks for dynamic routing and FRR
is installed, its daemons find the ways and none is set. `Manual` sets nothing. FRR runs with files and sockets of its own, beside whatever
else of it the image may run; hello and dead intervals are short, because an experiment is small and its author is waiting.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network

from fedkit.node.kit import shield
from fedkit.node.kit.conf import Conf
from fedkit.node.kit.doing import Change
from fedkit.node.kit.files import Folder, Text
from fedkit.node.kit.network import Kernel, Learned, Route, addresses
from fedkit.node.kit.processes import Daemon, digest
from fedkit.node.kit.system import System

DYNAMIC = {"session", "ospf"}
FRR = "/usr/lib/frr"
DAEMONS = ("zebra", "ospfd")
FRR_USER = "frr"
# Who does not find zebra tries again ten seconds later; so wait for its socket, for ten seconds at most.
BEHIND = 'tries=100; until [ -S "$0" ] || [ $((tries -= 1)) -eq 0 ]; do sleep 0.1; done; exec "$@"'


def changes(conf: Conf, system: System) -> Iterator[Change]:
    """What routing changes."""
    if conf.forwards:
        yield Kernel("net/ipv4/ip_forward", "1")
    if conf.routing == "manual":
        return
    if conf.routing in DYNAMIC and conf.networks:
        devices = _devices(conf)
        lacking = _lacking(system, devices)
        if lacking is None:
            yield from _frr(conf, system, devices)
            return
        system.say(f"no ways are found by themselves, because {lacking}; they are as computed")
    for destination, via in conf.routes:
        yield Route(destination, via)


def _devices(conf: Conf) -> dict[str, str]:
    """The interfaces on the experiment's networks, also if they are down now, and the address of each."""
    networks = [IPv4Network(network) for network in conf.networks]
    found = sorted(addresses())
    return {device: own for device, own in found if any(IPv4Address(own) in network for network in networks)}


def _lacking(system: System, devices: Mapping[str, str]) -> str | None:
    """Why FRR cannot run here; None if it can."""
    if not devices:
        return "the machine is on no network of the experiment"
    if not all(system.path(f"{FRR}/{name}").exists() for name in DAEMONS):
        return "FRR is not installed"
    try:
        pwd.getpwnam(FRR_USER)
        grp.getgrnam(FRR_USER)
    except KeyError:
        return f"there is no account {FRR_USER}"
    return None if shield.is_possible() or not shield.is_needed() else "FRR asks for rights that nobody has here"


def _frr(conf: Conf, system: System, devices: Mapping[str, str]) -> Iterator[Change]:
    folder = f"{system.state}/frr"
    uid, gid = pwd.getpwnam(FRR_USER).pw_uid, grp.getgrnam(FRR_USER).gr_gid
    areas = "".join(f" network {network} area 0\n" for network in conf.networks)
    timers = "".join(f"interface {device}\n ip ospf hello-interval 1\n ip ospf dead-interval 4\n" for device in devices)
    own = min(devices.values())  # what a machine has besides, at its lender, others may have as well
    router = f"router ospf\n ospf router-id {own}\n"
    yield Learned("FRR")
    yield Folder(folder, 0o750, uid, gid)
    yield Text(f"{folder}/zebra.conf", f"hostname {conf.name}\n", 0o640, uid, gid)
    yield Text(f"{folder}/ospfd.conf", f"hostname {conf.name}\n{timers}{router}{areas}", 0o640, uid, gid)
    read, shielded = {"FEDERATION_CONF": digest(timers + router + areas)}, shield.is_needed()
    for name in DAEMONS:
        options = ["-f", f"{folder}/{name}.conf", "-i", f"{folder}/{name}.pid", "-z", f"{folder}/zserv.api"]
        options += ["--vty_socket", folder, "-A", "127.0.0.1", "-P", "0", "--log", "stdout"]
        waits = [] if name == "zebra" else ["/bin/sh", "-c", BEHIND, f"{folder}/zserv.api"]
        yield Daemon(name, [*waits, f"{FRR}/{name}", *options], read, shielded)
