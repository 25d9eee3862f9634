"""The tunnel beside OpenSSH's sshd (with a session open) and stock asyncssh, in one run: `python -m tests.benchmarks.tunnel`.

The client is always the same stock `ssh` with the same cipher. The variants take turns at each figure (A B C A B C …), so that a
noisy machine is noisy to all of them; the table shows medians. CPU is that of the server's processes, and its inverse is what a
core could carry if nothing else held the server up: all of it shares the cores with its load, and towards the public side the
ssh client is the first to use up a core (`busy`: part of a core). 16 requests at a time show their latency, 64 keep the server
at work. `--idle N` measures N idle tunnels instead, each a machine with a lease of its own (two descriptors each, and
as many in the client; the server has its controller in the same process).
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import asyncssh

from fedkit.mesh.api import Peer
from fedkit.protocol.tunnel import Grant
from fedkit.service import configure_logging
from tests.benchmarks import tunnel_load
from tests.support.tunnel_site import MachineKey, free_range, open_site

CIPHER = "aes128-gcm@openssh.com"
MEGABYTE = 1_000_000
CPU_CLOCK = 2  # clock_getcpuclockid(3): (~pid << 3) | 2 is the clock of all threads of a process
SSH = ["ssh", "-F", "none", "-T", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]


@dataclass
class Variant:
    """A server with one tunnel open through it."""

    name: str
    pid: int
    port: int
    client: int
    figures: dict[str, list[float]] = field(default_factory=dict)

    def note(self, figure: str, value: float) -> None:
        self.figures.setdefault(figure, []).append(value)


# Servers, each a process of its own.


async def serve_ours(folder: Path, leases: int) -> None:
    """Our server with `leases` machines; prints its port."""
    configure_logging()
    tunnel = (
        {"ports": free_range(leases)} if leases <= 1000 else {"ports": f"10000-{9999 + leases}", "bind": "127.77.0.1"}
    )
    limits = {"logins_per_address": 10_000, "logins_at_once": 10_000}
    async with open_site(folder, tunnel=tunnel, limits=limits) as site:
        peer = Peer(site.controller.node.me.fedid, site.controller.node.me.address)
        expires = datetime.now(UTC) + timedelta(hours=1)
        lines = json.loads((folder / "machines").read_text())

        def grant(tx: Any) -> None:
            for lease_id, public in lines:
                wish = Grant(lease_id=lease_id, public_key=public, ports=1, expires=expires, reserve=[])
                site.service.book.grant(tx, peer, wish, datetime.now(UTC))

        await site.service._db.run(grant)
        print(site.port, flush=True)
        await asyncio.Event().wait()


async def serve_stock(folder: Path) -> None:
    """Stock asyncssh with the pattern of its documentation; prints its port."""

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            self.conn = conn

        async def server_requested(self, listen_host: str, listen_port: int) -> Any:
            return await self.conn.forward_local_port("127.0.0.1", 0, listen_host, listen_port)

    acceptor = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=[folder / "host"],
        authorized_client_keys=str(folder / "key.pub"),
    )
    print(acceptor.get_port(), flush=True)
    await asyncio.Event().wait()


@contextmanager
def process(*command: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program while the context is open."""
    with subprocess.Popen(command, text=True, **more) as running:
        try:
            yield running
        finally:
            running.terminate()


def own_process(stack: ExitStack, *arguments: str) -> tuple[int, int]:
    """Start one of the servers above; return (pid, port)."""
    running = stack.enter_context(
        process(sys.executable, "-m", "tests.benchmarks.tunnel", *arguments, stdout=subprocess.PIPE)
    )
    assert running.stdout is not None
    return running.pid, int(running.stdout.readline())


def start_sshd(stack: ExitStack, folder: Path) -> tuple[int, int]:
    """Start OpenSSH's server; return (pid, port)."""
    port = int(free_range(1).partition("-")[0])
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/key.pub\nUsePAM no\n"
        f"StrictModes no\nPidFile none\nAllowTcpForwarding yes\nPermitRootLogin yes\nLogLevel ERROR\n"
    )
    os.makedirs("/run/sshd", exist_ok=True) if os.geteuid() == 0 else None
    running = stack.enter_context(process("/usr/sbin/sshd", "-D", "-e", "-f", str(config)))
    wait_for(lambda: _listens(port))
    return running.pid, port


