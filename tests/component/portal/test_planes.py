"""Each data plane carries Ethernet verbatim, moves when its path is cut, and leaves the machine as it was."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Self

import pytest

from tests.component.portal.world import SIDES, World, end, eventually, hears, inside, lacks, raw_socket

pytestmark = pytest.mark.skipif(lacks() is not None, reason=str(lacks()))

SOMEBODY = bytes.fromhex("020000000042")
TEXT = b"as it is".ljust(46, b"\0")
FRAMES = {
    "arp": b"\xff" * 6 + SOMEBODY + bytes.fromhex("0806 0001 0800 06 04 0001") + SOMEBODY + bytes(32),
    "ipv6-multicast": bytes.fromhex("333300000001") + SOMEBODY + bytes.fromhex("86dd 60000000 0008 3b ff")
    + ip_address("fe80::42").packed + ip_address("ff02::1").packed + b"as it is",
    "vlan": b"\xff" * 6 + SOMEBODY + bytes.fromhex("8100 6123 88b5") + TEXT,
    "provider-vlan": b"\xff" * 6 + SOMEBODY + bytes.fromhex("88a8 0005 8100 0006 88b5") + TEXT,
    "no-ip": b"\xff" * 6 + SOMEBODY + bytes.fromhex("88b5") + TEXT,  # the EtherType is IEEE's for experiments
    "lldp-group": bytes.fromhex("0180c200000e") + SOMEBODY + bytes.fromhex("88b6") + TEXT,
    "as-large-as-can-be": b"\xff" * 6 + SOMEBODY + bytes.fromhex("88b5") + bytes(range(250)) * 6,
}  # fmt: skip
HEARD = 20.0  # seconds to wait for a frame
PIECE = 64 * 1024  # octets


@pytest.fixture
def far(tmp_path: Path) -> Iterator[World]:
    """The same, with 20 ms there and back between the portals."""
    world = World(tmp_path)
    try:
        world.build(wan=False)
        world.long_line(0.01, mbps=100)
        world.keys()
        yield world
    finally:
        world.close()


def join(world: World, *planes: str) -> dict[str, subprocess.Popen[bytes]]:
    """Start both portals, with these planes allowed, and wait until the hosts meet."""
    running = {side: world.start(side, world.config(side, planes=list(planes))) for side in SIDES}
    world.joined(planes[0])
    eventually(world.pings, "a ping")
    return running


def passes(world: World, frames: dict[str, bytes]) -> None:
    """Both ways, octet by octet."""
    for side, other in (SIDES, SIDES[::-1]):
        with (
            raw_socket(world.ns(f"host-{side}"), "eth3") as here,
            raw_socket(world.ns(f"host-{other}"), "eth3") as there,
        ):
            for name, frame in frames.items():
                here.send(frame)
                assert hears(there, frame, HEARD), f"{name} from {side}"


def links(world: World) -> list[tuple[object, ...]]:
    """What a portal's machine looks like: interfaces with their masters and addresses, and whether they are up."""
    links: list[tuple[object, ...]] = [(rule,) for rule in world.at("portal-a", "ip", "rule").splitlines()]
    return links + [
        (link["ifname"], link.get("master"), "UP" in link["flags"], [one["local"] for one in link["addr_info"]])
        for link in json.loads(world.at("portal-a", "ip", "-j", "address"))
    ]


@pytest.mark.parametrize("plane", ["superframes", "datagrams", "classic"])
def test_frames_arrive_as_they_are(world: World, plane: str) -> None:
    before = links(world)
    portals = join(world, plane)
    passes(world, FRAMES)
    to_portal = ("ip", "route", "get", "192.0.2.1", "from", "192.0.2.9", "iif")
    assert "local" in world.at("portal-a", *to_portal, "wan")
    assert "local" not in world.at("portal-a", *to_portal, "br3", check=False)  # nobody on a crossing
    assert "1 received" in world.at(
        "host-a", "ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1472", world.address("b")
    )
    assert [end(portals[side]) for side in SIDES] == [0, 0]
    assert links(world) == before


@pytest.mark.parametrize("plane", ["superframes", "datagrams", "classic"])
def test_tcp_arrives_whole(world: World, plane: str) -> None:
    join(world, plane)
    data = bytes(range(256)) * 40_000
    assert received(world, data) == data


def received(world: World, data: bytes) -> bytes:
    """Send over TCP from host a to host b."""
    with inside(world.ns("host-b")):
        server = socket.create_server(("0.0.0.0", 0))
    with inside(world.ns("host-a")):
        client = socket.create_connection((world.address("b"), server.getsockname()[1]), timeout=60)

    def send() -> None:
        with client:
            client.sendall(data)

    sender = threading.Thread(target=send)
    sender.start()
    got = bytearray()
    with server, server.accept()[0] as conn:
        conn.settimeout(90)
        while piece := conn.recv(1 << 20):
            got += piece
    sender.join()
    return bytes(got)


