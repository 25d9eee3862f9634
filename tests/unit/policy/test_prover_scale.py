"""Size and malice: long chains, wide and deep intersections, dense cycles and floods end within a budget of steps, told honestly."""

from __future__ import annotations

import pytest

from fedkit.policy.model import Credential
from fedkit.policy.proof import Proof, Refusal
from fedkit.policy.prover import Prover
from tests.unit.policy.said import FEDIDS, NOW, credential, credentials, missing, prove, role, subject, used

MANY = 10_000


def _chain(length: int) -> list[Credential]:
    return [credential(f"A.r{number} <- A.r{number + 1}") for number in range(length)]


def _nested(depth: int) -> list[Credential]:
    """Each link wants a fact beside the next."""
    rules = [credential(f"A.r{number} <- A.r{number + 1} & A.s{number}") for number in range(depth)]
    return [*rules, *(credential(f"A.s{number} <- U") for number in range(depth))]


def _tree(width: int) -> list[Credential]:
    """`width` parts, each an intersection of as many roles; nobody has any of these."""
    parts = [" & ".join(f"A.leaf{one}x{two}" for two in range(width)) for one in range(width)]
    root = "A.r0 <- " + " & ".join(f"A.part{one}" for one in range(width))
    return [credential(root), *(credential(f"A.part{one} <- {tail}") for one, tail in enumerate(parts))]


def test_a_chain_of_ten_thousand_links() -> None:
    known = [*_chain(MANY), credential(f"A.r{MANY} <- U")]
    proof = prove(known, "A.r0", "U")
    assert isinstance(proof, Proof)
    assert len(proof.steps) == len(proof.credentials) == MANY + 1
    proof.check(NOW)
    assert len(proof.as_json()) == MANY + 1
    assert missing(prove(known, "A.r0", "V")) == [{f"A.r{MANY} <- V"}]


def test_ten_thousand_intersections_one_in_the_other() -> None:
    known = _nested(MANY)
    proof = prove([*known, credential(f"A.r{MANY} <- U")], "A.r0", "U")
    assert isinstance(proof, Proof)
    assert len(proof.credentials) == 2 * MANY + 1
    proof.check(NOW)
    assert missing(prove(known, "A.r0", "U")) == [{f"A.r{MANY} <- U"}]


def test_ten_thousand_intersections_into_one_role() -> None:
    known = [credential(f"A.r <- A.one{number} & A.two{number}") for number in range(MANY)]
    known += [credential(f"A.one{number} <- U") for number in range(MANY)]
    for statements in missing(prove(known, "A.r", "U")):
        (needed,) = statements
        assert needed.startswith("A.two")
    proof = prove([*known, credential("A.two77 <- U")], "A.r", "U")
    assert used(proof) == ["A.one77 <- U", "A.two77 <- U", "A.r <- A.one77 & A.two77"]


def test_an_intersection_of_intersections_with_ten_thousand_leaves() -> None:
    known = _tree(100)
    facts = [credential(f"A.leaf{one}x{two} <- U") for one in range(100) for two in range(100)]
    proof = prove([*known, *facts], "A.r0", "U")
    assert isinstance(proof, Proof)
    assert len(proof.credentials) == MANY + 101
    assert missing(prove([*known, *facts[:-1]], "A.r0", "U")) == [{"A.leaf99x99 <- U"}]


@pytest.mark.parametrize("known", [_chain(MANY), _nested(MANY), _tree(100)], ids=["chain", "nested", "tree"])
def test_what_does_not_fit_the_budget_is_told(known: list[Credential]) -> None:
    extra = [credential(f"A.r{MANY} <- U")]
    extra += [credential(f"A.leaf{one}x{two} <- U") for one in range(100) for two in range(100)]
    small = Prover(known, budget=MANY).prove(role("A.r0"), subject("U"), NOW, extra)
    assert isinstance(small, Refusal)
    assert small.exhausted
    assert Prover(known, budget=20 * MANY).prove(role("A.r0"), subject("U"), NOW, extra).proved


def test_dense_cycles_cost_as_much_as_there_are_credentials() -> None:
    known = [credential(f"A.r{one} <- A.r{two}") for one in range(60) for two in range(60) if one != two]
    assert missing(prove(known, "A.r0", "U", budget=4 * len(known))) == [{"A.r0 <- U"}]
    proof = prove([*known, credential("A.r59 <- U")], "A.r0", "U", budget=4 * len(known))
    assert used(proof) == ["A.r59 <- U", "A.r0 <- A.r59"]


def test_dense_linking_ends() -> None:
    everybody = sorted(FEDIDS)
    known = [credential(f"{one}.r <- {two}.r.r") for one in everybody for two in everybody]
    assert len(missing(prove(known, "A.r", "U", budget=100 * len(known)))) == 1
    known += [credential(f"{one}.r <- {two}") for one in everybody for two in everybody if two != "U"]
    assert not prove(known, "A.r", "U", budget=100 * len(known)).proved
    assert prove([*known, credential("Z.r <- U")], "A.r", "U", budget=100 * len(known)).proved


POLICY = credentials("""
    A.rule <- A.member.user & B.project
    A.member <- B
    B.user <- U
    B.project <- U
""")


def _flood(text: str) -> list[Credential]:
    return [credential(text.format(this=number, next=(number + 1) % MANY)) for number in range(MANY)]


@pytest.mark.parametrize(
    "flood",
    ["X.r{this} <- X.r{next}", "X.r{this} <- U", "U.a{this} <- B.user", "X.user{this} <- A.member.user & B.user"],
)
def test_a_flood_of_credentials_that_lead_elsewhere_costs_the_search_nothing(flood: str) -> None:
    alone = Prover(POLICY, budget=30).prove(role("A.rule"), subject("U"), NOW)
    assert alone.proved
    flooded = Prover(POLICY, budget=30)
    assert flooded.prove(role("A.rule"), subject("U"), NOW, _flood(flood)) == alone
    assert not flooded.prove(role("A.rule"), subject("V"), NOW, _flood(flood)).proved


@pytest.mark.parametrize("user", ["{x}.user <- {x}.user.user", "{x}.user <- U", "{x}.user <- A.rule & A.member.user"])
def test_a_flood_of_strangers_with_roles_of_the_right_name_costs_one_look_each(user: str) -> None:
    strangers = "CDEFVWXYZ"
    extra = credentials("\n".join(user.format(x=stranger) for stranger in strangers))
    extra += credentials("\n".join(f"{one}.member <- {two}" for one in strangers for two in strangers))
    without = [known for known in POLICY if known is not POLICY[2]]
    refusal = Prover(without, budget=80).prove(role("A.rule"), subject("U"), NOW, extra)
    assert isinstance(refusal, Refusal)
    assert not refusal.exhausted
    assert Prover(POLICY, budget=80).prove(role("A.rule"), subject("U"), NOW, extra).proved
