"""A wrong configuration is refused before anything starts, and says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from federation_member.plugins import load_middleware
from fedkit.config import UnusableConfig

PASSWORD = {"user": "u", "password_file": "/p", "project": "p"}
APPLICATION = {"application_credential": "id", "secret_file": "/s"}
GOOD = {
    "site": "site-b",
    "auth_url": "https://keystone.test:5000/v3",
    "network": "intranet",
    "accounts": {"federation": PASSWORD, "alice": APPLICATION},
    "admin": PASSWORD,
}


def test_a_good_one() -> None:
    assert {"compute", "network"} <= load_middleware("openstack", GOOD).kinds()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"auth_url": "keystone.test"}, "auth_url"),
        ({"site": "Site B"}, "site"),
        ({"accounts": {"a": {"user": "u"}}}, "give user, password_file and project"),
        ({"accounts": {"a": APPLICATION | PASSWORD}}, "neither user, password nor project"),
        ({"admin": APPLICATION}, "bound to one project"),
        ({"public_addresses": True}, "public_network"),
        ({"netwrok": "x"}, "netwrok"),
        ({"timeouts": {"answer": 0}}, "answer"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_one(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UnusableConfig, match=says):
        load_middleware("openstack", GOOD | wrong)
