"""Nodes whose own programs serve file systems (FUSE): where the lender lets them, and nowhere else, whatever they try."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from federation_member.middleware.containers import ContainersMiddleware
from federation_member.middleware.containers.ids import IdSpace
from federation_member.middleware.containers.nodes import client, mounts
from federation_member.middleware.contract import NodeRequest, SegmentRequest, WireEnd
from fedkit.protocol.segments import NodeStatus, Operation
from tests.component.middleware.contract import eventually, new_key, running
from tests.component.middleware.place import ContainersSite, lacks_to_carry
from tests.component.middleware.test_containers_nodes import SOON, at, is_now

FOLDER = "/proj/tied"
SERVER = """
import os, socket, struct, sys

folder, is_mute = sys.argv[1], len(sys.argv) > 2
ours, theirs = socket.socketpair()
if os.fork() == 0:
    theirs.set_inheritable(True)
    os.environ["_FUSE_COMMFD"] = str(theirs.fileno())
    os.execv("/bin/fusermount", ["fusermount", "-o", "rw,auto_unmount", "--", folder])
theirs.close()
open("/tmp/server.pid", "w").write(str(os.getpid()))
device = socket.recv_fds(ours, 1, 1)[1][0]
while True:  # include/uapi/linux/fuse.h
    request = os.read(device, 1 << 17)
    _, operation, unique = struct.unpack_from("IIQ", request)
    if operation == 26:  # FUSE_INIT
        answer = struct.pack("IIII", 7, 31, 0, 0).ljust(64, b"\\0")
    elif is_mute:
        continue
    elif operation == 3:  # FUSE_GETATTR
        answer = struct.pack("QII6Q3I7I", 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 1000, 1000, 0, 512, 0)
    else:
        os.write(device, struct.pack("IiQ", 16, -38, unique))
        continue
    os.write(device, struct.pack("IiQ", 16 + len(answer), 0, unique) + answer)
