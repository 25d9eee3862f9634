"""Who somebody is, for whom a member acts, and what a refusal tells."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation_member.access.model import Action
from federation_member.access.policy_file import read
from federation_member.access.verdict import SETS, SETS_SIZE, Applicant, Verdict, judge, lends
from federation_member.access.world import Known, Policy, World
from fedkit.identity.names import Name
from fedkit.mesh.api import Peer
from fedkit.policy.errors import TwoKeys
from fedkit.policy.model import Credential
from tests.support.policies import NOTHING, rule
from tests.unit.access.book import ALICE, BOB, HOME, SMALL, START, A, B, alice, said, usual

ALL = rule("all", f"{A.fedid}/*/*")


def verdict(applicant: Applicant, policy: str = ALL, action: Action = SMALL, held: int = 0) -> Verdict:
    world = World(B, "fm.b.test")
    world.set_policy(Policy.parse(policy, "test"), START)
    world.set_members([Known(A.fedid, "fm.a.test")], START)
    with world.still() as state:
        return judge(state.policy.rules, world.prover, B.fedid, applicant, action, START, lambda _rule: held)


def test_what_is_proved_is_told_and_rests_on_each_credential_once() -> None:
    found = verdict(alice())
    assert found.rule is not None
    assert found.rule.name == "all"
    assert len(found.proofs) == 5
    assert {str(one.statement) for one in usual()} < {str(one.statement) for one in found.credentials}
    assert len({one.id for one in found.credentials}) == len(found.credentials) == 5
    assert found.as_json() == {"allowed": True, **found.proof()}
    assert found.proof()["rule"] == "all"


@pytest.mark.parametrize("left_out", range(4))
def test_each_of_the_usual_credentials_is_needed(left_out: int) -> None:
    sent = [one for index, one in enumerate(usual()) if index != left_out]
    found = verdict(alice(*sent))
    assert found.rule is None
    assert found.missing == ((str(usual()[left_out].statement),),)
    assert found.reason.startswith(f"Nothing shows that fm.a.test asks for {A.fedid}/proj1/alice.")
    assert found.reason.endswith(f"It would do to show: {usual()[left_out].statement}.")


def test_a_name_is_asserted_by_who_asks() -> None:
    other = replace(alice(), member=Peer(BOB.fedid, "fm.c.test"))
    found = verdict(other)
    assert found.rule is None
    assert found.reason == f"fm.c.test cannot speak for {A.fedid}/proj1/alice: only {A.fedid} vouches for that name."
    assert found.missing == ()
    assert found.as_json() == {"allowed": False, "reason": found.reason, "missing": []}


@pytest.mark.parametrize("name", [Name(A.fedid), Name(A.fedid, "proj1")])
def test_a_name_without_a_user_names_nobody(name: Name) -> None:
    assert "names no user" in verdict(replace(alice(), name=name)).reason


def test_a_user_who_is_named_by_fedid_is_that_principal() -> None:
    for user, wanted in ((ALICE, True), (BOB, False)):
        roles = ("user", "project_proj1", f"user_{user.fedid}")
        sent = [said(A, f"A.{role} <- ALICE") for role in roles] + [said(ALICE, "ALICE.acting_for <- A")]
        found = verdict(replace(alice(*sent), name=Name(A.fedid, "proj1", user.fedid)))
        assert (found.rule is not None) == wanted
        if not wanted:
            assert found.reason.endswith(f"names the user {BOB.fedid}, and the request is for {ALICE.fedid}.")


def test_who_asks_for_themselves_needs_nobody_to_act() -> None:
    person = Applicant(Peer(ALICE.fedid, "fm.alice.test"), Name("", "", ALICE.fedid), ALICE.fedid, ())
    assert verdict(person, rule("alice", f"//{ALICE.fedid}")).rule is not None


def test_somebody_elses_credentials_do_not_help() -> None:
    both = (*usual(), *usual("proj2", "bob", BOB))
    found = verdict(alice(*both), rule("bob", f"{A.fedid}/proj2/bob"))
    assert found.rule is None
    assert all(ALICE.fedid in text for text in found.missing[0])


def test_what_is_missing_for_the_name_is_missing_besides() -> None:
    found = verdict(alice(*usual()[1:]), rule("partners", f"{A.fedid}.partner"))
    assert found.missing == ((f"{A.fedid}.partner <- {ALICE.fedid}", f"{A.fedid}.user <- {ALICE.fedid}"),)


def test_own_users_need_no_rule_unless_one_is_for_them() -> None:
    mine = own_alice()
    assert own_rule(verdict(mine, NOTHING)) == "own users"
    assert own_rule(verdict(mine, ALL)) == "own users"
    assert own_rule(verdict(mine, rule("large", "self/*/*", flavours=["large"]))) == "own users"
    limited = rule("one", "self/*/*", count=1)
    assert own_rule(verdict(mine, limited)) == "one"
    assert verdict(mine, limited, held=1).reason == "Rule one lends 1 at the same time, and 1 exist."
    never = rule("night", "self/*/*", hours="sat 00:00-01:00")
    assert verdict(mine, never).rule is None
    assert "Nothing shows" in verdict(replace(mine, credentials=mine.credentials[1:]), NOTHING).reason
    assert "Nothing shows" in verdict(replace(mine, credentials=mine.credentials[:-1]), NOTHING).reason


def own_alice() -> Applicant:
    sent = [said(B, f"B.{role} <- ALICE") for role in ("user", "project_proj1", "user_alice")]
    acting = said(ALICE, "ALICE.acting_for <- B")
    return Applicant(Peer(B.fedid, "fm.b.test"), Name(B.fedid, "proj1", "alice"), ALICE.fedid, (*sent, acting))


def own_rule(found: Verdict) -> str | None:
    return None if found.rule is None else found.rule.name


def test_the_sets_told_are_few_and_bounded() -> None:
    policy = "".join(rule(f"r{number}", f"{A.fedid}.role{number}") for number in range(9))
    found = verdict(alice(), policy)
    assert len(found.missing) == SETS
    assert all(len(texts) == 1 for texts in found.missing)
    long = "".join(rule(f"r{number}", f"{A.fedid}.{'x' * 1800}{number}") for number in range(9))
    told = verdict(alice(), long).missing
    assert sum(len(text) for texts in told for text in texts) <= SETS_SIZE


def test_a_rule_lends_at_some_time_whatever_it_lends_now() -> None:
    rules = read((rule("r", "*/*/*", hours="mon 00:00-01:00", count=1, may=["compute"])).encode(), "test").rules
    assert lends(rules[0], SMALL)
    assert not lends(rules[0], Action("network"))


def test_two_keys_of_one_fedid_are_not_a_refusal_but_an_alarm() -> None:
    from fedkit.identity.keys import PublicKey

    class Forged(PublicKey):
        @property
        def fedid(self) -> str:
            return A.fedid

    good = usual()[0]
    bad = Credential(good.statement, Forged(BOB.public.spki), good.expires, None, "compact", b"")
    with pytest.raises(TwoKeys):
        verdict(alice(*usual(), bad))


def test_the_applicant_is_told_without_secrets() -> None:
    assert set(alice().as_json()) == {"member", "address", "name", "principal"}
    assert alice().member == HOME
