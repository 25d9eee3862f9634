"""Proofs: what they say of themselves, and a checker that believes nothing but credentials."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fedkit.policy.model import Credential
from fedkit.policy.proof import BadProof, Proof, Refusal, Step
from tests.unit.policy.said import FEDIDS, KEYS, NOW, credential, credentials, letters, prove, role, statement, subject

LINKED = credentials("""
    A.rule <- A.member.user & B.project & U
    A.member <- B
    B.user <- U
    B.project <- U
""")


def _proof() -> Proof:
    proof = prove(LINKED, "A.rule", "U")
    assert isinstance(proof, Proof)
    return proof


def _step(role_text: str, subject_text: str, said: str, *because: int) -> Step:
    return Step(role(role_text), subject(subject_text), credential(said), because)


def _hand_made(*steps: Step) -> Proof:
    """A proof of what its last step says."""
    return Proof(steps[-1].role, steps[-1].subject, steps)


def test_a_proof_as_json() -> None:
    steps = _proof().as_json()
    assert [(letters(step["role"]), letters(step["subject"]), step["because"]) for step in steps] == [
        ("A.member", "B", []),
        ("B.user", "U", []),
        ("B.project", "U", []),
        ("A.rule", "U", [0, 1, 2]),
    ]
    assert steps[3]["statement"] == str(LINKED[0].statement)
    assert steps[3]["credential"] == LINKED[0].id
    assert steps[3]["expires"] == "2026-11-24T10:00:00+00:00"


def test_a_refusal_as_json_names_statements_in_order() -> None:
    missing = (frozenset({statement("B.r <- U"), statement("A.r <- U")}), frozenset({statement("C.r <- U")}))
    refusal = Refusal(role("A.rule"), subject("U"), missing)
    assert [list(map(letters, statements)) for statements in refusal.as_json()] == [
        sorted(["A.r <- U", "B.r <- U"], key=lambda text: FEDIDS[text[0]]),
        ["C.r <- U"],
    ]


def test_answers_say_whether_they_are_proofs() -> None:
    assert Proof.proved
    assert not Refusal.proved
    assert not Refusal(role("A.r"), subject("U")).exhausted


def test_credentials_are_named_once_each() -> None:
    known = credentials("""
        A.rule <- A.one.user & A.two.user
        A.one <- A.both
        A.two <- A.both
        A.both <- B
        B.user <- U
    """)
    proof = prove(known, "A.rule", "U")
    assert isinstance(proof, Proof)
    assert len(proof.credentials) == len(known)
    again = replace(proof, steps=(*proof.steps, proof.steps[-1]))
    assert again.credentials == proof.credentials


def test_what_the_prover_finds_is_right() -> None:
    _proof().check(NOW)


def test_a_credential_that_does_not_hold_proves_nothing() -> None:
    proof = _proof()
    proof.check(NOW + timedelta(hours=23))
    with pytest.raises(BadProof, match="Step 0 uses a credential that does not hold at 2026-11-24T10:00:00"):
        proof.check(NOW + timedelta(days=1))


@pytest.mark.parametrize("index", range(3))
def test_each_ground_is_needed(index: int) -> None:
    proof = _proof()
    last = proof.steps[-1]
    without = tuple(other for other in last.because if other != index)
    with pytest.raises(BadProof, match="Step 3: nothing shows that"):
        replace(proof, steps=(*proof.steps[:-1], replace(last, because=without))).check(NOW)


def test_a_step_rests_on_earlier_ones_only() -> None:
    ring = (_step("A.r", "U", "A.r <- B.r", 1), _step("B.r", "U", "B.r <- A.r", 0))
    with pytest.raises(BadProof, match="Step 0 rests on a step that is not before it"):
        _hand_made(*ring).check(NOW)
    with pytest.raises(BadProof, match="Step 0 rests on a step that is not before it"):
        _hand_made(_step("A.r", "U", "A.r <- A.r", 0)).check(NOW)
    with pytest.raises(BadProof, match="Step 0 rests on a step that is not before it"):
        _hand_made(_step("A.r", "U", "A.r <- A.r", -1)).check(NOW)


def test_a_step_is_about_its_credentials_head() -> None:
    with pytest.raises(BadProof, match="Step 0 is about"):
        _hand_made(_step("B.r", "U", "A.r <- U")).check(NOW)
    with pytest.raises(BadProof, match="Step 0 is about"):
        _hand_made(_step("A.s", "U", "A.r <- U")).check(NOW)


def test_a_credential_counts_only_from_its_heads_principal() -> None:
    forged = Credential(statement("A.r <- U"), KEYS["B"].public, NOW + timedelta(days=1), None, "said", b"")
    with pytest.raises(BadProof, match="Step 0 is about"):
        _hand_made(Step(role("A.r"), subject("U"), forged, ())).check(NOW)


def test_a_fact_about_another_proves_nothing() -> None:
    with pytest.raises(BadProof, match="nothing shows"):
        _hand_made(_step("A.r", "V", "A.r <- U")).check(NOW)


def test_grounds_about_another_subject_prove_nothing() -> None:
    with pytest.raises(BadProof, match="nothing shows"):
        _hand_made(_step("B.r", "V", "B.r <- V"), _step("A.r", "U", "A.r <- B.r", 0)).check(NOW)
    with pytest.raises(BadProof, match="nothing shows"):
        _hand_made(_step("B.s", "U", "B.s <- U"), _step("A.r", "U", "A.r <- B.r", 0)).check(NOW)


@pytest.mark.parametrize(
    ("member", "user"),
    [("A.member <- B", "C.user <- U"), ("A.guest <- B", "B.user <- U"), ("A.member <- B", "B.guest <- U")],
)
def test_linking_goes_over_one_principal(member: str, user: str) -> None:
    grounds = [_step(said.split(" ")[0], said.split(" ")[2], said) for said in (member, user)]
    with pytest.raises(BadProof, match=r"nothing shows that .* is .*\.member\.user"):
        _hand_made(*grounds, _step("A.rule", "U", "A.rule <- A.member.user", 0, 1)).check(NOW)


def test_linking_goes_over_principals_not_over_whole_roles() -> None:
    """`A.member` contains all of B.s, whose holders are unknown; that gives B itself nothing."""
    grounds = [_step("A.member", "B.s", "A.member <- B.s"), _step("B.user", "U", "B.user <- U")]
    with pytest.raises(BadProof, match="nothing shows"):
        _hand_made(*grounds, _step("A.rule", "U", "A.rule <- A.member.user", 0, 1)).check(NOW)


def test_linking_contains_the_role_that_it_ends_in() -> None:
    grounds = _step("A.member", "B", "A.member <- B")
    _hand_made(grounds, _step("A.rule", "B.user", "A.rule <- A.member.user", 0)).check(NOW)
    with pytest.raises(BadProof, match="nothing shows"):
        _hand_made(grounds, _step("A.rule", "B.guest", "A.rule <- A.member.user", 0)).check(NOW)
    with pytest.raises(BadProof, match="nothing shows"):
        _hand_made(_step("A.rule", "B.user", "A.rule <- A.member.user")).check(NOW)


def test_the_last_step_is_the_conclusion() -> None:
    proof = _proof()
    for other in (
        replace(proof, role=role("A.other")),
        replace(proof, subject=subject("V")),
        replace(proof, steps=proof.steps[:-1]),
        replace(proof, steps=()),
    ):
        with pytest.raises(BadProof, match="The last step does not show"):
            other.check(NOW)
    with pytest.raises(BadProof, match="The last step does not show"):
        Proof(role("A.r"), subject("A.s"), ()).check(NOW)


def test_a_bad_proof_is_a_definite_no() -> None:
    assert BadProof.code == "policy.bad_proof"
    assert (BadProof.http, BadProof.exit) == (403, 1)
