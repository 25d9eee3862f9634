"""What a machine of the `containers` kind finds in itself, and what it cannot get out of or at."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from federation_member.middleware.containers.cgroups import Cgroups
from federation_member.middleware.contract import ComputeRequest, Middleware, TunnelAccess, Unavailable
from fedkit.protocol.lending import Instance
from tests.component.middleware.contract import compute, eventually, new_key, running
from tests.component.middleware.machines import prints, run
from tests.component.middleware.place import GATEWAY, ContainersSite


@pytest.fixture
async def middleware(site: ContainersSite) -> AsyncIterator[Middleware]:
    """A started middleware; its machines go at the end."""
    async with running(site) as middleware:
        yield middleware
        for owned in await middleware.list_owned():
            await middleware.delete(owned.key)


@pytest.fixture
async def machine(middleware: Middleware, site: ContainersSite) -> Instance:
    """A machine."""
    return (await middleware.create(new_key(), compute(site))).instance


class TestContainment:
    """The inside is hostile; root is what it has."""

    @pytest.mark.parametrize(
        "attempt",
        [
            "mount -t tmpfs x /mnt",
            "umount /proc/acpi || umount /dev/shm",
            "unshare -U true",
            "unshare -m true",
            "nsenter -t 1 -n true",
            "ip address add 10.77.0.99/24 dev eth0",
            "ip link set eth0 address 02:00:00:00:00:01",
            "ip route del default",
            "mknod /tmp/disk b 254 0",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            "echo h > /proc/sysrq-trigger",
            "echo core > /proc/sys/kernel/core_pattern",
            "chroot /proc/1/root/../../.. test -e /etc/debian_version.host",
            "dmesg",
            "hostname other",
            "date -s 2020-01-01; test $(date +%Y) = 2020",
            "arping -c 1 -I eth0 10.77.0.1",
            "swapon /etc/hosts",
            "insmod /etc/hosts",
            "cat /proc/kcore",
            "reboot -f && sleep 1 && exit 0",
        ],
    )
    async def test_cannot(self, machine: Instance, attempt: str) -> None:
        command = f"timeout 5 sh -c {shlex.quote(attempt)} >/dev/null 2>&1; echo $?"
        assert int(await run(machine, command, user="root")) != 0

    async def test_sees_only_itself(self, machine: Instance) -> None:
        processes = (await run(machine, "ls -d /proc/[0-9]*", user="root")).split()
        assert len(processes) < 20
        mounts = await run(machine, "cat /proc/mounts", user="root")
        assert not [line for line in mounts.splitlines() if line.split()[2] in ("ext4", "cgroup", "cgroup2", "sysfs")]
        assert "eth0" in (links := await run(machine, "ip -o link", user="root"))
        assert len(links.splitlines()) == 2

    async def test_set_uid_gains_nothing(self, machine: Instance) -> None:
        assert await run(machine, "grep NoNewPrivs /proc/self/status | tr -d '\\t'") == "NoNewPrivs:1"

    async def test_a_fork_bomb_stays_inside(self, machine: Instance) -> None:
        bomb = "i=0; while [ $i -lt 2000 ]; do sleep 5 & i=$((i+1)); done"
        await run(machine, f"timeout 20 sh -c {shlex.quote(bomb)} >/dev/null 2>&1; true", user="root")
        await eventually(lambda: prints(machine, "echo alive", "alive"))

    async def test_the_disk_has_an_end(self, machine: Instance) -> None:
        text = await run(machine, "dd if=/dev/zero of=/tmp/big bs=1M count=80 2>&1", user="root")
        assert "No space left" in text
        assert await run(machine, "rm /tmp/big; echo alive > /tmp/x; cat /tmp/x", user="root") == "alive"

    async def test_memory_has_an_end(self, machine: Instance) -> None:
        if Cgroups.find() is None:
            pytest.skip("no control groups to write here, so no limit of memory")
        hog = "head -c 400000000 /dev/zero | tail > /dev/null; echo $?"
        assert int(await run(machine, f"sh -c {shlex.quote(hog)} 2>/dev/null", user="root")) != 0
        assert await run(machine, "echo alive") == "alive"

    async def test_machines_do_not_meet_on_the_intranet(self, middleware: Middleware, site: ContainersSite) -> None:
        one, two = [(await middleware.create(new_key(), compute(site))).instance for _ in range(2)]
        assert "SSH-2.0" not in await run(one, f"sleep 0.5 | nc -w 1 {two.address} 22 | head -c 7")
        assert await run(one, f"ip route get {GATEWAY} | head -1 | cut -d' ' -f1") == GATEWAY

    async def test_orphans_are_laid_to_rest(self, machine: Instance) -> None:
        await run(machine, "sh -c 'sleep 0.1 & sleep 0.2 & exit' ; sleep 0.6")
        assert await run(machine, "ps -o stat= | grep -c Z", user="root") == "0"


class TestStart:
    """Sites that are not ready for machines are told so, with the next step."""

    async def test_two_members_do_not_share_machines(self, middleware: Middleware, site: ContainersSite) -> None:
        with pytest.raises(Unavailable, match="Another member"):
            await site.middleware().start(lambda key: None)

    async def test_no_base(self, site: ContainersSite, tmp_path: Path) -> None:
        site.base = tmp_path / "nothing"
        with pytest.raises(Unavailable, match=r"deploy\.image\.build"):
            await site.middleware().start(lambda key: None)

    async def test_no_bridge(self, site: ContainersSite) -> None:
        site.extra = {"bridge": "nobridge"}
        with pytest.raises(Unavailable, match="no bridge nobridge"):
            await site.middleware().start(lambda key: None)


class Hub(asyncssh.SSHServer):
    """The DMZ's end of the tunnels: notes what is asked for, and lets any port be any port."""

    def __init__(self, asked: list[tuple[str, int]], connections: list[asyncssh.SSHServerConnection]) -> None:
        self._asked = asked
        self._connections = connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connections.append(conn)
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        return True

    async def server_requested(self, listen_host: str, listen_port: int) -> asyncssh.SSHListener:
        self._asked.append((listen_host, listen_port))
        return await self._connection.forward_local_port(GATEWAY, 0, "localhost", 0, None)


