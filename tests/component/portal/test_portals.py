"""Portals make one network of two, in machines of the `containers` kind: with our program, with OpenSSH, and with one of each."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from federation_member.middleware.contract import Middleware
from tests.component.middleware.contract import eventually, running
from tests.component.middleware.machines import run
from tests.component.middleware.place import GATEWAY, ContainersSite, lacks_to_carry
from tests.component.portal.crossing import (
    OPENSSH,
    PROGRAM,
    Crossing,
    Kinds,
    Portals,
    a_crossing,
    a_listener,
    a_tunnel_server,
    hears,
    join,
)
from tests.support.tunnel_site import MachineKey, free_range

TAGS = (3, 7)
SOMEBODY = bytes.fromhex("020000000042")
WITH_OPENSSH = Kinds(OPENSSH, OPENSSH)
ALIKE = [Kinds(), WITH_OPENSSH]
RELAYED = Kinds(OPENSSH, OPENSSH, relayed=True)
MIXED = [Kinds(PROGRAM, OPENSSH), Kinds(OPENSSH, PROGRAM)]
NO_IP = b"\xff" * 6 + SOMEBODY + b"\x88\xb5" + b"as it is".ljust(50, b"\0")  # the EtherType is IEEE's for experiments
NEIGHBOURS = (  # IPv6 from fe80::42 to ff02::1 with eight octets of no protocol
    bytes.fromhex("333300000001") + SOMEBODY + bytes.fromhex("86dd 60000000 0008 3b ff")
) + b"".join([ip_address("fe80::42").packed, ip_address("ff02::1").packed, b"as it is"])
PATIENCE = 90.0  # seconds until a link is there, or there again
HEARD, NOT_HEARD = 10.0, 1.0  # seconds to wait for a frame


@dataclass
class Joined:
    """Crossings with their portals."""

    middleware: Middleware
    kinds: Kinds
    crossings: list[Crossing]
    portals: Portals
    stack: AsyncExitStack  # holds the tunnel server
    folder: Path
    listen: str

    async def meet(self) -> None:
        """Wait until the machines of all crossings reach one another."""
        for crossing in self.crossings:
            await eventually(crossing.meets, PATIENCE)
            await eventually(partial(crossing.meets, "right"), PATIENCE)

    async def at_portal(self, which: str, command: str) -> str:
        """What a command prints in a portal."""
        return await run(getattr(self.portals, which).instance, command, user="root")

    async def plane(self, which: str) -> str:
        """By which plane a portal of our program is joined, as it says itself."""
        return str(json.loads(await self.at_portal(which, "cat /run/fed-portal/brief.json"))["plane"])


@pytest.fixture
async def joined(site: ContainersSite, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Joined]:
    """Two crossings, by one pair of portals: of our program, unless a test says otherwise."""
    if (lacking := lacks_to_carry()) is not None:
        pytest.skip(lacking)
    listen = f"{GATEWAY}:{free_range(1).partition('-')[0]}"
    async with running(site) as middleware, AsyncExitStack() as stack:
        server = await stack.enter_async_context(a_tunnel_server(tmp_path, listen))
        key = MachineKey.make(tmp_path)
        await server.controller.grant(key)
        crossings = [await a_crossing(middleware, site, tag) for tag in TAGS]
        kinds: Kinds = getattr(request, "param", Kinds())
        portals = await join(middleware, site, server, crossings, key, kinds)
        yield Joined(middleware, kinds, crossings, portals, stack, tmp_path, listen)
        for owned in sorted(await middleware.list_owned(), key=lambda owned: owned.kind):
            await middleware.delete(owned.key)
    assert await site.leftovers() == []


def of_kinds(kinds: list[Kinds]) -> pytest.MarkDecorator:
    """Do it with portals of these kinds."""

    def name(kinds: Kinds) -> str:
        return f"{kinds.active}-{kinds.passive}{'-relayed' if kinds.relayed else ''}"

    return pytest.mark.parametrize("joined", kinds, indirect=True, ids=name)


@of_kinds([*ALIKE, *MIXED, RELAYED])
async def test_two_networks_become_one_and_crossings_stay_apart(joined: Joined) -> None:
    await joined.meet()
    plane = "superframes" if joined.kinds == Kinds() else "classic"
    for which in ("active", "passive"):
        if getattr(joined.kinds, which) == PROGRAM:
            assert await joined.plane(which) == plane
    one, two = joined.crossings
    with (
        a_listener(one.right.bridge) as right,
        a_listener(two.right.bridge) as other,
        a_listener(one.left.bridge) as sender,
    ):
        for frame in (NO_IP, NEIGHBOURS):
            sender.send(frame)
            assert await hears(right, frame, HEARD)
            assert not await hears(other, frame, NOT_HEARD)


@of_kinds(ALIKE)
async def test_a_portal_is_no_way_out_of_a_crossing(joined: Joined) -> None:
    await joined.meet()
    address = str(joined.portals.passive.instance.address)
    link = await joined.at_portal("passive", f"ip -o link show br{TAGS[0]}")
    bridge = bytes.fromhex(link.split("ether ")[1].split()[0].replace(":", ""))
    heard = "grep Icmp: /proc/net/snmp | tail -n 1"
    before = await joined.at_portal("passive", heard)
    with a_listener(joined.crossings[0].right.bridge) as sender:
        for _ in range(3):
            sender.send(bridge + SOMEBODY + b"\x08\0" + echo_request("10.20.3.99", address))
    await asyncio.sleep(NOT_HEARD)
    assert await joined.at_portal("passive", heard) == before


def echo_request(source: str, target: str) -> bytes:
    """A ping (RFC 791, RFC 792)."""
    ping = bytes.fromhex("0800 f7ff 0000 0000")
    head = bytes.fromhex("4500 001c 0000 4000 4001") + b"\0\0" + ip_address(source).packed + ip_address(target).packed
    check = 0xFFFF - sum(int.from_bytes(head[n : n + 2], "big") for n in range(0, len(head), 2)) % 0xFFFF
    return head[:10] + check.to_bytes(2, "big") + head[12:] + ping


@of_kinds(ALIKE)
async def test_the_link_comes_back_and_its_bridge_has_stayed(joined: Joined) -> None:
    await joined.meet()
    programs, bridges = "pidof ssh python3", "ip -o link show | grep -o '^[0-9]*: br[0-9]*' | sort"
    for which in ("active", "passive"):
        before = await joined.at_portal(which, programs), await joined.at_portal(which, bridges)
        await joined.at_portal(which, f"kill -9 $({programs})")
        assert await joined.at_portal(which, programs) != before[0]
        await joined.meet()
        assert await joined.at_portal(which, bridges) == before[1]


@of_kinds([Kinds(), RELAYED])
async def test_the_link_comes_back_after_the_tunnel_server(joined: Joined) -> None:
    await joined.meet()
    await joined.stack.aclose()
    assert not await joined.crossings[0].meets()
    await joined.stack.enter_async_context(a_tunnel_server(joined.folder, joined.listen))
    await joined.meet()


@of_kinds(ALIKE)
async def test_a_strangers_key_opens_nothing(joined: Joined) -> None:
    """Nor does the peer's key open anything but its taps."""
    await joined.meet()
    port = await joined.at_portal("active", "sed -n 's/^PORT=//p' /etc/fed/user-script")
    ssh = f"ssh -F none -p {port} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/tmp/k"
    refused = "1" if joined.kinds == WITH_OPENSSH else "255"  # a command that fails, or no command at all
    told = await joined.at_portal("active", f"{ssh} -i /etc/fed/portal/key root@{GATEWAY} id 2>/dev/null; echo $?")
    assert told == refused
    forward = f"{ssh} -i /etc/fed/portal/key -o ExitOnForwardFailure=yes -N -R 7777:localhost:22 root@{GATEWAY}"
    assert await joined.at_portal("active", f"timeout 10 {forward} 2>/dev/null; echo $?") == "255"
    strange = "ssh-keygen -q -t ed25519 -N '' -f /tmp/stranger"
    said = await joined.at_portal("active", f"{strange}; {ssh} -i /tmp/stranger root@{GATEWAY} id 2>&1; echo $?")
    assert "Permission denied" in said
    with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
        socket.create_connection((str(joined.portals.passive.instance.address), 2022), timeout=2)
    await asyncio.sleep(0)
