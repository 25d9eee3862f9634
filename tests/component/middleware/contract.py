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
from typing import Any, ClassVar, Protocol

import asyncssh
import pytest

from federation_member.middleware.contract import (
    Account,
    AccountInUse,
    AccountKind,
    AccountSpec,
    ComputeRequest,
    InstanceRequest,
    KeepsAccounts,
    Middleware,
    Owned,
    PlainRequest,
    SetsPower,
    SetsRules,
    ShowsConsole,
    Status,
    TellsQuota,
    UnknownAccount,
    UnknownImage,
    UnusableSpec,
)
from fedkit.protocol.lending import (
    CONSOLE_LIMIT,
    SNAPSHOT,
    AttachmentSpec,
    ComputeSpec,
    Flavour,
    NetworkSpec,
    Power,
    PublicIpSpec,
    SecurityRule,
    SnapshotSpec,
    VolumeSpec,
)

USED_KEYS: set[str] = set()
ACCOUNT_STRIDE = 3  # of an account's steps, at which a process is killed, one in so many
PATIENCE = 20.0  # seconds to wait for what happens by itself
MAKING = 300.0  # seconds that making one thing may take


class Site(Protocol):
    """A place where one kind of middleware runs."""

    kind: str  # `module:class` of the middleware
    flavour: Flavour  # what tests order; small
    image: str
    account: Account  # one that exists
    crowd: int  # so many machines at once
    stride: int  # of the steps at which a process is killed, one in so many; the slower a kind, the more
    moments: tuple[float, ...]  # seconds after which a process is killed

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


KEY = asyncssh.generate_private_key("ssh-ed25519")
PUBLIC_KEY = KEY.export_public_key().decode().strip()
MADE = AccountSpec("fed-proj", AccountKind.CREATED, (PUBLIC_KEY,))


def compute(site: Site, networks: tuple[str, ...] = (), **spec: Any) -> ComputeRequest:
    """An order for a small machine that our key may enter."""
    given = {"name": "box", "image": site.image, "ssh_keys": [PUBLIC_KEY], "networks": list(networks)} | spec
    return ComputeRequest(ComputeSpec(**given), site.flavour, site.account, networks)


def under(account: str, request: ComputeRequest) -> ComputeRequest:
    """The same order for another account."""
    return dataclasses.replace(request, account=Account(account))


def keeps_accounts(middleware: Middleware) -> KeepsAccounts:
    """The same middleware; a kind without the capability skips the test."""
    if not isinstance(middleware, KeepsAccounts):
        pytest.skip("has no accounts")
    return middleware


def plain(site: Site, spec: NetworkSpec | VolumeSpec | AttachmentSpec | PublicIpSpec | SnapshotSpec) -> PlainRequest:
    """An order for something else."""
    return PlainRequest(spec, site.account)


def net(site: Site, cidr: str = "10.8.0.0/24") -> PlainRequest:
    """An order for a network."""
    return plain(site, NetworkSpec(cidr=cidr))


def lends(middleware: Middleware, *kinds: str) -> None:
    """A kind of middleware that does not lend these skips the test."""
    if missing := set(kinds) - middleware.kinds():
        pytest.skip(f"lends no {', '.join(sorted(missing))}")


async def made(middleware: Middleware, key: str, request: InstanceRequest) -> Owned:
    """Create something as the keeper does: again and again until it is there."""
    async with asyncio.timeout(MAKING):
        while True:
            owned = await middleware.create(key, request)
            if owned.status is not Status.CREATING:
                assert owned.status is Status.RUNNING, owned.reason
                return owned
            await asyncio.sleep(0.1)


async def a_machine(middleware: Middleware, site: Site, **spec: Any) -> Owned:
    """A machine that runs."""
    return await made(middleware, new_key(), compute(site, **spec))


async def keys_of(middleware: Middleware) -> set[str]:
    """What the federation holds there."""
    return {owned.key for owned in await middleware.list_owned()}


async def has_power(middleware: Middleware, key: str, power: Power) -> bool:
    """Whether a machine is so now."""
    owned = await middleware.get(key)
    return owned is not None and owned.instance.power is power


