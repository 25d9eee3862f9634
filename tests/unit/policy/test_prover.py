"""The prover: what is proved, what is said to be missing, what is remembered."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fedkit.policy import revocation
from fedkit.policy.errors import TwoKeys
from fedkit.policy.index import Index
from fedkit.policy.known import Budget, Goal, Known, OutOfBudgetError
from fedkit.policy.missing import MIDDLEMEN, needed
from fedkit.policy.model import Credential, Entity, Role, Statement
from fedkit.policy.proof import Proof, Refusal
from fedkit.policy.prover import REMEMBERED, REMEMBERED_STEPS, Prover
from tests.unit.policy.said import (
    KEYS,
    NOW,
    credential,
    credentials,
    letters,
    missing,
    prove,
    role,
    statement,
    subject,
    used,
)

HOUR = timedelta(hours=1)


def test_delegation_and_membership() -> None:
    known = credentials("""
        A.buy <- A.preferred
        A.preferred <- B.member
        B.member <- U
        B.member <- V
    """)
    assert used(prove(known, "A.buy", "U")) == ["B.member <- U", "A.preferred <- B.member", "A.buy <- A.preferred"]
    assert not prove(known, "B.member", "W").proved
    assert not prove(known, "B.buy", "U").proved


def test_a_role_may_be_asked_about_as_a_whole() -> None:
    known = credentials("""
        A.buy <- A.preferred
        A.preferred <- B.member
    """)
    assert used(prove(known, "A.buy", "B.member")) == ["A.preferred <- B.member", "A.buy <- A.preferred"]
    assert used(prove(known, "A.buy", "A.preferred")) == ["A.buy <- A.preferred"]
    assert missing(prove(known, "A.preferred", "A.buy")) == [{"A.preferred <- A.buy"}]


def test_a_role_contains_itself_by_no_credential() -> None:
    proof = prove([], "A.r", "A.r")
    assert isinstance(proof, Proof)
    assert proof.steps == ()
    assert proof.credentials == ()
    assert proof.expires is None
    proof.check(NOW)


def test_linking_goes_over_every_holder_of_the_base() -> None:
    known = credentials("""
        A.rule <- A.member.user
        A.member <- B
        A.member <- C
        B.user <- U
        D.user <- V
    """)
    assert used(prove(known, "A.rule", "U")) == ["A.member <- B", "B.user <- U", "A.rule <- A.member.user"]
    assert not prove(known, "A.rule", "V").proved


def test_linking_over_a_role_that_is_itself_the_subject() -> None:
    known = credentials("""
        A.rule <- A.member.user
        A.member <- B
    """)
    assert used(prove(known, "A.rule", "B.user")) == ["A.member <- B", "A.rule <- A.member.user"]
    assert not prove(known, "A.rule", "B.guest").proved
    assert not prove(known, "A.rule", "C.user").proved


def test_linking_of_linking() -> None:
    known = credentials("""
        A.rule <- A.partner.trusted
        B.trusted <- B.site.user
        A.partner <- B
        B.site <- C
        C.user <- U
    """)
    proof = prove(known, "A.rule", "U")
    assert set(used(proof)) == set(map(letters, (credential.statement for credential in known)))


def test_an_intersection_wants_every_part() -> None:
    known = credentials("""
        A.rule <- B.one & C.two & A.member.user
        A.member <- D
        B.one <- U
        C.two <- U
        D.user <- U
        B.one <- V
        D.user <- V
    """)
    assert prove(known, "A.rule", "U").proved
    assert missing(prove(known, "A.rule", "V")) == [{"C.two <- V"}]


def test_an_intersection_with_an_entity_is_for_nobody_else() -> None:
    known = credentials("""
        A.rule <- U & B.one
        B.one <- U
        B.one <- V
    """)
    assert used(prove(known, "A.rule", "U")) == ["B.one <- U", "A.rule <- U & B.one"]
    assert missing(prove(known, "A.rule", "V")) == [{"A.rule <- V"}]


def test_an_intersection_of_a_role_with_itself() -> None:
    assert prove(credentials("A.rule <- B.one & B.one"), "A.rule", "B.one").proved
    assert missing(prove(credentials("A.rule <- B.one & B.one"), "A.rule", "U")) == [{"B.one <- U"}]


def test_a_cycle_founds_nothing() -> None:
    known = credentials("""
        A.r <- B.r
        B.r <- C.r
        C.r <- A.r
    """)
    assert missing(prove(known, "A.r", "U")) == [{"A.r <- U"}]
    assert used(prove([*known, credential("C.r <- U")], "A.r", "U")) == ["C.r <- U", "B.r <- C.r", "A.r <- B.r"]


def test_a_principal_may_hold_its_own_role_through_linking_to_itself() -> None:
    known = credentials("""
        A.r <- A.r.r
        A.r <- A
        A.r <- B
        B.r <- U
    """)
    assert used(prove(known, "A.r", "U")) == ["A.r <- B", "B.r <- U", "A.r <- A.r.r"]


def test_the_short_proof_is_found_before_the_long_one() -> None:
    known = credentials("""
        A.r <- B.r
        B.r <- C.r
        C.r <- U
        A.r <- D.r
        D.r <- U
    """)
    assert used(prove(known, "A.r", "U")) == ["D.r <- U", "A.r <- D.r"]


def test_of_equal_statements_the_one_that_lives_longest_is_used() -> None:
    for short, long in ((1, 2), (2, 1)):
        known = [credential("A.r <- U", NOW + short * HOUR), credential("A.r <- U", NOW + long * HOUR)]
        proof = prove(known, "A.r", "U")
        assert isinstance(proof, Proof)
        assert proof.expires == NOW + 2 * HOUR


def test_a_proof_expires_with_the_first_of_its_credentials() -> None:
    known = [credential("A.r <- B.r", NOW + 3 * HOUR), credential("B.r <- U", NOW + HOUR)]
    proof = prove(known, "A.r", "U")
    assert isinstance(proof, Proof)
    assert proof.expires == NOW + HOUR
    assert proof.holds_at(NOW)
    assert not proof.holds_at(NOW + HOUR)


def test_the_first_way_found_ends_the_others_but_not_the_search() -> None:
    for found in range(5):
        known = credentials("""
            A.r <- A.x & A.y
            A.y <- A.last
            A.last <- U
        """)
        for number in range(5):
            known.append(credential(f"A.x <- A.z{number}"))
            known.append(
                credential(f"A.z{number} <- U" if number == found else f"A.z{number} <- A.z{number}.z{number}")
            )
        assert f"A.z{found} <- U" in used(prove(known, "A.r", "U"))


def test_extra_credentials_may_be_of_principals_never_heard_of() -> None:
    extra = credentials("A.r <- B.r\nB.r <- C.r\nC.r <- U")
    assert Prover().prove(role("A.r"), subject("U"), NOW, extra).proved


def test_what_a_query_costs() -> None:
    """In steps, which operators set: other figures here are other answers there."""
    for text, whom, cost in (
        ("A.r <- U", "U", 3),
        ("A.r <- V", "U", 0),
        ("A.r <- B.r\nB.r <- U", "U", 8),
        ("A.r <- B.r\nB.r <- V", "U", 4),
        ("A.r <- B.r\nB.r <- C.r\nC.r <- U", "U", 13),
        ("A.r <- B.r & C.r\nB.r <- U\nC.r <- U", "U", 13),
        ("A.r <- A.m.u\nA.m <- B\nB.u <- U", "U", 16),
        ("A.r <- A.m.u\nA.m <- B\nA.m <- C\nB.u <- U\nC.u <- U", "U", 22),
    ):
        assert _exhausted(text, whom, cost - 1) is (cost > 0)
        assert not _exhausted(text, whom, cost), text


def _exhausted(text: str, whom: str, budget: int) -> bool:
    answer = prove(credentials(text), "A.r", whom, budget=budget)
    return isinstance(answer, Refusal) and answer.exhausted


# What is missing


def test_what_is_missing_is_said_at_the_leaves() -> None:
    known = credentials("""
        A.rule <- B.project & A.partner.user
        A.partner <- B
        B.user <- V
        B.project <- V
        B.user <- U
    """)
    assert missing(prove(known, "A.rule", "U")) == [{"B.project <- U"}]


def test_a_role_that_nobody_defines_is_missing_itself() -> None:
    assert missing(prove([], "A.rule", "U")) == [{"A.rule <- U"}]


def test_a_defined_role_is_granted_directly_only_where_it_is_to_others() -> None:
    known = credentials("""
        A.rule <- B.project
        A.other <- B.project
        A.other <- V
    """)
    assert missing(prove(known, "A.rule", "U")) == [{"B.project <- U"}]
    assert missing(prove(known, "A.other", "U")) == [{"B.project <- U"}, {"A.other <- U"}]


def test_smaller_sets_come_first_and_then_those_that_need_not_the_goals_own_principal() -> None:
    known = credentials("""
        A.rule <- B.one & B.two
        A.rule <- C.three
        A.rule <- A.partner
    """)
    assert missing(prove(known, "A.rule", "U")) == [
        {"C.three <- U"},
        {"A.partner <- U"},
        {"B.one <- U", "B.two <- U"},
    ]


def test_issuers_who_know_the_subject_come_first() -> None:
    known = credentials("""
        A.rule <- A.member.user
        A.member <- B
        A.member <- C
        A.member <- D
        C.project <- U
    """)
    found = missing(prove(known, "A.rule", "U"))
    assert found[0] == {"C.user <- U"}
    assert {frozenset(statements) for statements in found[1:3]} == {
        frozenset({"B.user <- U"}),
        frozenset({"D.user <- U"}),
    }


def test_a_middleman_who_is_no_member_yet() -> None:
    known = credentials("""
        A.rule <- A.member.user
        B.user <- U
    """)
    assert missing(prove(known, "A.rule", "U")) == [{"A.member <- B"}]
    known = credentials("""
        A.rule <- A.member.user
        B.project <- U
    """)
    assert missing(prove(known, "A.rule", "U")) == [{"A.member <- B", "B.user <- U"}]


def test_nobody_in_the_middle_leaves_only_the_direct_statement() -> None:
    assert missing(prove(credentials("A.rule <- A.member.user"), "A.rule", "U")) == [{"A.rule <- U"}]


def test_issuers_who_know_the_subject_are_thought_of_however_many_there_are() -> None:
    known = [credential("A.rule <- A.member.user"), credential("C.project <- U")]
    known += [credential(Statement(role("A.member"), (Entity(f"{number:040x}"),))) for number in range(MIDDLEMEN * 2)]
    known += credentials("A.member <- C")
    found = missing(prove(known, "A.rule", "U"))
    assert found[0] == {"C.user <- U"}
    assert len(found) == 5
    others = [Statement(Role(f"{number:040x}", "user"), (subject("U"),)) for number in range(4)]
    assert found[1:] == [{letters(other)} for other in others]


def test_the_best_are_kept_of_many() -> None:
    pairs = [f"A.rule <- B.one{number} & B.two{number}" for number in range(30)]
    singles = [f"A.rule <- B.zero{number}" for number in range(7)]
    found = missing(prove(credentials("\n".join(pairs[:15] + singles + pairs[15:])), "A.rule", "U"))
    assert found == [{f"B.zero{number} <- U"} for number in range(5)]


def test_what_is_not_needed_is_left_out_of_a_set() -> None:
    for known, asked, wanted in (
        ("A.rule <- B.one & B.two", "B.one <- U\nB.two <- U\nB.three <- U", [{"B.one <- U", "B.two <- U"}]),
        ("A.rule <- A.m.user", "A.m <- B\nB.user <- U\nC.user <- U\nB.two <- U", [{"A.m <- B", "B.user <- U"}]),
        (
            "A.rule <- A.m.user\nA.m <- B",
            "A.m <- C\nB.user <- U\nC.user <- U",
            [{"B.user <- U"}, {"A.m <- C", "C.user <- U"}],
        ),
    ):
        index = Index()
        for said in credentials(known):
            index.add(said)
        view = Known([index], NOW, revocation.Revocations(), Budget(0))
        goal = Goal(role("A.rule"), subject("U"))
        statements = frozenset(map(statement, asked.splitlines()))
        assert set(map(letters, needed(view, goal, statements, Budget(1000)))) in wanted
        with pytest.raises(OutOfBudgetError):
            needed(view, goal, statements, Budget(1))


def test_a_refusal_says_what_was_asked() -> None:
    for budget in (0, 100):
        refusal = prove(credentials("A.r <- B.r\nB.r <- V"), "A.r", "U", budget=budget)
        assert (refusal.role, refusal.subject) == (role("A.r"), subject("U"))


def test_a_role_is_a_leaf_as_long_as_it_is_given_to_somebody() -> None:
    given = credential("A.rule <- V")
    prover = Prover([credential("A.rule <- B.project"), given, credential("A.rule <- W")])
    prover.remove(credential("A.rule <- W").id)
    ask = (role("A.rule"), subject("U"), NOW)
    assert missing(prover.prove(*ask)) == [{"B.project <- U"}, {"A.rule <- U"}]
    prover.remove(given.id)
    assert missing(prover.prove(*ask)) == [{"B.project <- U"}]


def test_an_index_that_has_lost_everything_is_as_new() -> None:
    index = Index()
    known = credentials("A.r <- U\nA.r <- V\nA.s <- U\nB.r <- U\nA.r <- B.r\nA.r <- C.r\nB.r <- B.s.t & U")
    for said in known:
        assert index.add(said)
        assert not index.add(said)
    for said in known:
        assert said.id in index
        assert index.remove(said.id)
        assert not index.remove(said.id)
        assert said.id not in index
    assert vars(index) == vars(Index())


def test_expired_credentials_are_what_is_missing() -> None:
    known = [credential("A.rule <- B.project"), credential("B.project <- U", NOW)]
    assert missing(prove(known, "A.rule", "U")) == [{"B.project <- U"}]


def test_at_most_five_sets() -> None:
    known = credentials("\n".join(f"A.rule <- B.r{number}" for number in range(9)))
    assert missing(prove(known, "A.rule", "U")) == [{f"B.r{number} <- U"} for number in range(5)]


def test_sets_of_more_than_sixteen_statements_help_nobody() -> None:
    def rule(parts: int) -> list[Credential]:
        return credentials("A.rule <- " + " & ".join(f"B.r{number}" for number in range(parts)))

    assert missing(prove(rule(16), "A.rule", "U")) == [{f"B.r{number} <- U" for number in range(16)}]
    assert missing(prove(rule(17), "A.rule", "U")) == [{"A.rule <- U"}]


def test_a_statement_that_serves_twice_is_asked_for_once() -> None:
    known = credentials("""
        A.rule <- A.one & A.two
        A.one <- B.leaf & C.leaf
        A.two <- B.leaf
        A.two <- D.leaf
    """)
    assert missing(prove(known, "A.rule", "U")) == [{"B.leaf <- U", "C.leaf <- U"}]


# Time, memory, and what is taken away


def test_only_credentials_within_their_term_count() -> None:
    prover = Prover([credential("A.r <- U", until=NOW + HOUR, since=NOW)])
    goal = (role("A.r"), subject("U"))
    for at, proved in ((-HOUR, False), (0 * HOUR, True), (HOUR, False), (HOUR / 2, True), (2 * HOUR, False)):
        assert prover.prove(*goal, NOW + at).proved is proved


def test_another_proof_is_found_when_the_remembered_one_has_expired() -> None:
    prover = Prover([credential("A.r <- B.r", NOW + HOUR), credential("B.r <- U"), credential("A.r <- C.r")])
    assert used(prover.prove(role("A.r"), subject("U"), NOW)) == ["B.r <- U", "A.r <- B.r"]
    prover.add(credential("C.r <- U", NOW + 2 * HOUR))
    assert used(prover.prove(role("A.r"), subject("U"), NOW + HOUR)) == ["C.r <- U", "A.r <- C.r"]
    assert not prover.prove(role("A.r"), subject("U"), NOW + 2 * HOUR).proved


def test_what_is_removed_counts_no_more() -> None:
    once, twice = credential("A.r <- U", NOW + HOUR), credential("A.r <- U", NOW + 2 * HOUR)
    prover = Prover([once, twice])
    assert prover.prove(role("A.r"), subject("U"), NOW).proved
    assert prover.remove(twice.id)
    assert prover.prove(role("A.r"), subject("U"), NOW).proved
    assert prover.remove(once.id)
    assert not prover.remove(once.id)
    assert not prover.prove(role("A.r"), subject("U"), NOW).proved
    assert len(prover) == 0
    assert prover.add(once)
    assert not prover.add(once)
    assert prover.prove(role("A.r"), subject("U"), NOW).proved


def test_a_rule_is_removed_like_a_fact() -> None:
    rule = credential("A.r <- B.r")
    prover = Prover([rule, credential("A.r <- C.r"), credential("B.r <- U")])
    prover.remove(rule.id)
    assert missing(prover.prove(role("A.r"), subject("U"), NOW)) == [{"C.r <- U"}]
    prover.remove(credential("A.r <- C.r").id)
    assert missing(prover.prove(role("A.r"), subject("U"), NOW)) == [{"A.r <- U"}]
    prover.add(rule)
    assert prover.prove(role("A.r"), subject("U"), NOW).proved


def test_what_is_proved_with_extra_credentials_is_not_proved_without() -> None:
    prover = Prover([credential("A.r <- B.r")])
    extra = [credential("B.r <- U")]
    for _ in range(2):
        assert prover.prove(role("A.r"), subject("U"), NOW, extra).proved
        assert not prover.prove(role("A.r"), subject("U"), NOW).proved
        assert not prover.prove(role("A.r"), subject("U"), NOW, [credential("B.s <- U")]).proved


def test_what_is_proved_once_is_answered_from_memory_with_other_extra_credentials_too() -> None:
    prover = Prover(credentials("A.r <- U"))
    proof = prover.prove(role("A.r"), subject("U"), NOW)
    assert prover.prove(role("A.r"), subject("U"), NOW) is proof
    assert prover.prove(role("A.r"), subject("U"), NOW, credentials("B.r <- U")) is proof
    with_extra = prover.prove(role("B.r"), subject("U"), NOW, credentials("B.r <- U"))
    assert prover.prove(role("B.r"), subject("U"), NOW, credentials("B.r <- U")) is with_extra
    assert prover.prove(role("B.r"), subject("U"), NOW, credentials("B.r <- U\nA.s <- U")) is not with_extra


def test_memory_is_bounded() -> None:
    prover = Prover([credential(f"A.r{number} <- U") for number in range(REMEMBERED + 1)])

    def ask(number: int) -> Proof | Refusal:
        return prover.prove(Role(KEYS["A"].fedid, f"r{number}"), subject("U"), NOW)

    first, second, *_, last = [ask(number) for number in range(REMEMBERED + 1)]
    assert ask(REMEMBERED) is last
    assert ask(1) is second
    assert ask(0) is not first
    assert ask(0) == first


def test_a_very_long_proof_is_not_remembered() -> None:
    for length, remembered in ((REMEMBERED_STEPS, True), (REMEMBERED_STEPS + 1, False)):
        chain = [credential(f"A.r{number} <- A.r{number - 1}") for number in range(1, length)]
        prover = Prover([credential("A.r0 <- U"), *chain])
        goal = (Role(KEYS["A"].fedid, f"r{length - 1}"), subject("U"), NOW)
        assert (prover.prove(*goal) is prover.prove(*goal)) is remembered


def test_a_revoked_credential_counts_nowhere() -> None:
    revoked = credential("A.r <- U")
    prover = Prover([revoked])
    goal = (role("A.r"), subject("U"), NOW)
    assert prover.prove(*goal).proved
    listing = revocation.issue(KEYS["A"], 1, NOW, {revoked.id: revoked.expires})
    assert prover.revoke(listing)
    assert not prover.revoke(listing)
    assert missing(prover.prove(*goal)) == [{"A.r <- U"}]
    assert not prover.prove(*goal, [revoked]).proved
    assert prover.who_has(role("A.r"), NOW).found == ()
    assert prover.what_has(subject("U"), NOW).found == ()
    again = Prover()
    again.revoke(listing)
    again.add(revoked)
    assert not again.prove(*goal).proved
    assert again.prove(*goal, [credential("A.r <- U", NOW + HOUR)]).proved  # said anew, in another credential


def test_nobody_revokes_what_another_said() -> None:
    theirs = credential("A.r <- U")
    prover = Prover([theirs])
    prover.revoke(revocation.issue(KEYS["B"], 1, NOW, {theirs.id: theirs.expires}))
    assert prover.prove(role("A.r"), subject("U"), NOW).proved


def test_two_keys_with_one_fedid_are_refused() -> None:
    first = credential("A.r <- U")
    forged_key = KEYS["B"].public.__class__(KEYS["B"].public.spki)
    forged_key.__dict__["fedid"] = KEYS["A"].fedid  # as if SHA-1 were broken
    forged = Credential(statement("A.s <- V"), forged_key, first.expires, None, "said", b"")
    prover = Prover([first])
    with pytest.raises(TwoKeys) as caught:
        prover.add(forged)
    assert caught.value.details == {"fedid": KEYS["A"].fedid}
    assert len(prover) == 1
    with pytest.raises(TwoKeys):
        prover.prove(role("A.s"), subject("V"), NOW, [forged])
    with pytest.raises(TwoKeys):
        prover.who_has(role("A.s"), NOW, [forged])
    with pytest.raises(TwoKeys):
        prover.what_has(subject("V"), NOW, [forged])
    with pytest.raises(TwoKeys):
        Prover().prove(role("A.s"), subject("V"), NOW, [first, forged])


# Everybody, everything


def test_who_has_a_role_and_what_a_principal_has() -> None:
    prover = Prover(
        credentials("""
            A.rule <- A.member.user
            A.rule <- W & B.user
            A.member <- B
            B.user <- U
            B.user <- W
            C.user <- V
            A.all <- A.rule
        """)
    )
    assert {letters(entity) for entity in prover.who_has(role("A.rule"), NOW).found} == {"U", "W"}
    assert {letters(held) for held in prover.what_has(subject("U"), NOW).found} == {"A.rule", "A.all", "B.user"}
    assert {letters(held) for held in prover.what_has(subject("B.user"), NOW).found} == {"A.rule", "A.all"}
    with_extra = prover.what_has(subject("V"), NOW, credentials("A.member <- C"))
    assert {letters(held) for held in with_extra.found} == {"A.rule", "A.all", "C.user"}
    assert {letters(entity) for entity in prover.who_has(role("A.all"), NOW, credentials("B.user <- V")).found} == set(
        "UVW"
    )


def test_those_who_are_named_in_an_intersection_or_met_before_linking_asks_for_them_are_found_too() -> None:
    prover = Prover(credentials("A.rule <- W & B.user\nB.user <- W"))
    assert {letters(entity) for entity in prover.who_has(role("A.rule"), NOW).found} == {"W"}
    prover = Prover(credentials("A.rule <- A.rule.user\nA.rule <- B\nB.user <- U"))
    assert {letters(entity) for entity in prover.who_has(role("A.rule"), NOW).found} == {"B", "U"}


def test_a_list_that_could_not_be_finished_says_so() -> None:
    known = credentials("\n".join(f"A.r <- {letter}" for letter in "UVWXYZ"))
    assert Prover(known).who_has(role("A.r"), NOW).exhausted is False
    few = Prover(known, budget=12).who_has(role("A.r"), NOW)
    assert few.exhausted
    assert len(few.found) < 6
    assert Prover(credentials("A.r <- B.r\nA.q <- B.r"), budget=1).what_has(subject("B.r"), NOW).exhausted


def test_a_search_without_budget_is_no_definite_no() -> None:
    known = credentials("A.r <- B.r\nB.r <- U")
    refusal = prove(known, "A.r", "U", budget=2)
    assert isinstance(refusal, Refusal)
    assert refusal.exhausted
    assert refusal.missing == ()
    assert refusal.as_json() == []
    assert not isinstance(prove(known, "A.r", "V"), Proof)
    assert missing(prove(known, "A.r", "V")) == [{"B.r <- V"}]


def test_what_is_missing_is_looked_for_only_if_wanted() -> None:
    prover = Prover(credentials("A.r <- B.s"))
    asked = role("A.r"), subject("U"), NOW
    assert prover.prove(*asked, missing=False) == Refusal(*asked[:2])
    assert isinstance(refusal := prover.prove(*asked), Refusal)
    assert refusal.missing
