"""The debian guest boots by itself, and the real cloud-init does what our archive says, and what the user's part says.

One test for all of it, because the guest takes a minute to start where there is no KVM.
"""

from __future__ import annotations

import os
from pathlib import Path

import asyncssh
import pytest

from federation_member.middleware.guest import Guest, HostKey
from tests.component.image.guests import ADDRESS, access_of, boot, image, log_in, nocloud, run, tunnel_port
from tests.support.tunnel_site import open_site

USER_DATA = """\
#cloud-config
users:
  - default
  - name: alice
    shell: /bin/bash
write_files:
  - {path: /srv/written, content: "the user's own"}
runcmd:
  - echo "ran as $(id -un)" >/srv/ran
"""


@pytest.mark.root
@pytest.mark.timeout(1200)
async def test_cloud_init_sets_the_guest_up(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the image is built as root")
    base = image("debian")
    person, authority = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    public = person.export_public_key().decode().strip()
    host_key = HostKey.generate()
    async with open_site(tmp_path) as site:
        trusted = authority.export_public_key().decode().strip()
        guest = Guest("debian-1", [public], host_key, await access_of(site), trusted, USER_DATA)
        async with boot(base, nocloud(base, guest), tmp_path, memory=384, by_itself=True) as running:
            port = await tunnel_port(site, running)
            async with log_in(port, host_key, person, "root") as session:
                await session.run("cloud-init status --wait")
                assert (
                    await run(session, "cat /srv/written /srv/ran; id -un alice") == "the user's ownran as root\nalice"
                )
                assert await run(session, "hostname; systemctl is-enabled fed-tunnel") == "debian-1\nenabled"
                assert str(ADDRESS) in await run(session, "ip -4 addr show eth0")
                assert await run(session, "ls /etc/ssh/ssh_host_*_key") == "/etc/ssh/ssh_host_ed25519_key"
            for user in ("fed", "debian"):
                async with log_in(port, host_key, person, user) as session:
                    assert await run(session, "id -un") == user
            visitor = asyncssh.generate_private_key("ssh-ed25519")
            certificate = authority.generate_user_certificate(visitor, "visitor", principals=["fed"])
            async with log_in(port, host_key, visitor, client_keys=[(visitor, certificate)]) as session:
                assert await run(session, "id -un") == "fed"
            with pytest.raises(asyncssh.PermissionDenied):
                async with log_in(port, host_key, visitor):
                    pass
        assert "PRIVATE KEY" not in running.console.read_text(errors="replace")
