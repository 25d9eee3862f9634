"""Machines of the `containers` kind in private networks: exact addresses, and machines that carry frames."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from typing import Any

import pytest

from federation_member.middleware.contract import Middleware, NoCapacity, Owned, UnusableSpec
from fedkit.protocol.lending import Instance, NetworkSpec
from tests.component.middleware.contract import compute, eventually, made, net, new_key, plain, running
from tests.component.middleware.machines import prints, run
from tests.component.middleware.place import GATEWAY, ContainersSite, lacks_to_carry

EIGHT_MORE = 10
STRANGE = "02:00:00:00:00:01"
STRANGER = f"""\
mac=$(ip -o link show eth0 | sed 's/.*ether \\([^ ]*\\).*/\\1/')
(ip link set eth0 address {STRANGE}; arping -c 2 -w 2 -I eth0 {GATEWAY}; ip link set eth0 address "$mac"; echo done >/tmp/done) \
    >/tmp/log 2>&1 </dev/null &
"""


@pytest.fixture
async def middleware(site: ContainersSite) -> AsyncIterator[Middleware]:
    """A started middleware; its machines go at the end, and then there is nothing of them."""
    async with running(site) as middleware:
        yield middleware
        for owned in sorted(await middleware.list_owned(), key=lambda owned: owned.kind):
            await middleware.delete(owned.key)
    assert await site.leftovers() == []


async def a_network(middleware: Middleware, site: ContainersSite, cidr: str) -> str:
    """A network that frames pass as they are."""
    return (await made(middleware, new_key(), plain(site, NetworkSpec(cidr=cidr, verbatim=True)))).key


async def a_machine(middleware: Middleware, site: ContainersSite, *networks: str, **spec: Any) -> Owned:
    """A machine in these networks."""
    return await made(middleware, new_key(), compute(site, networks, **spec))


async def addresses(machine: Instance) -> dict[str, str]:
    """Those of its interfaces but the first two (lo, eth0), as ADDRESS/LENGTH."""
    lines = (await run(machine, "ip -4 -o address show")).splitlines()
    found = {line.split()[1]: line.split()[3] for line in lines}
    return {name: address for name, address in found.items() if name not in ("lo", "eth0")}


async def said(*command: str) -> str:
    """What a program of the site's host prints."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode()


class TestAddresses:
    async def test_a_machine_has_the_addresses_that_it_was_ordered_with(
        self, middleware: Middleware, site: ContainersSite
    ) -> None:
        keys = [(await made(middleware, new_key(), net(site, f"10.8.{i}.0/24"))).key for i in range(EIGHT_MORE)]
        wanted = {key: f"10.8.{i}.{i + 40}" for i, key in enumerate(keys) if i % 2}
        machine = (await a_machine(middleware, site, *keys, addresses=wanted)).instance
        expected = {f"eth{i + 1}": f"10.8.{i}.{i + 40 if i % 2 else 1}/24" for i in range(EIGHT_MORE)}
        assert await addresses(machine) == expected

    async def test_an_address_that_cannot_be_had_is_refused(self, middleware: Middleware, site: ContainersSite) -> None:
        key = (await made(middleware, new_key(), net(site))).key
        await a_machine(middleware, site, key, addresses={key: "10.8.0.9"})
        with pytest.raises(NoCapacity, match=r"10\.8\.0\.9"):
            await a_machine(middleware, site, key, addresses={key: "10.8.0.9"})
        with pytest.raises(UnusableSpec, match=r"10\.9\.0\.9"):
            await a_machine(middleware, site, key, addresses={key: "10.9.0.9"})
        assert len(await middleware.list_owned()) == 2


