"""Three-level names (DESIGN §3): the seed's validity rules, both spellings, names in roles."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.identity.keys import is_fedid
from fedkit.identity.names import PART_LIMIT, Name, UnusableName, of_role_part, role_part, roles_of

FEDID = "0123456789abcdef0123456789abcdef01234567"
fedids = st.text("0123456789abcdef", min_size=40, max_size=40)
locals_ = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,20}", fullmatch=True)
inner = locals_ | fedids
blank = st.just("")
names = (
    st.builds(Name, fedids, inner | blank, inner | blank)
    | st.builds(Name, blank, fedids, inner | blank)
    | st.builds(Name, blank, blank, fedids)
)


@given(names)
def test_what_is_written_is_read_back_in_both_spellings(name: Name) -> None:
    assert Name.parse(str(name)) == name
    assert Name.parse(name.as_triple()) == name


@given(names)
def test_the_outermost_part_vouches(name: Name) -> None:
    assert name.asserter == next(part for part in name.parts if part)
    assert is_fedid(name.asserter)
    assert name.asserted_by(name.asserter)
    assert not name.asserted_by(name.asserter[::-1] + "x")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (f'(fedid:{FEDID}, "proj1", "faber")', (FEDID, "proj1", "faber")),
        (f"(fedid:{FEDID}, proj1, faber)", (FEDID, "proj1", "faber")),
        (f" ( , ,fedid:{FEDID} ) ", ("", "", FEDID)),
        (f'( ,fedid:{FEDID},"faber")', ("", FEDID, "faber")),
        (f'(fedid:{FEDID},,"fa@ber.edu")', (FEDID, "", "fa@ber.edu")),
        (f'(fedid:{FEDID}, "", faber)', (FEDID, "", "faber")),
        (f"{FEDID}//faber", (FEDID, "", "faber")),
        (f"{FEDID}/{FEDID}/{FEDID}", (FEDID, FEDID, FEDID)),
    ],
)
def test_both_spellings(text: str, parts: tuple[str, str, str]) -> None:
    assert Name.parse(text).parts == parts


@pytest.mark.parametrize(
    "text",
    ["", "//", "a/b/c", f"{FEDID}", f"{FEDID}/a", f"{FEDID}/a/b/c", f"{FEDID}/a b/c", f"{FEDID}/../c", f"/{FEDID}/ü",
     f"{FEDID.upper()}/a/b", f"{FEDID}/{'x' * 129}/c", f"{FEDID}\n//", f"a/{FEDID}/b", f"{FEDID}/a/b\n",
     '( , ,"faber")', "( , , )", "(,,,)", "()", "(", f"(fedid:{FEDID}", f"(fedid:{FEDID},a)", f"(fedid:{FEDID},a,b,c)",
     f"(fedid:{FEDID},a,b) c", f"({FEDID},a,b)", f"(fedid:{FEDID[:39]},a,b)", "(fedid:DETER,a,b)", f'(fedid:{FEDID},"{FEDID}",b)',
     f'(fedid:{FEDID},"a,b")', f'(fedid:{FEDID},"a,b)', "(" * 1000, "(\u202efedid,a,b)"],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UnusableName) as told:
        Name.parse(text)
    assert len(told.value.message) < 500


@pytest.mark.parametrize("letter", [",", "/", "(", " ", "a"])
def test_ten_megabytes_are_no_name(letter: str) -> None:
    for text in (letter * 10_000_000, f"({letter * 10_000_000})"):
        with pytest.raises(UnusableName) as told:
            Name.parse(text)
        assert len(told.value.message) < 500


def test_the_error_says_which_part() -> None:
    with pytest.raises(UnusableName, match=r"The user part of a name .* 'a b' is not"):
        Name(FEDID, "proj1", "a b")
    with pytest.raises(UnusableName, match=r"outermost part of a name is a fedid.*'DETER' is not"):
        Name("DETER", "proj1", "faber")
    assert Name(FEDID, "x" * PART_LIMIT, "")


@given(st.text(), st.text())
def test_names_stay_apart_in_roles(one: str, other: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]*", role_part(one))
    assert (role_part(one) == role_part(other)) == (one == other)


@given(inner)
def test_a_role_gives_the_name_back(name: str) -> None:
    assert of_role_part(role_part(name)) == name


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("proj1", "proj1"),
        ("a.b", "a_x2e_b"),
        ("a_b", "a_b"),
        ("a_x", "a_x5f_x"),
        ("_x2e_", "_x5f_x2e_"),
        ("u@s+t", "u_x40_s_x2b_t"),
    ],
)
def test_how_a_name_is_written_in_a_role(name: str, role: str) -> None:
    assert role_part(name) == role
    assert of_role_part(role) == name


@pytest.mark.parametrize("text", ["a.b", "_x41_", "_x2E_", "a_x", "_xff_", "ü", "_x2e"])
def test_what_role_part_never_wrote_is_refused(text: str) -> None:
    with pytest.raises(UnusableName):
        of_role_part(text)


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        (f"{FEDID}/proj1/al.ice", ("user", "project_proj1", "user_al_x2e_ice")),
        (f"{FEDID}//alice", ("user", "no_project", "user_alice")),
        (f"/{FEDID}/alice", ("of_project", "of_project_alice")),
        (f"//{FEDID}", ()),
        (f"{FEDID}/proj1/", ()),
        (f"/{FEDID}/", ()),
    ],
)
def test_what_an_asserter_says_of_a_user(text: str, roles: tuple[str, ...]) -> None:
    assert roles_of(Name.parse(text)) == roles


@given(names, names)
def test_different_names_of_users_are_said_by_different_roles(one: Name, other: Name) -> None:
    said = [(name.asserter, roles_of(name)) for name in (one, other)]
    assert one == other or said[0] != said[1] or not (one.user and other.user)
