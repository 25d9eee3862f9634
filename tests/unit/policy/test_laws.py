"""Laws of the prover, on random sets of credentials with linking, intersections and cycles."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule

from fedkit.policy import revocation
from fedkit.policy.model import Credential, Entity, Linked, Part, Role, Statement, Subject
from fedkit.policy.proof import BadProof, Proof, Refusal
from fedkit.policy.prover import Prover
from tests.unit.policy.oracle import memberships, universe
from tests.unit.policy.said import FEDIDS, KEYS, NOW, credential

EVER = NOW - timedelta(days=9)  # before everything
PRINCIPALS = [FEDIDS[letter] for letter in "ABCU"]
NAMES = ["p", "q", "r"]

roles = st.builds(Role, st.sampled_from(PRINCIPALS), st.sampled_from(NAMES))
entities = st.builds(Entity, st.sampled_from(PRINCIPALS))
linked = st.builds(Linked, st.sampled_from(PRINCIPALS), st.sampled_from(NAMES), st.sampled_from(NAMES))
parts = st.one_of(entities, entities, roles, linked)
tails = st.one_of(st.tuples(parts), st.tuples(parts), st.lists(parts, min_size=2, max_size=3).map(tuple))
statements = st.builds(Statement, roles, tails)
terms = st.sampled_from(
    [(-1, 1), (-1, 1), (-1, 1), (-1, 2), (1, 2), (-2, -1)]
)  # days from now: valid, not yet, no longer


@st.composite
def _credentials(draw: st.DrawFn) -> Credential:
    since, until = draw(terms)
    return credential(draw(statements), NOW + timedelta(days=until), NOW + timedelta(days=since))


sets = st.one_of(st.lists(_credentials(), max_size=6), st.lists(_credentials(), min_size=8, max_size=20))
laws = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@laws
@given(sets)
def test_the_prover_agrees_with_a_naive_fix_point(known: list[Credential]) -> None:
    subjects = universe(credential.statement for credential in known)
    truth = memberships(known, NOW, also=subjects)
    prover = Prover(known)
    for role in {subject for subject in subjects if isinstance(subject, Role)}:
        for subject in subjects:
            answer = prover.prove(role, subject, NOW)
            assert answer.proved == ((role, subject) in truth)
            assert isinstance(answer, Proof) or not answer.exhausted
        has = prover.who_has(role, NOW)
        assert set(has.found) == {subject for held, subject in truth if held == role and isinstance(subject, Entity)}
        assert list(has.found) == sorted(has.found)
        assert not has.exhausted
    for subject in subjects:
        held = {role for role, whom in truth if whom == subject and role != subject}
        assert set(prover.what_has(subject, NOW).found) == held


@laws
@given(sets)
def test_a_proof_is_right_and_holds_nothing_that_can_be_spared(known: list[Credential]) -> None:
    for role, subject in memberships(known, NOW):
        proof = Prover(known).prove(role, subject, NOW)
        assert isinstance(proof, Proof)
        proof.check(NOW)
        assert set(proof.credentials) <= set(known)
        assert proof.expires is None or proof.expires > NOW
        for spared in proof.credentials:
            others = [credential for credential in proof.credentials if credential is not spared]
            assert not Prover(others).prove(role, subject, NOW).proved
            _assert_broken_without(proof, spared)


def _assert_broken_without(proof: Proof, spared: Credential) -> None:
    """No proof is left when the steps of one credential are taken out, however the others are numbered anew."""
    kept = [index for index, step in enumerate(proof.steps) if step.credential is not spared]
    numbers = {old: new for new, old in enumerate(kept)}
    steps = tuple(
        replace(step, because=tuple(numbers[i] for i in step.because if i in numbers))
        for step in (proof.steps[index] for index in kept)
    )
    with pytest.raises(BadProof):
        replace(proof, steps=steps).check(NOW)


@settings(laws, max_examples=60)
@given(sets, st.data())
def test_each_missing_set_completes_a_proof_and_no_part_of_it_does(
    known: list[Credential], data: st.DataObject
) -> None:
    role, subject = data.draw(roles), data.draw(entities)
    refusal = Prover(known).prove(role, subject, NOW)
    if isinstance(refusal, Proof):
        return
    assert 1 <= len(refusal.missing) <= 5
    assert len(set(refusal.missing)) == len(refusal.missing)
    assert [len(statements) for statements in refusal.missing] == sorted(map(len, refusal.missing))
    for statements in refusal.missing:
        added = [credential(statement) for statement in statements]
        assert Prover([*known, *added]).prove(role, subject, NOW).proved
        for size in range(len(added)):
            for part in combinations(added, size):
                assert not Prover([*known, *part]).prove(role, subject, NOW).proved


@settings(laws, max_examples=30)
@given(sets, st.data())
def test_no_smaller_set_of_leaves_completes_a_proof(known: list[Credential], data: st.DataObject) -> None:
    role, subject = data.draw(roles), data.draw(entities)
    prover = Prover(known)
    refusal = prover.prove(role, subject, NOW)
    live = [credential.statement for credential in known if credential.holds_at(NOW)]
    ruled = {statement.head for statement in live if not _is_fact(statement)}
    given_to = {credential.statement.head for credential in known if _is_fact(credential.statement)}
    leaves = [
        credential(Statement(leaf, (Entity(whom),)))
        for leaf in (Role(principal, name) for principal in PRINCIPALS for name in NAMES)
        if leaf in given_to or leaf not in ruled
        for whom in PRINCIPALS
    ]
    if isinstance(refusal, Refusal) and (len(refusal.missing[0]) > 1 or refusal.missing[0] == {_direct(role, subject)}):
        completing = [leaf for leaf in leaves if prover.prove(role, subject, NOW, [leaf]).proved]
        assert all(leaf.statement == _direct(role, subject) for leaf in completing)


def _is_fact(statement: Statement) -> bool:
    return len(statement.tail) == 1 and isinstance(statement.tail[0], Entity)


def _direct(role: Role, subject: Part) -> Statement:
    return Statement(role, (subject,))


@laws
@given(sets, sets, st.data())
def test_asking_with_more_is_as_having_more_and_leaves_no_trace(
    known: list[Credential], extra: list[Credential], data: st.DataObject
) -> None:
    role, subject = data.draw(roles), data.draw(st.one_of(entities, roles))
    prover = Prover(known)
    before = Prover(known).prove(role, subject, NOW)
    assert prover.prove(role, subject, NOW, extra) == Prover([*known, *extra]).prove(role, subject, NOW)
    assert prover.who_has(role, NOW, extra) == Prover([*known, *extra]).who_has(role, NOW)
    assert prover.what_has(subject, NOW, extra) == Prover([*known, *extra]).what_has(subject, NOW)
    assert prover.prove(role, subject, NOW).proved == before.proved
    assert len(prover) == len(Prover(known))


@laws
@given(sets, st.data())
def test_the_order_in_which_credentials_come_does_not_matter(known: list[Credential], data: st.DataObject) -> None:
    role, subject = data.draw(roles), data.draw(st.one_of(entities, roles))
    shuffled = data.draw(st.permutations(known))
    assert Prover(shuffled).prove(role, subject, NOW) == Prover(known).prove(role, subject, NOW)


@laws
@given(sets, st.integers(0, 60), st.data())
def test_with_any_budget_the_answer_is_right_or_says_that_it_is_none(
    known: list[Credential], budget: int, data: st.DataObject
) -> None:
    role, subject = data.draw(roles), data.draw(entities)
    answer = Prover(known, budget=budget).prove(role, subject, NOW)
    if isinstance(answer, Refusal) and answer.exhausted:
        assert answer.missing == ()
        return
    assert answer.proved == Prover(known).prove(role, subject, NOW).proved
    if isinstance(answer, Proof):
        answer.check(NOW)
    else:
        for statements in answer.missing:
            completed = Prover([*known, *map(credential, statements)])
            assert completed.prove(role, subject, NOW).proved


class WhatIsRememberedIsNeverStale(RuleBasedStateMachine):
    """Credentials come and go, time jumps, lists of revocations arrive: each answer is the oracle's on what counts at that moment."""

    pool = Bundle("pool")

    def __init__(self) -> None:
        super().__init__()
        self.prover = Prover()
        self.standing: dict[str, Credential] = {}
        self.revoked: set[str] = set()
        self.serial = 0

    @rule(target=pool, said=_credentials())
    def make(self, said: Credential) -> Credential:
        return said

    @rule(said=pool)
    def add(self, said: Credential) -> None:
        assert self.prover.add(said) == (said.id not in self.standing)
        self.standing[said.id] = said

    @rule(said=pool)
    def remove(self, said: Credential) -> None:
        assert self.prover.remove(said.id) == (self.standing.pop(said.id, None) is not None)

    @rule(said=st.lists(pool, max_size=3))
    def revoke(self, said: list[Credential]) -> None:
        """The newest list of an issuer replaces the one before."""
        self.serial += 1
        ids = {credential.id for credential in said}
        self.revoked = ids
        for key in (KEYS[letter] for letter in "ABCU"):
            self.prover.revoke(revocation.issue(key, self.serial, EVER, dict.fromkeys(ids, NOW)))

    @rule(role=roles, subject=st.one_of(entities, roles), days=st.integers(-3, 3), extra=st.lists(pool, max_size=3))
    def ask(self, role: Role, subject: Subject, days: int, extra: list[Credential]) -> None:
        at = NOW + timedelta(days=days)
        counting = [c for c in (*self.standing.values(), *extra) if c.id not in self.revoked]
        truth = memberships(counting, at, also=(role, subject))
        for _ in range(2):
            answer = self.prover.prove(role, subject, at, extra)
            assert answer.proved == ((role, subject) in truth)
            if isinstance(answer, Proof):
                answer.check(at)
                assert set(answer.credentials) <= set(counting)


TestMemory = WhatIsRememberedIsNeverStale.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
