"""What the host program is told of a segment: a pure function of what is asked for and of what the member chose for it.

part        number  first interface          further interfaces           first program
node a      0       intranet, its address    its wires, its addresses     its author's command
portal p    n       intranet, its address    its crossings, no address    its script
gate        last    intranet, its address    none                         ssh to the tunnel server, for all nodes' ports
"""

from __future__ import annotations

import base64
import hashlib
import resource
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from federation_member.middleware.containers import network, oci
from federation_member.middleware.containers.config import DEFAULT_IMAGE, ContainersConfig
from federation_member.middleware.containers.ids import RANGE, Ids
from federation_member.middleware.containers.nodes import accounts, calls, mounts
from federation_member.middleware.containers.seed import MACHINE
from federation_member.middleware.contract import (
    NodeRequest,
    PortalRequest,
    SegmentRequest,
    TunnelAccess,
    UnknownImage,
    UnusableSpec,
    WireEnd,
)
from federation_member.middleware.inside.files import (
    ACCOUNT,
    PLAIN,
    PROGRAM,
    SECRET,
    Belongings,
    Files,
    belongings,
    text_of,
)
from federation_member.middleware.inside.host_key import HostKey
from fedkit.node.script import LOG
from fedkit.portal.script import STATE
from fedkit.protocol.lending import Flavour
from fedkit.topology.shaping import Shape

GATE = ".gate"  # a name that no node can have
GATE_RAM, GATE_DISK = 256 << 20, 64 << 20
WAYS = "run/ways"  # where the gate finds the sockets of nodes' ssh servers
WAYS_OF_ONE = 50  # ports that one connection asks for: the tunnel server takes 64 wishes at a time
GIB, MIB = 1 << 30, 1 << 20
SMALLEST_DISK = 64 * MIB
KEYS_OF_ALL = b"AuthorizedKeysFile /etc/fed/keys .ssh/authorized_keys\n"
NOTHING_MORE = "while :; do sleep 86400; done"  # as process 1 the shell takes leave of every orphan meanwhile
FENCED = {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}
SCRIPT_PROGRAM = (
    f"#!/bin/sh\nmkdir -p /var/log\n/etc/fed/user-script >/var/log/boot.log 2>&1 &\n{NOTHING_MORE}\n".encode()
)
EVERYBODYS = 0o755  # mode of a program that anybody may run
ANYWHERE = "0.0.0.0"  # noqa: S104  a destination, not where to listen
HANDED = {"net.ipv4.ip_unprivileged_port_start": "0"} | FENCED

Part = NodeRequest | PortalRequest


@dataclass(frozen=True)
class Place:
    """What the member chose for a segment: its number, its ids, and an address for each part, by name."""

    key: str
    number: int
    ids: Ids
    folder: Path
    lock: Path
    work: str
    group: str | None
    roots: tuple[Path, ...]
    numbers: Mapping[str, int]
    addresses: Mapping[str, IPv4Address]
    host_keys: Mapping[str, HostKey] = field(repr=False)


