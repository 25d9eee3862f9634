"""What the `libvirt` kind does when libvirtd hangs, is killed, or is worked with behind our back; and guests that are hostile."""

from __future__ import annotations

import asyncio
import signal
import subprocess

import pytest

from federation_member.middleware.contract import Middleware, MiddlewareError, NoCapacity, Status, Unavailable
from federation_member.middleware.libvirt import hypervisor
from federation_member.middleware.libvirt.xml import domain_name
from fedkit.protocol.lending import AttachmentSpec, Power, SnapshotSpec, VolumeSpec
from tests.component.middleware.contract import (
    MAKING,
    a_machine,
    compute,
    eventually,
    has_power,
    made,
    net,
    new_key,
    plain,
    running,
)
from tests.component.middleware.machines import run

pytest.importorskip("libvirt", reason="libvirt-python is not installed; run deploy/setup --libvirt")
from tests.component.middleware.libvirt_place import LibvirtSite
from tests.component.middleware.test_libvirt import site, tiny

__all__ = ["site", "tiny"]
pytestmark = pytest.mark.timeout(600)


def virsh(site: LibvirtSite, *words: str) -> str:
    """What an operator does with libvirt's own tool."""
    done = subprocess.run(["virsh", "-c", site.options["uri"], *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def answers(middleware: Middleware, key: str) -> bool:
    """Whether the lender says how the machine is."""
    try:
        return await middleware.get(key) is not None
    except Unavailable:
        return False


class TestDaemon:
    """libvirtd comes and goes; guests stay."""

    async def test_guests_survive_it_and_are_found_again(self, site: LibvirtSite) -> None:
        changed: list[str] = []
        async with running(site, changed.append) as middleware:
            machine = await a_machine(middleware, site)
            booted = await run(machine.instance, "cat /proc/sys/kernel/random/boot_id")
            site.signal(signal.SIGKILL)
            with pytest.raises(Unavailable):
                await middleware.list_owned()
            changed.clear()
            site.begin()
            await eventually(lambda: machine.key in changed)  # it says by itself that there is something to look at
            assert await middleware.list_owned() == [machine]
            assert await run(machine.instance, "cat /proc/sys/kernel/random/boot_id") == booted
            await site.kill(machine.key)  # and listens again
            await eventually(lambda: is_failed(middleware, machine.key))
            await middleware.delete(machine.key)
        assert await site.leftovers() == []

    async def test_one_that_hangs_stalls_nobody(self, site: LibvirtSite) -> None:
        async with running(site) as middleware:
            machine = await a_machine(middleware, site)
            site.signal(signal.SIGSTOP)
            asked = [middleware.get(machine.key) for _ in range(3 * hypervisor.CALLS)]
            told = await asyncio.gather(*asked, middleware.list_owned(), return_exceptions=True)
            assert all(isinstance(each, Unavailable) for each in told)
            network = new_key()
            assert (await middleware.create(network, net(site))).status is Status.RUNNING  # which needs no libvirt
            await middleware.delete(network)
            site.signal(signal.SIGCONT)
            await eventually(lambda: answers(middleware, machine.key), MAKING)
            assert await middleware.list_owned() == [machine]
            await middleware.delete(machine.key)
        assert await site.leftovers() == []

    async def test_killed_in_the_middle_of_creates(self, site: LibvirtSite) -> None:
        async with running(site) as middleware:
            keys = [new_key() for _ in range(3)]
            work = [asyncio.ensure_future(middleware.create(key, compute(site))) for key in keys]
            await asyncio.wait(work, timeout=0.4)
            site.signal(signal.SIGKILL)
            told = await asyncio.gather(*work, return_exceptions=True)
            assert all(not isinstance(each, BaseException) or isinstance(each, MiddlewareError) for each in told)
            site.begin()
            await eventually(lambda: answers_all(middleware), MAKING)
            for key in keys:
                await made(middleware, key, compute(site))
            assert {owned.key for owned in await middleware.list_owned()} == set(keys)
            for key in keys:
                await middleware.delete(key)
        assert await site.leftovers() == []

    async def test_a_site_without_it_says_so_at_the_start(self, site: LibvirtSite) -> None:
        site.signal(signal.SIGKILL)
        with pytest.raises(Unavailable, match="libvirt"):
            async with running(site):
                pass


class TestBehindOurBack:
    """An operator, or another program, does things to our domains."""

    async def test_a_machine_that_was_undefined_is_lost_and_deleted_all_the_same(self, site: LibvirtSite) -> None:
        async with running(site) as middleware:
            machine = await a_machine(middleware, site)
            virsh(site, "destroy", domain_name(machine.key))
            virsh(site, "undefine", domain_name(machine.key))
            await eventually(lambda: is_failed(middleware, machine.key))
            await middleware.delete(machine.key)
        assert await site.leftovers() == []

    async def test_a_machine_whose_record_is_lost_is_named_and_others_machines_are_not(self, site: LibvirtSite) -> None:
        async with running(site) as middleware:
            machine = await a_machine(middleware, site)
        (site.folder / f"state/instances/{machine.key}/record.json").unlink()
        (site.folder / f"state/instances/{machine.key}").rmdir()
        async with running(site) as middleware:
            (lost,) = await middleware.list_owned()
            assert (lost.key, lost.status) == (machine.key, Status.FAILED)
            await middleware.delete(machine.key)
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_a_stopped_machine_is_not_a_dead_one(self, site: LibvirtSite) -> None:
        async with running(site) as middleware:
            machine = await a_machine(middleware, site)
            await middleware.set_power(machine.key, Power.STOPPED)  # type: ignore[attr-defined]
            await eventually(lambda: has_power(middleware, machine.key, Power.STOPPED), MAKING)
        async with running(site) as middleware:
            (owned,) = await middleware.list_owned()
            assert (owned.status, owned.instance.power) == (Status.RUNNING, Power.STOPPED)
            with pytest.raises(MiddlewareError, match="start it first"):
                await middleware.set_power(machine.key, Power.PAUSED)  # type: ignore[attr-defined]
            await middleware.set_power(machine.key, Power.RUNNING)  # type: ignore[attr-defined]
            assert await run(machine.instance, "echo alive") == "alive"
            await middleware.delete(machine.key)
        assert await site.leftovers() == []


class TestDisks:
    """What is written to a volume is there for the next machine; what is on a machine's disk is in its snapshot."""

    async def test_data_outlive_machines(self, site: LibvirtSite) -> None:
        async with running(site) as middleware:
            volume = await made(middleware, new_key(), plain(site, VolumeSpec(size_gb=1)))
            first = await a_machine(middleware, site)
            request = plain(site, AttachmentSpec(machine=first.key, volume=volume.key))
            attachment = await made(middleware, new_key(), request)
            device = str(attachment.instance.device)
            there = f"until [ -b {device} ]; do sleep 0.1; done"  # else dd would make a file of it
            await run(
                first.instance,
                f"{there}; echo kept | dd of={device} conv=fsync; echo copied | dd of=/dev/vda conv=fsync",
                "root",
            )
            snapshot = await made(middleware, new_key(), plain(site, SnapshotSpec(machine=first.key)))
            with pytest.raises(MiddlewareError, match="attached"):
                await middleware.delete(volume.key)
            await middleware.delete(attachment.key)
            assert "vdc" not in await run(first.instance, "ls /dev")
            await middleware.delete(first.key)
            second = await made(middleware, new_key(), compute(site, image=f"snapshot:{snapshot.key}"))
            again = plain(site, AttachmentSpec(machine=second.key, volume=volume.key))
            attachment = await made(middleware, new_key(), again)
            seen = await run(
                second.instance, f"{there}; head -c 5 {attachment.instance.device}; head -c 7 /dev/vda", "root"
            )
            assert seen == "kept\ncopied"
            for key in (attachment.key, second.key, snapshot.key, volume.key):
                await middleware.delete(key)
        assert await site.leftovers() == []


class TestBounds:
    """No more is lent than the operator says."""

    async def test_of_machines_networks_and_volumes(self, site: LibvirtSite) -> None:
        site.extra = {"limits": {"machines": 1, "networks": 1, "volumes": 2, "volume_gb": 3}}
        async with running(site) as middleware:
            keys = [new_key() for _ in range(3)]
            await middleware.create(keys[0], compute(site))
            await middleware.create(keys[1], net(site))
            await middleware.create(keys[2], plain(site, VolumeSpec(size_gb=2)))
            for request in (compute(site), net(site, "10.9.0.0/24"), plain(site, VolumeSpec(size_gb=2))):
                with pytest.raises(NoCapacity):
                    await middleware.create(new_key(), request)
            for key in keys:
                await middleware.delete(key)
        assert await site.leftovers() == []


class TestFence:
    """A guest is root on its own kernel, and can say that it is somebody else."""

    async def test_a_false_address_reaches_nobody(self, site: LibvirtSite) -> None:
        async with running(site) as middleware:
            machine = await a_machine(middleware, site)
            script = (
                "ip addr add 10.77.0.99/32 dev eth0; ping -c 2 -W 1 -I 10.77.0.99 10.77.0.1 >/dev/null && echo lied"
            )
            assert (
                await run(machine.instance, f"ping -c 1 -W 5 10.77.0.1 >/dev/null && echo honest; {script}", "root")
                == "honest"
            )
            await middleware.delete(machine.key)
        assert await site.leftovers() == []

    async def test_strangers_do_not_meet_on_the_intranet(self, site: LibvirtSite) -> None:
        async with running(site) as middleware:
            keys = [new_key(), new_key()]
            one, two = await asyncio.gather(*(made(middleware, key, compute(site)) for key in keys))
            assert await run(one.instance, f"nc -w 3 {two.instance.address} 22 </dev/null | head -c 3") != "SSH"
            for key in keys:
                await middleware.delete(key)
        assert await site.leftovers() == []


async def is_failed(middleware: Middleware, key: str) -> bool:
    """Whether the lender says so."""
    try:
        owned = await middleware.get(key)
    except Unavailable:
        return False
    return owned is not None and owned.status is Status.FAILED


async def answers_all(middleware: Middleware) -> bool:
    """Whether the lender says what there is."""
    try:
        await middleware.list_owned()
    except Unavailable:
        return False
    return True
