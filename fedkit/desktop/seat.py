"""What a desktop is told of its place in an experiment, checked: whoever tells it may be wrong, or lie.

Nothing of it is believed further than an experiment needs: a desktop's way to the rest of the world stays as it is, whatever is said.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from fedkit.desktop.errors import InTheWay, UnusableSeat

HOSTS, ROUTES = 20_000, 4096  # at most
WIDEST = 8  # prefix length
NAME = re.compile(r"[A-Za-z0-9_()-][A-Za-z0-9_().-]{0,63}")
NEVER = [IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")]

Lines = Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Portal:
    """Where the portal is that waits for the desktop."""

    host: str
    port: int
    host_key: str


@dataclass(frozen=True)
class Seat:
    """The place: an address, the crossing that it is on, and what is reached from there."""

    name: str
    address: IPv4Interface
    tag: int
    hosts: Lines
    routes: Sequence[tuple[IPv4Network, IPv4Address]]

    @property
    def networks(self) -> list[IPv4Network]:
        """All that is reached through the experiment."""
        return [self.address.network, *(network for network, _via in self.routes)]


def read(told: Mapping[str, Any]) -> Seat:
    """Read what the member's API shows of an attachment; raises `UnusableSeat`."""
    try:
        seat = Seat(
            name=_name(told["name"]),
            address=IPv4Interface(f"{told['address']}/{int(told['prefix_length'])}"),
            tag=int(told["tag"]),
            hosts=[
                (str(IPv4Address(line["ip4"])), [_name(n) for n in line["names"]]) for line in told["hosts"][:HOSTS]
            ],
            routes=[(IPv4Network(one["destination"]), IPv4Address(one["via"])) for one in told["routes"][:ROUTES]],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableSeat(f"The member told of a place that is none: {error}.") from error
    for network in seat.networks:
        if network.prefixlen < WIDEST or any(network.overlaps(one) for one in NEVER):
            raise UnusableSeat(f"{network} is no network of an experiment.")
    if strange := next((via for _, via in seat.routes if via not in seat.address.network), None):
        raise UnusableSeat(f"{strange} is to be a neighbour, and is not in {seat.address.network}.")
    return seat


def portal_of(told: Mapping[str, Any]) -> Portal | None:
    """Where it is to connect to, once that is there; raises `UnusableSeat`."""
    said = told.get("portal")
    if said is None:
        return None
    try:
        portal = Portal(str(said["host"]), int(said["port"]), str(said["host_key"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableSeat(f"The member told of a portal that is none: {error}.") from error
    if not 1 <= portal.port <= 65535 or "\n" in portal.host_key:
        raise UnusableSeat("The member told of a portal that is none.")
    return portal


def _name(text: object) -> str:
    if not isinstance(text, str) or not NAME.fullmatch(text):
        raise ValueError(f"{str(text)[:80]!r} is no name")
    return text


def check_apart(seat: Seat, routes: Iterable[IPv4Network], needed: Iterable[IPv4Address]) -> None:
    """Raise `InTheWay` where the experiment has what a machine with these `routes` reaches, or `needed` addresses."""
    known = [network for network in routes if network.prefixlen]
    for network in seat.networks:
        if other := next((one for one in known if network.overlaps(one)), None):
            raise InTheWay(f"This machine has a way to {other} already, and the experiment has {network}; {HINT}.")
        if there := next((one for one in needed if one in network), None):
            raise InTheWay(f"The experiment has {network}, and its member or portal is {there}; {HINT}.")


HINT = "attach a command in a namespace of its own: fed experiment attach … -- COMMAND"


def names_for(seat: Seat, known: Collection[str]) -> tuple[Lines, list[str]]:
    """Lines for the hosts file of a machine, and the names that are left out.

    Those are names that somebody else could have: with a dot, or `known` to the machine already.
    """
    lines, left_out = [], []
    for address, names in seat.hosts:
        kept = [name for name in names if "." not in name and name.lower() not in known]
        left_out += [name for name in names if name not in kept]
        if kept:
            lines.append((address, kept))
    return lines, left_out
