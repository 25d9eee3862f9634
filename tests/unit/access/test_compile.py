"""Rules as RT0: what is said for each form of a line, and that proving it is the same as reading the patterns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from federation_member.access import compile as compiler
from federation_member.access.compile import TERM, statements
from federation_member.access.errors import UnusablePolicy
from federation_member.access.policy_file import read
from federation_member.access.rules import Rules
from federation_member.access.suppose import Known
from fedkit.policy import compact
from fedkit.policy.model import Entity, Role, Statement
from tests.unit.access.policies import ACME, MEMBERS, OWN, A, B, policy, rule

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
USER = "ed" * 20


def said(rules: Rules, members: tuple[Known, ...] = MEMBERS) -> list[str]:
    """The statements, with letters for fedids; those about members left out unless they are by address."""
    names = {OWN.fedid: "B", A.fedid: "A1", B.fedid: "A2", ACME: "acme", USER: "U", "a1" * 20: "alice"}
    texts = [str(statement) for statement in statements(rules, OWN.fedid, members)]
    for fedid, name in names.items():
        texts = [text.replace(fedid, name) for text in texts]
    return [text for text in texts if not text.startswith("B.member <-")]


@pytest.mark.parametrize(
    ("who", "tails"),
    [
        ("site-a/proj1/*", ["A1.project_proj1"]),
        ("site-a/proj1/alice", ["A1.project_proj1 & A1.user_alice"]),
        ("site-a/*/al.ice", ["A1.user_al_x2e_ice"]),
        ("site-a/*/*", ["A1.user"]),
        ("site-a//*", ["A1.no_project"]),
        ("site-a//alice", ["A1.no_project & A1.user_alice"]),
        (f"site-a/proj1/{USER}", ["A1.project_proj1 & A1.user_U & U"]),
        (f"site-a/{USER}/*", ["A1.project_U"]),
        (f"{A.fedid}/p/*", ["A1.project_p"]),
        (f'(fedid:{A.fedid}, "p", *)', ["A1.project_p"]),
        ("self/p/*", ["B.project_p"]),
        ("/site-a/*", ["A1.of_project"]),
        ("/site-a/bob", ["A1.of_project_bob"]),
        (f"/site-a/{USER}", ["A1.of_project_U & U"]),
        ("//alice", ["alice"]),
        (f"//{USER}", ["U"]),
        ("//self", ["B"]),
        ("alice", ["alice"]),
        ("*/*/*", ["B.member.user"]),
        ("*/p/*", ["B.member.project_p"]),
        ("*//*", ["B.member.no_project"]),
        ("*/*/u", ["B.member.user_u"]),
        ("/*/*", ["B.member.of_project"]),
        (f"*/*/{USER}", ["B.member.user_U & U"]),
        ("*/p/u", ["A1.project_p & A1.user_u", "A2.project_p & A2.user_u"]),
        ("fm.*.edu/p/u", ["A2.project_p & A2.user_u"]),
        ("fm.*.org/p/u", []),
        ("site-a.partner", ["A1.partner"]),
        ("self.partner", ["B.partner"]),
        ("acme.preferred.customer", ["acme.preferred.customer"]),
        ("site-a/*/* & acme.partner", ["A1.user & acme.partner"]),
        ("acme.a & site-a.b & alice", ["acme.a & A1.b & alice"]),
        ("site-a/p/u & site-a/p/*", ["A1.project_p & A1.user_u"]),
        ("*/p/u & acme.r", ["A1.project_p & A1.user_u & acme.r", "A2.project_p & A2.user_u & acme.r"]),
    ],
)
def test_each_form_of_a_line(who: str, tails: list[str]) -> None:
    found = said(policy(rule(who=f"'{who}'")))
    assert sorted(text for text in found if text.startswith("B.rule_r")) == sorted(f"B.rule_r <- {t}" for t in tails)


def test_members_are_named_by_their_addresses() -> None:
    role = "B.testbed_fm_x2e__x2a__x2e_edu"
    assert said(policy(rule(who="'fm.*.edu/*/*'"))) == [f"B.rule_r <- {role}.user", f"{role} <- A2"]
    assert said(policy(rule(who="'fm.site-a.test/*/*'")))[1] == "B.testbed_fm_x2e_site-a_x2e_test <- A1"
    assert said(policy(rule(who="'FM.*/*/*'")))[1:] == []


def test_every_known_member_is_said_to_be_one() -> None:
    wanted = {Statement(Role(OWN.fedid, "member"), (Entity(member.fedid),)) for member in MEMBERS}
    assert set(statements(Rules(), OWN.fedid, MEMBERS)) == wanted


def test_own_roles_are_given_as_rules_are() -> None:
    rules = policy("[roles]\npartner = ['site-a/p/*', 'acme.r']\nnobody = []\n" + rule(who="'self.partner'"))
    assert said(rules) == ["B.partner <- A1.project_p", "B.partner <- acme.r", "B.rule_r <- B.partner"]


@pytest.mark.parametrize(
    ("who", "told"),
    [
        ("site-a/proj*/*", r"proj\* would match names, .* write each project, or \* for all, or .* site-a\.projects"),
        ("site-a/p/al?ce", r"al\?ce would match names, .* write each user"),
        ("*/[ab]/u", r"\[ab\] would match names"),
        ("/site-a/u*", r"u\* would match names"),
        ("site-a/p/", r"every request comes from a user; write \*"),
        ("site-a//", r"every request comes from a user"),
        ("/site-a/", r"every request comes from a user"),
        ("//*", r"who vouches for themselves is named by fedid or alias"),
        ("//fm.site-a.test", r"who vouches for themselves is named by fedid or alias"),
    ],
)
def test_what_rt0_cannot_say_is_refused_with_what_to_write(who: str, told: str) -> None:
    with pytest.raises(UnusablePolicy, match=told) as error:
        statements(policy(rule(who=f"'{who}'")), OWN.fedid, MEMBERS)
    assert error.value.message.startswith(f"rule r: {who}: ")
    with pytest.raises(UnusablePolicy, match=r"roles\.x: "):
        statements(policy(f"[roles]\nx = ['{who}']"), OWN.fedid, MEMBERS)


def test_an_intersection_has_its_limit_told() -> None:
    line = "&".join(f"a.{number:x}" for number in range(257))
    rules = read(f'[principals]\na = "{ACME}"\n{rule(who=repr(line))}'.encode(), "policy.toml")
    with pytest.raises(UnusablePolicy, match="1 to 256 parts"):
        statements(rules, OWN.fedid, MEMBERS)


def test_a_flood_of_statements_is_refused() -> None:
    many = tuple(Known(f"{number:040x}", f"m{number}.test") for number in range(400))
    with pytest.raises(UnusablePolicy, match="more than 20000 statements"):
        statements(policy(rule(who="'*/p/u & */q/v & */x/y'")), OWN.fedid, many)


def test_the_same_rules_and_members_say_the_same_in_the_same_order() -> None:
    rules = policy(rule(who="'*/p/u', '*/p/*', 'site-a/p/*', 'fm.*/q/*', 'site-a/p/*'"))
    first = statements(rules, OWN.fedid, MEMBERS)
    assert len(set(first)) == len(first)
    assert all(statements(rules, OWN.fedid, order) == first for order in permutations(MEMBERS))
    assert compiler.compile(rules, OWN, MEMBERS, NOW) == compiler.compile(rules, OWN, MEMBERS, NOW)


def test_what_is_compiled_is_signed_by_the_member() -> None:
    rules = policy(rule(who="'site-a/p/*'"))
    compiled = compiler.compile(rules, OWN, MEMBERS, NOW)
    assert [credential.statement for credential in compiled] == statements(rules, OWN.fedid, MEMBERS)
    for credential in compiled:
        assert compact.read(credential.raw.decode()) == credential
        assert credential.issuer == OWN.public
        assert credential.holds_at(NOW)
        assert credential.holds_at(NOW + TERM - timedelta(seconds=1))
        assert not credential.holds_at(NOW + TERM)
