"""The law of compiling: proving what was compiled is the same as reading the patterns."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from federation_member.access import compile as compiler
from federation_member.access.compile import TERM
from federation_member.access.rules import Rules
from federation_member.access.suppose import supposed
from federation_member.access.who import Reference, Who
from fedkit.identity.keys import PrivateKey
from fedkit.identity.names import Name, roles_of
from fedkit.identity.patterns import NamePattern
from fedkit.policy.compact import issue
from fedkit.policy.model import Credential, Entity, Role, Statement
from fedkit.policy.prover import Prover
from tests.unit.access.policies import ACME, MEMBERS, OWN, STRANGER, A, B, policy, rule

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
USER = "ed" * 20
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