def _listens(port: int) -> bool:
    text = Path("/proc/net/tcp").read_text()
    return f":{port:04X} 00000000:0000 0A" in text


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait up to ten seconds."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def open_tunnel(stack: ExitStack, user: str, key: Path, port: int, service: int, session: bool) -> tuple[int, int]:
    """Open a tunnel with stock ssh; return (public port, pid)."""
    command = [*SSH, "-c", CIPHER, "-i", str(key), "-o", "IdentitiesOnly=yes", "-p", str(port)]
    command += ["-R", f"0:127.0.0.1:{service}", f"{user}@127.0.0.1"]
    command += ["cat"] if session else ["-N"]
    running = stack.enter_context(process(*command, stdin=subprocess.PIPE, stderr=subprocess.PIPE))
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("Allocated port"):
            return int(line.split()[2]), running.pid
    raise AssertionError("no tunnel")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(time.clock_gettime((~member << 3) | CPU_CLOCK) for member in family)


@dataclass
class Spent:
    """CPU seconds of a variant's server and client during a measurement."""

    server: float = 0.0
    client: float = 0.0


@contextmanager
def watch(variant: Variant) -> Iterator[Spent]:
    """Measure CPU time while the context is open."""
    spent = Spent()
    server, client = cpu_seconds(variant.pid), cpu_seconds(variant.client)
    yield spent
    spent.server = cpu_seconds(variant.pid) - server
    spent.client = cpu_seconds(variant.client) - client


# What is measured.


Figure = Callable[[Variant], None]


def bulk(name: str, run: Callable[[int, int], float], megabytes: int) -> Figure:
    """One stream in one direction."""

    def measure(variant: Variant) -> None:
        with watch(variant) as spent:
            seconds = run(variant.port, megabytes * MEGABYTE)
        variant.note(f"{name} MB/s", megabytes / seconds)
        variant.note(f"{name} MB/s of a core", megabytes / spent.server)
        variant.note(f"{name} CPU s/GB", spent.server / megabytes * 1000)
        variant.note(f"{name} server busy", spent.server / seconds)
        variant.note(f"{name} client busy", spent.client / seconds)

    return measure


def small(name: str, run: Callable[[int, int, int], tuple[float, list[float]]], parallel: int, count: int) -> Figure:
    """Many small things."""

    def measure(variant: Variant) -> None:
        with watch(variant) as spent:
            seconds, times = run(variant.port, parallel, count)
        variant.note(f"{name}, {parallel}: /s", count / seconds)
        variant.note(f"{name}, {parallel}: p50 us", median(times) * 1e6)
        variant.note(f"{name}, {parallel}: p99 us", quantiles(times, n=100)[98] * 1e6)
        variant.note(f"{name}, {parallel}: CPU us", spent.server / count * 1e6)

    return measure


def compare(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Run all variants in turn; return the medians."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("host", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        load = stack.enter_context(
            process(sys.executable, "-m", "tests.benchmarks.tunnel_load", stdout=subprocess.PIPE)
        )
        assert load.stdout is not None
        service = int(load.stdout.readline())
        key, user = folder / "key", getpass.getuser()
        machine = MachineKey("11111111-1111-1111-1111-111111111111", key, (folder / "key.pub").read_text().strip())
        (folder / "machines").write_text(json.dumps([[machine.lease_id, machine.public]]))
        variants = []
        sshd_pid, sshd_port = start_sshd(stack, folder)
        variants.append(Variant("sshd, session", sshd_pid, *open_tunnel(stack, user, key, sshd_port, service, True)))
        pid, port = own_process(stack, "--serve", "stock", "--folder", str(folder))
        variants.append(Variant("stock asyncssh", pid, *open_tunnel(stack, user, key, port, service, False)))
        pid, port = own_process(stack, "--serve", "ours", "--folder", str(folder))
        variants.append(Variant("ours", pid, *open_tunnel(stack, "tunnel", key, port, service, False)))
        figures = [
            bulk("public→VM", tunnel_load.up, options.megabytes),
            bulk("VM→public", tunnel_load.down, options.megabytes),
            small("requests", tunnel_load.requests, 16, options.requests),
            small("requests", tunnel_load.requests, 64, options.requests),
            small("connections", tunnel_load.connections, 8, options.connections),
        ]
        for figure in figures:
            for turn in range(options.rounds + 1):
                for variant in variants:
                    figure(variant if turn else replace(variant, figures={}))  # the first turn only warms up
        return {v.name: {figure: median(values) for figure, values in v.figures.items()} for v in variants}


