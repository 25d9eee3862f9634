"""Pausing, consoles and quotas of the `containers` kind, with the inside as hostile as it likes to be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from federation_member.middleware.containers.service import ContainersMiddleware
from federation_member.middleware.contract import Account, Middleware, UnknownAccount, UnusableSpec
from fedkit.protocol.lending import Instance, NetworkSpec, Power, SecurityRule
from tests.component.middleware.contract import compute, net, new_key, plain, running
from tests.component.middleware.machines import run
from tests.component.middleware.place import ContainersSite

SECRET = "what the host alone may read"


def kind(middleware: Middleware) -> ContainersMiddleware:
    """The kind that this is about."""
    assert isinstance(middleware, ContainersMiddleware)
    return middleware


async def power_of(middleware: Middleware, key: str) -> Power | None:
    """How a machine is."""
    owned = await middleware.get(key)
    assert owned is not None
    return owned.instance.power


async def count(machine: Instance) -> int:
    """How far a machine's counter has come."""
    return int(await run(machine, "cat /tmp/count"))


async def test_a_paused_machine_does_nothing_and_goes_on_where_it_was(site: ContainersSite) -> None:
    async with running(site) as middleware:
        key = new_key()
        script = "#!/bin/sh\ni=0; while :; do i=$((i+1)); echo $i >/tmp/new; mv /tmp/new /tmp/count; sleep 0.02; done\n"
        machine = (await middleware.create(key, compute(site, user_data=script))).instance
        assert machine.power is Power.RUNNING
        containers = kind(middleware)
        try:
            paused = await containers.set_power(key, Power.PAUSED)
        except UnusableSpec:
            pytest.skip("no freezer here")
        assert paused.instance.power is Power.PAUSED
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await count(machine)
        await containers.set_power(key, Power.RUNNING)
        before = await count(machine)
        await asyncio.sleep(0.2)
        assert await count(machine) > before > 0
        await middleware.delete(key)
    assert await site.leftovers() == []


async def test_a_paused_machine_is_known_to_the_next_member_and_can_be_deleted(site: ContainersSite) -> None:
    keys = [new_key(), new_key()]
    async with running(site) as middleware:
        for key in keys:
            await middleware.create(key, compute(site))
            try:
                await kind(middleware).set_power(key, Power.PAUSED)
            except UnusableSpec:
                pytest.skip("no freezer here")
    async with running(site) as middleware:
        assert [await power_of(middleware, key) for key in keys] == [Power.PAUSED] * 2
        await kind(middleware).set_power(keys[0], Power.RUNNING)
        assert await power_of(middleware, keys[0]) is Power.RUNNING
        for key in keys:
            await middleware.delete(key)
        assert await middleware.list_owned() == []
    assert await site.leftovers() == []


async def test_a_stop_would_lose_the_disk_and_is_refused_with_what_works(site: ContainersSite) -> None:
    async with running(site) as middleware:
        key = new_key()
        await middleware.create(key, compute(site))
        with pytest.raises(UnusableSpec, match="pause"):
            await kind(middleware).set_power(key, Power.STOPPED)
        assert await power_of(middleware, key) is Power.RUNNING
        await middleware.delete(key)


async def test_the_console_is_what_the_start_wrote(site: ContainersSite) -> None:
    async with running(site) as middleware:
        key = new_key()
        await middleware.create(key, compute(site, user_data="#!/bin/sh\nprintf 'hello\\033[31m there\\n'\n"))
        async with asyncio.timeout(20):
            while "hello there" not in await kind(middleware).console(key):  # noqa: ASYNC110  a file tells nobody
                await asyncio.sleep(0.05)
        await middleware.delete(key)


@pytest.mark.parametrize(
    "trap",
    [
        "ln -sf {host} /var/log/boot.log",
        "rm -r /var/log; ln -s {folder} /var/log",
        "rm /var/log/boot.log; mkfifo /var/log/boot.log",
        "rm /var/log/boot.log; mkdir /var/log/boot.log",
        "rm -r /var; touch /var",
        "truncate -s 100G /var/log/boot.log",
    ],
)
async def test_a_hostile_log_shows_nothing_of_the_host_and_holds_up_nobody(
    site: ContainersSite, tmp_path: Path, trap: str
) -> None:
    host = tmp_path / "secret"
    host.mkdir()
    (host / "boot.log").write_text(SECRET)
    async with running(site) as middleware:
        key = new_key()
        machine = (await middleware.create(key, compute(site))).instance
        await run(machine, trap.format(host=host / "boot.log", folder=host) + "; true", user="root")
        async with asyncio.timeout(10):
            text = await kind(middleware).console(key)
        assert SECRET not in text
        await middleware.delete(key)


async def test_the_quota_is_what_the_others_leave(site: ContainersSite) -> None:
    async with running(site) as middleware:
        containers = kind(middleware)
        before = await containers.quota(site.account)
        assert before.used.machines == 0
        keys = [new_key(), new_key()]
        await middleware.create(keys[0], compute(site))
        await middleware.create(keys[1], net(site))
        after = await containers.quota(site.account)
        assert (after.used.machines, after.used.networks, after.used.vcpu) == (1, 1, site.flavour.vcpu)
        assert after.total == before.total
        with pytest.raises(UnknownAccount):
            await containers.quota(Account("nobody"))
        for key in keys:
            await middleware.delete(key)


async def test_a_network_without_a_way_in_takes_no_rules(site: ContainersSite) -> None:
    async with running(site) as middleware:
        with pytest.raises(UnusableSpec, match="no way in"):
            await middleware.create(
                new_key(), plain(site, NetworkSpec(cidr="10.8.0.0/24", rules=[SecurityRule(protocol="icmp")]))
            )
        assert await middleware.list_owned() == []