class TestCarrying:
    """Machines that carry frames."""

    @pytest.fixture(autouse=True)
    def _can_carry(self) -> None:
        if (lacking := lacks_to_carry()) is not None:
            pytest.skip(lacking)

    async def test_it_may_make_bridges_and_taps_and_set_routes(
        self, middleware: Middleware, site: ContainersSite
    ) -> None:
        one, two = [await a_network(middleware, site, f"10.8.{i}.0/24") for i in range(2)]
        machine = (
            await a_machine(middleware, site, one, two, addresses={two: "10.8.1.7"}, carries_frames=True)
        ).instance
        assert await addresses(machine) == {"eth2": "10.8.1.7/24"}
        commands = (
            "ip link add br7 type bridge && tunctl -t tap7 && ip link set tap7 master br7 && ip link set eth1 master br7 && "
            "ip link set eth1 up && ip link set tap7 up && ip link set br7 up && ip route add 10.20.0.0/16 via 10.8.1.9 && "
            "echo 1 >/proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward"
        )
        assert (await run(machine, commands, user="root")).splitlines()[-1] == "1"

    async def test_it_routes_between_machines(self, middleware: Middleware, site: ContainersSite) -> None:
        one, two = [await a_network(middleware, site, f"10.8.{i}.0/24") for i in range(2)]
        await a_machine(middleware, site, one, two, addresses={one: "10.8.0.1", two: "10.8.1.1"}, carries_frames=True)
        ends = [
            await a_machine(
                middleware,
                site,
                key,
                addresses={key: f"10.8.{i}.2"},
                carries_frames=True,
                user_data=f"#!/bin/sh\nip route add 10.8.{1 - i}.0/24 via 10.8.{i}.1\n",
            )
            for i, key in enumerate((one, two))
        ]
        await eventually(lambda: prints(ends[0].instance, "ping -c 1 -w 2 10.8.1.2 >/dev/null; echo $?", "0", "root"))

    @pytest.mark.parametrize(
        "attempt",
        [
            "mount -t tmpfs x /mnt",
            "unshare -m true",
            "nsenter -t 1 -n true",
            "mknod /tmp/disk b 254 0",
            "echo core > /proc/sys/kernel/core_pattern",
            "echo 1 > /proc/sys/vm/drop_caches",
            "echo h > /proc/sysrq-trigger",
            "ls /sys/class",
        ],
    )
    async def test_otherwise_it_is_held_as_any(
        self, middleware: Middleware, site: ContainersSite, attempt: str
    ) -> None:
        machine = (await a_machine(middleware, site, carries_frames=True)).instance
        command = f"timeout 5 sh -c {shlex.quote(attempt)} >/dev/null 2>&1; echo $?"
        assert int(await run(machine, command, user="root")) != 0

    async def test_on_the_intranet_it_speaks_as_itself_alone(
        self, middleware: Middleware, site: ContainersSite
    ) -> None:
        machine = (await a_machine(middleware, site, carries_frames=True)).instance
        ping = f"ping -c 1 -w 2 -I ADDRESS {GATEWAY} >/dev/null 2>&1; echo $?"
        assert await run(machine, ping.replace("ADDRESS", str(machine.address)), user="root") == "0"
        await run(machine, "ip address add 10.77.0.99/24 dev eth0", user="root")
        assert await run(machine, ping.replace("ADDRESS", "10.77.0.99"), user="root") != "0"
        await run(machine, STRANGER, user="root")
        await eventually(lambda: prints(machine, "cat /tmp/done", "done"))
        assert STRANGE not in await said("ip", "neigh", "show") + await said("bridge", "fdb", "show")

    async def test_the_fence_stands_again_after_a_restart(self, site: ContainersSite) -> None:
        async with running(site) as middleware:
            machine = await a_machine(middleware, site, carries_frames=True)
        async with running(site) as middleware:
            assert await run(machine.instance, f"ping -c 1 -w 2 {GATEWAY} >/dev/null; echo $?", user="root") == "0"
            await middleware.delete(machine.key)
        assert await site.leftovers() == []


async def test_what_lacks_is_said(middleware: Middleware, site: ContainersSite) -> None:
    if (lacking := lacks_to_carry()) is None:
        pytest.skip("nothing lacks")
    with pytest.raises(UnusableSpec, match=lacking):
        await a_machine(middleware, site, carries_frames=True)
    assert await middleware.list_owned() == []
