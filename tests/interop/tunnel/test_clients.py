"""What a machine does with a stock client: its first tunnel, further ones on demand, and everything that it may not."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from fedkit.protocol.tunnel import Granted
from reverse_tunnel.server import load_host_key
from tests.interop.tunnel.clients import Client, dropbear, echo_service, exchange, openssh, running, write_known_hosts
from tests.support.tunnel_site import MachineKey, Site, open_site

PAYLOAD = bytes(range(256)) * 8000


class Command(Protocol):
    def __call__(
        self, machine: MachineKey, port: int, known_hosts: Path, *arguments: str, user: str = "tunnel"
    ) -> list[str]: ...


@pytest.fixture(
    params=[
        pytest.param(openssh, id="openssh", marks=pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh")),
        pytest.param(
            dropbear, id="dropbear", marks=pytest.mark.skipif(not shutil.which("dbclient"), reason="no dbclient")
        ),
    ]
)
def command(request: pytest.FixtureRequest) -> Command:
    chosen: Command = request.param
    return chosen


@asynccontextmanager
async def dial(
    site: Site, command: Command, machine: MachineKey, *arguments: str, user: str = "tunnel"
) -> AsyncIterator[Client]:
    known_hosts = write_known_hosts(site.folder, site.port, load_host_key(site.config.tunnel.host_key))
    async with running(command(machine, site.port, known_hosts, *arguments, user=user)) as client:
        yield client


def up(lease_id: str, *names: str) -> Callable[[Granted], bool]:
    def accept(told: Granted) -> bool:
        return told.lease_id == lease_id and {t.name for t in told.tunnels if t.up} == set(names)

    return accept


async def port_of(site: Site, machine: MachineKey, name: str, *together: str) -> int:
    """Wait until exactly these tunnels of a machine are up; return the port of the first."""
    told = await site.controller.until(up(machine.lease_id, name, *together))
    return next(tunnel.port for tunnel in told.tunnels if tunnel.name == name)


async def test_the_first_tunnel_and_a_second_on_demand(tmp_path: Path, command: Command) -> None:
    async with open_site(tmp_path) as site, echo_service() as service:
        machine = await site.machine()
        async with dial(site, command, machine, "-N", "-R", f"ssh:0:127.0.0.1:{service}"):
            first = await port_of(site, machine, "ssh")
            assert await exchange(first, PAYLOAD) == PAYLOAD
            async with dial(site, command, machine, "-N", "-R", f"web:80:127.0.0.1:{service}"):
                second = await port_of(site, machine, "web", "ssh")
                assert second != first
                assert await exchange(second, PAYLOAD) == PAYLOAD
                assert await exchange(first, b"still here") == b"still here"


async def test_unnamed_and_numbered_tunnels(tmp_path: Path, command: Command) -> None:
    async with open_site(tmp_path) as site, echo_service() as service:
        machine = await site.machine()
        async with dial(site, command, machine, "-N", "-R", f"0:127.0.0.1:{service}"):
            one = await port_of(site, machine, "port-1")
            async with dial(site, command, machine, "-N", "-R", f"0:127.0.0.1:{service}"):
                two = await port_of(site, machine, "port-2", "port-1")
                assert await exchange(one, b"1") + await exchange(two, b"2") == b"12"
        site.controller.told.clear()
        async with dial(site, command, machine, "-N", "-R", f"{two}:127.0.0.1:{service}"):
            assert await port_of(site, machine, "port-2") == two
            assert await exchange(two, PAYLOAD) == PAYLOAD


async def test_many_connections_at_once_keep_apart(tmp_path: Path, command: Command) -> None:
    async with open_site(tmp_path) as site, echo_service() as service:
        machine = await site.machine()
        async with dial(site, command, machine, "-N", "-R", f"ssh:0:127.0.0.1:{service}"):
            port = await port_of(site, machine, "ssh")
            sent = [bytes([i]) * (1 + i * 3001) for i in range(40)]
            assert await asyncio.gather(*(exchange(port, data) for data in sent)) == sent


async def test_half_close_is_kept_both_ways(tmp_path: Path, command: Command) -> None:
    async with open_site(tmp_path) as site, echo_service(b"hello ") as service:
        machine = await site.machine()
        async with dial(site, command, machine, "-N", "-R", f"ssh:0:127.0.0.1:{service}"):
            port = await port_of(site, machine, "ssh")
            assert await exchange(port, b"") == b"hello "
            assert await exchange(port, b"world") == b"hello world"


async def test_a_port_of_another_lease_is_refused(tmp_path: Path, command: Command) -> None:
    async with open_site(tmp_path) as site:
        victim, machine = await site.machine(), await site.machine()
        theirs = site.config.tunnel.port_range.start
        async with dial(site, command, machine, "-N", "-R", f"{theirs}:127.0.0.1:9") as client:
            await client.ends()
            if command is openssh:
                assert "tunnel.foreign_port" in client.said
        assert site.service.server.traffic.refusals["tunnel.foreign_port"] == 1
        assert site.service.server.open_now() == (0, 0)
        assert victim.lease_id != machine.lease_id


async def test_more_ports_than_granted_are_refused(tmp_path: Path, command: Command) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine(ports=1)
        async with dial(site, command, machine, "-N", "-R", "web:0:127.0.0.1:9") as client:
            await client.ends()
            if command is openssh:
                assert "tunnel.port_limit: The lease allows 1 ports" in client.said


async def test_no_port_left_is_said(tmp_path: Path) -> None:
    async with open_site(tmp_path, tunnel={"ports": "30000-30000", "bind": "127.0.0.9"}) as site:
        machine = await site.machine()
        async with dial(site, openssh, machine, "-N", "-R", "web:0:127.0.0.1:9") as client:
            assert await client.ends() != 0
            assert "tunnel.no_port" in client.said


async def test_of_several_tunnels_the_good_ones_open(tmp_path: Path, command: Command) -> None:
    async with open_site(tmp_path) as site, echo_service() as service:
        machine = await site.machine(ports=2)
        wishes = [f"{name}:127.0.0.1:{service}" for name in ("ssh:0", "22222", "a_b:0", "web:0")]
        arguments = [part for wish in wishes for part in ("-R", wish)]
        async with dial(site, command, machine, "-N", *arguments):
            port = await port_of(site, machine, "web", "ssh")
            assert await exchange(port, b"x") == b"x"


@pytest.mark.parametrize(
    ("arguments", "command"),
    [([], ["true"]), (["-A", "-X", "-tt"], []), (["-s"], ["sftp"]), (["-W", "127.0.0.1:22"], [])],
    ids=["command", "shell", "sftp", "stdio-forward"],
)
async def test_nothing_else_opens_with_openssh(tmp_path: Path, arguments: list[str], command: list[str]) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        known_hosts = write_known_hosts(site.folder, site.port, load_host_key(site.config.tunnel.host_key))
        async with running(openssh(machine, site.port, known_hosts, *arguments) + command) as client:
            assert await client.ends() != 0
            await client.says("tunnel.only_tunnels")
        assert site.service.server.traffic.refusals["tunnel.only_tunnels"] == 1


async def test_no_forward_inwards(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        free = site.config.tunnel.port_range.stop - 1
        async with dial(site, openssh, machine, "-N", "-L", f"{free}:127.0.0.1:{site.port}") as client:
            await client.says("Entering interactive session")
            assert await exchange(free, b"") == b""
            await client.says("tunnel.only_tunnels")


async def test_nothing_else_opens_with_dropbear(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        for arguments, command in (([], ["true"]), (["-s"], ["sftp"]), (["-B", "127.0.0.1:22"], [])):
            async with running(dropbear(machine, site.port, tmp_path, *arguments) + command) as client:
                await client.ends()
        assert site.service.server.traffic.refusals["tunnel.only_tunnels"] == 3


async def test_a_socket_path_is_refused(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        async with dial(site, openssh, machine, "-N", "-R", f"{tmp_path}/socket:127.0.0.1:9") as client:
            assert await client.ends() != 0
            assert "tunnel.only_tunnels" in client.said


async def test_unknown_key_and_wrong_user_look_alike(tmp_path: Path, command: Command) -> None:
    async with open_site(tmp_path) as site:
        machine, stranger = await site.machine(), MachineKey.make(tmp_path)
        said = []
        for who, user in ((stranger, "tunnel"), (machine, "root")):
            async with dial(site, command, who, "-N", "-R", "ssh:0:127.0.0.1:9", user=user) as client:
                assert await client.ends() != 0
                said.append("Permission denied" in client.said or "No auth methods could be used" in client.said)
        assert said == [True, True]
        assert site.service.server.traffic.refusals["tunnel.unknown_key"] >= 2


async def test_after_a_cut_without_fin_the_port_comes_back(tmp_path: Path, command: Command) -> None:
    async with open_site(tmp_path) as site, echo_service() as service:
        machine = await site.machine()
        async with dial(site, command, machine, "-N", "-R", f"ssh:0:127.0.0.1:{service}") as old:
            port = await port_of(site, machine, "ssh")
            assert await exchange(port, b"before") == b"before"
            old.process.send_signal(signal.SIGSTOP)  # silent, its connection open: as a machine whose network is gone
            async with dial(site, command, machine, "-N", "-R", f"ssh:0:127.0.0.1:{service}") as new:
                await new.says(f"Allocated port {port}")
                assert site.service.server.open_now() == (1, 1)
                assert await exchange(port, PAYLOAD) == PAYLOAD
            old.process.send_signal(signal.SIGCONT)
            await old.ends()
            if command is openssh:
                assert "A newer connection of this machine" in old.said


async def test_a_silent_machine_is_let_go(tmp_path: Path, command: Command) -> None:
    limits = {"keepalive_seconds": 0.2, "keepalive_count": 2}
    async with open_site(tmp_path, limits=limits) as site, echo_service() as service:
        machine = await site.machine()
        async with dial(site, command, machine, "-N", "-R", f"ssh:0:127.0.0.1:{service}") as client:
            port = await port_of(site, machine, "ssh")
            await asyncio.sleep(1)
            assert await exchange(port, b"answers keepalives") == b"answers keepalives"
            client.process.send_signal(signal.SIGSTOP)
            await site.controller.until(lambda told: told.revision > 2 and not any(t.up for t in told.tunnels))
            assert site.service.server.open_now() == (0, 0)


async def test_the_greeting_names_the_ports(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        async with dial(site, openssh, machine, "-N") as client:
            await client.says(f"ssh: tunnel.site-b.test:{site.config.tunnel.port_range.start}")


async def test_forwards_of_a_control_connection_come_and_go(tmp_path: Path) -> None:
    """`ssh -O forward`, the on-demand tunnel through a connection that is already there."""
    async with open_site(tmp_path) as site, echo_service() as service:
        machine = await site.machine()
        control = ["-o", f"ControlPath={tmp_path}/c"]
        async with dial(site, openssh, machine, "-N", "-M", *control) as master:
            await master.says("Entering interactive session")
            for order in ("forward", "cancel", "forward"):
                wish = ["-O", order, "-R", f"web:80:127.0.0.1:{service}", *control]
                async with dial(site, openssh, machine, *wish) as client:
                    assert await client.ends() == 0
                await site.controller.until(up(machine.lease_id, *(["web"] if order == "forward" else [])))
                site.controller.told.clear()


async def test_a_rekeyed_connection_goes_on(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, echo_service() as service:
        machine = await site.machine()
        wish = ["-o", "RekeyLimit=200K", "-R", f"ssh:0:127.0.0.1:{service}"]
        async with dial(site, openssh, machine, "-N", *wish) as client:
            port = await port_of(site, machine, "ssh")
            assert await asyncio.gather(*(exchange(port, PAYLOAD) for _ in range(4))) == [PAYLOAD] * 4
            assert client.said.count("rekey") > 3
