"""A partner, or a stranger, who sends what no portal sends: bounded, counted, and the next honest connection is served."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from fedkit.portal import messages, ssh
from fedkit.portal.channel import FRAMES, FrameChannel
from fedkit.portal.frames import CONTROL, GSO_TCP4, NEEDS_CHECKSUM, RECORD, VNET, join, split
from fedkit.portal.gate import AT_ONCE, SPARE
from fedkit.portal.messages import Hello
from tests.component.portal.world import PORT, WAN, World, eventually, inside, lacks

pytestmark = pytest.mark.skipif(lacks() is not None, reason=str(lacks()))

HELLO = join([(CONTROL, messages.encode(Hello(1, (3, 9), True)))])
NO_IP = b"\xff" * 6 + bytes.fromhex("020000000042 88b5") + bytes(46)
MOST_MEMORY = 150_000  # KiB, of which Python and asyncssh are a third


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Only the portal that waits."""
    world = World(tmp_path)
    try:
        world.build()
        world.keys()
        portal = world.start("b", world.config("b"))
        eventually(lambda: world.status("b"), "the portal that waits")
        yield world
        assert memory(portal) < MOST_MEMORY
        world.start("a", world.config("a"))
        world.joined("superframes")
        eventually(world.pings, "a ping of the honest partner")
    finally:
        world.close()


def memory(process: subprocess.Popen[bytes]) -> int:
    """KiB that a process holds."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("it is gone")


class Owner:
    """Keeps what a channel tells, and answers pings if it is `polite`: who never does is taken for dead."""

    polite = False

    def __init__(self) -> None:
        self.channel: FrameChannel | None = None
        self.open = asyncio.Event()
        self.gone = asyncio.Event()
        self.heard = bytearray()

    def opened(self) -> None:
        self.open.set()

    def received(self, data: memoryview) -> None:
        self.heard += data
        for tag, record in split(data) if self.polite else ():
            if tag == CONTROL and isinstance(told := messages.decode(bytes(record)), messages.Ping):
                assert self.channel is not None
                self.channel.send(join([(CONTROL, messages.encode(messages.Pong(told.number)))]))

    def writable(self) -> None:
        """Nothing waits."""

    def lost(self, reason: str) -> None:
        self.gone.set()


@asynccontextmanager
async def partner(world: World) -> AsyncIterator[Owner]:
    """Somebody who has the partner's key, with a channel."""
    keys = [asyncssh.read_private_key(world.folder / "a"), asyncssh.read_public_key(world.folder / "host.pub")]
    with inside(world.ns("portal-a")):
        conn = await ssh.connect(WAN["b"], PORT, None, keys[1], keys[0], asyncssh.SSHClient)
    owner = Owner()
    owner.channel = FrameChannel(conn, FRAMES, owner)
    owner.channel.open()
    try:
        await asyncio.wait_for(owner.open.wait(), 30)
        yield owner
    finally:
        conn.abort()
        await conn.wait_closed()


@pytest.mark.parametrize(
    "data",
    [
        RECORD.pack(0xFFFFFFFF, 3),
        RECORD.pack(0, 3),
        b"\0",
        join([(CONTROL, b"{")]),
        join([(CONTROL, messages.encode(messages.Ping(1)))]),
        HELLO + HELLO,
        HELLO + join([(CONTROL, b'{"keys": 1, "key": "", "salt": ""}')]),
    ],
    ids=["endless", "empty", "no-record", "no-json", "no-hello", "two-hellos", "no-key"],
)
async def test_a_partner_that_breaks_the_protocol_is_cut(world: World, data: bytes) -> None:
    async with partner(world) as owner:
        assert owner.channel is not None
        owner.channel.send(data)
        await asyncio.wait_for(owner.gone.wait(), 30)


