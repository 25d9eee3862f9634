"""Private networks, and where a machine's interfaces are plugged in.

A private network is a bridge of the host with nothing else on it (`containers.network` makes them for both kinds). libvirt makes
a machine's tap devices and plugs them in; the addresses go onto the machine's seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from federation_member.middleware.containers import network
from federation_member.middleware.contract import ComputeRequest, NoCapacity, PlainRequest, UnusableSpec
from federation_member.middleware.guest.nocloud import Nic
from federation_member.middleware.libvirt.book import COMPUTE, NETWORK, Book, Record
from federation_member.middleware.libvirt.config import LibvirtConfig
from federation_member.middleware.libvirt.xml import Plug
from fedkit.protocol.lending import Instance, NetworkSpec

INTRANET_PORT = "fvm"


@dataclass(frozen=True)
class Interface:
    """One interface of a machine, seen from outside and from inside."""

    plug: Plug
    nic: Nic


class Networks:
    """Addresses and bridges."""

    def __init__(self, config: LibvirtConfig, book: Book) -> None:
        self._config = config
        self._book = book
        self._host: set[IPv4Address] = set()

    async def look_around(self) -> None:
        """Check the intranet's bridge; make the bridges again that went with the host's last start."""
        await network.check_bridge(self._config.bridge)
        self._host = await network.host_addresses()
        for record in self._book.of_kind(NETWORK):
            await network.ensure_bridge(bridge_name(record), verbatim=record.verbatim)

    async def make(self, key: str, request: PlainRequest, spec: NetworkSpec) -> Record:
        """Make a private network."""
        prefix = network.parse_network(spec.cidr, spec.gateway, self._config.subnet)
        record = self._book.get(key)
        if record is None:
            count = sum(1 for _ in self._book.of_kind(NETWORK))
            if count >= self._config.limits.networks:
                raise NoCapacity(f"{count} networks exist here; there is no room for more.")
            record = Record(
                key=key,
                kind=NETWORK,
                number=self._book.free_number(),
                instance=Instance(name=spec.name, cidr=str(prefix)),
                gateway=spec.gateway,
                account=request.account.name,
                verbatim=spec.verbatim,
            )
            self._book.put(record)
        await network.ensure_bridge(bridge_name(record), verbatim=record.verbatim)
        return self._book.change(record, complete=True)

    async def remove(self, record: Record) -> None:
        """Remove its bridge."""
        await network.remove_link(bridge_name(record))

    def free_address(self) -> IPv4Address:
        """An address in the intranet for a new machine."""
        taken = {
            IPv4Address(record.instance.address)
            for record in self._book.of_kind(COMPUTE)
            if record.instance.address is not None
        }
        gateway = {self._config.gateway} if self._config.gateway else set()
        return network.free_address(self._config.pool or self._config.subnet, taken | self._host | gateway)

    def join(self, request: ComputeRequest) -> dict[str, str | None]:
        """An address in each of its networks; a machine that carries frames has one only where it was ordered with it.

        Raises `UnusableSpec` for networks that are not here or that a machine could not tell apart, and for addresses that are
        not in them; `NoCapacity` for one that another machine has.
        """
        joined: dict[str, str | None] = {}
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
            taken = {IPv4Address(address) for other in self._book if (address := other.joined.get(key))}
            reserved = {IPv4Address(record.gateway)} if record.gateway else set()
            joined[key] = network.address_in(prefix, wanted, taken, reserved)
        return joined

    def interfaces(self, record: Record) -> list[Interface]:
        """All interfaces of a machine, the intranet's first."""
        config = self._config
        address = IPv4Interface(f"{record.instance.address}/{config.subnet.prefixlen}")
        mac = network.hardware_address(address.ip)
        first = Interface(
            Plug(config.bridge, intranet_port(record), mac, isolated=True),
            Nic(mac, address, config.gateway, tuple(config.dns)),
        )
        return [first, *(self._private(record, index, key) for index, key in enumerate(record.joined, start=1))]

    def _private(self, record: Record, index: int, key: str) -> Interface:
        joined = self._book.must(key)
        plug = partial(Plug, bridge_name(joined), f"fvp{record.number}n{index}", isolated=False)
        own = record.joined[key]
        if own is None:
            mac = network.hardware_address_of(record.number, index)
            return Interface(plug(mac=mac), Nic(mac, "none"))
        address = IPv4Interface(f"{own}/{IPv4Network(str(joined.instance.cidr)).prefixlen}")
        mac = network.hardware_address(address.ip)
        return Interface(plug(mac=mac), Nic(mac, address))


def bridge_name(record: Record) -> str:
    """Name of a private network's bridge."""
    return f"fvb{record.number}"


def intranet_port(record: Record) -> str:
    """Name of the outer end of a machine's first interface."""
    return f"{INTRANET_PORT}{record.number}"
