"""Virtual machines under plain emulation, each with a seed and a reverse tunnel server of ours that it can reach.

QEMU's user network needs no rights: the guest sees the host's loopback interface at 10.0.2.2.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from pycdlib import PyCdlib

from deploy.image.guest import GuestImage, build
from federation_member.middleware.contract import TunnelAccess
from federation_member.middleware.guest import Guest, HostKey, How, render
from federation_member.middleware.guest.nocloud import Nic, nocloud_iso
from tests.support.tunnel_site import BIND, Site

QEMU = "qemu-system-x86_64"
HOST = "10.0.2.2"
MAC = "52:54:00:00:00:01"
ADDRESS = IPv4Interface("10.0.2.77/24")
PATIENCE = 600.0  # seconds; emulation on a busy machine


@dataclass
class Running:
    """A guest that runs."""

    console: Path
    qmp: Path
    process: asyncio.subprocess.Process

    async def command(self, name: str, **arguments: Any) -> None:
        """Give QEMU a command (QMP)."""
        reader, writer = await asyncio.open_unix_connection(self.qmp)
        await reader.readline()
        for execute, with_ in (("qmp_capabilities", {}), (name, arguments)):
            writer.write(json.dumps({"execute": execute, "arguments": with_}).encode() + b"\n")
            while "return" not in (answer := json.loads(await reader.readline())):
                assert "error" not in answer, answer
        writer.close()


def image(name: str) -> GuestImage:
    """Build the image, or skip where that cannot be."""
    for program in (QEMU, "apt-get"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    return build(name, say=lambda line: None)


async def access_of(site: Site) -> TunnelAccess:
    """A lease at the tunnel server, as a guest is given it."""
    machine = await site.machine()
    server_key = asyncssh.read_private_key(site.config.tunnel.host_key).export_public_key().decode().strip()
    return TunnelAccess("tunnel.site-b.test", HOST, site.port, server_key, machine.path.read_text())


def nocloud(base: GuestImage, guest: Guest) -> bytes:
    """A seed with a fixed address."""
    nics = [Nic(MAC, ADDRESS, IPv4Address(HOST))]
    return nocloud_iso(guest.hostname, guest.hostname, render(guest, How(base.user_data)), nics)


def config_drive(base: GuestImage, guest: Guest) -> bytes:
    """A seed as Nova makes it, which leaves the addresses to DHCP."""
    data = render(guest, How(base.user_data))
    iso, image = PyCdlib(), BytesIO()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="config-2")
    for path, name in (("/OS", "openstack"), ("/OS/LATEST", "latest")):
        iso.add_directory(path, rr_name=name, joliet_path="/openstack" if name == "openstack" else "/openstack/latest")
    path = "/openstack/latest/user_data"
    iso.add_fp(BytesIO(data), len(data), "/OS/LATEST/DATA.;1", rr_name="user_data", joliet_path=path)
    iso.write_fp(image)
    return image.getvalue()


@asynccontextmanager
async def boot(
    base: GuestImage,
    seed: bytes,
    folder: Path,
    *,
    memory: int = 128,
    extra: tuple[str, ...] = (),
) -> AsyncIterator[Running]:
    """Start a guest with the image's kernel; it is ended with the block."""
    disc, console, qmp = folder / "seed.iso", folder / "console", folder / "qmp"
    disc.write_bytes(seed)
    kernel = ("-kernel", str(base.kernel), "-initrd", str(base.initrd), "-append", base.command_line)
    process = await asyncio.create_subprocess_exec(
        *(QEMU, "-machine", "pc", "-accel", f"tcg,tb-size={memory // 4}", "-cpu", "max", "-m", str(memory)),
        *("-display", "none", "-nodefaults", "-no-reboot", "-serial", f"file:{console}"),
        *("-qmp", f"unix:{qmp},server=on,wait=off", *kernel),
        *("-drive", f"file={base.disk},format={base.disk_format},if=virtio,snapshot=on"),
        *("-drive", f"file={disc},format=raw,media=cdrom,readonly=on"),
        *("-netdev", "user,id=n", "-device", f"virtio-net-pci,netdev=n,mac={MAC}", "-device", "virtio-rng-pci"),
        *extra,
    )
    try:
        yield Running(console, qmp, process)
    except BaseException:
        print(console.read_text(errors="replace")[-5000:] if console.exists() else "no console")
        raise
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def tunnel_port(site: Site, guest: Running) -> int:
    """Wait until a guest holds its tunnel; return its public port."""
    ended = asyncio.create_task(guest.process.wait())
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                for told in reversed(site.controller.told):
                    for tunnel in told.tunnels:
                        if tunnel.name == "ssh" and tunnel.up:
                            return tunnel.port
                assert not ended.done(), "the guest ended"
                await asyncio.sleep(0.2)
    finally:
        ended.cancel()


@asynccontextmanager
async def log_in(
    port: int, host_key: HostKey, client: asyncssh.SSHKey, user: str = "fed", **more: Any
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Log in through the tunnel; nothing but the key that the lender made is accepted of the guest."""
    known = asyncssh.import_known_hosts(f"[{BIND}]:{port} {host_key.public}\n")
    options: dict[str, Any] = {"username": user, "client_keys": [client], "known_hosts": known, "config": None}
    async with asyncio.timeout(PATIENCE), asyncssh.connect(BIND, port, agent_path=None, **(options | more)) as session:
        yield session


async def run(session: asyncssh.SSHClientConnection, command: str) -> str:
    """Run a command in the guest."""
    done = await session.run(command, check=True)
    return str(done.stdout).strip()
