"""What principals of an audit entry are called."""

from __future__ import annotations

import pytest

from federation_member.access.naming import names_of
from federation_member.access.world import Known, members_text
from tests.unit.access.book import ALICE, A, B

ACME = "c" * 40
SAID = {
    "applicant": {
        "member": A.fedid,
        "address": "fm.a.test",
        "name": f"{A.fedid}/proj1/alice",
        "principal": ALICE.fedid,
    },
    "members": "members",
    "policy": "policy",
}
MEMBERS = members_text([Known(A.fedid, "fm.a.test"), Known(B.fedid, "fm.b.test")])
POLICY = f'[principals]\nsite-a = "{A.fedid}"\nacme = "{ACME}"\n'


def test_the_policys_names_go_before_addresses_and_these_before_what_others_say() -> None:
    found = names_of(SAID, {"members": MEMBERS, "policy": POLICY})
    assert found == {A.fedid: "site-a", B.fedid: "fm.b.test", ALICE.fedid: "alice", ACME: "acme"}


def test_nobody_is_called_what_a_user_calls_themselves_if_they_have_a_name_already() -> None:
    said = SAID | {"applicant": {**SAID["applicant"], "principal": B.fedid}}  # type: ignore[dict-item]
    assert names_of(said, {"members": MEMBERS, "policy": POLICY})[B.fedid] == "fm.b.test"


@pytest.mark.parametrize("members", ["", "{", "[[1]]", "7", '[["x"]]'])
@pytest.mark.parametrize("policy", ["[", "[principals]\nsite-a = 1", "\x00"])
def test_texts_that_somebody_changed_only_leave_fedids_without_names(members: str, policy: str) -> None:
    found = names_of(SAID, {"members": members, "policy": policy})
    assert found == {A.fedid: "fm.a.test", ALICE.fedid: "alice"}


def test_an_entry_that_says_nothing_of_itself_has_no_names() -> None:
    for applicant in (None, {}, 7, {"member": A.fedid, "address": "x", "name": "no name", "principal": ALICE.fedid}):
        assert names_of({"applicant": applicant}, {}) == {}
