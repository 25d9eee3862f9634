"""Segments that the `containers` kind runs as a whole: nodes, their networks, what may be done to them, and what is left."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from federation_member.middleware.containers import ContainersMiddleware
from federation_member.middleware.containers.nodes import client
from federation_member.middleware.containers.nodes.plan import Part, Planner
from federation_member.middleware.containers.nodes.shaping import has_netem
from federation_member.middleware.contract import (
    HostsSegments,
    MiddlewareError,
    NoCapacity,
    NodeRequest,
    Owned,
    PortalRequest,
    SegmentRequest,
    Status,
    UnusableSpec,
    WireEnd,
)
from fedkit.protocol.lending import Instance
from fedkit.protocol.segments import NodeInfo, NodeStatus, Operation
from fedkit.topology.shaping import Shape, Way
from tests.component.middleware.contract import PUBLIC_KEY, crash, eventually, new_key, running
from tests.component.middleware.machines import login, run
from tests.component.middleware.place import ContainersSite, lacks_to_carry

WIRES = {"left": "10.1.1.0/24", "right": "10.1.2.0/24"}
SOON = 60.0  # seconds that what takes no time may take on a busy machine
NAMES = {"10.1.1.2": ["a"], "10.1.1.3": ["b"], "10.1.2.3": ["b-right"], "10.1.2.4": ["C(1)"]}


@pytest.fixture(autouse=True)
def able() -> None:
    """Where machines cannot carry frames there are no segments either."""
    if (lacking := lacks_to_carry()) is not None:
        pytest.skip(lacking)


def node(site: ContainersSite, name: str, *ends: WireEnd, **more: Any) -> NodeRequest:
    """A small node."""
    return NodeRequest(name, site.image, site.flavour, f"w{len(name)}", ends, **more)


def row(site: ContainersSite, shape: Shape | None = None, **more: Any) -> SegmentRequest:
    """a, b and C(1) in a row, of which b forwards."""
    nodes = (
        node(site, "a", WireEnd("left", "10.1.1.2", shape or Shape()), routes=(("10.1.2.0/24", "10.1.1.3"),), **more),
        replace(
            node(site, "b", WireEnd("left", "10.1.1.3"), WireEnd("right", "10.1.2.3"), forwards=True), way="middle"
        ),
        node(site, "C(1)", WireEnd("right", "10.1.2.4"), routes=(("10.1.1.0/24", "10.1.2.3"),)),
    )
    return SegmentRequest(site.account, WIRES, nodes, hosts=NAMES, ssh_keys=(PUBLIC_KEY,))


@pytest.fixture
async def here(site: ContainersSite) -> AsyncIterator[ContainersMiddleware]:
    """The middleware, after which nothing is left."""
    async with running(site) as middleware:
        assert isinstance(middleware, ContainersMiddleware)
        assert isinstance(middleware, HostsSegments)
        yield middleware
        for owned in await middleware.list_owned():
            await middleware.delete(owned.key)
    assert await site.leftovers() == []


def nodes_of(owned: Owned) -> dict[str, NodeInfo]:
    """How its nodes are."""
    assert owned.status is Status.RUNNING, owned.reason
    assert owned.instance.segment is not None
    return {one.name: one for one in owned.instance.segment.nodes}


def entrance(info: NodeInfo) -> Instance:
    """A node as a machine that can be entered."""
    return Instance(name=info.name, address=info.address, user=info.user, host_keys=info.host_keys)


async def at(middleware: ContainersMiddleware, key: str, name: str, command: str) -> str:
    """What a command prints in a node."""
    return (await middleware.operate(key, Operation.RUN, name, command)).text.strip()


async def is_now(middleware: ContainersMiddleware, key: str, name: str, status: NodeStatus) -> bool:
    """Whether a node is so."""
    owned = await middleware.get(key)
    return owned is not None and nodes_of(owned)[name].status is status


async def test_the_ends_reach_one_another_by_name(here: ContainersMiddleware, site: ContainersSite) -> None:
    key, request = new_key(), row(site, startup="echo hello; pwd")
    owned = await here.start_segment(key, request)
    assert {name: one.status for name, one in nodes_of(owned).items()} == dict.fromkeys(
        ("a", "b", "C(1)"), NodeStatus.RUNNING
    )
    assert "0% packet loss" in await at(here, key, "a", "ping -c 1 -w 20 'C(1)'")
    assert await at(here, key, "a", "traceroute -n -w 3 -q 1 -m 4 'C(1)' | sed -n 2,3p | awk '{print $2}'") == (
        "10.1.1.3\n10.1.2.4"
    )
    assert await at(here, key, "C(1)", "hostname; cat /etc/hostname; id -u") == "C(1)\nC(1)\n0"
    assert (await here.operate(key, Operation.CONSOLE, "a")).text == "node a\nstarting: echo hello; pwd\nhello\n/\n"
    assert await here.start_segment(key, request) == owned == await here.get(key)
    assert await here.list_owned() == [owned]


async def test_users_enter_and_nobody_else(here: ContainersMiddleware, site: ContainersSite) -> None:
    owned = await here.start_segment(new_key(), row(site))
    inside = entrance(nodes_of(owned)["a"])
    assert await run(inside, "hostname") == "a"
    assert await run(inside, "id -un; pwd; touch mine && echo wrote", user="fed") == "fed\n/home/fed\nwrote"
    with pytest.raises(asyncssh.PermissionDenied):
        async with login(inside, asyncssh.generate_private_key("ssh-ed25519")):
            pass


async def test_it_outlives_the_member(site: ContainersSite) -> None:
    async with running(site) as middleware:
        assert isinstance(middleware, HostsSegments)
        key = new_key()
        owned = await middleware.start_segment(key, row(site))
    died: list[str] = []
    async with running(site, died.append) as middleware:
        assert await middleware.get(key) == owned
        handle = client.handle_of(site.state / "instances" / key)
        assert handle is not None
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        await asyncio.to_thread(select.select, [handle], [], [])
        os.close(handle)
        await eventually(lambda: key in died)
        found = await middleware.get(key)
        assert found is not None
        assert found.status is Status.FAILED
        await middleware.delete(key)
        assert await middleware.list_owned() == []
    assert await site.leftovers() == []


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.2, 0.4])
async def test_what_is_given_up_half_way_leaves_nothing(site: ContainersSite, moment: float) -> None:
    async with running(site) as middleware:
        assert isinstance(middleware, HostsSegments)
        try:
            async with asyncio.timeout(moment):
                await middleware.start_segment(key := new_key(), row(site))
        except TimeoutError:
            assert await middleware.list_owned() == []
        else:
            await middleware.delete(key)
    assert await site.leftovers() == []


@pytest.mark.parametrize("moment", ["0.02s", "0.05s", "0.1s", "0.15s", "0.3s", "40", "90", "140"])
async def test_a_member_that_is_killed_half_way_is_followed_by_one_that_finds_all(
    site: ContainersSite, moment: str
) -> None:
    key, request = new_key(), row(site)
    await crash(site, "start_segment", key, moment, request)
    async with running(site) as middleware:
        assert isinstance(middleware, HostsSegments)
        assert {owned.key for owned in await middleware.list_owned()} <= {key}
        assert set(nodes_of(await middleware.start_segment(key, request))) == {"a", "b", "C(1)"}
        await middleware.delete(key)
    assert await site.leftovers() == []


async def test_nodes_are_stopped_started_and_rebooted_with_their_disks(
    here: ContainersMiddleware, site: ContainersSite
) -> None:
    key = new_key()
    await here.start_segment(key, row(site))
    await at(here, key, "b", "echo kept >/root/file")
    await here.operate(key, Operation.STOP, "b")
    assert await is_now(here, key, "b", NodeStatus.STOPPED)
    with pytest.raises(MiddlewareError, match="stopped"):
        await here.operate(key, Operation.RUN, "b", "true")
    assert "100% packet loss" in await at(here, key, "a", "ping -c 1 -w 1 'C(1)'")
    await here.operate(key, Operation.START, "b")
    assert await at(here, key, "b", "cat /root/file") == "kept"
    await here.operate(key, Operation.REBOOT, "b")
    assert await at(here, key, "b", "cat /root/file") == "kept"
    assert "0% packet loss" in await at(here, key, "a", "ping -c 1 -w 20 'C(1)'")


async def test_whoever_is_in_a_node_does_not_keep_it_from_ending(
    here: ContainersMiddleware, site: ContainersSite
) -> None:
    key = new_key()
    owned = await here.start_segment(key, row(site))
    async with login(entrance(nodes_of(owned)["a"])) as session:
        await session.run("true", check=True)
        async with asyncio.timeout(SOON):
            await here.operate(key, Operation.REBOOT, "a")
    assert await is_now(here, key, "a", NodeStatus.RUNNING)


async def test_a_command_has_a_status_and_hinders_nobody(here: ContainersMiddleware, site: ContainersSite) -> None:
    key = new_key()
    await here.start_segment(key, row(site))
    slow = asyncio.create_task(here.operate(key, Operation.RUN, "a", "sleep 600"))
    printed = await here.operate(key, Operation.RUN, "a", "echo out; echo err >&2; exit 7")
    assert (printed.text, printed.status) == ("out\nerr\n", 7)
    flood = await here.operate(key, Operation.RUN, "a", "yes | head -c 1000000; echo end")
    assert flood.text.endswith("end\n")
    assert len(flood.text) <= 64 * 1024
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)
    await eventually(lambda: _does_not_sleep(here, key))
    with pytest.raises(UnusableSpec, match="no node"):
        await here.operate(key, Operation.RUN, ".gate", "true")


async def _does_not_sleep(here: ContainersMiddleware, key: str) -> bool:
    return "sleep 600" not in await at(here, key, "a", "ps -o args | grep -v grep | grep -v awk")


async def test_a_portal_comes_changes_and_goes(here: ContainersMiddleware, site: ContainersSite) -> None:
    key, request = new_key(), row(site)
    await here.start_segment(key, request)

    async def joined(*portals: PortalRequest) -> list[str]:
        owned = await here.start_segment(key, replace(request, portals=portals))
        assert owned.instance.segment is not None
        return [portal.connector for portal in owned.instance.segment.portals if portal.status is NodeStatus.RUNNING]

    script = "#!/bin/sh\nip address add 10.1.1.77/24 dev eth1 && ip address add 10.1.2.77/24 dev eth2\n"
    portal = PortalRequest("p", site.image, site.flavour, ("left", "right"), script)
    assert await joined(portal) == ["p"]
    assert "0% packet loss" in await at(here, key, "a", "ping -c 3 -w 20 10.1.1.77")
    assert await joined(replace(portal, script=script.replace("77", "78"))) == ["p"]
    assert "0% packet loss" in await at(here, key, "C(1)", "ping -c 3 -w 20 10.1.2.78")
    assert "100% packet loss" in await at(here, key, "a", "ping -c 1 -w 1 10.1.1.77")
    assert await joined() == []


async def test_what_a_killed_member_promised_is_made_by_the_next(
    here: ContainersMiddleware, site: ContainersSite
) -> None:
    key, request = new_key(), row(site)
    await here.start_segment(key, request)
    folder = site.state / "instances" / key
    portal = PortalRequest("p", site.image, site.flavour, ("left",), "#!/bin/sh\n")
    with_portal = replace(request, portals=(portal,))
    await here.start_segment(key, with_portal)
    await client.ask(folder, do="remove", nodes=["p", "b"])  # as if it had been killed before it made them
    owned = await here.start_segment(key, with_portal)
    assert nodes_of(owned)["b"].status is NodeStatus.RUNNING
    assert owned.instance.segment is not None
    assert [one.status for one in owned.instance.segment.portals] == [NodeStatus.RUNNING]
    assert "0% packet loss" in await at(here, key, "a", "ping -c 1 -w 20 'C(1)'")


async def test_nodes_come_and_go_and_others_stay(here: ContainersMiddleware, site: ContainersSite) -> None:
    key, request = new_key(), row(site)
    before = nodes_of(await here.start_segment(key, request))
    await at(here, key, "a", "echo kept >/root/file")
    new = replace(node(site, "d", WireEnd("far", "10.1.3.2")), way="far")
    known = replace(request.nodes[0], routes=(*request.nodes[0].routes, ("10.1.3.0/24", "10.1.1.3")), startup="false")
    grown = replace(request, wires=WIRES | {"far": "10.1.3.0/24"}, nodes=(known, *request.nodes[1:], new))
    after = nodes_of(await here.start_segment(key, grown))
    assert {name: info for name, info in after.items() if name != "d"} == before
    assert after["d"].status is NodeStatus.RUNNING
    assert await at(here, key, "a", "cat /root/file") == "kept"
    assert set(nodes_of(await here.start_segment(key, request))) == {"a", "b", "C(1)"}


async def test_what_comes_later_may_be_of_another_image(site: ContainersSite, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name in ("bin", "dev", "proc", "tmp"):
        (other / name).mkdir(parents=True)
    for name in ("sh", "sleep"):
        shutil.copy("/bin/busybox", other / "bin" / name)
    site.extra = {"images": {"other": str(other)}}
    async with running(site) as middleware:
        assert isinstance(middleware, ContainersMiddleware)
        key, request = new_key(), row(site)
        await middleware.start_segment(key, request)
        new = replace(node(site, "d", WireEnd("left", "10.1.1.9")), way="far", image="other")
        owned = await middleware.start_segment(key, replace(request, nodes=(*request.nodes, new)))
        assert nodes_of(owned)["d"].status is NodeStatus.RUNNING
        await middleware.delete(key)
    assert await site.leftovers() == []


async def test_what_comes_later_is_on_its_wire_whatever_wires_come_with_it(
    here: ContainersMiddleware, site: ContainersSite
) -> None:
    key, request = new_key(), row(site)
    await here.start_segment(key, request)
    new = replace(node(site, "d", WireEnd("first", "10.1.0.9"), WireEnd("left", "10.1.1.9")), way="far")
    grown = replace(request, wires={"first": "10.1.0.0/24"} | WIRES, nodes=(*request.nodes, new))
    await here.start_segment(key, grown)
    assert " 0% packet loss" in await at(here, key, "d", "ping -c 1 -w 20 10.1.1.2")


async def test_what_comes_later_needs_room_too(site: ContainersSite) -> None:
    site.extra = {"limits": {"machines": 3}}
    async with running(site) as middleware:
        assert isinstance(middleware, ContainersMiddleware)
        key, request = new_key(), row(site)
        before = nodes_of(await middleware.start_segment(key, request))
        new = replace(node(site, "d", WireEnd("left", "10.1.1.9")), way="far")
        with pytest.raises(NoCapacity):
            await middleware.start_segment(key, replace(request, nodes=(*request.nodes, new)))
        assert nodes_of(await middleware.start_segment(key, request)) == before
        await middleware.delete(key)


async def test_nodes_are_fenced_in(here: ContainersMiddleware, site: ContainersSite) -> None:
    key = new_key()
    owned = await here.start_segment(key, row(site))
    for forbidden in (
        "mount -t tmpfs tmpfs /mnt",
        "unshare -n true",
        "unshare -U true",
        "mknod /root/disk b 8 0",
        "echo 1 >/proc/sys/kernel/sysrq",
        "echo c >/proc/sysrq-trigger",
        "nsenter -t 1 -n true",
        "chroot /proc/1/root mount -t proc proc /mnt",
        "cat /dev/kmsg",
    ):
        printed = await here.operate(key, Operation.RUN, "a", forbidden)
        assert printed.status != 0, f"{forbidden}: {printed.text}"
    assert await at(here, key, "a", "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | awk '{print $2}'") == "1\n2"
    assert int((await at(here, key, "a", "cat /proc/self/uid_map")).split()[1]) > 0 or not site_has_ids()
    for process in ("1", "self"):  # nothing of the host program stays open: 10 and 255 are shells' own
        opened = (await at(here, key, "C(1)", f"ls /proc/{process}/fd")).split()
        assert set(opened) <= {"0", "1", "2", "3", "10", "255"}
    links = await at(here, key, "C(1)", "ls -l /proc/1/fd")
    assert "mnt:" not in links
    assert "net:" not in links
    assert "import sys" not in await at(here, key, "a", "ps -o args")  # the host program's own line
    others = nodes_of(owned)["b"].address
    assert "100% packet loss" in await at(here, key, "a", f"ping -c 1 -w 1 {others}")  # strangers in the intranet


def site_has_ids() -> bool:
    """Whether nodes have ids of their own."""
    return os.geteuid() == 0


async def test_rates_are_set_and_losses_happen(here: ContainersMiddleware, site: ContainersSite) -> None:
    key = new_key()
    ways = Way(2000, 0, 0.25), Way(3000, 0, 0.5)
    await here.start_segment(key, row(site, Shape(*ways)))
    known = "until ping -c 1 -W 1 10.1.1.3 >/dev/null; do :; done"  # who is asked for an address may lose that, too
    said = await at(here, key, "a", f"{known}; ping -c 200 -i 0.01 -w 60 10.1.1.3 | grep received")
    queues = _queues(site, key)
    assert queues.count("rate 2Mbit") == queues.count("rate 3Mbit") == 1  # netem and tbf alike say so
    received = int(said.split()[3])
    assert 30 <= received <= 120  # 75 are expected: 0.75 * 0.5; the chance of more or less is below 1e-9


def _queues(site: ContainersSite, key: str) -> str:
    """What `tc` shows where no node can look."""
    handle = client.handle_of(site.state / "instances" / key)
    assert handle is not None
    try:
        enter = ["nsenter", f"--net=/proc/{_number_of(handle)}/ns/net", "tc", "qdisc", "show"]
        return subprocess.run(enter, capture_output=True, text=True, check=True).stdout
    finally:
        os.close(handle)


def _number_of(handle: int) -> int:
    lines = Path(f"/proc/self/fdinfo/{handle}").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pid:")))


async def test_links_are_late_whatever_the_kernel_can_do(here: ContainersMiddleware, site: ContainersSite) -> None:
    key = new_key()
    await here.start_segment(key, row(site, Shape(Way(2000, 20, 0), Way(3000, 20.5, 0))))
    assert await _round_trip(here, key) >= 40.5
    queues = _queues(site, key)
    assert queues.count("rate 2Mbit") == queues.count("rate 3Mbit") == 1
    await here.operate(key, Operation.REBOOT, "a", "")
    assert await _round_trip(here, key) >= 40.5
    await at(here, key, "b", "(sleep 60 | nc -l -p 9 | wc -c >/tmp/got) >/dev/null 2>&1 </dev/null &")
    await at(here, key, "a", "until head -c 1000000 /dev/zero | nc 10.1.1.3 9; do sleep 0.2; done")
    assert await at(here, key, "b", "until [ -s /tmp/got ]; do sleep 0.2; done; cat /tmp/got") == "1000000"


async def _round_trip(here: ContainersMiddleware, key: str) -> float:
    """The shortest from a to b and back, in ms."""
    text = await at(here, key, "a", "ping -c 2 -w 20 10.1.1.3 | grep round-trip")
    return float(text.split("= ")[1].split("/")[0])


async def test_a_node_that_cannot_be_costs_no_other(
    here: ContainersMiddleware, site: ContainersSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One ends before it has its interfaces, for the kernel takes no such host name; nobody can listen where the other is reached."""
    part = Planner.part

    def odd(planner: Planner, wanted: Part) -> dict[str, Any]:
        return part(planner, wanted) | ({"hostname": "x" * 70} if wanted.name == "ends" else {})

    monkeypatch.setattr(Planner, "part", odd)
    key, wanted = new_key(), row(site)
    ends = replace(node(site, "ends", WireEnd("left", "10.1.1.7")), way="ends")
    lost = replace(node(site, "lost", WireEnd("left", "10.1.1.8")), way="w" * 120)
    nodes = nodes_of(await here.start_segment(key, replace(wanted, nodes=(*wanted.nodes, ends, lost))))
    assert {name: one.status for name, one in nodes.items()} == {
        **dict.fromkeys(("a", "b", "C(1)"), NodeStatus.RUNNING),
        **dict.fromkeys(("ends", "lost"), NodeStatus.FAILED),
    }
    assert "Invalid argument" in nodes["ends"].reason
    assert "path too long" in nodes["lost"].reason
    assert ", 0% packet loss" in await at(here, key, "a", "ping -c 1 -w 20 'C(1)'")


async def test_without_what_delays_its_links_a_node_has_failed(
    here: ContainersMiddleware, site: ContainersSite
) -> None:
    if has_netem():
        pytest.skip("this kernel delays by itself")
    key = new_key()
    await here.start_segment(key, row(site, Shape(Way(None, 1, 0))))
    os.kill(_carrier(site, key), signal.SIGKILL)
    await eventually(lambda: is_now(here, key, "a", NodeStatus.FAILED))
    assert await is_now(here, key, "b", NodeStatus.RUNNING)
    await here.operate(key, Operation.START, "a", "")
    assert await _round_trip(here, key) >= 1


def _carrier(site: ContainersSite, key: str) -> int:
    """The program that delays the segment's links."""
    handle = client.handle_of(site.state / "instances" / key)
    assert handle is not None
    number = _number_of(handle)
    os.close(handle)
    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    (found,) = [int(one) for one in children if b"nodes.wire" in Path(f"/proc/{one}/cmdline").read_bytes()]
    return found
