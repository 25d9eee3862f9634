"""Images that users name by URL, and hosts whose virtualisation is looked into by a real QEMU."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from deploy.image.guest import GuestImage
from federation_member.middleware.contract import Middleware, Status, UnknownImage, UnusableImage, abilities
from federation_member.middleware.libvirt import probe
from fedkit.protocol.lending import Ability
from tests.component.middleware.contract import MAKING, compute, eventually, new_key, running
from tests.component.middleware.libvirt_place import LibvirtSite
from tests.component.middleware.place import GATEWAY
from tests.component.middleware.test_libvirt import site, tiny

__all__ = ["site", "tiny"]
pytestmark = pytest.mark.timeout(600)
EMULATED = (
    '#!/bin/sh\nfor word; do shift; case $word in kvm) word=tcg;; host) word=max;; esac; set -- "$@" "$word"; done\n'
)


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[str]:
    """A web server with one file; its URL."""

    async def handle(_: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    application = web.Application()
    application.router.add_get("/image", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, GATEWAY, 0).start()
        yield f"http://{GATEWAY}:{runner.addresses[0][1]}/image"
    finally:
        await runner.cleanup()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk with nothing on it, which a machine can be started with all the same."""
    path = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "16M"], check=True)
    return path


def described(site: LibvirtSite, key: str) -> str:
    """What QEMU says of a machine's disk."""
    disk = site.folder / f"state/disks/{key}/disk.qcow2"
    return subprocess.run(["qemu-img", "info", "-U", str(disk)], capture_output=True, text=True, check=True).stdout


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_an_image_is_fetched_and_the_machine_starts_with_a_disk_over_it(site: LibvirtSite, image: Path) -> None:
    async with served(image) as url:
        site.extra = {"fetch": fetch(site, url)}
        request = compute(site, image=url, image_sha256=checksum(image))
        async with running(site) as middleware:
            assert Ability.IMAGE_URLS in abilities(middleware)
            key = new_key()
            first = await middleware.create(key, request)
            assert (first.status, first.reason[:18]) == (Status.CREATING, "fetching the image")
            await eventually(lambda: boots(middleware, key, request), MAKING)
            assert [owned.key for owned in await middleware.list_owned()] == [key]
            assert f"state/disks/{key}/base" in await asyncio.to_thread(described, site, key)
            await middleware.delete(key)
            await refuses_another_checksum(middleware, site, url)
        assert await site.leftovers() == []


async def test_without_a_place_for_them_none_is_fetched(site: LibvirtSite) -> None:
    async with running(site) as middleware:
        assert Ability.IMAGE_URLS not in abilities(middleware)
        with pytest.raises(UnknownImage, match="URL"):
            await middleware.create(new_key(), compute(site, image="http://192.0.2.1/", image_sha256="0" * 64))


async def test_a_real_kernel_is_the_proof(tiny: GuestImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulation stands in for virtualisation that works: the kernel and QEMU are real."""
    emulator, device = tmp_path / "qemu", tmp_path / "kvm"
    emulator.write_text(f'{EMULATED}exec qemu-system-x86_64 "$@"\n')
    emulator.chmod(0o755)
    device.touch()
    monkeypatch.setattr(probe, "SECONDS", MAKING)  # this machine may have other things to do
    found = await probe.find(emulator, [tiny.kernel], tmp_path / "cache", device)
    assert found.accelerator == "kvm", found.reason


def fetch(site: LibvirtSite, url: str) -> dict[str, object]:
    """Options that let this one server be asked."""
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    return {"folder": str(site.folder / "images"), "allow": [f"{GATEWAY}/32"], "ports": [port], "spare": 0}


async def boots(middleware: Middleware, key: str, request: object) -> bool:
    """Go on with the machine; whether it was started."""
    owned = await middleware.create(key, request)  # type: ignore[arg-type]
    assert owned.status is Status.CREATING
    return owned.reason == "booting"


async def refuses_another_checksum(middleware: Middleware, site: LibvirtSite, url: str) -> None:
    request = compute(site, image=url, image_sha256="0" * 64)
    key = new_key()

    async def refused() -> bool:
        try:
            await middleware.create(key, request)
        except UnusableImage:
            return True
        return False

    await eventually(refused, MAKING)
