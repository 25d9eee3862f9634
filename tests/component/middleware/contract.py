"""The contract test-suite: what every kind of middleware must do (federation_member/middleware/contract.py), seen from outside.

A kind's test module derives a class from `MiddlewareContract` and gives it a fixture `site`: a place where that kind
really runs. What one kind adds (user namespaces, quotas, …) it tests beside this.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncssh
import pytest

from federation_member.middleware.contract import (
    Account,
    AccountInUse,
    AccountKind,
    AccountSpec,
    ComputeRequest,
    KeepsAccounts,
    Middleware,
    Owned,
    PlainRequest,
    Status,
    UnknownAccount,
    UnknownImage,
    UnusableSpec,
)
from fedkit.protocol.lending import ComputeSpec, Flavour, Instance, NetworkSpec

ACCOUNT = Account("tests")
USED_KEYS: set[str] = set()
PATIENCE = 20.0  # seconds to wait for what happens by itself


class Site(Protocol):
    """A place where one kind of middleware runs."""

    kind: str  # `module:class` of the middleware
    flavour: Flavour  # what tests order; small
    image: str

    @property
    def options(self) -> dict[str, Any]:
        """The middleware's configuration."""

    def middleware(self) -> Middleware:
        """A new middleware over the same place, as after a restart of the member."""

    async def kill(self, key: str) -> None:
        """End the machine behind the middleware's back."""

    async def leftovers(self) -> list[str]:
        """Everything that exists there on behalf of the middleware, whatever its book says."""


def new_key() -> str:
    """A lease id; it is remembered, so that what stays behind under it is found."""
    key = str(uuid.uuid4())
    USED_KEYS.add(key)
    return key


LoginKey = asyncssh.SSHKey | tuple[asyncssh.SSHKey, asyncssh.SSHCertificate]
KEY = asyncssh.generate_private_key("ssh-ed25519")
PUBLIC_KEY = KEY.export_public_key().decode().strip()
MADE = AccountSpec("fed-proj", AccountKind.CREATED, (PUBLIC_KEY,))


CLOUD_CONFIG = """\
#cloud-config
users: [default, {name: alice, ssh_authorized_keys: ["PUBLIC_KEY"]}]
write_files:
- {path: /opt/a/b, content: SGkK, encoding: b64, owner: alice, permissions: '0640'}
runcmd:
- [sh, -c, 'echo $0 > /tmp/ran', 'two words']
- echo second >> /tmp/ran
"""


def compute(site: Site, networks: tuple[str, ...] = (), **spec: Any) -> ComputeRequest:
    """An order for a small machine that our key may enter."""
    given = {"name": "box", "image": site.image, "ssh_keys": [PUBLIC_KEY]} | spec
    return ComputeRequest(ComputeSpec(**given), site.flavour, ACCOUNT, networks)


def under(account: str, request: ComputeRequest) -> ComputeRequest:
    """The same order for another account."""
    return dataclasses.replace(request, account=Account(account))


def keeps_accounts(middleware: Middleware) -> KeepsAccounts:
    """The same middleware; a kind without the capability skips the test."""
    if not isinstance(middleware, KeepsAccounts):
        pytest.skip("has no accounts")
    return middleware


def net(cidr: str = "10.8.0.0/24") -> PlainRequest:
    """An order for a network."""
    return PlainRequest(NetworkSpec(cidr=cidr), ACCOUNT)


@asynccontextmanager
async def running(site: Site, changed: Callable[[str], None] = lambda key: None) -> AsyncIterator[Middleware]:
    """A started middleware; instances stay when it stops."""
    middleware = site.middleware()
    await middleware.start(changed)
    try:
        yield middleware
    finally:
        await middleware.stop()


