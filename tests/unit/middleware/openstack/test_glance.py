"""Which images are ours, and which can be ordered by name."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from federation_member.middleware.openstack.glance import GlanceImage
from federation_member.middleware.openstack.marks import Marks

KEY = str(uuid.UUID(int=3))
MARKS = Marks("site-b")
OURS = {"fedmesh_site": "site-b", "fedmesh_key": KEY, "fedmesh_server": "s1", "instance_uuid": "s1"}


def image(**given: Any) -> GlanceImage:
    """As Glance tells one."""
    return GlanceImage.model_validate({"id": "1", "name": "disk", "status": "active"} | given)


def test_a_snapshot_of_ours_is_known_by_its_marks() -> None:
    assert image(**OURS).snapshot_of(MARKS) == KEY


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"fedmesh_site": "site-c"}, id="of another member"),
        pytest.param({"fedmesh_key": "../../etc"}, id="no key"),
        pytest.param({"instance_uuid": "s2"}, id="of a machine that was made from ours"),
        pytest.param({"instance_uuid": None, "fedmesh_server": None}, id="not made by Nova"),
        pytest.param({"status": "pending_delete"}, id="gone"),
    ],
)
def test_others_are_not(change: dict[str, Any]) -> None:
    assert image(**(OURS | change)).snapshot_of(MARKS) is None


def test_only_what_is_nobodys_can_be_ordered_by_name() -> None:
    assert image(tags=["lts"]).is_on_offer
    assert not image(**OURS).is_on_offer
    assert not image(tags=["fedmesh-site=site-b", "fedmesh-sha256=0"]).is_on_offer


@pytest.mark.parametrize(("octets", "gib"), [(None, None), (0, 0), (1, 1), (1 << 30, 1), ((1 << 30) + 1, 2)])
def test_sizes_are_rounded_up(octets: int | None, gib: int | None) -> None:
    assert image(size=octets).size_gb == gib