async def test_frames_that_no_kernel_should_see(world: World) -> None:
    async with partner(world) as owner:
        channel = owner.channel
        assert channel is not None
        channel.send(HELLO)
        bad = [
            (3, VNET.pack(NEEDS_CHECKSUM, GSO_TCP4, 54, 1, 34, 16) + bytes(60_000)),  # sixty thousand frames
            (3, VNET.pack(NEEDS_CHECKSUM, 0, 0, 0, 60_000, 16) + NO_IP),
            (3, VNET.pack(0, 0, 0, 0, 0, 0) + bytes(3000)),
            (3, b""[:0] + bytes(5)),
        ]
        channel.send(join(bad))
        for _ in range(50):  # an unknown tag, as fast as may be
            channel.send(join([(9, bytes(VNET.size) + NO_IP)] * 1000))
            await asyncio.sleep(0)
        channel.send(join([(3, bytes(VNET.size) + NO_IP)]))

        def counted() -> bool:
            status = world.status("b")
            crossing = status["crossings"]["3"]
            return bool(
                crossing["refused"] == len(bad) and crossing["in_frames"] >= 1 and status["unknown_tags"] == 50_000
            )

        for _ in range(600):
            if counted():
                break
            await asyncio.sleep(0.1)
        assert counted(), json.dumps(world.status("b"))
        assert not owner.gone.is_set()


async def test_a_partner_has_so_many_connections_and_no_more(world: World) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(1 + SPARE):
            await stack.enter_async_context(partner(world))
        with pytest.raises((asyncssh.Error, OSError, TimeoutError)):
            await stack.enter_async_context(partner(world))


async def test_strangers(world: World) -> None:
    """Connections that say nothing or nonsense, datagrams of nobody, and keys that are not the partner's."""
    with ExitStack() as stack:
        with inside(world.ns("portal-a")):
            for number in range(40):
                sock = stack.enter_context(socket.create_connection((WAN["b"], PORT), timeout=20))
                if number % 2:
                    sock.sendall(os.urandom(20_000))
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        for _ in range(2000):
            udp.sendto(os.urandom(1400), (WAN["b"], PORT))
        own = asyncssh.generate_private_key("ssh-ed25519")
        pinned = asyncssh.read_public_key(world.folder / "host.pub")
    with inside(world.ns("portal-a")), pytest.raises((asyncssh.Error, OSError)):
        await asyncio.wait_for(ssh.connect(WAN["b"], PORT, None, pinned, own, asyncssh.SSHClient), 30)


async def test_strangers_who_come_and_stay_do_not_keep_the_partner_out(world: World) -> None:
    """Whoever waits longest makes room, among those of the address with most of them."""
    with ExitStack() as stack:
        with inside(world.ns("portal-a")):
            for _ in range(3 * AT_ONCE):
                stack.enter_context(socket.create_connection((WAN["b"], PORT), timeout=20))
        async with partner(world):
            pass


async def test_a_server_with_another_key_is_not_the_partner(world: World) -> None:
    key = asyncssh.read_private_key(world.folder / "a")
    with inside(world.ns("portal-a")), pytest.raises(asyncssh.HostKeyNotVerifiable):
        await ssh.connect(WAN["b"], PORT, None, asyncssh.generate_private_key("ssh-ed25519"), key, asyncssh.SSHClient)


async def test_ssh_changes_its_keys_in_the_middle(world: World) -> None:
    """Whoever asks for it, no record is lost."""
    async with partner(world) as owner:
        channel = owner.channel
        assert channel is not None
        owner.polite = True
        channel.send(HELLO)
        for turn in range(200):
            channel.send(join([(9, bytes(VNET.size) + NO_IP)] * 10))
            if turn % 50 == 25:
                channel._conn.start_key_exchange()
            await asyncio.sleep(0.005)
        for _ in range(600):
            if world.status("b")["unknown_tags"] == 2000:
                break
            await asyncio.sleep(0.1)
        assert world.status("b")["unknown_tags"] == 2000
        heard = len(owner.heard)
        await asyncio.sleep(1)
        assert len(owner.heard) > heard  # pings of the portal
        assert not owner.gone.is_set()