class Planner:
    """Writes the plan of one segment."""

    def __init__(self, config: ContainersConfig, place: Place, request: SegmentRequest) -> None:
        self._config = config
        self._place = place
        self._request = request
        self._numbers = place.numbers
        self._bridges = {wire: bridge_name(wire) for wire in request.wires}

    def whole(self) -> dict[str, Any]:
        """All of it; raises `UnusableSpec` or `UnknownImage`."""
        place, request = self._place, self._request
        parts: list[Part] = [*request.nodes, *request.portals]
        images = set(self._config.all_images.values())  # what comes later may be of any
        return {
            "name": f"fedmesh-{place.key}",
            "folder": str(place.folder),
            "lock": str(place.lock),
            "work": place.work,
            "first_id": place.ids.first,
            "ids": RANGE,
            "uids": place.ids.uids,
            "gids": place.ids.gids,
            "groups": None
            if place.group is None
            else {"name": place.group, "roots": [str(root) for root in place.roots]},
            "fence": _fence(self._config.limits.processes * (len(parts) + 1)),
            "masked": oci.MASKED,
            "read_only": [path for path in oci.READ_ONLY if path != "/proc/sys"] + oci.BUT_NETWORK,
            "sysctl": FENCED,
            "bridges": self.bridges(),
            "homes": {f"home/{ACCOUNT}": accounts.ID},
            "common": {str(image): _packed(self._common(image)) for image in images},
            "nodes": [*map(self.part, parts), *self.gate()],
        }

    def part(self, part: Part) -> dict[str, Any]:
        """One node or portal."""
        return self._node(part) if isinstance(part, NodeRequest) else self._portal(part)

    def gate(self) -> list[dict[str, Any]]:
        """The gate, if there is a tunnel server to go to."""
        return [] if self._request.tunnel is None else [self._gate(self._request.tunnel)]

    def bridges(self) -> dict[str, str]:
        """The bridge of each wire."""
        return dict.fromkeys(self._bridges.values(), network.VERBATIM)

    def _node(self, node: NodeRequest) -> dict[str, Any]:
        files = self._files(node.name, None) | {"etc/fed/node": (_node_program(node), PROGRAM)}
        if node.script:
            files |= {"etc/fed/node": (SCRIPT_PROGRAM, PROGRAM), "etc/fed/user-script": (node.script.encode(), PROGRAM)}
        allowed = node.mounts if mounts.are_possible(self._place.ids.first) else ()
        if allowed:
            files |= _mounter(self._image(node.image), allowed)
        return self._part(node.name, node.image, files, node.ends) | {
            "routes": self._routes(() if node.script else node.routes),
            "sysctl": HANDED | {"net.ipv4.ip_forward": "1" if node.forwards and not node.script else "0"},
            "enterable": True,
            "mounts": list(allowed),
            "way": node.way,
            **_sizes(node.flavour, self._config.limits.processes),
        }

    def _portal(self, portal: PortalRequest) -> dict[str, Any]:
        files = self._files(portal.name, self._request.tunnel)
        files |= {
            "etc/fed/node": (SCRIPT_PROGRAM, PROGRAM),
            "etc/fed/user-script": (portal.script.encode(), PROGRAM),
        }
        ends = tuple(WireEnd(wire) for wire in portal.wires)
        sizes = _sizes(portal.flavour, self._config.limits.processes)
        return self._part(portal.name, portal.image, files, ends) | sizes | {"watched": STATE}

    def _part(self, name: str, image: str, files: Files, ends: Sequence[WireEnd]) -> dict[str, Any]:
        """What portals and the gate have, and nodes have more of."""
        number = self._numbers[name]
        return {
            "name": name,
            "number": number,
            "hostname": name.lstrip("."),
            "base": str(self._image(image)),
            "seed": _packed(files),
            "binds": {},
            "plugs": [self._uplink(name), *(self._plug(number, index, end) for index, end in enumerate(ends, start=1))],
            "routes": self._routes(()),
            "sysctl": HANDED,
            "enterable": False,
            "mounts": [],
            "watched": None,
            "way": None,
        }

    def _gate(self, tunnel: TunnelAccess) -> dict[str, Any]:
        files = self._files(GATE, tunnel)
        ways = [node.way for node in self._request.nodes]
        configs = [ways[start : start + WAYS_OF_ONE] for start in range(0, len(ways), WAYS_OF_ONE)]
        for index, names in enumerate(configs):
            lines = ["Include /etc/ssh/ssh_config.d/fed.conf", "Host tunnel"]
            lines += [f"RemoteForward {name}:0 /{WAYS}/{name}" for name in names]
            files[f"etc/fed/ways-{index}"] = (text_of(lines), PLAIN)
        program = ["#!/bin/sh", ". /etc/fed/functions"]
        program += [f"forever ssh -N -F /etc/fed/ways-{index} tunnel &" for index in range(len(configs))]
        files["etc/fed/node"] = (text_of([*program, NOTHING_MORE]), PROGRAM)
        sizes = {"memory_bytes": GATE_RAM + GATE_DISK, "disk_bytes": GATE_DISK, "vcpu": 1}
        part = self._part(GATE, DEFAULT_IMAGE, files, ())
        return part | sizes | {"binds": {"ways": WAYS}, "processes": self._config.limits.processes}

    # Files

    def _common(self, image: Path) -> Files:
        """What all nodes on this image have: accounts, keys of those who may enter, names of all."""
        hosts = [f"{address} {' '.join(names)}" for address, names in self._request.hosts.items()]
        return accounts.files(image, self._request.ssh_keys) | {
            "etc/fed/sshd_config": ((MACHINE / "sshd_config").read_bytes() + KEYS_OF_ALL, PLAIN),
            "etc/fed/user_ca": (text_of([ca] if (ca := self._request.trusted_ca) else []), PLAIN),
            "etc/hosts": (text_of(["127.0.0.1 localhost", *hosts]), PLAIN),
            "etc/resolv.conf": (text_of(f"nameserver {server}" for server in self._config.dns), PLAIN),
            "run/sshd/.made": (b"", SECRET),
        }

    def _files(self, name: str, tunnel: TunnelAccess | None) -> Files:
        """What a part alone has."""
        has = Belongings("node", [], self._place.host_keys[name], tunnel, self._request.trusted_ca)
        return belongings(has) | {"etc/hostname": (text_of([name]), PLAIN)}

    def _image(self, name: str) -> Path:
        path = self._config.all_images.get(name)
        if path is None:
            raise UnknownImage(f"There is no image {name} here; there are {', '.join(self._config.all_images)}.")
        return path

    # Interfaces

    def _uplink(self, name: str) -> dict[str, Any]:
        address = self._place.addresses[name]
        return {
            "outside": uplink_name(self._place.number, self._numbers[name]),
            "bridge": self._config.bridge,
            "hardware": network.hardware_address(address),
            "address": str(address),
            "netmask": str(self._config.subnet.netmask),
            "isolated": True,
            "shape": None,
        }

    def _plug(self, number: int, index: int, end: WireEnd) -> dict[str, Any]:
        prefix = IPv4Network(self._request.wires[end.wire])
        outside = f"p{number}x{index}"
        hardware = network.hardware_address_of(number, index)
        if end.address is not None:
            hardware = network.hardware_address(IPv4Address(end.address))
        return {
            "outside": outside,
            "bridge": self._bridges[end.wire],
            "hardware": hardware,
            "address": end.address,
            "netmask": str(prefix.netmask),
            "isolated": False,
            "shape": _shape(end.shape) if end.shape else None,
        }

    def _routes(self, routes: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
        gateway = self._config.gateway
        first = [] if gateway is None else [(ANYWHERE, ANYWHERE, str(gateway))]
        found = [(IPv4Network(destination), via) for destination, via in routes]
        return first + [(str(one.network_address), str(one.netmask), via) for one, via in found]


def uplink_name(number: int, part: int) -> str:
    """The outer end, in the intranet, of a part of segment `number`; the fence knows it by its beginning."""
    return f"{network.FENCED_PORT}{number}x{part}"


def bridge_name(wire: str) -> str:
    """What a wire's bridge is called, whatever wires there are besides or come later."""
    return "w" + hashlib.sha256(wire.encode()).hexdigest()[:14]  # as long as an interface's name may be


def check(request: SegmentRequest, intranet: IPv4Network) -> None:
    """Raise `UnusableSpec` for what can never be: wires that nobody could tell apart, addresses that are not on them."""
    for prefix in request.wires.values():
        network.parse_network(prefix, None, intranet)
    for node in request.nodes:
        for end in node.ends:
            if end.address is None or IPv4Interface(end.address).ip not in IPv4Network(request.wires[end.wire]):
                raise UnusableSpec(f"{node.name} has no address on {end.wire}.")


def _shape(shape: Shape) -> dict[str, Any]:
    ways = {name: (way.rate, way.delay, way.loss) for name, way in (("to", shape.to), ("back", shape.back))}
    return {**ways, "queue": shape.queue}


def _fence(processes: int) -> dict[str, Any]:
    limits = [("RLIMIT_NOFILE", oci.OPEN_FILES), ("RLIMIT_NPROC", processes), ("RLIMIT_CORE", 0)]
    found = [oci.rlimit(name, value) for name, value in limits]
    names = oci.CAPABILITIES + oci.NETWORK_CAPABILITIES
    return {
        "limits": [(getattr(resource, one["type"]), one["soft"], one["hard"]) for one in found],
        "capabilities": sum(1 << oci.CAPABILITY_NUMBERS[name] for name in names),
        "filter": base64.b64encode(calls.program()).decode(),
    }


def _sizes(flavour: Flavour, processes: int) -> dict[str, int]:
    disk = max(flavour.disk_gb * GIB, SMALLEST_DISK)
    return {
        "memory_bytes": flavour.ram_mb * MIB + disk,  # its disk is memory too
        "disk_bytes": disk,
        "vcpu": flavour.vcpu,
        "processes": processes,
    }


def _node_program(node: NodeRequest) -> bytes:
    start = [f"echo {shlex.quote(f'starting: {node.startup}')}", f"cd / && setsid sh -c {shlex.quote(node.startup)} &"]
    lines = ["#!/bin/sh", f"exec >{LOG} 2>&1 </dev/null", f"echo {shlex.quote(f'node {node.name}')}"]
    return text_of([*lines, *(start if node.startup else []), NOTHING_MORE])


def _mounter(image: Path, allowed: Sequence[str]) -> Files:
    """What stands in for the image's own `fusermount`, which may mount nothing, and where it mounts."""
    folder = "usr/bin" if (image / "bin").is_symlink() else "bin"  # libfuse looks for it in /bin
    program = (mounts.PROGRAM.read_bytes(), EVERYBODYS)
    return {f"{folder}/{name}": program for name in ("fusermount", "fusermount3")} | {
        "etc/fed/mounts": (text_of(allowed), PLAIN)
    }


def _packed(files: Files) -> dict[str, tuple[str, int]]:
    return {path: (base64.b64encode(data).decode(), mode) for path, (data, mode) in files.items()}
