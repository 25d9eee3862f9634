"""Rules as RT0: what is said for each form of a line, and that proving it is the same as reading the patterns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation_member.access import compile as compiler
from federation_member.access.compile import TERM, statements
from federation_member.access.errors import UnusablePolicy
from federation_member.access.policy_file import read
from federation_member.access.rules import Rules
from federation_member.access.suppose import Known, supposed
from federation_member.access.who import Reference, Who
from fedkit.identity.keys import PrivateKey
from fedkit.identity.names import Name, roles_of
from fedkit.identity.patterns import NamePattern
from fedkit.policy import compact
from fedkit.policy.compact import issue
from fedkit.policy.model import Credential, Entity, Role, Statement
from fedkit.policy.prover import Prover
from tests.unit.access.policies import ACME, MEMBERS, OWN, STRANGER, A, B, policy, rule

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


# The law: proving what was compiled is the same as reading the patterns.

KEYS = {key.fedid: key for key in (A, B, STRANGER)}
KNOWN = {member.fedid: member for member in MEMBERS}
projects = st.sampled_from(["", "p", "q", "p.q", "p_x2e_q"])
users = st.sampled_from(["u", "v", USER])
people = (
    st.builds(Name, st.sampled_from(sorted(KEYS)), projects, users)
    | st.builds(Name, st.just(""), st.sampled_from(sorted(KEYS)), users)
    | st.builds(Name, st.just(""), st.just(""), st.sampled_from(sorted(KEYS)))
)
inner_projects = projects | st.just("*")
inner_users = users | st.just("*")
testbeds = st.sampled_from(["site-a", "site-b", STRANGER.fedid, "*", "fm.*", "fm.*.edu", "fm.site-a.test", "self"])
pattern_lines = (
    st.builds("{}/{}/{}".format, testbeds, inner_projects, inner_users)
    | st.builds("/{}/{}".format, testbeds, inner_users)
    | st.builds("//{}".format, st.sampled_from(["site-a", USER, STRANGER.fedid]))
)
terms = pattern_lines | st.sampled_from(["self.group", "acme.partner", "acme.friend.customer", "alice", USER])
lines = st.lists(terms, min_size=1, max_size=2).map(" & ".join)


def fits(who: Who, name: Name, principal: str, has: frozenset[str], rules: Rules) -> bool:
    """Read a line as a person would."""
    return all(_term_fits(term, name, principal, has, rules) for term in who.terms)


def _term_fits(term: NamePattern | Reference, name: Name, principal: str, has: frozenset[str], rules: Rules) -> bool:
    if isinstance(term, Reference):
        if term.roles == ("group",):
            return any(fits(who, name, principal, has - {"group"}, rules) for who in rules.roles["group"])
        return str(term) in has or str(term) == principal
    if term.level == 2:
        return term.user == principal
    known = KNOWN.get(name.asserter)
    if known is None and term.asserter != name.asserter:
        return False
    return (
        term.matches(name, [known.address] if known else [])
        and term.user in {"*", name.user}
        and (term.user != USER or principal == USER)
    )


@settings(max_examples=400, deadline=None)
@given(
    st.lists(lines, min_size=1, max_size=3),
    st.lists(pattern_lines, max_size=2),
    people,
    st.sampled_from([USER, "a1" * 20]),
    st.frozensets(st.sampled_from([f"{ACME}.partner", f"{ACME}.friend.customer"])),
)
def test_proving_is_reading(who: list[str], group: list[str], name: Name, principal: str, has: frozenset[str]) -> None:
    principal = principal if name.testbed or name.project else name.user
    rules = policy(f"[roles]\ngroup = {group}\n" + rule(who=str(who)[1:-1]))
    prover = Prover(compiler.compile(rules, OWN, MEMBERS, NOW))
    wallet = [
        issue(KEYS[name.asserter], Statement(Role(name.asserter, role), (Entity(principal),)), NOW + TERM)
        for role in roles_of(name)
    ]
    wallet += list(_acme(has, principal))
    answer = prover.prove(Role(OWN.fedid, "rule_r"), Entity(principal), NOW, wallet)
    assert answer.proved == any(fits(line, name, principal, has, rules) for line in rules.rules[0].who)


FRIEND = PrivateKey.generate()


def _acme(has: frozenset[str], principal: str) -> list[Credential]:
    texts = []
    if f"{ACME}.partner" in has:
        texts.append(f"{ACME}.partner <- {principal}")
    if f"{ACME}.friend.customer" in has:
        texts += [f"{ACME}.friend <- {FRIEND.fedid}", f"{FRIEND.fedid}.customer <- {principal}"]
    return [supposed(Statement.parse(text)) for text in texts]
