"""Three-level names (DESIGN §3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.identity.names import Name, UnusableName

FEDID = "0123456789abcdef0123456789abcdef01234567"
locals_ = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,20}", fullmatch=True)


@given(locals_, locals_)
def test_what_is_written_is_read_back(project: str, user: str) -> None:
    for name in (Name(FEDID, project, user), Name(FEDID, "", user), Name("", FEDID, user), Name("", "", FEDID)):
        assert Name.parse(str(name)) == name
        assert name.asserter == FEDID
        assert name.asserted_by(FEDID)


@pytest.mark.parametrize(
    "text",
    ["", "//", "a/b/c", f"{FEDID}", f"{FEDID}/a", f"{FEDID}/a/b/c", f"{FEDID}/a b/c", f"{FEDID}/../c", f"/{FEDID}/ü",
     f"{FEDID.upper()}/a/b", f"{FEDID}/{'x' * 129}/c", f"{FEDID}\n//", f"a/{FEDID}/b"],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UnusableName):
        Name.parse(text)
