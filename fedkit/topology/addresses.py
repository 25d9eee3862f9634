"""Addresses as Emulab numbers them: who gives none gets 10.1.1.2, 10.1.1.3, …, a subnet for each link or LAN.

Subnets are dealt out in the order in which Tcl lists the names (`tcl_order`), not in that of the file; explicit addresses are kept and
their subnets never dealt out. Within a subnet host numbers go up from 2, in the order of the members.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedkit.errors import InputError

DEFAULT_NETMASK = "255.255.255.0"
BASE = 10  # the first octet
_FIRST_HOST = 2
_ALL = 0xFFFFFFFF
_PLACE = 256  # addresses from one place of the sequence of subnets to the next


class BadAddress(InputError):
    """An address that cannot stand where it was put, or no address left."""

    code = "topology.bad_address"


@dataclass(frozen=True)
class Wire:
    """One link or LAN to number: `given` holds each member's explicit address, or None."""

    name: str
    given: Sequence[str | None]
    netmask: str = DEFAULT_NETMASK


@dataclass(frozen=True)
class Subnet:
    """A network and its mask, as numbers."""

    network: int
    mask: int

    @classmethod
    def around(cls, address: int, mask: int) -> Subnet:
        """The subnet that an address stands in."""
        return cls(address & mask, mask)

    def overlaps(self, other: Subnet) -> bool:
        """Tell whether the two share an address."""
        common = self.mask & other.mask
        return self.network & common == other.network & common


def parse(text: str) -> int:
    """Read a dotted address; raise `BadAddress`."""
    parts = text.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        raise BadAddress(f"{text[:40]!r} is no IPv4 address; write four numbers with dots, such as 10.1.1.2.")
    octets = [int(part) for part in parts]
    if max(octets) > 255:
        raise BadAddress(f"{text!r} is no IPv4 address: a number is above 255.")
    return int.from_bytes(bytes(octets), "big")


def text_of(address: int) -> str:
    """Write an address with dots."""
    return ".".join(str(octet) for octet in address.to_bytes(4, "big"))


def parse_netmask(text: str) -> int:
    """Read a netmask whose upper 16 bits are set and whose zeros are all at the end; raise `BadAddress`."""
    mask = parse(text)
    zeros = ~mask & _ALL
    if zeros & (zeros + 1) or zeros > 0xFFFF or zeros < 3:
        raise BadAddress(f"{text} is no netmask for an experiment: 255.255.0.0 to 255.255.255.252.")
    return mask


def check_host(text: str, netmask: str) -> int:
    """Read an address whose host part is neither all zeros nor all ones; raise `BadAddress`."""
    address, mask = parse(text), parse_netmask(netmask)
    host = address & ~mask & _ALL
    if host in (0, ~mask & _ALL):
        raise BadAddress(f"{text} is the network's or the broadcast address under {netmask}; choose another.")
    return address


def number(wires: Iterable[Wire]) -> Mapping[str, list[str]]:
    """Give each member of each wire an address; `wires` come in Tcl's order. Raises `BadAddress`."""
    wires = list(wires)
    used: list[Subnet] = []
    fixed: dict[str, Subnet] = {}
    for wire in wires:
        subnet = _given_subnet(wire)
        if subnet is not None:
            fixed[wire.name] = subnet
            used.append(subnet)
    free = _Free(used)
    found = {}
    for wire in wires:
        mask = parse_netmask(wire.netmask)
        found[wire.name] = _members(wire, fixed.get(wire.name) or free.take(mask))
    return found


def check_unique(addresses: Iterable[tuple[str, str]]) -> None:
    """Addresses with who has each; raise `BadAddress` where two have the same one."""
    holders: dict[int, str] = {}
    for text, holder in addresses:
        other = holders.setdefault(parse(text), holder)
        if other != holder:
            raise BadAddress(f"{holder} has the address {text} that {other} has already; change one.")


def _given_subnet(wire: Wire) -> Subnet | None:
    subnets = {
        Subnet.around(check_host(text, wire.netmask), parse_netmask(wire.netmask)) for text in wire.given if text
    }
    if len(subnets) > 1:
        shown = ", ".join(sorted(text for text in wire.given if text))
        raise BadAddress(f"The addresses on {wire.name} ({shown}) are not in one subnet of {wire.netmask}.")
    return next(iter(subnets), None)


def _members(wire: Wire, subnet: Subnet) -> list[str]:
    taken = [parse(text) for text in wire.given if text]
    if len(set(taken)) < len(taken):
        double = next(text_of(address) for address in taken if taken.count(address) > 1)
        raise BadAddress(f"Two members of {wire.name} have the address {double}.")
    room = ~subnet.mask & _ALL
    hosts = (host for host in range(_FIRST_HOST, room) if subnet.network + host not in set(taken))
    addresses = []
    for text in wire.given:
        host = None if text else next(hosts, None)
        if text is None and host is None:
            raise BadAddress(
                f"{wire.name} has more members than {room - _FIRST_HOST} free addresses; use a larger netmask."
            )
        addresses.append(text or text_of(subnet.network + (host or 0)))
    return addresses


class _Free:
    """Subnets in Emulab's order (10.1.1.0, 10.1.2.0, …, 10.1.254.0, 10.2.1.0, …) that overlap none in use."""

    def __init__(self, used: Sequence[Subnet]) -> None:
        self._explicit = used
        self._dealt: set[int] = set()  # every place of the sequence that is dealt out; a wide subnet holds several
        self._places: dict[int, Iterator[int]] = {}  # for each mask, those not looked at yet

    def take(self, mask: int) -> Subnet:
        """The next one for this mask."""
        for place in self._places.setdefault(mask, self._sequence()):
            subnet = Subnet.around(place, mask)
            held = range(subnet.network, subnet.network + (~mask & _ALL) + 1, _PLACE)
            if not self._dealt.isdisjoint(held) or any(subnet.overlaps(other) for other in self._explicit):
                continue
            self._dealt.update(held)
            return subnet
        raise BadAddress("There are more links and LANs than subnets in 10.0.0.0/8.")

    @staticmethod
    def _sequence() -> Iterator[int]:
        for second in range(1, 255):
            for third in range(1, 255):
                yield (BASE << 24) | (second << 16) | (third << 8)