@asynccontextmanager
async def running(site: Site, changed: Callable[[str], None] = lambda key: None) -> AsyncIterator[Middleware]:
    """A started middleware; instances stay when it stops."""
    middleware = site.middleware()
    await middleware.start(changed)
    try:
        yield middleware
    finally:
        await middleware.stop()


async def eventually(what: Callable[[], bool | Awaitable[bool]], patience: float = PATIENCE) -> None:
    """Wait until `what()` is true."""
    async with asyncio.timeout(patience):
        while True:
            result = what()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.02)


async def crash(site: Site, operation: str, key: str, moment: str, request: object = None) -> bool:
    """Let another process do `operation` and be killed with -9 (see crasher.py); False if it was done before that."""
    arguments = [sys.executable, "-m", "tests.component.middleware.crasher", operation, key, moment]
    process = await asyncio.create_subprocess_exec(*arguments, stdin=asyncio.subprocess.PIPE)
    await process.communicate(dump(site, operation, request))
    assert process.returncode in (0, -9)
    return process.returncode == -9


def dump(site: Site, operation: str, request: object = None) -> bytes:
    """What the crasher needs, as pickle: both sides are ours."""
    requests = {"create": compute(site), "ensure_account": MADE}
    return pickle.dumps((site.kind, site.options, request or requests.get(operation)))


