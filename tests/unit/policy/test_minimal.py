"""Proofs lose the credentials that they can spare, and what cannot be spared is told without a search."""

from __future__ import annotations

import pytest

from fedkit.policy.known import Budget
from fedkit.policy.minimal import minimal, perhaps_spare
from fedkit.policy.proof import Proof
from tests.unit.policy.said import NOW, credential, credentials, letters, prove, role, subject, used

# U is a guest by a fact, and also by what shows two other things: that B is a guest (so a member), and that U is a user of B's.
TWICE = credentials("""
    A.rule <- A.member.user & A.guest
    A.member <- A.guest
    A.guest <- C.all
    A.guest <- U
    B.user <- C.all
    C.all <- B
    C.all <- U
""")


def _wasteful() -> Proof:
    """Everything in `TWICE`, used as a search by hand might."""
    proof = prove([said for said in TWICE if said is not TWICE[3]], "A.rule", "U")
    assert isinstance(proof, Proof)
    *steps, last = proof.steps
    by_rule = next(i for i, step in enumerate(steps) if (step.role, step.subject) == (role("A.guest"), subject("U")))
    fact = type(last)(role("A.guest"), subject("U"), TWICE[3], ())
    kept = [fact if i == by_rule else step for i, step in enumerate(steps)]
    return Proof(proof.role, proof.subject, (*kept, last))


def test_a_credential_whose_work_others_do_is_left_out() -> None:
    wasteful = _wasteful()
    wasteful.check(NOW)
    assert set(wasteful.credentials) == set(TWICE)
    thrifty = minimal(wasteful, NOW, Budget(1000))
    thrifty.check(NOW)
    assert (thrifty.role, thrifty.subject) == (wasteful.role, wasteful.subject)
    assert set(thrifty.credentials) == set(TWICE) - {TWICE[3]}


def test_the_prover_never_returns_the_wasteful_one() -> None:
    assert len(used(prove(TWICE, "A.rule", "U"))) == len(TWICE) - 1


def test_without_budget_the_proof_stays_as_it_was() -> None:
    wasteful = _wasteful()
    assert minimal(wasteful, NOW, Budget(3)) is wasteful


def test_a_proof_that_needs_all_it_has_is_not_searched_again() -> None:
    for text, whom in (
        ("A.r <- B.r\nB.r <- U", "U"),
        ("A.r <- B.r & B.s\nB.r <- U\nB.s <- U", "U"),
        ("A.r <- A.m.s\nA.m <- B\nB.s <- U", "U"),
        ("A.r <- A.m.s & A.m.t\nA.m <- B\nA.m <- C\nB.s <- U\nC.t <- U", "U"),  # facts about others are no rivals
        ("A.r <- A.m.s\nA.m <- B", "B.s"),
    ):
        proof = prove(credentials(text), "A.r", whom)
        assert isinstance(proof, Proof)
        assert perhaps_spare(proof) == []
        assert minimal(proof, NOW, Budget(0)) is proof


def _perhaps(text: str, whom: str) -> set[str]:
    proof = prove(credentials(text), "A.r", whom)
    assert isinstance(proof, Proof)
    return {letters(said.statement) for said in perhaps_spare(proof)}


@pytest.mark.parametrize(
    ("text", "whom", "perhaps"),
    [
        # B.s could be U's by either of its rules: what is below them is not told needed
        (
            "A.r <- A.m.t & B.s\nA.m <- B.s\nB.s <- C.s\nB.s <- D.s\nC.s <- U\nD.s <- C\nC.t <- U",
            "U",
            {"B.s <- C.s", "B.s <- D.s", "C.s <- U", "D.s <- C"},
        ),
        # U could have B.s by the fact or by the rule; C by the rule alone
        (
            "A.r <- A.m.t & B.s\nA.m <- B.s\nB.s <- U\nB.s <- D.s\nD.s <- C\nC.t <- U",
            "U",
            {"B.s <- U"},
        ),
        # two principals say something about their t: linking could go over either
        (
            "A.r <- A.m.t & A.n.t\nA.m <- B\nA.n <- C\nB.t <- U\nC.t <- U",
            "U",
            {"A.m <- B", "A.n <- C", "B.t <- U", "C.t <- U"},
        ),
        # so they could when the subject is itself such a role
        ("A.r <- A.m.t & A.n.t\nA.m <- B\nA.n <- C\nC.t <- B.t", "B.t", {"A.m <- B", "A.n <- C", "C.t <- B.t"}),
    ],
)
def test_where_others_could_do_the_work_it_is_to_be_tried(text: str, whom: str, perhaps: set[str]) -> None:
    assert _perhaps(text, whom) == perhaps


def test_all_of_these_are_needed_nevertheless() -> None:
    known = credentials("A.r <- A.m.t & A.n.t\nA.m <- B\nA.n <- C\nB.t <- U\nC.t <- U")
    proof = prove(known, "A.r", "U")
    assert isinstance(proof, Proof)
    assert set(proof.credentials) == set(known)
    assert credential("A.m <- B") in proof.credentials
