"""Both portals behind NAT: each only dials out, and they meet at a tunnel server in a DMZ that sees ciphertext."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.component.portal.test_planes import FRAMES, passes
from tests.component.portal.world import SIDES, World, eventually, lacks, run
from tests.support.tunnel_site import MachineKey

pytestmark = pytest.mark.skipif(lacks() is not None, reason=str(lacks()))

DMZ = "198.51.100.1"
PUBLIC = range(20000, 20010)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Two sites and a DMZ; nothing can be opened towards a portal."""
    world = World(tmp_path)
    try:
        world.build(wan=False)
        run("ip", "netns", "add", world.ns("dmz"))
        world.at("dmz", "ip", "link", "set", "lo", "up")
        world.at("dmz", "ip", "address", "add", f"{DMZ}/32", "dev", "lo")
        for number, side in enumerate(SIDES):
            wire(world, side, f"192.0.2.{4 * number + 1}", f"192.0.2.{4 * number + 2}")
        world.keys()
        yield world
    finally:
        world.close()


def wire(world: World, side: str, own: str, gateway: str) -> None:
    """A way out to the DMZ, and no way in."""
    portal = f"portal-{side}"
    run("ip", "link", "add", "out", "netns", world.ns(portal), "type", "veth",
        "peer", "name", f"to-{side}", "netns", world.ns("dmz"))  # fmt: skip
    world.at(portal, "ip", "address", "add", f"{own}/30", "dev", "out")
    world.at("dmz", "ip", "address", "add", f"{gateway}/30", "dev", f"to-{side}")
    world.at(portal, "ip", "link", "set", "out", "up")
    world.at("dmz", "ip", "link", "set", f"to-{side}", "up")
    world.at(portal, "ip", "route", "add", "default", "via", gateway)
    world.at(portal, "nft", "add table inet nat; add chain inet nat input { type filter hook input priority 0; }; "
             'add rule inet nat input iifname "out" ct state new drop')  # fmt: skip


def relay(world: World) -> tuple[MachineKey, Path]:
    """Start the tunnel server; return the machine key that it lets in, and its host key."""
    key = MachineKey.make(world.folder)
    process = world.spawn("dmz", sys.executable, "-m", "tests.support.tunnel_process", str(world.folder), f"{DMZ}:2222",
                          f"{PUBLIC[0]}-{PUBLIC[-1]}", DMZ, log="relay.log")  # fmt: skip
    eventually(lambda: "ready" in (world.folder / "relay.log").read_text(), "the relay")
    assert process.stdin is not None
    process.stdin.write(json.dumps([key.lease_id, key.public]).encode() + b"\n")
    process.stdin.flush()
    eventually(lambda: key.lease_id in (world.folder / "relay.log").read_text(), "the lease")
    host_key = world.folder / "relay.pub"
    asyncssh.read_private_key(next(world.folder.glob("*host*key*"))).write_public_key(host_key)
    return key, host_key


def test_both_behind_nat(world: World) -> None:
    key, host_key = relay(world)
    via = {"host": DMZ, "port": 2222, "host_key": str(host_key), "key": str(key.path), "name": "portal"}
    world.start("b", world.config("b", peer=[], nat_partner=True, relay=via))
    port = eventually(lambda: public_port(world), "a public port")
    world.start("a", world.config("a", peer=[DMZ], nat_partner=True, port=port))
    world.joined("superframes")
    eventually(world.pings, "a ping")
    passes(world, FRAMES)
    assert world.status("a")["planes"]["datagrams"]["alive"] is False


def public_port(world: World) -> int | None:
    """Which of the relay's ports is open."""
    for line in world.at("dmz", "ss", "-Hltn").splitlines():
        port = int(line.split()[3].rpartition(":")[2])
        if port in PUBLIC:
            return port
    time.sleep(0.1)
    return None
