"""The contract's tests of machines that one can log in to, where the test can reach them: beside `contract.py`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncssh
import pytest

from fedkit.protocol.lending import Instance, NetworkSpec
from tests.component.middleware.contract import (
    KEY,
    MAKING,
    PUBLIC_KEY,
    Site,
    a_machine,
    compute,
    eventually,
    lends,
    made,
    net,
    new_key,
    plain,
    running,
)

LoginKey = asyncssh.SSHKey | tuple[asyncssh.SSHKey, asyncssh.SSHCertificate]

CLOUD_CONFIG = """\
#cloud-config
users: [default, {name: alice, ssh_authorized_keys: ["PUBLIC_KEY"]}]
write_files:
- {path: /opt/a/b, content: SGkK, encoding: b64, owner: alice, permissions: '0640'}
runcmd:
- [sh, -c, 'echo $0 > /tmp/ran', 'two words']
- echo second >> /tmp/ran
"""


@asynccontextmanager
async def login(
    instance: Instance, key: LoginKey = KEY, user: str | None = None
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """An ssh connection to the machine that trusts nothing but the host keys that `create` returned.

    A machine that runs may still be starting, so its ssh server is waited for.
    """
    assert instance.address
    await eventually(lambda: answers(instance), MAKING)
    trusted = "".join(f"{instance.address} {line}\n" for line in instance.host_keys)
    async with asyncssh.connect(
        instance.address,
        username=user or str(instance.user),
        client_keys=[key],
        known_hosts=asyncssh.import_known_hosts(trusted),
        agent_path=None,
        config=[],
    ) as connection:
        yield connection


async def answers(instance: Instance) -> bool:
    """Whether its ssh server speaks."""
    try:
        async with asyncio.timeout(5):
            return (await banner(instance)).startswith("SSH-2.0")
    except OSError:  # refused, unreachable, silent
        return False


async def banner(instance: Instance) -> str:
    """What the machine's ssh server calls itself."""
    reader, writer = await asyncio.open_connection(instance.address, 22)
    try:
        return (await reader.readline()).decode()
    finally:
        writer.close()


async def run(instance: Instance, command: str, user: str | None = None) -> str:
    """What a command prints in the machine, or its failure."""
    async with login(instance, user=user) as connection:
        done = await connection.run(command)
        return f"{done.stdout!s}{done.stderr!s}".strip()


async def prints(instance: Instance, command: str, expected: str, user: str | None = None) -> bool:
    """Whether a command prints just that in the machine."""
    return await run(instance, command, user) == expected


class MachineContract:
    """The tests. `site` comes from the deriving class."""

    async def test_a_machine_lets_its_user_in_and_nobody_else(self, site: Site) -> None:
        async with running(site) as middleware:
            owned = await a_machine(middleware, site, name="some-name")
            assert await run(owned.instance, "hostname") == "some-name"
            assert await run(owned.instance, "id -un") in (owned.instance.user, "root")
            with pytest.raises(asyncssh.PermissionDenied):
                async with login(owned.instance, asyncssh.generate_private_key("ssh-ed25519")):
                    pass
            await middleware.delete(owned.key)
        assert await site.leftovers() == []

    async def test_user_data_runs_as_root(self, site: Site) -> None:
        async with running(site) as middleware:
            script = "#!/bin/sh\nid -u > /tmp/seen; echo done >> /tmp/seen\n"
            owned = await a_machine(middleware, site, user_data=script)
            await eventually(lambda: prints(owned.instance, "cat /tmp/seen", "0\ndone"))
            await middleware.delete(owned.key)

    async def test_cloud_config_is_honoured(self, site: Site) -> None:
        text = CLOUD_CONFIG.replace("PUBLIC_KEY", PUBLIC_KEY)
        async with running(site) as middleware:
            owned = await a_machine(middleware, site, user_data=text, ssh_keys=[])
            assert await run(owned.instance, "cat /opt/a/b; stat -c %a /opt/a/b", user="alice") == "Hi\n640"
            await eventually(lambda: prints(owned.instance, "cat /tmp/ran", "two words\nsecond", user="alice"))
            await middleware.delete(owned.key)

    async def test_networks_join_and_separate(self, site: Site) -> None:
        async with running(site) as middleware:
            lends(middleware, "network")
            one, two = new_key(), new_key()
            await made(middleware, one, net(site))
            await made(middleware, two, net(site, "10.9.0.0/24"))
            a, b = [(await made(middleware, new_key(), compute(site, (one,)))).instance for _ in range(2)]
            c = (await made(middleware, new_key(), compute(site, (two,)))).instance
            assert await self._reaches(a, await self._second_address(b))
            assert not await self._reaches(a, await self._second_address(c))
            for owned in sorted(await middleware.list_owned(), key=lambda owned: owned.kind):
                await middleware.delete(owned.key)
        assert await site.leftovers() == []

    async def test_a_machine_has_the_address_that_it_was_ordered_with(self, site: Site) -> None:
        async with running(site) as middleware:
            lends(middleware, "network")
            network = await made(middleware, new_key(), plain(site, NetworkSpec(cidr="10.8.0.0/24", verbatim=True)))
            request = compute(site, (network.key,), addresses={network.key: "10.8.0.77"})
            machine = await made(middleware, new_key(), request)
            assert await self._second_address(machine.instance) == "10.8.0.77"
            for key in (machine.key, network.key):
                await middleware.delete(key)
        assert await site.leftovers() == []

    async def test_the_machine_lets_in_whom_its_authority_certifies(self, site: Site) -> None:
        authority, stranger = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        request = dataclasses.replace(
            compute(site, ssh_keys=[]), trusted_ca=authority.export_public_key().decode().strip()
        )
        async with running(site) as middleware:
            owned = await made(middleware, new_key(), request)
            await eventually(lambda: answers(owned.instance), MAKING)
            if "OpenSSH" not in await banner(owned.instance):
                await middleware.delete(owned.key)
                pytest.skip("the machine's ssh server knows no certificates")
            principals = [str(owned.instance.user)]
            good = authority.generate_user_certificate(KEY, "good", principals=principals)
            async with login(owned.instance, (KEY, good)):
                pass
            for bad in (
                stranger.generate_user_certificate(KEY, "another authority", principals=principals),
                authority.generate_user_certificate(KEY, "another account", principals=["somebody"]),
                authority.generate_user_certificate(KEY, "expired", principals=principals, valid_before="20200101"),
            ):
                with pytest.raises(asyncssh.PermissionDenied):
                    async with login(owned.instance, (KEY, bad)):
                        pass
            await middleware.delete(owned.key)

    async def _second_address(self, machine: Instance) -> str:
        text = await run(machine, "ip -4 -o address show dev eth1")
        return text.split("inet ")[1].split("/")[0]

    async def _reaches(self, machine: Instance, address: str) -> bool:
        return "SSH-2.0" in await run(machine, f"sleep 0.5 | nc -w 2 {address} 22 | head -c 7")