"""
TRY = "python3 /root/server.py"
START = "setsid python3 /root/server.py {} >/tmp/server.log 2>&1 </dev/null &"
OWNED = "stat -c %u " + FOLDER


@pytest.fixture(autouse=True)
def able() -> None:
    """Where machines cannot carry frames there are no segments, and without FUSE or root no such mounts."""
    if (lacking := lacks_to_carry()) is not None:
        pytest.skip(lacking)
    if not mounts.are_possible(IdSpace.of_this_process().of_machine(0).first):
        pytest.skip("there is no FUSE here, or we are no root")


@pytest.fixture
async def here(site: ContainersSite) -> AsyncIterator[ContainersMiddleware]:
    """The middleware, after which nothing is left."""
    async with running(site) as middleware:
        assert isinstance(middleware, ContainersMiddleware)
        yield middleware
        for owned in await middleware.list_owned():
            await middleware.delete(owned.key)
    assert await site.leftovers() == []


async def segment(here: ContainersMiddleware, site: ContainersSite) -> str:
    """a, which may mount at FOLDER, and b, which may not."""
    a = NodeRequest("a", site.image, site.flavour, "wa", (WireEnd("left", "10.1.1.2"),), mounts=(FOLDER,))
    b = NodeRequest("b", site.image, site.flavour, "wb", (WireEnd("left", "10.1.1.3"),))
    await here.start_segment(key := new_key(), SegmentRequest(site.account, {"left": "10.1.1.0/24"}, (a, b)))
    for name in "ab":
        await at(here, key, name, f"mkdir -p {FOLDER} && cat >/root/server.py <<'END'\n{SERVER}\nEND")
    return key


async def mounted(here: ContainersMiddleware, key: str) -> bool:
    """Whether there is something."""
    return f" {FOLDER} fuse " in await at(here, key, "a", "cat /proc/mounts")


async def served(here: ContainersMiddleware, key: str, *words: str) -> None:
    """Have a server mount."""
    await at(here, key, "a", START.format(" ".join([FOLDER, *words])))
    await eventually(lambda: mounted(here, key), SOON)


async def test_a_program_of_a_node_serves_a_folder(here: ContainersMiddleware, site: ContainersSite) -> None:
    key = await segment(here, site)
    await served(here, key)
    assert await at(here, key, "a", OWNED) == "1000"
    assert "nosuid,nodev" in await at(here, key, "a", f"grep {FOLDER} /proc/mounts")
    await at(here, key, "a", "kill -9 $(cat /tmp/server.pid)")

    async def unmounted() -> bool:
        return not await mounted(here, key)

    await eventually(unmounted, SOON)
    assert await at(here, key, "a", OWNED) == "0"
    await here.operate(key, Operation.REBOOT, "a")
    await served(here, key)
    assert await at(here, key, "a", OWNED) == "1000"
    await at(here, key, "a", f"fusermount -u -z {FOLDER}")
    assert await unmounted()


@pytest.mark.parametrize(
    ("before", "folder", "why"),
    [
        ("mkdir -p /proj/other", "/proj/other", "may mount at"),
        (":", "/proc", "may mount at"),
        ("rm -r /proj && mkdir -p /tmp/x/tied && ln -s /tmp/x /proj", FOLDER, "symbolic links"),
        (f"rmdir {FOLDER} && ln -s /proc {FOLDER}", FOLDER, "symbolic links"),
        ("rm -r /proj && mkdir /dev/shm/tied && ln -s /dev/shm /proj", FOLDER, "symbolic links"),
    ],
)
async def test_nothing_is_mounted_elsewhere(
    here: ContainersMiddleware, site: ContainersSite, before: str, folder: str, why: str
) -> None:
    key = await segment(here, site)
    earlier = await at(here, key, "a", "cat /proc/mounts")
    assert why in await at(here, key, "a", f"{before}; {TRY} {folder} 2>&1")
    await at(here, key, "a", f"fusermount -u -z {folder}")
    assert await at(here, key, "a", "cat /proc/mounts") == earlier


async def test_nobody_but_root_asks_and_of_nodes_those_that_may(
    here: ContainersMiddleware, site: ContainersSite
) -> None:
    key = await segment(here, site)
    person = "import os; os.setuid(1000); os.execl('/usr/bin/python3', 'python3', '/root/server.py', '/proj/tied')"
    assert "may mount at" in await at(here, key, "a", f'python3 -c "{person}" 2>&1')
    assert await at(here, key, "b", "ls /bin/fusermount* /etc/fed/mounts 2>/dev/null; ls /dev | grep fuse") == ""
    await at(
        here, key, "b", f"cat >/bin/fusermount <<'END'\n{mounts.PROGRAM.read_text()}\nEND\nchmod 755 /bin/fusermount"
    )
    assert "Connection refused" in await at(here, key, "b", f"{TRY} {FOLDER} 2>&1")


async def test_a_server_that_never_answers_holds_up_its_own_node_alone(
    here: ContainersMiddleware, site: ContainersSite
) -> None:
    key = await segment(here, site)
    await served(here, key, "mute")
    await at(here, key, "a", f"setsid ls {FOLDER} >/dev/null 2>&1 &")
    with pytest.raises(PermissionError):
        os.listdir(_seen_from_outside())  # not even the host's root waits
    async with asyncio.timeout(SOON):
        await here.operate(key, Operation.REBOOT, "a")
    assert await is_now(here, key, "a", NodeStatus.RUNNING)
    assert not await mounted(here, key)


async def test_the_end_of_another_members_segment_with_the_same_ids_leaves_it_alone(
    here: ContainersMiddleware, site: ContainersSite, tmp_path: Path
) -> None:
    key = await segment(here, site)
    await served(here, key)
    (another := tmp_path / "another").mkdir()
    ids = IdSpace.of_this_process()
    for number in range(8):  # one of them is this segment's, too
        await asyncio.to_thread(client.end, another, ids.of_machine(number).first)
    assert await at(here, key, "a", OWNED) == "1000"


@pytest.mark.parametrize("how", ["reboot", "delete", "kill and delete"])
async def test_who_waits_for_himself_ends_with_his_node(
    here: ContainersMiddleware, site: ContainersSite, how: str
) -> None:
    key = await segment(here, site)
    asks_himself = "import threading; threading.Timer(0.1, os.stat, [folder]).start()"
    await at(here, key, "a", f"sed -i 's/^while True:/{asks_himself}\\n&/' /root/server.py")
    await served(here, key, "mute")
    await eventually(_is_stuck, SOON)
    async with asyncio.timeout(SOON):
        if how == "reboot":
            await here.operate(key, Operation.REBOOT, "a")
            await served(here, key, "mute")
            await eventually(_is_stuck, SOON)
        elif how == "kill and delete":
            handle = client.handle_of(site.state / "instances" / key)
            assert handle is not None
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        await here.delete(key)


def _is_stuck() -> bool:
    """Whether a thread waits for an answer from a file system of its own."""
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*"):
        with suppress(OSError):
            is_ours = b"/root/server.py" in (task / "cmdline").read_bytes()
            if is_ours and (task / "wchan").read_text().startswith("request_wait"):
                return True
    return False


def _seen_from_outside() -> Path:
    """The folder, through a process of the node."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f" {FOLDER} " in (process / "mountinfo").read_text():
                return process / "root" / FOLDER[1:]
    raise AssertionError("no process has it")