@pytest.mark.parametrize("side", SIDES)
def test_with_plain_openssh(world: World, side: str) -> None:
    """Ours connects to sshd; and ssh -w to ours."""
    other = "b" if side == "a" else "a"
    world.at(f"portal-{other}", "sh", "-ec", """
        ip tuntap add tap3 mode tap; ip link add br3 type bridge
        for port in tap3 eth3; do ip link set $port master br3 up; done; ip link set br3 up""")  # fmt: skip
    (world.folder / "known").write_text(f"[192.0.2.2]:2022 {(world.folder / 'host.pub').read_text()}")
    if side == "a":
        config = world.folder / "sshd_config"
        config.write_text(
            f"Port 2022\nHostKey {world.folder}/host\nAuthorizedKeysFile {world.folder}/a.pub\nPermitTunnel ethernet\n"
            "PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        world.spawn("portal-b", "/usr/sbin/sshd", "-D", "-e", "-f", str(config))
        world.start("a", world.config("a"))
    else:
        world.start("b", world.config("b"))
        eventually(lambda: world.status("b"), "the portal that waits")
        world.spawn(
            "portal-a", "ssh", "-F", "none", "-N", "-p", "2022", "-i", str(world.folder / "a"), "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={world.folder}/known", "-o", "Tunnel=ethernet", "-w", "3:3", "root@192.0.2.2",
        )  # fmt: skip
    eventually(world.pings, "a ping")
    eventually(lambda: world.status(side).get("plane") == "classic", "the status")
    passes(world, {name: frame for name, frame in FRAMES.items() if name != "lldp-group"})


def test_udp_is_blocked_and_opened_again(far: World) -> None:
    """The link moves to ssh and back in the middle of a transfer, whose TCP connection does not notice."""
    for side in SIDES:
        far.start(side, far.config(side))
    far.joined("datagrams")
    eventually(far.pings, "a ping")
    with Transfer(far) as transfer:
        transfer.goes_on()
        block_udp(far)
        far.joined("superframes")
        transfer.goes_on()
        far.at("portal-b", "nft", "delete", "table", "inet", "block")
        far.joined("datagrams")
        transfer.goes_on()
    assert transfer.got == transfer.sent
    assert far.status("a")["changes"] >= 2


class Transfer:
    """One TCP connection from host a to host b, by which something is sent while the context is open."""

    def __init__(self, world: World) -> None:
        self.sent, self.got = bytearray(), bytearray()
        self._stop = threading.Event()
        with inside(world.ns("host-b")):
            server = socket.create_server(("0.0.0.0", 0))
        with server:
            with inside(world.ns("host-a")):
                self._out = socket.create_connection((world.address("b"), server.getsockname()[1]), timeout=60)
            self._in = server.accept()[0]
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> None:
        """Wait until what is sent from now on arrives."""
        due = len(self.sent) + PIECE
        eventually(lambda: len(self.got) > due, "the transfer goes on")

    def _send(self) -> None:
        with self._out:
            while not self._stop.wait(0.02):
                piece = os.urandom(PIECE)
                self.sent += piece
                self._out.sendall(piece)

    def _receive(self) -> None:
        with self._in:
            self._in.settimeout(90)
            while piece := self._in.recv(1 << 20):
                self.got += piece


def block_udp(world: World) -> None:
    """Let no datagram through."""
    rules = "add table inet block; add chain inet block input { type filter hook input priority 0; }; "
    world.at("portal-b", "nft", rules + "add rule inet block input meta l4proto udp drop")


def test_a_way_that_is_cut_is_left_for_another(world: World) -> None:
    """The partner has two addresses; no packet of one arrives any more, and nobody says so."""
    world.at("portal-b", "ip", "address", "add", "192.0.2.12/24", "dev", "wan")
    world.start("b", world.config("b"))
    world.start("a", world.config("a", peer=["192.0.2.2", "192.0.2.12"]))
    world.joined("superframes")
    eventually(world.pings, "a ping")
    rules = "add table inet cut; add chain inet cut input { type filter hook input priority 0; }; "
    world.at("portal-b", "nft", rules + "add rule inet cut input ip daddr 192.0.2.2 drop")
    eventually(world.pings, "a ping by the other address")
    assert "192.0.2.12" in world.at("portal-b", "ss", "-Htn", "state", "established", "sport", "=", "2022")


def test_a_rate_is_kept_by_the_kernel(world: World) -> None:
    for side in SIDES:
        path = world.config(side)
        path.write_text(path.read_text() + "rate_kbps = 8000\n")
        world.start(side, path)
    world.joined("superframes")
    eventually(world.pings, "a ping")
    assert "rate 8Mbit" in world.at("portal-a", "tc", "qdisc", "show", "dev", "tap3")
    data = bytes(2_000_000)
    assert received(world, data) == data


def test_killed_and_started_again(world: World) -> None:
    """The bridge stays, the link comes back, and stopping leaves the machine as it was before the first start."""
    world.at("portal-a", "ip", "address", "add", "10.99.0.1/24", "dev", "eth3")
    before = links(world)
    portals = join(world, "superframes")
    second = world.start("a", world.config("a", planes=["superframes"]))
    assert second.wait(60) == 1  # and it leaves the first alone
    for side in SIDES:
        assert end(portals[side], signal.SIGKILL) != 0
        assert "br3" in world.at(f"portal-{side}", "ip", "link", "show", "dev", "tap3")
        portals[side] = world.start(side, world.config(side, planes=["superframes"]))
        eventually(world.pings, "a ping")
    end(portals["a"], signal.SIGKILL)
    world.at("portal-a", sys.executable, "-m", "fedkit.portal", str(world.folder / "a.toml"), "undo")
    assert links(world) == before
    assert not (world.folder / "a").exists()
    assert not list((world.folder / "state-a").iterdir())
