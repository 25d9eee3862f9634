"""A place for the `libvirt` kind: a libvirtd of its own in a network namespace of its own, and real guests."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.image.guest import GuestImage
from deploy.lab import libvirtd
from federation_member.middleware.contract import Account
from federation_member.middleware.libvirt import LibvirtMiddleware
from federation_member.middleware.libvirt.config import LibvirtConfig
from federation_member.middleware.libvirt.xml import domain_name
from fedkit.protocol.lending import Flavour
from tests.component.middleware.contract import USED_KEYS
from tests.component.middleware.place import ACCOUNT, GATEWAY

FLAVOUR = Flavour(name="tiny", vcpu=1, ram_mb=96, disk_gb=0)
START_LIMIT = 60.0  # seconds, if what QEMU can do is not in the host's cache yet


@dataclass
class LibvirtSite:
    """One site's hypervisor and machines."""

    built: GuestImage
    folder: Path
    flavour: Flavour = FLAVOUR
    kind: str = "federation_member.middleware.libvirt:LibvirtMiddleware"
    account: Account = ACCOUNT
    crowd: int = 3
    stride: int = 211
    moments: tuple[float, ...] = (0.05, 0.3, 1.2)
    extra: dict[str, Any] = field(default_factory=dict)
    image: str = field(init=False)
    _daemon: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.image = self.built.name

    @property
    def options(self) -> dict[str, Any]:
        """What would stand in member.toml."""
        image = {
            "path": str(self.built.disk),
            "kernel": str(self.built.kernel),
            "initrd": str(self.built.initrd),
            "cmdline": self.built.command_line,
            "user_data": self.built.user_data,
        }
        return {
            "uri": libvirtd.uri(self._site),
            "state": str(self.folder / "state"),
            "accelerator": "tcg",
            "subnet": "10.77.0.0/24",
            "gateway": GATEWAY,
            "flavours": [self.flavour.model_dump()],
            "images": {self.image: image},
            "shutdown_seconds": 10,
        } | self.extra

    def middleware(self) -> LibvirtMiddleware:
        """As a member that starts makes it."""
        return LibvirtMiddleware(LibvirtConfig.model_validate(self.options))

    async def kill(self, key: str) -> None:
        """As an operator at the host would; returns when its QEMU has ended and libvirtd has seen that."""
        (pid,) = [pid for pid, text in _qemus(str(self.folder)) if key in text]
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            await asyncio.to_thread(select.select, [descriptor], [], [])
        finally:
            os.close(descriptor)
        await asyncio.to_thread(self._wait_until_seen, key)

    def _wait_until_seen(self, key: str) -> None:
        """libvirtd keeps a file for each domain that runs."""
        deadline = time.monotonic() + START_LIMIT
        while (self._site / f"run/qemu/{domain_name(key)}.xml").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    # libvirtd

    @property
    def _site(self) -> Path:
        return self.folder / "libvirt"

    def begin(self) -> None:
        """Start libvirtd, and wait until it listens."""
        libvirtd.write(self._site)
        with (self.folder / "libvirtd.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                libvirtd.command(self._site), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_LIMIT
        while not self._listens():
            assert self._daemon.poll() is None, (self.folder / "libvirtd.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to libvirtd; with SIGKILL it has ended when this returns."""
        assert self._daemon is not None
        self._daemon.send_signal(number)
        if number is signal.SIGKILL:
            self._daemon.wait()

    def clear(self) -> None:
        """End everything, whatever a failed test left."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.send_signal(signal.SIGCONT)
            self._daemon.terminate()
            self._daemon.wait(20)
        for pid, _ in _qemus(str(self.folder)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self._site / "libvirt-sock"))
            except OSError:
                return False
        return True

    async def leftovers(self) -> list[str]:
        """Domains, interfaces, fences, files and processes."""
        return await asyncio.to_thread(self._leftovers)

    def _leftovers(self) -> list[str]:
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        found = [line for line in links.splitlines() if ": fv" in line]
        rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
        found += [line for line in rules.splitlines() if '"fvm' in line and "*" not in line]
        state = self.folder / "state"
        found += [str(path) for name in ("instances", "disks") for path in (state / name).glob("*")]
        found += [str(path) for path in (self._site / "etc/qemu").glob("*.xml")]
        return found + [text for _, text in _qemus(str(self.folder)) if any(key in text for key in USED_KEYS)]


def _qemus(folder: str) -> list[tuple[int, str]]:
    """Pids and arguments of the QEMUs that work in `folder`: guests, and those that libvirtd asked what QEMU can do when it was killed."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "qemu-system" in text and folder in text + (process / "mountinfo").read_text():
                found.append((int(process.name), text))
        except OSError:
            continue
    return found
