"""What is ours in a cloud, and what is somebody else's."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.middleware.contract import UnusableSpec
from federation_member.middleware.openstack.marks import Marks

KEY = str(uuid.UUID(int=7))


@given(st.uuids(), st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,38}[a-z0-9])?", fullmatch=True))
def test_every_mark_leads_back_to_its_key_at_its_site_alone(key: uuid.UUID, site: str) -> None:
    marks, other = Marks(site), Marks("other.test")
    text = str(key)
    tags = [marks.site_tag, marks.key_tag(text), "somebody's"]
    assert all(len(tag) <= 60 and "," not in tag and "/" not in tag for tag in tags)  # what Nova takes
    assert marks.key_of_tags(tags) == marks.key_of_metadata(marks.metadata(text)) == text
    assert marks.key_of_description(marks.description(text)) == text
    if site != other.site:
        assert other.key_of_tags(tags) is None
        assert other.key_of_metadata(marks.metadata(text)) is None
        assert other.key_of_description(marks.description(text)) is None


@pytest.mark.parametrize("key", ["", "7", KEY.upper().replace("0", "A"), KEY + "&all_tenants=1", KEY + "\n"], ids=repr)
def test_a_key_is_a_uuid(key: str) -> None:
    with pytest.raises(UnusableSpec):
        Marks("a").description(key)


@pytest.mark.parametrize(
    "text", [None, "", "fedmesh", "fedmesh a", "fedmesh a x", f"fedmesh a {KEY} ", f"fedmesh  {KEY}"], ids=repr
)
def test_what_only_looks_like_a_mark_is_not_ours(text: str | None) -> None:
    assert Marks("a").key_of_description(text) is None