def print_table(results: dict[str, dict[str, float]]) -> None:
    """One line for each figure, and our ratio to each reference."""
    sshd, stock, ours = (results[name] for name in ("sshd, session", "stock asyncssh", "ours"))
    print(f"{f'load {os.getloadavg()[0]:.1f}':28}{'sshd':>10}{'stock':>10}{'ours':>10}{'/ sshd':>9}{'/ stock':>9}")
    for figure, value in ours.items():
        ratios = f"{value / max(sshd[figure], 1e-9):9.2f}{value / max(stock[figure], 1e-9):9.2f}"
        print(f"{figure:28}{sshd[figure]:10.2f}{stock[figure]:10.2f}{value:10.2f}{ratios}")


# Idle tunnels.


def resident(pid: int, what: str) -> int:
    """A figure of /proc/PID/smaps_rollup in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1])
    raise AssertionError(what)


async def open_idle(folder: Path, port: int, keys: Sequence[asyncssh.SSHKey]) -> None:
    """Open one tunnel for each key, tell it on standard output, and hold them."""
    options = await asyncssh.SSHClientConnectionOptions.construct(
        username="tunnel", known_hosts=None, client_keys=None, agent_path=None, encryption_algs=[CIPHER], config=None
    )
    limit = asyncio.Semaphore(32)
    held = []

    async def dial(key: asyncssh.SSHKey) -> None:
        async with limit:
            mine = await asyncssh.SSHClientConnectionOptions.construct(options=options, client_keys=[key])
            conn = await asyncssh.connect("127.0.0.1", port, options=mine)
            held.append((conn, await conn.forward_remote_port("", 0, "127.0.0.1", 9)))

    start = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for key in keys:
            tasks.create_task(dial(key))
    print(len(held), time.perf_counter() - start, flush=True)
    await asyncio.Event().wait()


def measure_idle(count: int) -> None:
    """Print what one idle tunnel costs the server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count = min(count, (most - 200) // 2)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(count)]
        machines = [(f"{i:08x}-0000-0000-0000-000000000000", key) for i, key in enumerate(keys)]
        (folder / "machines").write_text(json.dumps([[i, k.export_public_key().decode().strip()] for i, k in machines]))
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(folder / "host")
        (folder / "keys").write_bytes(b"".join(key.export_private_key() for key in keys))
        pid, port = own_process(stack, "--serve", "ours", "--folder", str(folder), "--leases", str(count))
        before = {what: resident(pid, what) for what in ("Rss", "Pss")}
        client = [
            sys.executable,
            "-m",
            "tests.benchmarks.tunnel",
            "--serve",
            "idle",
            "--folder",
            str(folder),
            "--leases",
            str(port),
        ]
        running = stack.enter_context(process(*client, stdout=subprocess.PIPE))
        assert running.stdout is not None
        opened, seconds = running.stdout.readline().split()
        time.sleep(2)
        after = {what: resident(pid, what) for what in ("Rss", "Pss")}
        spent = cpu_seconds(pid)
        time.sleep(5)
        idle = (cpu_seconds(pid) - spent) / 5
        for what in before:
            print(
                f"idle tunnel, {what}: {(after[what] - before[what]) / int(opened):.1f} KiB each, {after[what] / 1024:.0f} MiB in all"
            )
        print(
            f"{opened} tunnels opened in {float(seconds):.1f} s ({int(opened) / float(seconds):.0f}/s); idle CPU {idle:.1%}"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--connections", type=int, default=600)
    parser.add_argument("--idle", type=int, default=0, metavar="N")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", choices=["ours", "stock", "idle"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--leases", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve == "ours":
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        asyncio.run(serve_ours(options.folder, options.leases))
    elif options.serve == "stock":
        asyncio.run(serve_stock(options.folder))
    elif options.serve == "idle":
        asyncio.run(open_idle(options.folder, options.leases, asyncssh.read_private_key_list(options.folder / "keys")))
    elif options.idle:
        measure_idle(options.idle)
    else:
        results = compare(options)
        print(json.dumps(results)) if options.json else print_table(results)


if __name__ == "__main__":
    main()
