"""Guests keep to the addresses that they were given.

Whoever is root over its own network (every guest of a hypervisor, and a container that carries frames) can put any source into
its packets. On the intranet's bridge, what comes from such a machine's port must therefore carry its hardware address and IPv4
address, in ARP as well; IPv6 is not given, so none passes. One table of nftables, one element of its sets for each machine; it goes
with the last one. In private networks guests do as they like.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Address
from string import Template

from federation_member.middleware.contract import MiddlewareError, Unavailable

NFT_TIMEOUT = 10.0  # seconds
Admitted = tuple[str, str, IPv4Address]  # port, hardware address, address
NOTHING = "add table bridge $table\ndelete table bridge $table\n"
TABLE = """\
table bridge $table {
	set hardware { type ifname . ether_addr; $hardware}
	set addresses { type ifname . ipv4_addr; $addresses}
	chain guests {
		ether type != { ip, arp } drop
		iifname . ether saddr != @hardware drop
		ether type ip iifname . ip saddr != @addresses drop
		ether type arp iifname . arp saddr ether != @hardware drop
		ether type arp iifname . arp saddr ip != @addresses drop
	}
	chain prerouting {
		type filter hook prerouting priority filter; policy accept;
		iifname "$port*" jump guests
	}
}
"""
"""Written in one transaction, so there is no moment without a fence."""


class Fence:
    """The table of one member."""

    def __init__(self, table: str, port: str) -> None:
        self._table, self._port = table, port
        self._known: dict[str, tuple[str, IPv4Address]] = {}
        self._is_certain = True  # not while the table is written, or after that was broken off
        self._turn = asyncio.Lock()

    async def raise_around(self, machines: Iterable[Admitted]) -> None:
        """Make the table anew, with (port, hardware address, address) of these machines."""
        async with self._turn:
            await self._write({port: (mac, address) for port, mac, address in machines})

    async def admit(self, port: str, mac: str, address: IPv4Address) -> None:
        """Let a machine speak from these addresses."""
        await self.admit_all([(port, mac, address)])

    async def admit_all(self, machines: Iterable[Admitted]) -> None:
        """Let many speak, at once."""
        async with self._turn:
            await self._write(self._known | {port: (mac, address) for port, mac, address in machines})

    async def forget_all(self, ports: Iterable[str]) -> None:
        """Let many speak no more."""
        async with self._turn:
            gone = set(ports)
            if not self._is_certain or not gone.isdisjoint(self._known):
                await self._write({port: known for port, known in self._known.items() if port not in gone})

    async def forget(self, port: str) -> None:
        """Let it speak no more; nothing there is success."""
        await self.forget_all([port])

    async def _write(self, known: dict[str, tuple[str, IPv4Address]]) -> None:
        hardware = ", ".join(f'"{port}" . {mac}' for port, (mac, _) in known.items())
        addresses = ", ".join(f'"{port}" . {address}' for port, (_, address) in known.items())
        text = Template(NOTHING + TABLE if known else NOTHING).substitute(
            table=self._table,
            port=self._port,
            hardware=f"elements = {{ {hardware} }}" if hardware else "",
            addresses=f"elements = {{ {addresses} }}" if addresses else "",
        )
        self._is_certain = False
        await _nft(text)
        self._known, self._is_certain = known, True


async def _nft(text: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            "nft",
            "-f",
            "-",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise Unavailable("nft is not installed here (package nftables).") from error
    try:
        async with asyncio.timeout(NFT_TIMEOUT):
            _, errors = await process.communicate(text.encode())
    except TimeoutError as error:
        raise Unavailable(f"nft took longer than {NFT_TIMEOUT:.0f} s.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise MiddlewareError(f"nft: {errors.decode(errors='replace').strip()[-300:]}")
