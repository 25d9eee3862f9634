"""What a cloud says of something that is to be deleted, and is going already."""

from __future__ import annotations

from typing import Any

import pytest

from federation_member.middleware.contract import NotAuthorised
from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.errors import NotThere


class Going(Cloud):
    """Refuses to delete; `there` says what is to be seen afterwards."""

    def __init__(self, *, there: bool) -> None:
        self.there = there

    async def _call(self, service: Any, method: str, path: str, model: Any, **how: Any) -> Any:
        if method == "DELETE":
            raise NotAuthorised("rule:delete_port is disallowed by policy")
        if not self.there:
            raise NotThere(path)
        return model()


async def test_what_is_gone_after_a_refusal_is_gone() -> None:
    assert not await Going(there=False).delete("network", "/ports/x")


async def test_what_is_there_after_a_refusal_was_refused() -> None:
    with pytest.raises(NotAuthorised):
        await Going(there=True).delete("network", "/ports/x")
