"""How many desktops a piece takes, and how many of one user are planned at once. In virtual time."""

from __future__ import annotations

import pytest

from federation_member.experiments import attaching
from federation_member.experiments.desktops import AT_ONCE
from federation_member.experiments.errors import NotAttachable, TooLarge, TooManyAttachments
from federation_member.experiments.extending import LargerDescription
from tests.component.experiments.test_attaching import asking, attached
from tests.component.experiments.test_extension import TWO, active, lan
from tests.support.experiments import sites
from tests.support.federation import USER, Federation, in_virtual_time


@in_virtual_time
async def test_a_piece_has_no_more_portals_than_can_be_asked_for(
    world: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sites(world, "h", "a") as (h, _a):
        await active(h, **TWO)
        monkeypatch.setattr(attaching, "CONNECTORS_LIMIT", 2)
        for _piece in TWO:  # each has one portal to the other
            await attached(h)
        with pytest.raises(NotAttachable, match="has 2 portals, and can have no more"):
            await h.experiments.desktops.attach(USER, "exp", asking())
        monkeypatch.setattr(attaching, "CONNECTORS_LIMIT", 1)
        more = lan(**TWO, n2="h.test")
        with pytest.raises(TooLarge, match="those of desktops included"):
            await h.experiments.extend(USER, "exp", LargerDescription(description=more))


@in_virtual_time
async def test_few_of_one_user_are_planned_at_once(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, _a):
        await active(h, **TWO)
        one = await attached(h)
        h.experiments.desktops._planned[USER.name] = AT_ONCE
        with pytest.raises(TooManyAttachments, match="are being planned"):
            await h.experiments.desktops.attach(USER, "exp", asking())
        again = asking(id=one.attachment.id)  # which plans nothing
        assert (await h.experiments.desktops.attach(USER, "exp", again)).attachment == one.attachment
