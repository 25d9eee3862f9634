"""Addresses and interfaces: the intranet's bridge, private networks, and how a machine is plugged in.

A machine's interface is one end of a veth pair. On the intranet its port is *isolated*: it reaches the router and the
bridge's own host, never another machine, so strangers' machines don't meet there. Machines that belong together meet in
a private network: a bridge with nothing else on it, no address of the host, no forwarding.

Hardware addresses follow from the IP addresses, so a neighbour's cache is never wrong when an address comes to another machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Set
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import islice
from pathlib import Path

from federation_member.middleware.contract import MiddlewareError, NoCapacity, Unavailable, UnusableSpec

SMALLEST_PREFIX, LARGEST_PREFIX = 29, 8
IP_TIMEOUT = 10.0  # seconds
FENCED_PORT = "ff"
VERBATIM = (
    "mcast_snooping 0 group_fwd_mask 0xfff8"  # all that the kernel lets a bridge pass: not STP, pause and LACP frames
)


@dataclass(frozen=True)
class Plug:
    """One interface of a machine; one that only carries frames has no address."""

    bridge: str
    address: IPv4Interface | None
    hardware: str
    outside: str  # name of the end on the bridge
    isolated: bool
    gateway: IPv4Address | None = None


def outside_name(number: int, index: int) -> str:
    """Name of the outer end of interface `index` of machine `number`."""
    return f"fm{number}n{index}"


def fenced_name(number: int) -> str:
    """Name of the outer end of the first interface of a machine that may administer its network."""
    return f"{FENCED_PORT}{number}"


def bridge_name(number: int) -> str:
    """Name of the bridge of private network `number`."""
    return f"fn{number}"


def parse_network(cidr: str, gateway: str | None, intranet: IPv4Network) -> IPv4Network:
    """Check what a network order asks for."""
    try:
        network = IPv4Network(cidr)
        router = IPv4Address(gateway) if gateway else None
    except ValueError as error:
        raise UnusableSpec(f"{error}; this middleware makes IPv4 networks such as 10.8.0.0/24.") from error
    if not LARGEST_PREFIX <= network.prefixlen <= SMALLEST_PREFIX:
        raise UnusableSpec(f"{cidr}: a prefix length from {LARGEST_PREFIX} to {SMALLEST_PREFIX} works here.")
    if network.overlaps(intranet):
        raise UnusableSpec(
            f"{cidr} overlaps {intranet}, where machines have their first address; choose another prefix."
        )
    if router is not None and (router not in network or router in (network.network_address, network.broadcast_address)):
        raise UnusableSpec(f"The gateway {router} is not a host's address in {cidr}.")
    return network


def hardware_address(address: IPv4Address) -> str:
    """The MAC address, locally administered, of the interface with this address."""
    return "02:fe:" + ":".join(f"{octet:02x}" for octet in address.packed)


def hardware_address_of(number: int, index: int) -> str:
    """The MAC address, locally administered, of an interface without an address: interface `index` of machine `number`."""
    return "02:fd:" + (number << 16 | index).to_bytes(4, "big").hex(":")


def address_in(network: IPv4Network, wanted: str | None, taken: Set[IPv4Address], reserved: Set[IPv4Address]) -> str:
    """`wanted`, if a machine can have it, or the lowest address that is neither taken nor reserved."""
    if wanted is None:
        return str(free_address(network, taken | reserved))
    try:
        address = IPv4Address(wanted)
    except ValueError as error:
        raise UnusableSpec(f"{error}; an address is one such as {network[1]}.") from error
    if address not in network or address in (network.network_address, network.broadcast_address):
        raise UnusableSpec(f"{wanted} is not a host's address in {network}.")
    if address in taken:
        raise NoCapacity(f"Another machine has {wanted} in {network}.")
    return str(address)


def free_address(pool: IPv4Network, taken: Iterable[IPv4Address]) -> IPv4Address:
    """The lowest address of `pool` that nobody has."""
    return free_addresses(pool, taken, 1)[0]


def free_addresses(pool: IPv4Network, taken: Iterable[IPv4Address], number: int) -> list[IPv4Address]:
    """The lowest addresses of `pool` that nobody has."""
    used = set(taken)
    found = list(islice((address for address in pool.hosts() if address not in used), number))
    if len(found) < number:
        raise NoCapacity(
            f"No address is free in {pool}." if number == 1 else f"{len(found)} addresses are free in {pool}."
        )
    return found


def batches(plugs: list[Plug]) -> tuple[str, str]:
    """Commands for `ip -batch`: inside the machine's namespace (@OUTSIDE@ is the site's), then outside."""
    inside, outside = ["link set lo up"], []
    for index, plug in enumerate(plugs):
        name = f"eth{index}"
        inside += [
            f"link add {name} address {plug.hardware} type veth peer name {plug.outside} netns @OUTSIDE@",
            f"link set {name} up",
        ]
        if plug.address is not None:
            inside.append(f"address add {plug.address} dev {name}")
        if plug.gateway is not None:
            inside.append(f"route add default via {plug.gateway} dev {name} onlink")
        outside.append(f"link set {plug.outside} addrgenmode none master {plug.bridge} up")
        if plug.isolated:
            outside.append(f"link set {plug.outside} type bridge_slave isolated on")
    return "\n".join(inside) + "\n", "\n".join(outside) + "\n"


async def ensure_bridge(name: str, *, verbatim: bool = False) -> None:
    """Make the bridge of a private network, unless it is there; a `verbatim` one keeps no frame to itself."""
    if not await _exists(name):
        await _ip(f"link add {name} type bridge")
    if verbatim:
        await _ip(f"link set {name} type bridge {VERBATIM}")
    switches = Path("/proc/sys/net/ipv4/conf") / name
    (switches / "forwarding").write_text("0")
    (switches / "arp_ignore").write_text("8")  # the host answers for none of its addresses here
    await _ip(f"link set {name} addrgenmode none up")


async def remove_link(name: str) -> None:
    """Remove a bridge or one end of a pair (the other goes with it); nothing there is success."""
    if await _exists(name):
        try:
            await _ip(f"link delete {name}")
        except MiddlewareError:
            if await _exists(name):  # otherwise it went with its machine meanwhile
                raise


async def remove_links(names: Iterable[str]) -> None:
    """Remove many at once; those that are not there, or go meanwhile, are none."""
    there = {
        line.split(":")[1].partition("@")[0].strip() for line in (await _run("-o", "link", "show"))[1].splitlines()
    }
    for name in there.intersection(names):
        await remove_link(name)


async def check_bridge(name: str) -> None:
    """The intranet's bridge is the site's, not ours to make."""
    if not await _exists(name):
        raise Unavailable(
            f"There is no bridge {name} in the member's network namespace; make it, or correct middleware.options.bridge."
        )


def filters_bridges() -> bool:
    """Whether the host's firewall sees what passes over bridges, so that it may cut machines of one network off from each other."""
    try:
        return Path("/proc/sys/net/bridge/bridge-nf-call-iptables").read_text().strip() != "0"
    except FileNotFoundError:
        return False


async def host_addresses() -> set[IPv4Address]:
    """Addresses that the site's own host has."""
    _, text = await _run("-4", "-o", "address", "show")
    return {IPv4Interface(line.split()[3]).ip for line in text.splitlines()}


async def _exists(name: str) -> bool:
    return (await _run("link", "show", "dev", name))[0] == 0


async def _ip(command: str) -> None:
    status, text = await _run(*command.split())
    if status:
        raise MiddlewareError(f"ip {command}: {text.strip()}")


async def _run(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        "ip",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(IP_TIMEOUT):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")
