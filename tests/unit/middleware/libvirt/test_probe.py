"""Whether virtualisation works is found out by booting, not by looking: QEMU is played by scripts here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from federation_member.middleware.libvirt import probe

PANIC = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """Something that can be opened."""
    path = tmp_path / "kvm"
    path.touch()
    return path


@pytest.fixture
def kernels(tmp_path: Path) -> list[Path]:
    """A kernel that no QEMU will read."""
    path = tmp_path / "kernel"
    path.write_text("a kernel")
    return [path]


def qemu(folder: Path, script: str) -> Path:
    """A program that does what a QEMU might do, and counts its starts."""
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\necho start >>{folder}/starts\n{script}\n")
    path.chmod(0o755)
    return path


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines()) if (folder / "starts").exists() else 0


async def test_a_kernel_that_gets_through_its_start_is_the_proof(
    tmp_path: Path, device: Path, kernels: list[Path]
) -> None:
    emulator = qemu(tmp_path, f"echo 'Linux version 6'; echo '{PANIC}'; exec sleep 60")
    found = await probe.find(emulator, kernels, tmp_path / "cache", device)
    assert found.accelerator == "kvm"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'KVM internal error. Suberror: 1'; exit 1", "KVM internal error"),
        ("echo 'Linux version 6'; exec sleep 60", "did not start"),  # it crawls
        ("exec yes", "ends early"),  # it babbles
        ("exit 0", "ends early"),
    ],
    ids=["stops", "crawls", "babbles", "silent"],
)
async def test_anything_else_means_emulation(
    tmp_path: Path, device: Path, kernels: list[Path], script: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SECONDS", 2.0)
    found = await probe.find(qemu(tmp_path, script), kernels, tmp_path / "cache", device)
    assert found.accelerator == "tcg"
    assert reason in found.reason


async def test_without_a_device_nothing_is_started(tmp_path: Path, kernels: list[Path]) -> None:
    found = await probe.find(qemu(tmp_path, "exit 0"), kernels, tmp_path / "cache", tmp_path / "no-device")
    assert found.accelerator == "tcg"
    assert starts(tmp_path) == 0


async def test_the_finding_is_kept_until_something_changes(tmp_path: Path, device: Path, kernels: list[Path]) -> None:
    emulator, cache = qemu(tmp_path, f"echo '{PANIC}'"), tmp_path / "cache"
    assert await probe.find(emulator, kernels, cache, device) == await probe.find(emulator, kernels, cache, device)
    assert starts(tmp_path) == 1
    os.utime(kernels[0], (1, 1))
    await probe.find(emulator, kernels, cache, device)
    assert starts(tmp_path) == 2
    cache.write_text("{")
    await probe.find(emulator, kernels, cache, device)
    assert starts(tmp_path) == 3
