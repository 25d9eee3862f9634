"""Changes of the network: routes, settings of the kernel, the machine's name, and what a routing daemon learned.

Routes are read from /proc/net/route and written with `ip`, of iproute2 or of busybox.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, NamedTuple

from fedkit.node.kit.errors import CommandFailed, NotYet
from fedkit.node.kit.system import System

TABLE = Path("/proc/net/route")
_UP, _REJECTED = 0x1, 0x200
SIOCGIFADDR = 0x8915  # linux/sockios.h
HANDLE = "fed:"  # of the queues that are ours


class Hop(NamedTuple):
    """A line of the routing table; `via` is empty where the network is on the line itself."""

    destination: str
    via: str
    device: str
    metric: int


def routes() -> list[Hop]:
    """All IPv4 routes of the main table."""
    found = []
    for line in TABLE.read_text().splitlines()[1:]:
        device, destination, gateway, flags, _, _, metric, mask, *_ = line.split()
        if int(flags, 16) & (_UP | _REJECTED) == _UP:
            network = IPv4Network((_address(destination), str(_address(mask))))
            via = _address(gateway)
            found.append(Hop(str(network), "" if not int(via) else str(via), device, int(metric)))
    return found


def _address(text: str) -> IPv4Address:
    return IPv4Address(int(text, 16).to_bytes(4, "little"))


def add(system: System, hop: Hop) -> None:
    """Add a route, or replace the one that is there."""
    via = ("via", hop.via) if hop.via else ()
    metric = ("metric", str(hop.metric)) if hop.metric else ()
    device = ("dev", hop.device) if hop.device else ()
    system.run("ip", "route", "replace", hop.destination, *via, *device, *metric)


def _remove(system: System, hop: Hop) -> None:
    """Remove a route; one that uses the kernel's nexthop objects (FRR's do) is found only if its neighbour is not named."""
    metric = ("metric", str(hop.metric)) if hop.metric else ()
    try:
        system.run("ip", "route", "del", hop.destination, "via", hop.via, "dev", hop.device, *metric)
    except CommandFailed:
        if hop in routes():
            system.run("ip", "route", "del", hop.destination, *metric)


def addresses() -> Iterator[tuple[str, str]]:
    """All interfaces that have an IPv4 address, with the first of each (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has no address
                continue
            yield name, socket.inet_ntoa(answer[20:24])


def device_of(address: str) -> str | None:
    """The interface that has an IPv4 address."""
    return next((name for name, found in addresses() if found == address), None)


@dataclass(frozen=True)
class Route:
    """A way to a network over a neighbour."""

    destination: str
    via: str

    @property
    def key(self) -> str:
        """Its destination."""
        return f"route {self.destination}"

    def before(self, system: System) -> Any:
        """The ways there that were."""
        return {"life": system.life, "routes": [hop for hop in routes() if hop.destination == self.destination]}

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Add it; raises `NotYet` while the neighbour is on no network of ours."""
        if any(hop[:2] == (self.destination, self.via) and not hop.metric for hop in routes()):
            return
        try:
            add(system, Hop(self.destination, self.via, "", 0))
        except CommandFailed as error:
            raise NotYet(f"no way to {self.via}: {error}") from None

    def undo(self, system: System, before: Any) -> None:
        """Remove it, and add again what it replaced."""
        theirs = [Hop(*hop) for hop in before["routes"]]
        for hop in routes():
            if (hop.destination, hop.via) == (self.destination, self.via) and hop not in theirs:
                _remove(system, hop)
        for hop in theirs:
            if hop not in routes():
                add(system, hop)


@dataclass(frozen=True)
class Learned:
    """What a routing daemon will find: routes over others that were not there before it."""

    of: str

    @property
    def key(self) -> str:
        """The daemon's."""
        return f"routes of {self.of}"

    def before(self, system: System) -> Any:
        """All routes."""
        return {"life": system.life, "routes": routes()}

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """The daemon does."""

    def undo(self, system: System, before: Any) -> None:
        """Remove those that are new, should a daemon that was killed have left any."""
        theirs = [Hop(*hop) for hop in before["routes"]]
        for hop in routes():
            if hop.via and hop not in theirs:
                _remove(system, hop)


@dataclass(frozen=True)
class Kernel:
    """A setting below /proc/sys."""

    path: str
    value: str

    @property
    def key(self) -> str:
        """Its path."""
        return f"kernel {self.path}"

    def before(self, system: System) -> Any:
        """Its value."""
        return {"life": system.life, "value": self._file.read_text()}

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Write it."""
        if self._file.read_text().strip() != self.value:
            self._file.write_text(self.value)

    def undo(self, system: System, before: Any) -> None:
        """Write what was."""
        if self._file.read_text() != before["value"]:
            self._file.write_text(before["value"])

    @property
    def _file(self) -> Path:
        return Path("/proc/sys", self.path)


@dataclass(frozen=True)
class Hostname:
    """The machine's name, until it boots again."""

    name: str

    @property
    def key(self) -> str:
        """There is one."""
        return "hostname"

    def before(self, system: System) -> Any:
        """What it is called."""
        return {"life": system.life, "name": os.uname().nodename}

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Call it so; a container may be forbidden to, and keeps its name."""
        self._set(system, self.name)

    def undo(self, system: System, before: Any) -> None:
        """Call it as it was."""
        self._set(system, before["name"])

    def _set(self, system: System, name: str) -> None:
        if os.uname().nodename != name:
            try:
                socket.sethostname(name)
            except PermissionError:
                system.say(f"the machine keeps its name, {os.uname().nodename}")


@dataclass(frozen=True)
class Link:
    """An interface that events may set down, or shape."""

    address: str

    @property
    def key(self) -> str:
        """Its address."""
        return f"link {self.address}"

    def before(self, system: System) -> Any:
        """Nothing but the life that it is of: a link of an experiment begins up, and unshaped from inside."""
        return {"life": system.life}

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Events do."""

    def undo(self, system: System, before: Any) -> None:
        """Up, and without our queue."""
        device = device_of(self.address)
        if device is None:
            return
        system.run("ip", "link", "set", device, "up")
        if system.find("tc") and HANDLE in system.run("tc", "qdisc", "show", "dev", device):
            system.run("tc", "qdisc", "del", "dev", device, "root")
