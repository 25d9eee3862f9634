"""Where a machine stands: its address in the intranet, its networks, its address in each, and what it is plugged into.

A machine that carries frames has an address only where it was ordered with one. It may do with its interfaces whatever it
likes; so its port on the intranet has a name by which the fence knows it.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import structlog

from federation_member.middleware.containers import network
from federation_member.middleware.containers.book import Book, Record
from federation_member.middleware.containers.config import ContainersConfig
from federation_member.middleware.containers.network import Plug
from federation_member.middleware.contract import ComputeRequest, UnusableSpec

log = structlog.get_logger()
NETWORK = "network"
Joined = dict[str, str | None]


class Joining:
    """Chooses; what is taken follows from the book."""

    def __init__(self, config: ContainersConfig, book: Book) -> None:
        self._config = config
        self._book = book
        self._host: set[IPv4Address] = set()

    async def look_around(self) -> None:
        """Check the intranet's bridge, and learn which addresses the host has itself."""
        await network.check_bridge(self._config.bridge)
        if network.filters_bridges():
            log.warning(
                "bridges_are_filtered",
                reason="the host's firewall sees what machines of one private network say to one another",
                next="sysctl net.bridge.bridge-nf-call-iptables=0, unless its rules let that pass",
            )
        self._host = await network.host_addresses()

    def first_address(self) -> str:
        """A free address in the intranet."""
        return str(self.first_addresses(1)[0])

    def first_addresses(self, number: int) -> list[IPv4Address]:
        """As many free addresses in the intranet; raises `NoCapacity`."""
        taken = {IPv4Address(address) for record in self._book for address in record.addresses} | self._host
        taken |= {self._config.gateway} if self._config.gateway else set()
        return network.free_addresses(self._config.pool or self._config.subnet, taken, number)

    def join(self, request: ComputeRequest) -> Joined:
        """Its address in each of its networks.

        Raises `UnusableSpec` for networks that are not here or that a machine could not tell apart, and for addresses that are
        not in them; `NoCapacity` for one that another machine has.
        """
        joined: Joined = {}
        seen: list[IPv4Network] = []
        for key in request.networks:
            record = self._book.get(key)
            if record is None or record.kind != NETWORK or not record.complete:
                raise UnusableSpec(f"There is no network {key} here.")
            prefix = IPv4Network(str(record.instance.cidr))
            wanted = request.spec.addresses.get(key)
            if wanted is None and request.spec.carries_frames:
                joined[key] = None
                continue
            if any(prefix.overlaps(other) for other in seen):
                raise UnusableSpec(f"Two of the machine's networks overlap in {prefix}; join one of them only.")
            seen.append(prefix)
            joined[key] = self._address_in(record, prefix, wanted)
        return joined

    def _address_in(self, joined: Record, prefix: IPv4Network, wanted: str | None) -> str:
        taken = {IPv4Address(address) for other in self._book if (address := other.joined.get(joined.key))}
        reserved = {IPv4Address(joined.gateway)} if joined.gateway else set()
        return network.address_in(prefix, wanted, taken, reserved)

    def plugs(self, record: Record) -> list[Plug]:
        """What is plugged in, the intranet's first."""
        config = self._config
        address = IPv4Interface(f"{record.instance.address}/{config.subnet.prefixlen}")
        hardware = network.hardware_address(address.ip)
        outside, *others = outside_names(record)
        first = Plug(config.bridge, address, hardware, outside, isolated=True, gateway=config.gateway)
        return [first, *(self._private(record, index, name) for index, name in enumerate(others, start=1))]

    def _private(self, record: Record, index: int, outside: str) -> Plug:
        key, own = list(record.joined.items())[index - 1]
        joined = self._book.get(key)
        if joined is None:
            raise UnusableSpec(f"The network {key} was deleted meanwhile.")
        prefix = IPv4Network(str(joined.instance.cidr)).prefixlen
        address = IPv4Interface(f"{own}/{prefix}") if own else None
        hardware = (
            network.hardware_address(address.ip) if address else network.hardware_address_of(record.number, index)
        )
        return Plug(network.bridge_name(joined.number), address, hardware, outside, isolated=False)


def outside_names(record: Record) -> list[str]:
    """Names of the outer ends of a machine's interfaces, the intranet's first."""
    names = [network.outside_name(record.number, index) for index in range(1 + len(record.joined))]
    return [network.fenced_name(record.number), *names[1:]] if record.carries_frames else names


def identity(record: Record) -> tuple[str, str, IPv4Address]:
    """What the fence lets through from a machine: port, hardware address, address."""
    address = IPv4Address(str(record.instance.address))
    return outside_names(record)[0], network.hardware_address(address), address
