"""The `containers` kind keeps the contract."""

from __future__ import annotations

import pytest

from federation_member.middleware.contract import UnusableSpec
from tests.component.middleware.contract import MiddlewareContract, Site, compute, new_key, running
from tests.component.middleware.machines import MachineContract


class TestContainers(MiddlewareContract, MachineContract):
    """With real namespaces, bridges and runc."""

    async def test_user_data_that_it_does_not_understand_is_refused_and_leaves_nothing(self, site: Site) -> None:
        async with running(site) as middleware:
            with pytest.raises(UnusableSpec, match="apt_update"):
                await middleware.create(new_key(), compute(site, user_data="#cloud-config\napt_update: true\n"))
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []
