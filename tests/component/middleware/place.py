"""A place for the `containers` kind: a network namespace of its own with a bridge, and a folder.

The calling thread enters the namespace and leaves it again; sockets and processes made meanwhile belong to it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federation_member.middleware.containers import ContainersMiddleware
from federation_member.middleware.containers.cgroups import Cgroups
from federation_member.middleware.containers.config import ContainersConfig
from federation_member.middleware.containers.ids import IdSpace
from federation_member.middleware.containers.runtime import TUN
from federation_member.middleware.contract import Account
from fedkit.protocol.lending import Flavour
from tests.component.middleware.contract import USED_KEYS

ACCOUNT = Account("tests")
CLONE_NEWNET = 0x40000000
GATEWAY = "10.77.0.1"
FLAVOUR = Flavour(name="tiny", vcpu=1, ram_mb=96, disk_gb=0)


def lacks_to_carry() -> str | None:
    """What a machine that carries frames needs and this process cannot give, as the middleware says it."""
    ids = IdSpace.of_this_process()
    if ids.of_machine(1).only_one:
        return "ids of its own"
    return None if ids.separate or os.access(TUN, os.R_OK | os.W_OK) else TUN


@contextmanager
def network_namespace() -> Iterator[None]:
    """Enter a new network namespace with a bridge br0; it and all in it go when it is left."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace cannot be made")
    try:
        batch = f"link set lo up\nlink add br0 type bridge\naddress add {GATEWAY}/24 dev br0\nlink set br0 up\n"
        subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
        yield
    finally:
        libc.setns(before, CLONE_NEWNET)
        os.close(before)


@dataclass
class ContainersSite:
    """One site's machines."""

    base: Path
    state: Path
    kind: str = "federation_member.middleware.containers:ContainersMiddleware"
    flavour: Flavour = FLAVOUR
    image: str = "debian"
    account: Account = ACCOUNT
    crowd: int = 8
    stride: int = 29
    moments: tuple[float, ...] = tuple(hundredths / 100 for hundredths in range(1, 17, 3))
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """What would stand in member.toml."""
        return {
            "base": str(self.base),
            "state": str(self.state),
            "subnet": "10.77.0.0/24",
            "gateway": GATEWAY,
            "flavours": [FLAVOUR.model_dump()],
            "accounts": ["tests", "shared"],
        } | self.extra

    def middleware(self) -> ContainersMiddleware:
        """As a member that starts makes it."""
        return ContainersMiddleware(ContainersConfig.model_validate(self.options))

    async def kill(self, key: str) -> None:
        """As an operator at the host would; returns when its first process, and so the machine, has ended."""
        descriptor = os.pidfd_open(int((self.state / "instances" / key / "bundle" / "pid").read_text()))
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            await asyncio.to_thread(select.select, [descriptor], [], [])
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Remove what a failed test left."""
        if any(self.state.glob("instances/*")) or any(self.state.glob("accounts/*")):
            asyncio.run(self._delete_all())

    async def _delete_all(self) -> None:
        middleware = self.middleware()
        await middleware.start(lambda key: None)
        for owned in await middleware.list_owned():
            await middleware.delete(owned.key)
        for account in await middleware.list_accounts():
            await middleware.remove_account(account.name)
        await middleware.stop()

    async def leftovers(self) -> list[str]:
        """Interfaces, mounts, notes, records, groups and processes."""
        return await asyncio.to_thread(_leftovers, self.state)


def _leftovers(state: Path) -> list[str]:
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    found = [line for line in links.splitlines() if any(name in line for name in (": fm", ": fn", ": ff"))]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(state) in line]
    found += [str(path) for folder in ("accounts", "instances", "runc") for path in (state / folder).glob("*")]
    return found + _groups() + _processes()


def _groups() -> list[str]:
    cgroups = Cgroups.find()
    roots = cgroups.roots if cgroups else ()
    wanted = {f"fedmesh-{key}" for key in USED_KEYS}
    # Groups of others go while we look, which os.walk takes as it is.
    return [f"{folder}/{name}" for root in roots for folder, names, _ in os.walk(root) for name in wanted & {*names}]


def _processes() -> list[str]:
    """Processes that name one of the keys in their arguments or in the source of their root."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "mountinfo").read_text() + (process / "cmdline").read_bytes().decode()
        except OSError:
            continue
        found += [f"process {process.name} of {key}" for key in USED_KEYS if key in text]
    return found
