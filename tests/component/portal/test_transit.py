"""A transit network in between: a VLAN of a provider, to which both portals' machines have a port each beside their other way out.

    portal-a │ transit 10.99.0.1 ── VLAN 100 ── transit 10.99.0.2 │ portal-b          provider: a bridge for each VLAN
             │ wan 192.0.2.1 ═══════ another way ═══════ wan 192.0.2.2 │              stranger: on VLAN 200

The kernel that tests run on has no 802.1Q, so ports are untagged, as a provider hands them out, and each VLAN is a bridge of its own.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.component.portal.test_planes import FRAMES, passes
from tests.component.portal.world import PORT, SIDES, World, eventually, inside, lacks, next_frame, raw_socket, run

pytestmark = pytest.mark.skipif(lacks() is not None, reason=str(lacks()))

TRANSIT = {"a": "10.99.0.1", "b": "10.99.0.2"}
OWN, OTHER = "vlan100", "vlan200"
IPV4, ARP, RST = b"\x08\0", b"\x08\x06", 4
PLANES = ["superframes", "datagrams", "classic"]


@pytest.fixture
def provider(world: World) -> World:
    """Two sites with a way to each other, and a provider's network between them besides."""
    for name in ("provider", "stranger"):
        run("ip", "netns", "add", world.ns(name))
        world.at(name, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
    for vlan in (OWN, OTHER):
        world.at("provider", "ip", "link", "add", vlan, "type", "bridge")
        world.at("provider", "ip", "link", "set", vlan, "up")
    for side in SIDES:
        port(world, f"portal-{side}", OWN, f"to-{side}")
        world.at(f"portal-{side}", "ip", "address", "add", f"{TRANSIT[side]}/24", "dev", "transit")
    port(world, "stranger", OTHER, "to-stranger")
    return world


def port(world: World, name: str, vlan: str, far: str) -> None:
    """Give a machine a port of a VLAN."""
    run("ip", "link", "add", "transit", "netns", world.ns(name), "type", "veth",
        "peer", "name", far, "netns", world.ns("provider"))  # fmt: skip
    world.at("provider", "ip", "link", "set", far, "master", vlan, "up")
    world.at(name, "ip", "link", "set", "transit", "up")


def join(world: World, planes: list[str]) -> None:
    """Start both, told of nothing but the transit network."""
    for side, other in (SIDES, SIDES[::-1]):
        told = {"tunnelip": True, "address": TRANSIT[side], "peer": [TRANSIT[other]], "planes": planes}
        world.start(side, world.config(side, **told))
    world.joined(planes[0])
    eventually(world.pings, "a ping")


@contextmanager
def silent(world: World, *places: tuple[str, str]) -> Iterator[None]:
    """Nothing of a tunnel is heard at these interfaces meanwhile."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(raw_socket(world.ns(name), interface)) for name, interface in places]
        yield
        assert {
            place: said for place, sock in zip(places, sockets, strict=True) if (said := heard(sock, place[1]))
        } == {}


def heard(sock: socket.socket, interface: str) -> list[str]:
    """What came so far, but for the noise of kernels."""
    found: list[str] = []
    while True:
        try:
            frame = next_frame(sock)
        except TimeoutError:
            return found
        if not is_noise(frame, interface):
            found.append(frame.hex())


def is_noise(frame: bytes, interface: str) -> bool:
    """Bridges ask for groups; and of a connection that has gone a kernel says so (RST) by whatever route it has."""
    protocol = frame[23] if frame[12:14] == IPV4 else None
    is_reset = interface == "wan" and protocol == socket.IPPROTO_TCP and frame[47] & RST
    return protocol == socket.IPPROTO_IGMP or bool(is_reset) or (interface == "wan" and frame[12:14] == ARP)


@pytest.mark.parametrize("plane", PLANES)
def test_it_carries_the_tunnel_by_every_plane_and_nobody_else_hears_of_it(provider: World, plane: str) -> None:
    with silent(provider, ("stranger", "transit"), ("provider", OTHER), ("portal-a", "wan"), ("portal-b", "wan")):
        join(provider, [plane])
        passes(provider, FRAMES)
    assert not refused(provider, TRANSIT["b"])
    assert refused(provider, "192.0.2.2")


def refused(world: World, address: str) -> bool:
    """Whether nobody takes connections at an address of the portal that waits."""
    with inside(world.ns("portal-a")):
        try:
            socket.create_connection((address, PORT), timeout=5).close()
        except ConnectionRefusedError:
            return True
    return False


@pytest.mark.parametrize("plane", PLANES)
def test_no_other_route_takes_it_away(provider: World, plane: str) -> None:
    """Not even one that leads to the very address of the partner, nor while the transit network is away."""
    for side, other in (SIDES, SIDES[::-1]):
        by = {"a": "192.0.2.2", "b": "192.0.2.1"}[side]
        provider.at(f"portal-{side}", "ip", "route", "add", TRANSIT[other], "via", by, "dev", "wan")
        leads = json.loads(provider.at(f"portal-{side}", "ip", "-j", "route", "get", TRANSIT[other]))
        assert leads[0]["dev"] == "wan"
    with silent(provider, ("portal-a", "wan"), ("portal-b", "wan")):
        join(provider, [plane])
        provider.at("provider", "ip", "link", "set", OWN, "down")
        eventually(lambda: not any(provider.status(side)["joined"] for side in SIDES), "apart", 90)
        provider.at("provider", "ip", "link", "set", OWN, "up")
        eventually(provider.pings, "a ping", 90)