async def _hub(
    asked: list[tuple[str, int]], connections: list[asyncssh.SSHServerConnection]
) -> tuple[asyncssh.SSHAcceptor, TunnelAccess]:
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    acceptor = await asyncssh.listen(
        GATEWAY,
        0,
        server_factory=lambda: Hub(asked, connections),
        server_host_keys=[host_key],
        kex_algs=[
            "ecdh-sha2-nistp256"
        ],  # stock asyncssh misjudges Dropbear's guess of its first choice (RFC 4253, 7.1)
        authorized_client_keys=asyncssh.import_authorized_keys(user_key.export_public_key().decode()),
    )
    access = TunnelAccess(
        host="tunnel.site-b.test",
        address=GATEWAY,
        port=acceptor.get_port(),
        host_key=host_key.export_public_key().decode().strip(),
        private_key=user_key.export_private_key().decode(),
    )
    return acceptor, access


async def test_a_machine_holds_its_tunnel_and_opens_more(middleware: Middleware, site: ContainersSite) -> None:
    asked: list[tuple[str, int]] = []
    connections: list[asyncssh.SSHServerConnection] = []
    acceptor, access = await _hub(asked, connections)
    async with acceptor:
        order = compute(site)
        request = ComputeRequest(order.spec, order.flavour, order.account, tunnel=access)
        machine = (await middleware.create(new_key(), request)).instance
        await eventually(lambda: asked == [("ssh", 0)])
        connections[0].abort()  # as a cut line
        await eventually(lambda: asked == [("ssh", 0), ("ssh", 0)])
        assert await run(machine, "stat -c %a /etc/fed/tunnel_key") == "600"
        await run(machine, "ssh -N -R web:0:localhost:80 tunnel >/dev/null 2>&1 </dev/null & sleep 0.01")
        await eventually(lambda: asked[-1] == ("web", 0))
        await run(machine, "dropbearconvert openssh dropbear /etc/fed/tunnel_key ~/tunnel.key; mkdir -p ~/.ssh")
        await run(machine, "cat /etc/fed/tunnel_known_hosts >> ~/.ssh/known_hosts")
        forward = f"dbclient -N -K 15 -i ~/tunnel.key -R db:0:localhost:80 {access.user}@{access.address}/{access.port}"
        await run(machine, f"{forward} >/tmp/db.log 2>&1 </dev/null & sleep 0.01")
        await eventually(lambda: asked[-1] == ("db", 0))
        for connection in connections:
            connection.abort()


async def test_a_tunnel_server_with_another_key_is_not_trusted(middleware: Middleware, site: ContainersSite) -> None:
    asked: list[tuple[str, int]] = []
    acceptor, access = await _hub(asked, [])
    async with acceptor:
        other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        order = compute(site)
        fields = {name: getattr(access, name) for name in ("host", "address", "port", "private_key")}
        tunnel = TunnelAccess(**fields, host_key=other)
        request = ComputeRequest(order.spec, order.flavour, order.account, tunnel=tunnel)
        machine = (await middleware.create(new_key(), request)).instance
        attempt = "ssh -N -R web:0:localhost:80 tunnel </dev/null 2>&1 | grep -c 'Host key verification failed'"
        assert await run(machine, attempt) == "1"
        await asyncio.sleep(0)
        assert asked == []