class MiddlewareContract:
    """The tests. `site` comes from the deriving class."""

    repeats_steps: ClassVar = (
        True  # whether it is killed at any step in every run, or in long ones (tests/support/long.py)
    )

    async def test_says_what_it_offers(self, site: Site) -> None:
        async with running(site) as middleware:
            assert "compute" in middleware.kinds()
            assert site.flavour.name in {flavour.name for flavour in await middleware.flavours()}
            assert site.image in {image.name for image in await middleware.images()}

    async def test_create_and_delete_may_be_repeated(self, site: Site) -> None:
        async with running(site) as middleware:
            key, request = new_key(), compute(site)
            await asyncio.gather(middleware.create(key, request), middleware.create(key, request))
            owned = await made(middleware, key, request)
            assert owned == await middleware.create(key, request) == await middleware.get(key)
            assert await middleware.list_owned() == [owned]
            await asyncio.gather(middleware.delete(key), middleware.delete(key))
            await middleware.delete(key)
            assert await middleware.get(key) is None
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_what_never_was_can_be_deleted(self, site: Site) -> None:
        async with running(site) as middleware:
            await middleware.delete(new_key())
            assert await middleware.get(new_key()) is None

    async def test_an_unknown_image_is_refused_and_leaves_nothing(self, site: Site) -> None:
        async with running(site) as middleware:
            with pytest.raises(UnknownImage):
                await middleware.create(new_key(), compute(site, image="no-such-image"))
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_machines_outlive_the_member(self, site: Site) -> None:
        async with running(site) as middleware:
            owned = await a_machine(middleware, site)
        async with running(site) as middleware:
            assert await middleware.list_owned() == [owned]
            assert await middleware.create(owned.key, compute(site)) == owned
            await middleware.delete(owned.key)
        assert await site.leftovers() == []

    async def test_a_death_is_noticed(self, site: Site) -> None:
        died: list[str] = []
        async with running(site, died.append) as middleware:
            owned = await a_machine(middleware, site)
            died.clear()  # it may have been told that the machine came up
            await site.kill(owned.key)
            await eventually(lambda: owned.key in died)
            await self._is_lost(middleware, owned.key)
            await middleware.delete(owned.key)
        assert await site.leftovers() == []

    async def test_a_death_is_noticed_by_the_next_member(self, site: Site) -> None:
        async with running(site) as middleware:
            survivor = await a_machine(middleware, site)
            victim = await a_machine(middleware, site)
        await site.kill(victim.key)
        died: list[str] = []
        async with running(site, died.append) as middleware:
            await self._is_lost(middleware, victim.key)
            await site.kill(survivor.key)
            await eventually(lambda: survivor.key in died)
            for owned in await middleware.list_owned():
                await middleware.delete(owned.key)
        assert await site.leftovers() == []

    async def test_many_at_once(self, site: Site) -> None:
        async with running(site) as middleware:
            keys = [new_key() for _ in range(site.crowd)]
            owned = await asyncio.gather(*(made(middleware, key, compute(site)) for key in keys))
            assert len({one.instance.address for one in owned}) == site.crowd
            assert {one.key for one in await middleware.list_owned()} == set(keys)
            await asyncio.gather(*(middleware.delete(key) for key in keys))
        assert await site.leftovers() == []

    async def test_networks_may_use_the_same_addresses(self, site: Site) -> None:
        async with running(site) as middleware:
            lends(middleware, "network")
            keys = [new_key(), new_key()]
            both = [await made(middleware, key, net(site)) for key in keys]
            assert [one.instance.cidr for one in both] == ["10.8.0.0/24"] * 2
            assert both[0] == await middleware.create(keys[0], net(site))
            for key in keys:
                await middleware.delete(key)
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_volumes_are_attached_and_outlive_machines(self, site: Site) -> None:
        async with running(site) as middleware:
            lends(middleware, "volume", "attachment")
            machine = await a_machine(middleware, site)
            volume = await made(middleware, new_key(), plain(site, VolumeSpec(size_gb=1)))
            assert volume.instance.size_gb == 1
            request = plain(site, AttachmentSpec(machine=machine.key, volume=volume.key))
            attachment = await made(middleware, new_key(), request)
            assert attachment == await middleware.create(attachment.key, request)
            assert await keys_of(middleware) == {machine.key, volume.key, attachment.key}
            for _ in range(2):
                await middleware.delete(attachment.key)
            assert await keys_of(middleware) == {machine.key, volume.key}
            await middleware.delete(machine.key)
            assert await middleware.get(volume.key) == volume
            await middleware.delete(volume.key)
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_a_volume_whose_machine_vanished_is_free_again(self, site: Site) -> None:
        async with running(site) as middleware:
            lends(middleware, "volume", "attachment")
            machine, volume = await a_machine(middleware, site), new_key()
            await made(middleware, volume, plain(site, VolumeSpec(size_gb=1)))
            attachment = await made(
                middleware, new_key(), plain(site, AttachmentSpec(machine=machine.key, volume=volume))
            )
            await middleware.delete(machine.key)
            await middleware.delete(attachment.key)
            other = await a_machine(middleware, site)
            again = await made(middleware, new_key(), plain(site, AttachmentSpec(machine=other.key, volume=volume)))
            for key in (again.key, volume, other.key):
                await middleware.delete(key)
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_a_public_address_comes_and_goes(self, site: Site) -> None:
        async with running(site) as middleware:
            lends(middleware, "public_ip")
            machine = await a_machine(middleware, site)
            request = plain(site, PublicIpSpec(machine=machine.key))
            address = await made(middleware, new_key(), request)
            assert address.instance.public_address
            assert address == await middleware.create(address.key, request)
            assert await keys_of(middleware) == {machine.key, address.key}
            await middleware.delete(address.key)
            assert await keys_of(middleware) == {machine.key}
            await middleware.delete(machine.key)
        assert await site.leftovers() == []

    async def test_a_machine_starts_from_a_snapshot(self, site: Site) -> None:
        async with running(site) as middleware:
            lends(middleware, "snapshot")
            machine = await a_machine(middleware, site)
            snapshot = await made(middleware, new_key(), plain(site, SnapshotSpec(machine=machine.key)))
            await middleware.delete(machine.key)
            assert await middleware.get(snapshot.key) == snapshot
            copy = await made(middleware, new_key(), compute(site, image=SNAPSHOT + snapshot.key))
            assert await keys_of(middleware) == {snapshot.key, copy.key}
            await middleware.delete(copy.key)
            await middleware.delete(snapshot.key)
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_a_machine_is_stopped_and_started(self, site: Site) -> None:
        async with running(site) as middleware:
            if not isinstance(middleware, SetsPower):
                pytest.skip("has no power switch")
            machine = await a_machine(middleware, site)
            for power in (Power.PAUSED, Power.RUNNING, Power.STOPPED, Power.RUNNING):
                try:
                    await middleware.set_power(machine.key, power)
                except UnusableSpec:
                    assert power in (Power.PAUSED, Power.STOPPED)  # running is always to be had
                    continue
                await eventually(lambda power=power: has_power(middleware, machine.key, power))  # type: ignore[misc]
                await middleware.set_power(machine.key, power)
            await middleware.delete(machine.key)
        assert await site.leftovers() == []

    async def test_rules_are_changed(self, site: Site) -> None:
        async with running(site) as middleware:
            if not isinstance(middleware, SetsRules):
                pytest.skip("has no security rules")
            network = await made(middleware, new_key(), net(site))
            web = SecurityRule(ports=(80, 80), cidr="192.0.2.0/24")
            for rules in ([web], [web], [SecurityRule(protocol="icmp"), web], []):
                await middleware.set_rules(network.key, rules)
            await middleware.delete(network.key)
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_the_quota_tells_what_is_used(self, site: Site) -> None:
        async with running(site) as middleware:
            if not isinstance(middleware, TellsQuota):
                pytest.skip("tells no quota")
            before = (await middleware.quota(site.account)).used.machines or 0
            machine = await a_machine(middleware, site)
            used = (await middleware.quota(site.account)).used
            assert used.machines == before + 1
            assert used.vcpu is None or used.vcpu >= site.flavour.vcpu
            await middleware.delete(machine.key)

    async def test_the_console_is_shown(self, site: Site) -> None:
        async with running(site) as middleware:
            if not isinstance(middleware, ShowsConsole):
                pytest.skip("shows no console")
            machine = await a_machine(middleware, site)
            text = await middleware.console(machine.key)
            assert len(text) <= CONSOLE_LIMIT
            assert all(character.isprintable() or character in "\n\t" for character in text)
            await middleware.delete(machine.key)

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

    async def test_killed_at_any_step_of_create(self, site: Site) -> None:
        step = 1
        while await self._crash_and_create(site, str(step)):
            step += site.stride

    async def test_killed_at_any_moment_of_create(self, site: Site) -> None:
        for moment in site.moments:
            await self._crash_and_create(site, f"{moment}s")

    async def _crash_and_create(self, site: Site, moment: str) -> bool:
        key = new_key()
        crashed = await crash(site, "create", key, moment)
        async with running(site) as middleware:
            assert await keys_of(middleware) <= {key}
            if not await middleware.list_owned():
                assert await site.leftovers() == []
            owned = await made(middleware, key, compute(site))
            assert await middleware.list_owned() == [owned]
            await middleware.delete(key)
        assert await site.leftovers() == []
        return crashed

    async def test_killed_at_any_step_of_delete(self, site: Site) -> None:
        step, crashed = 1, True
        while crashed:
            async with running(site) as middleware:
                owned = await a_machine(middleware, site)
            crashed = await crash(site, "delete", owned.key, str(step))
            async with running(site) as middleware:
                assert {one.key for one in await middleware.list_owned()} <= {owned.key}
                await middleware.delete(owned.key)
            assert await site.leftovers() == []
            step += site.stride

    async def test_accounts_come_and_go(self, site: Site) -> None:
        async with running(site) as middleware:
            keeper = keeps_accounts(middleware)
            with pytest.raises(UnknownAccount, match="no account fed-proj"):
                await middleware.create(new_key(), under(MADE.name, compute(site)))
            await keeper.ensure_account(MADE)
            await keeper.ensure_account(MADE)
            assert await keeper.list_accounts() == [MADE]
            owned = await made(middleware, new_key(), under(MADE.name, compute(site)))
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
            owned = await made(middleware, new_key(), under("shared", compute(site)))
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
            step += ACCOUNT_STRIDE

    async def _is_lost(self, middleware: Middleware, key: str) -> None:
        owned = await middleware.get(key)
        if owned is not None:
            assert owned.status is Status.FAILED
            assert owned.reason
