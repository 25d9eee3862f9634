"""Whether the processor's virtualisation really works, found out by booting a kernel with it.

A `/dev/kvm` proves nothing: inside a virtual machine it may be there and lead to guests that crawl or stop at their first
unusual instruction. So a kernel is started with nothing to mount as its root. One that works panics about that within a
second or two, and that is the sign of life: it got through its whole start. It restarts after its panic, which ends QEMU.

The finding holds for this kernel of the host, this QEMU and this kernel of the guest, and is kept in a file until one changes.
"""

from __future__ import annotations

import asyncio
import os
import platform
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ValidationError

log = structlog.get_logger()
DEVICE = Path("/dev/kvm")
SIGN_OF_LIFE = b"Kernel panic - not syncing: VFS: Unable to mount root fs"
COMMAND_LINE = "console=ttyS0 panic=-1 root=/dev/none"
SECONDS = 20.0  # for a start that takes two
OUTPUT = 1 << 20  # octets of the kernel's words at most
HOST_KERNELS = "vmlinuz*"
Accelerator = Literal["kvm", "tcg"]


class Finding(BaseModel):
    """What was found out, and of what."""

    about: list[str]
    accelerator: Accelerator
    reason: str


async def find(emulator: Path, kernels: list[Path], cache: Path, device: Path = DEVICE) -> Finding:
    """Which accelerator works here; `kernels` are those to try with, the first that is there is taken."""
    kernel = _first(kernels)
    about = [platform.release(), _identity(emulator), _identity(device), _identity(kernel) if kernel else ""]
    known = _known(cache)
    if known is not None and known.about == about:
        return known
    reason = await _obstacle(emulator, kernel, device)
    finding = Finding(about=about, accelerator="tcg" if reason else "kvm", reason=reason or "a kernel boots with it")
    log.info("accelerator_found", accelerator=finding.accelerator, reason=finding.reason)
    _keep(cache, finding)
    return finding


def _first(kernels: list[Path]) -> Path | None:
    """The first that is there; else one of the host's own."""
    return next((path for path in [*kernels, *sorted(Path("/boot").glob(HOST_KERNELS))] if path.is_file()), None)


def _known(cache: Path) -> Finding | None:
    try:
        return Finding.model_validate_json(cache.read_bytes())
    except (OSError, ValidationError):
        return None  # never found out, or by an older version


def _keep(cache: Path, finding: Finding) -> None:
    cache.write_text(finding.model_dump_json())


async def _obstacle(emulator: Path, kernel: Path | None, device: Path) -> str:
    """Why KVM is of no use; empty if it works."""
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} cannot be opened"
    if kernel is None:
        return f"no kernel is here to try {device} with"
    command = [str(emulator), "-accel", "kvm", "-cpu", "host", "-machine", "pc", "-m", "256", "-no-reboot"]
    command += ["-nodefaults", "-display", "none", "-serial", "stdio", "-sandbox", "on"]
    command += ["-kernel", str(kernel), "-append", COMMAND_LINE]
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=null, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    said = b""
    try:
        async with asyncio.timeout(SECONDS):
            assert process.stdout is not None
            while SIGN_OF_LIFE not in said and len(said) < OUTPUT and (more := await process.stdout.read(4096)):
                said += more
    except TimeoutError:
        return f"a kernel did not start with {device} within {SECONDS:.0f} s"
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()  # wait() alone would wait for ever for a pipe that is full
    if SIGN_OF_LIFE in said:
        return ""
    last = said.decode(errors="replace").strip().splitlines()[-1:]
    return f"a kernel ends early with {device}: {''.join(last)[:200]!r}"


def _identity(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return f"{path} missing"
    return f"{path} {found.st_size} {found.st_mtime_ns} {found.st_rdev}"
