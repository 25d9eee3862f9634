"""A change that a lender had to undo is asked for again, so that nothing goes on as nobody wants it. In virtual time."""

from __future__ import annotations

import asyncio

import pytest

from federation_member.experiments.failing import CHANGE_LIMIT
from federation_member.experiments.joining import info_of
from federation_member.experiments.model import State
from federation_member.middleware.contract import MiddlewareError, Owned, SegmentRequest
from tests.component.experiments.test_attaching import attached, gone
from tests.component.experiments.test_extension import TWO, active
from tests.support.experiments import nothing_left, sites, until
from tests.support.fake_middleware import FakeMiddleware
from tests.support.federation import USER, Federation, in_virtual_time


@in_virtual_time
async def test_a_desktop_goes_though_its_lender_fails_at_first(
    world: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = FakeMiddleware.start_segment, 1

    async def start(self: FakeMiddleware, key: str, request: SegmentRequest) -> Owned:
        nonlocal left
        if left:
            left -= 1
            raise MiddlewareError("The segment's program does not answer.")
        return await real(self, key, request)

    async with sites(world, "h", "a", hosts=True) as (h, a):
        await active(h, **TWO)
        one = await attached(h)
        monkeypatch.setattr(FakeMiddleware, "start_segment", start)
        await h.experiments.desktops.detach(USER, "exp", one.attachment.id)
        await gone(h, one)
        await asyncio.sleep(2 * CHANGE_LIMIT.total_seconds())
        whole = await until(h, "exp", State.ACTIVE)
        told = [portal.connector for segment in whole.segments for portal in info_of(segment.order).portals]
        assert (left, sorted(told)) == (0, ["a-testtunnel0", "h-testtunnel0"])
        await h.experiments.terminate(USER, "exp")
        await until(h, "exp", State.TERMINATED)
        await nothing_left(h, a)