@asynccontextmanager
async def login(
    instance: Instance, key: LoginKey = KEY, user: str | None = None
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """An ssh connection to the machine that trusts nothing but the host keys that `create` returned."""
    assert instance.address
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


async def eventually(what: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until `what()` is true."""
    async with asyncio.timeout(PATIENCE):
        while True:
            result = what()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.02)


async def prints(instance: Instance, command: str, expected: str, user: str | None = None) -> bool:
    """Whether a command prints just that in the machine."""
    return await run(instance, command, user) == expected


async def crash(site: Site, operation: str, key: str, moment: str) -> bool:
    """Let another process do `operation` and be killed with -9 (see crasher.py); False if it was done before that."""
    arguments = [sys.executable, "-m", "tests.component.middleware.crasher", operation, key, moment]
    process = await asyncio.create_subprocess_exec(*arguments, stdin=asyncio.subprocess.PIPE)
    await process.communicate(dump(site, operation))
    assert process.returncode in (0, -9)
    return process.returncode == -9


def dump(site: Site, operation: str) -> bytes:
    """What the crasher needs, as pickle: both sides are ours."""
    requests = {"create": compute(site), "ensure_account": MADE}
    return pickle.dumps((site.kind, site.options, requests.get(operation)))


class MiddlewareContract:
    """The tests. `site` comes from the deriving class."""

    async def test_says_what_it_offers(self, site: Site) -> None:
        async with running(site) as middleware:
            assert "compute" in middleware.kinds()
            assert site.flavour.name in {flavour.name for flavour in await middleware.flavours()}
            assert site.image in {image.name for image in await middleware.images()}

    async def test_a_machine_lets_its_user_in_and_nobody_else(self, site: Site) -> None:
        async with running(site) as middleware:
            owned = await self._running_machine(middleware, site, name="some-name")
            assert await run(owned.instance, "hostname") == "some-name"
            assert await run(owned.instance, "id -un") in (owned.instance.user, "root")
            with pytest.raises(asyncssh.PermissionDenied):
                async with login(owned.instance, asyncssh.generate_private_key("ssh-ed25519")):
                    pass
            await middleware.delete(owned.key)
        assert await site.leftovers() == []

    async def test_create_and_delete_may_be_repeated(self, site: Site) -> None:
        async with running(site) as middleware:
            key, request = new_key(), compute(site)
            first, second = await asyncio.gather(middleware.create(key, request), middleware.create(key, request))
            assert first == second == await middleware.create(key, request) == await middleware.get(key)
            assert await middleware.list_owned() == [first]
            await asyncio.gather(middleware.delete(key), middleware.delete(key))
            await middleware.delete(key)
            assert await middleware.get(key) is None
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_what_never_was_can_be_deleted(self, site: Site) -> None:
        async with running(site) as middleware:
            await middleware.delete(new_key())
            assert await middleware.get(new_key()) is None

    async def test_machines_outlive_the_member(self, site: Site) -> None:
        async with running(site) as middleware:
            owned = await self._running_machine(middleware, site)
        async with running(site) as middleware:
            assert await middleware.list_owned() == [owned]
            assert await middleware.create(owned.key, compute(site)) == owned
            assert await run(owned.instance, "echo alive") == "alive"
            await middleware.delete(owned.key)
        assert await site.leftovers() == []

    async def test_a_death_is_noticed(self, site: Site) -> None:
        died: list[str] = []
        async with running(site, died.append) as middleware:
            owned = await self._running_machine(middleware, site)
            await site.kill(owned.key)
            await eventually(lambda: died == [owned.key])
            await self._is_failed(middleware, owned.key)
            await middleware.delete(owned.key)
        assert await site.leftovers() == []

    async def test_a_death_is_noticed_by_the_next_member(self, site: Site) -> None:
        async with running(site) as middleware:
            survivor = await self._running_machine(middleware, site)
            victim = await self._running_machine(middleware, site)
        await site.kill(victim.key)
        died: list[str] = []
        async with running(site, died.append) as middleware:
            await self._is_failed(middleware, victim.key)
            await site.kill(survivor.key)
            await eventually(lambda: survivor.key in died)
            for owned in await middleware.list_owned():
                await middleware.delete(owned.key)
        assert await site.leftovers() == []

    async def test_many_at_once(self, site: Site) -> None:
        async with running(site) as middleware:
            keys = [new_key() for _ in range(8)]
            owned = await asyncio.gather(*(middleware.create(key, compute(site)) for key in keys))
            assert len({one.instance.address for one in owned}) == 8
            names = await asyncio.gather(*(run(one.instance, "hostname") for one in owned))
            assert names == ["box"] * 8
            assert {one.key for one in await middleware.list_owned()} == set(keys)
            await asyncio.gather(*(middleware.delete(key) for key in keys))
        assert await site.leftovers() == []

    async def test_user_data_runs_as_root(self, site: Site) -> None:
        async with running(site) as middleware:
            script = "#!/bin/sh\nid -u > /tmp/seen; echo done >> /tmp/seen\n"
            owned = await self._running_machine(middleware, site, user_data=script)
            await eventually(lambda: prints(owned.instance, "cat /tmp/seen", "0\ndone"))
            await middleware.delete(owned.key)

    async def test_cloud_config_is_honoured(self, site: Site) -> None:
        text = CLOUD_CONFIG.replace("PUBLIC_KEY", PUBLIC_KEY)
        async with running(site) as middleware:
            owned = await self._running_machine(middleware, site, user_data=text, ssh_keys=[])
            assert await run(owned.instance, "cat /opt/a/b; stat -c %a /opt/a/b", user="alice") == "Hi\n640"
            await eventually(lambda: prints(owned.instance, "cat /tmp/ran", "two words\nsecond", user="alice"))
            await middleware.delete(owned.key)

    async def test_what_it_cannot_do_is_refused_and_leaves_nothing(self, site: Site) -> None:
        async with running(site) as middleware:
            with pytest.raises(UnusableSpec, match="apt_update"):
                await middleware.create(new_key(), compute(site, user_data="#cloud-config\napt_update: true\n"))
            with pytest.raises(UnknownImage):
                await middleware.create(new_key(), compute(site, image="no-such-image"))
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_networks_join_and_separate(self, site: Site) -> None:
        async with running(site) as middleware:
            one, two = new_key(), new_key()
            await middleware.create(one, net())
            await middleware.create(two, net("10.9.0.0/24"))
            a, b = [(await middleware.create(new_key(), compute(site, (one,)))).instance for _ in range(2)]
            c = (await middleware.create(new_key(), compute(site, (two,)))).instance
            assert await self._reaches(a, await self._second_address(b))
            assert not await self._reaches(a, await self._second_address(c))
            for owned in sorted(await middleware.list_owned(), key=lambda owned: owned.kind):
                await middleware.delete(owned.key)
        assert await site.leftovers() == []

    async def test_networks_may_use_the_same_addresses(self, site: Site) -> None:
        async with running(site) as middleware:
            keys = [new_key(), new_key()]
            made = [await middleware.create(key, net()) for key in keys]
            assert [one.instance.cidr for one in made] == ["10.8.0.0/24"] * 2
            assert made[0] == await middleware.create(keys[0], net())
            for key in keys:
                await middleware.delete(key)
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_a_cancelled_create_leaves_only_what_is_named(self, site: Site) -> None:
        async with running(site) as middleware:
            for delay in (0.0, 0.02, 0.05, 0.1):
                key = new_key()
                work = asyncio.ensure_future(middleware.create(key, compute(site)))
                await asyncio.wait([work], timeout=delay)
                work.cancel()
                await asyncio.wait([work])
                for owned in await middleware.list_owned():
                    assert owned.key == key
                    await middleware.delete(key)
                assert await site.leftovers() == []

    @pytest.mark.parametrize("first", [1, 8, 15])
    async def test_killed_at_any_step_of_create(self, site: Site, first: int) -> None:
        step = first
        while await self._crash_and_create(site, str(step)):
            step += 21

    @pytest.mark.parametrize("moment", [f"{hundredths / 100}s" for hundredths in range(1, 17)])
    async def test_killed_at_any_moment_of_create(self, site: Site, moment: str) -> None:
        await self._crash_and_create(site, moment)

    async def _crash_and_create(self, site: Site, moment: str) -> bool:
        key = new_key()
        crashed = await crash(site, "create", key, moment)
        async with running(site) as middleware:
            assert {owned.key for owned in await middleware.list_owned()} <= {key}
            if not await middleware.list_owned():
                assert await site.leftovers() == []
            owned = await middleware.create(key, compute(site))
            assert owned.status is Status.RUNNING
            assert await middleware.list_owned() == [owned]
            assert await run(owned.instance, "hostname") == "box"
            await middleware.delete(key)
        assert await site.leftovers() == []
        return crashed

    async def test_killed_at_any_step_of_delete(self, site: Site) -> None:
        step, crashed = 1, True
        while crashed:
            async with running(site) as middleware:
                owned = await self._running_machine(middleware, site)
            crashed = await crash(site, "delete", owned.key, str(step))
            async with running(site) as middleware:
                assert {one.key for one in await middleware.list_owned()} <= {owned.key}
                await middleware.delete(owned.key)
            assert await site.leftovers() == []
            step += 3

    async def test_accounts_come_and_go(self, site: Site) -> None:
        async with running(site) as middleware:
            keeper = keeps_accounts(middleware)
            with pytest.raises(UnknownAccount, match="no account fed-proj"):
                await middleware.create(new_key(), under(MADE.name, compute(site)))
            await keeper.ensure_account(MADE)
            await keeper.ensure_account(MADE)
            assert await keeper.list_accounts() == [MADE]
            owned = await middleware.create(new_key(), under(MADE.name, compute(site)))
            with pytest.raises(AccountInUse, match=MADE.name):
                await keeper.remove_account(MADE.name)
        async with running(site) as middleware:
            keeper = keeps_accounts(middleware)
            changed = dataclasses.replace(MADE, keys=())
            await keeper.ensure_account(changed)
            assert await keeper.list_accounts() == [changed]
            await middleware.delete(owned.key)
            for _ in range(2):
                await keeper.remove_account(MADE.name)
            assert await keeper.list_accounts() == []
            with pytest.raises(UnknownAccount):
                await middleware.create(new_key(), under(MADE.name, compute(site)))
        assert await site.leftovers() == []

    async def test_an_existing_account_is_given_rights_and_keys_and_stays(self, site: Site) -> None:
        given = AccountSpec("shared", AccountKind.EXISTING, (PUBLIC_KEY,), ("small",))
        async with running(site) as middleware:
            keeper = keeps_accounts(middleware)
            await keeper.ensure_account(given)
            assert await keeper.list_accounts() == [given]
            owned = await middleware.create(new_key(), under("shared", compute(site)))
            await keeper.remove_account("shared")
            assert await keeper.list_accounts() == []
            assert (await middleware.create(owned.key, under("shared", compute(site)))).status is Status.RUNNING
            await middleware.delete(owned.key)
            with pytest.raises(UnknownAccount):
                await keeper.ensure_account(dataclasses.replace(given, name="nobody"))
            with pytest.raises(AccountInUse):
                await keeper.ensure_account(dataclasses.replace(given, kind=AccountKind.CREATED))
        assert await site.leftovers() == []

    @pytest.mark.parametrize("operation", ["ensure_account", "remove_account"])
    async def test_killed_at_any_step_of_an_account(self, site: Site, operation: str) -> None:
        step, crashed = 1, True
        while crashed:
            async with running(site) as middleware:
                keeper = keeps_accounts(middleware)
                if operation == "remove_account":
                    await keeper.ensure_account(MADE)
            crashed = await crash(site, operation, MADE.name, str(step))
            async with running(site) as middleware:
                keeper = keeps_accounts(middleware)
                assert await keeper.list_accounts() in ([], [MADE])
                await keeper.ensure_account(MADE)
                assert await keeper.list_accounts() == [MADE]
                await keeper.remove_account(MADE.name)
            assert await site.leftovers() == []
            step += 1

    async def test_the_machine_lets_in_whom_its_authority_certifies(self, site: Site) -> None:
        authority, stranger = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        request = dataclasses.replace(
            compute(site, ssh_keys=[]), trusted_ca=authority.export_public_key().decode().strip()
        )
        async with running(site) as middleware:
            owned = await middleware.create(new_key(), request)
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

    async def _running_machine(self, middleware: Middleware, site: Site, **spec: Any) -> Owned:
        key = new_key()
        owned = await middleware.create(key, compute(site, **spec))
        async with asyncio.timeout(PATIENCE * 10):
            while owned.status is Status.CREATING:
                await asyncio.sleep(0.05)
                found = await middleware.get(key)
                assert found
                owned = found
        assert owned.status is Status.RUNNING
        assert dataclasses.replace(owned, reason="") == owned
        return owned

    async def _is_failed(self, middleware: Middleware, key: str) -> None:
        owned = await middleware.get(key)
        assert owned
        assert owned.status is Status.FAILED
        assert owned.reason

    async def _second_address(self, machine: Instance) -> str:
        text = await run(machine, "ip -4 -o address show dev eth1")
        return text.split("inet ")[1].split("/")[0]

    async def _reaches(self, machine: Instance, address: str) -> bool:
        return "SSH-2.0" in await run(machine, f"sleep 0.5 | nc -w 2 {address} 22 | head -c 7")
