"""The `openstack` kind keeps the contract."""

from __future__ import annotations

import math

import pytest

from tests.component.middleware.contract import MADE, MiddlewareContract, Site, crash, keeps_accounts, running

STRIDE = 1.7  # from one step to the next that is tried: a step more is a process more, and seconds


class TestOpenStack(MiddlewareContract):
    """With a real OpenStack."""

    repeats_steps = False

    @pytest.mark.timeout(1200)
    @pytest.mark.parametrize("operation", ["ensure_account", "remove_account"])
    async def test_killed_at_any_step_of_an_account(self, site: Site, operation: str) -> None:
        """As for other kinds, but not at every single one: each call of the cloud is hundreds of them, each wait more."""
        step, crashed = 1, True
        while crashed:
            async with running(site) as middleware:
                keeper = keeps_accounts(middleware)
                if operation == "remove_account":
                    await keeper.ensure_account(MADE)
                crashed = await crash(site, operation, MADE.name, str(step))
                assert await keeper.list_accounts() in ([], [MADE])
                await keeper.ensure_account(MADE)
                assert await keeper.list_accounts() == [MADE]
                await keeper.remove_account(MADE.name)
            assert await site.leftovers() == []
            step = math.ceil(step * STRIDE)
