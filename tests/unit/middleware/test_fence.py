"""The fence knows what stands in its table, whenever it is interrupted."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

import pytest

from federation_member.middleware.containers import fence as fence_module
from federation_member.middleware.containers.fence import Fence

GUEST = ("fvm1", "02:fe:0a:4d:00:02", IPv4Address("10.77.0.2"))


async def test_who_was_admitted_by_a_call_that_was_cancelled_is_forgotten_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = ""
    written = asyncio.Event()
    hangs = True

    async def nft(text: str) -> None:
        nonlocal table
        table = text
        written.set()
        if hangs:
            await asyncio.Event().wait()

    monkeypatch.setattr(fence_module, "_nft", nft)
    fence = Fence("fence", "fvm")
    admitting = asyncio.ensure_future(fence.admit(*GUEST))
    await written.wait()
    admitting.cancel()
    await asyncio.wait([admitting])
    assert "fvm1" in table
    hangs = False
    await fence.forget("fvm1")
    assert "fvm1" not in table


async def test_nothing_stays_when_the_last_one_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    async def nft(text: str) -> None:
        written.append(text)

    monkeypatch.setattr(fence_module, "_nft", nft)
    fence = Fence("fence", "fvm")
    await fence.admit(*GUEST)
    await fence.forget("fvm1")
    gone = "add table bridge fence\ndelete table bridge fence\n"
    assert written[0].startswith(f"{gone}table bridge fence {{")
    assert written[1] == gone
