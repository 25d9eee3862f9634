"""The tiny guest really boots from what `render` and `nocloud_iso` make, and is reached through the tunnel that it opens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncssh
import pytest

from federation_member.middleware.guest import Guest, HostKey
from tests.component.image.guests import (
    ADDRESS,
    PATIENCE,
    access_of,
    boot,
    config_drive,
    image,
    log_in,
    nocloud,
    run,
    tunnel_port,
)
from tests.support.tunnel_site import open_site

USER_DATA = """\
#cloud-config
users:
  - name: alice
    ssh_authorized_keys: [ALICE]
write_files:
  - {path: /srv/binary, content: "AAEC/w==", encoding: b64, permissions: "0640"}
  - {path: /srv/tricky, content: "it's 'quoted' $(touch /srv/broken) \\\\n `id`"}
runcmd:
  - echo "the user's script ran as $(id -un)" >/srv/ran
  - [touch, "/srv/a b"]
"""


@pytest.mark.timeout(900)
async def test_a_tiny_guest_is_reached_through_its_tunnel(tmp_path: Path) -> None:
    base = image("tiny")
    person, alice = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    public = [key.export_public_key().decode().strip() for key in (person, alice)]
    host_key = HostKey.generate()
    volume = tmp_path / "volume"
    volume.write_bytes(bytes(8 << 20))
    async with open_site(tmp_path) as site:
        guest = Guest(
            "tiny-1", [public[0]], host_key, await access_of(site), None, USER_DATA.replace("ALICE", public[1])
        )
        extra = ("-drive", f"file={volume},format=raw,if=virtio")
        async with boot(base, nocloud(base, guest), tmp_path, extra=extra) as running:
            port = await tunnel_port(site, running)
            async with log_in(port, host_key, person) as session:
                assert await run(session, "id -un; hostname") == "fed\ntiny-1"
                assert str(ADDRESS) in await run(session, "ip -4 addr show eth0")
            async with log_in(port, host_key, alice, "alice") as session:
                assert await run(session, "id -un") == "alice"
            async with log_in(port, host_key, person, "root") as session:
                assert await run(session, "cat /srv/ran; ls '/srv/a b'") == "the user's script ran as root\n/srv/a b"
                assert await run(session, "od -An -tx1 /srv/binary; stat -c %a /srv/binary") == "00 01 02 ff\n640"
                assert await run(session, "cat /srv/tricky; ls /srv") == (
                    "it's 'quoted' $(touch /srv/broken) \\n `id`a b\nbinary\nran\ntricky"
                )
                assert await run(session, "mke2fs /dev/vdb >/dev/null 2>&1; mount /dev/vdb /mnt && df /mnt | tail -n 1")
            for key in (alice, asyncssh.generate_private_key("ssh-ed25519")):
                with pytest.raises(asyncssh.PermissionDenied):
                    async with log_in(port, host_key, key):
                        pass
            async with asyncio.timeout(PATIENCE):  # the power button
                await running.command("system_powerdown")
                assert await running.process.wait() == 0
        console = running.console.read_text(errors="replace")
        assert "tiny: seed: nocloud" in console
        assert "tiny: user data ended with status 0" in console
        assert "PRIVATE KEY" not in console


@pytest.mark.timeout(900)
async def test_a_config_drive_and_dhcp(tmp_path: Path) -> None:
    """As OpenStack gives them."""
    base, person, host_key = image("tiny"), asyncssh.generate_private_key("ssh-ed25519"), HostKey.generate()
    public = person.export_public_key().decode().strip()
    async with open_site(tmp_path) as site:
        guest = Guest("tiny-2", [public], host_key, await access_of(site), None, "#!/bin/sh\necho of the user\n")
        async with boot(base, config_drive(base, guest), tmp_path) as running:
            port = await tunnel_port(site, running)
            async with log_in(port, host_key, person) as session:
                assert await run(session, "hostname; cat /var/log/cloud-init-output.log") == "tiny-2\nof the user"
        console = running.console.read_text(errors="replace")
        assert "tiny: seed: config-drive" in console
        assert "by DHCP" in console
        assert "of the user" in console
