"""A policy's own tests: what they suppose, and how a failure is told."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from federation_member.access.decision import EXPLAINED, decide, holds_nothing
from federation_member.access.errors import FailedExpectations, UnusablePolicy
from federation_member.access.expectations import check, explain, outcomes
from federation_member.access.model import Action
from federation_member.access.suppose import Supposition
from fedkit.policy.model import Entity, Role
from fedkit.policy.proof import Proof, Refusal
from tests.unit.access.policies import MEMBERS, OWN, STRANGER, A, policy, rule

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def expect(who: str, result: str = "allow", more: str = "", action: str = "compute") -> str:
    return f"[[expect]]\nwho = '{who}'\naction = '{action}'\nresult = '{result}'\n{more}\n"


@pytest.mark.parametrize(
    ("rules", "expectation"),
    [
        (rule(), expect("site-a/proj1/alice")),
        (rule(), expect(f"{A.fedid}/proj1/alice")),
        (rule(), expect("site-a//alice")),
        (rule(), expect("site-b/proj1/alice", "deny")),
        (rule(), expect("fm.site-a.test/proj1/alice")),
        (rule(), expect("fm.site-x.test/proj1/alice", "deny")),
        (rule(who="'*/*/*'"), expect("fm.site-x.test/proj1/alice")),
        (rule(who="'*.edu/*/*'"), expect("site-b/p/u")),
        (rule(who="'*.edu/*/*'"), expect("site-a/p/u", "deny")),
        (rule(who="'*.org/*/*'"), expect("fm.new.org/p/u")),
        (rule(who="'*/p/u'"), expect("fm.new.org/p/u")),
        (rule(who="'self/*/*'"), expect("self/p/u")),
        (rule(who="'self/*/*'"), expect("site-a/p/u", "deny")),
        (rule(who="'/site-a/*'"), expect("/site-a/u")),
        (rule(who="'//alice'"), expect("//alice")),
        (rule(who="'alice'"), expect("site-a/p/u", "allow", "has = ['alice']")),
        (rule(who="'alice'"), expect("site-a/p/u", "deny")),
        (rule(who="'site-b.partner'"), expect("site-a/p/u", "allow", "has = ['site-b.partner']")),
        (rule(who="'site-b.partner'"), expect("site-a/p/u", "deny", "has = ['site-b.other']")),
        (rule(who="'acme.preferred.customer'"), expect("site-a/p/u", "allow", "has = ['acme.preferred.customer']")),
        (rule(who="'self.friends'"), expect("site-a/p/u", "allow", "has = ['self.friends']")),
        (rule(who="'site-a.r & site-b.s'"), expect("site-a/p/u", "allow", "has = ['site-a.r', 'site-b.s']")),
        (rule(who="'site-a.r & site-b.s'"), expect("site-a/p/u", "allow", "has = ['site-a.r & site-b.s']")),
        (rule(who="'site-a.r & site-b.s'"), expect("site-a/p/u", "deny", "has = ['site-a.r']")),
        (rule(who=f"'site-a/p/{'ed' * 20}'"), expect(f"site-a/p/{'ed' * 20}")),
        ("[roles]\ng = ['site-a/p/*']\n" + rule(who="'self.g'"), expect("site-a/p/u")),
        (rule("flavours = ['s*']"), expect("site-a/p/u", "allow", "flavour = 'small'")),
        (rule("flavours = ['s*']"), expect("site-a/p/u", "deny", "flavour = 'large'")),
        (rule("node_types = ['pc']"), expect("site-a/p/u", "deny", "node_type = 'bvx'")),
        (rule("images = ['debian']"), expect("site-a/p/u", "deny", "image = 'windows'")),
        (rule("services = ['SMB']"), expect("site-a/p/u", "deny", "services = ['userconfig']")),
        (rule("count = 2"), expect("site-a/p/u", "allow", "held = 1")),
        (rule("count = 2"), expect("site-a/p/u", "deny", "held = 2")),
        (rule("hours = 'mon-fri'"), expect("site-a/p/u", "allow", "at = 2026-11-23T10:00:00Z")),
        (rule("hours = 'mon-fri'"), expect("site-a/p/u", "deny", "at = 2026-11-22T10:00:00Z")),
        (rule("count = 1") + rule(name="q"), expect("site-a/p/u", "allow", "held = 1")),
        (rule(), expect("site-a/p/u", "deny", action="network")),
        ("", expect("site-a/p/u", "deny")),
        # roles that rest on one another: refused, and found out in finite time
        ("[roles]\na = ['self.b']\nb = ['self.a']\n" + rule(who="'self.a'"), expect("site-a/p/u", "deny")),
    ],
)
def test_what_is_expected_is_decided(rules: str, expectation: str) -> None:
    assert check(policy(rules + expectation), OWN.fedid, MEMBERS) == 1
    other = expectation.replace("'allow'", "'x'").replace("'deny'", "'allow'").replace("'x'", "'deny'")
    with pytest.raises(FailedExpectations):
        check(policy(rules + other), OWN.fedid, MEMBERS)


def test_members_need_not_be_known() -> None:
    assert check(policy(rule(who="'*/p/*'") + expect("site-a/p/u")), OWN.fedid) == 1


FAILING = (
    rule("hours = 'sat,sun'", name="weekend")
    + rule(who="'site-a/proj2/*'", name="second")
    + rule(who="'site-a/proj1/*'", name="large", may='"network"')
    + rule(who="'site-b.partner & acme.customer'", name="partners")
    + expect("site-a/proj1/alice", "allow", "at = 2026-11-23T10:00:00Z\nflavour = 'small'")
    + expect("site-a/proj2/bob", "deny", "at = 2026-11-23T10:00:00Z")
    + expect("site-a/proj3/eve", "deny", "at = 2026-11-23T10:00:00Z")
)


def test_a_failure_says_which_what_and_why() -> None:
    with pytest.raises(FailedExpectations) as told:
        check(policy(FAILING), OWN.fedid, MEMBERS)
    assert told.value.message.splitlines() == [
        "2 of 3 expectations fail:",
        "expect 1: site-a/proj1/alice, compute small at 2026-11-23T10:00:00+00:00: expected allow, decided deny",
        "  Rule weekend lends only sat,sun; there it is mon 10:00 utc.",
        "  rule weekend: for this user; Rule weekend lends only sat,sun; there it is mon 10:00 utc.",
        "  rule second: not for this user; lends this",
        "    missing: site-a.project_proj2 <- site-a/proj1/alice",
        "  rule large: for this user; Rule large lends the kind network, not compute.",
        "  rule partners: not for this user; lends this",
        "    missing: acme.customer <- site-a/proj1/alice and site-b.partner <- site-a/proj1/alice",
        "expect 2: site-a/proj2/bob, compute at 2026-11-23T10:00:00+00:00: expected deny, decided allow",
        "  Rule second allows it.",
        "    site-a.project_proj2 <- site-a/proj2/bob",
        "    self.rule_second <- site-a.project_proj2",
    ]
    assert told.value.details == {"failed": [1, 2]}
    assert [outcome.good for outcome in outcomes(policy(FAILING), OWN.fedid)] == [False, False, True]


@pytest.mark.parametrize(
    ("expectation", "told"),
    [
        (expect("site-x/p/u"), r"expect 1: 'site-x/p/u': Nobody is called 'site-x' here; did you mean site-"),
        (expect("nonsense"), r"expect 1: 'nonsense': A name is written"),
        (expect("//"), r"expect 1: "),
        (expect("*/p/u"), r"expect 1: '\*/p/u': .*whole name"),
        (expect("fm.*/p/u"), r"expect 1: 'fm\.\*/p/u': .*whole name"),
        (expect("site-a/p*/u"), r"expect 1: .*letters, digits"),
        (expect("site-a/p/u", "allow", "has = ['site-x.r']"), r"expect 1: .*Nobody is called 'site-x'"),
        (expect("site-a/p/u", "allow", "has = ['site-a/p/*']"), r"expect 1: .*is a pattern of names; what a user has"),
    ],
)
def test_an_expectation_that_cannot_be_looked_at(expectation: str, told: str) -> None:
    with pytest.raises(UnusablePolicy, match=told):
        outcomes(policy(rule() + expectation), OWN.fedid, MEMBERS)


def test_hours_ask_for_a_time() -> None:
    with pytest.raises(UnusablePolicy, match=r"expect 1: say at = .*: rule r has hours"):
        outcomes(policy(rule("hours = 'mon'") + expect("site-a/p/u")), OWN.fedid)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ("", "There are no rules: nothing is lent here."),
        (rule(may="'network'", who="'site-b/*/*'"), "No rule lends this to anybody now."),
        (rule(who="'site-b/*/*'"), "This is lent (r), but not to this user; see what is missing."),
        (rule("count = 1"), "Rule r allows it."),
        (rule(may="'network'"), "Rule r lends the kind network, not compute."),
    ],
)
def test_the_reason_is_what_comes_nearest(rules: str, reason: str) -> None:
    supposition = Supposition(policy(rules), OWN.fedid)
    decision = supposition.decide(supposition.somebody("site-a/p/u"), Action("compute"), NOW)
    assert decision.reason == reason
    assert explain(supposition, supposition.somebody("site-a/p/u"), decision)[0] == reason


def test_the_smallest_missing_sets_come_first_and_are_few() -> None:
    many = "".join(rule(who=f"'acme.a{n} & acme.b{n}'", name=f"two{n}") for n in range(9)) + rule(
        who="'acme.one'", name="one"
    )
    supposition = Supposition(policy(many), OWN.fedid)
    missing = supposition.decide(supposition.somebody("site-a/p/u"), Action("compute"), NOW).missing
    assert [len(lacking) for lacking in missing] == [1, 2, 2, 2, 2]


def test_only_the_first_rules_say_what_they_miss_but_all_say_whose_they_are() -> None:
    many = "".join(rule(who=f"'acme.a{n}'", name=f"r{n}") for n in range(EXPLAINED + 2)) + rule(
        "hours = 'sun'", name="last"
    )
    supposition = Supposition(policy(many), OWN.fedid)
    decision = supposition.decide(supposition.somebody("site-a/p/u"), Action("compute"), NOW)
    told = [isinstance(one.answer, Refusal) and bool(one.answer.missing) for one in decision.tried]
    assert told == [True] * EXPLAINED + [False] * 3
    assert [one.theirs for one in decision.tried] == [False] * (EXPLAINED + 2) + [True]
    assert decision.reason.startswith("Rule last lends only sun")


def test_a_stranger_is_called_by_their_address() -> None:
    supposition = Supposition(policy(rule(who="'*.org/p/u'")), OWN.fedid, MEMBERS)
    user = supposition.somebody("fm.x.org/p/v")
    lines = explain(supposition, user, supposition.decide(user, Action("compute"), NOW))
    assert lines[-1] == "  missing: fm.x.org.user_u <- fm.x.org/p/v"
    assert supposition.say(f"{STRANGER.fedid} {A.fedid} {OWN.fedid}", user) == f"{STRANGER.fedid} site-a self"


def test_each_rule_counts_for_itself() -> None:
    two = rule("count = 1", name="one") + rule("count = 1", name="two")
    supposition = Supposition(policy(two), OWN.fedid)
    user = supposition.somebody("site-a/p/u")
    decision = supposition.decide(user, Action("compute"), NOW, lambda rule: {"one": 1, "two": 0}[rule.name])
    assert decision.allowed
    assert decision.allowed.rule.name == "two"


def test_who_is_allowed_costs_no_search_that_is_not_needed() -> None:
    rules = policy(
        rule(may='"network"', name="other") + rule(who="'acme.x'", name="not-theirs") + rule() + rule(name="later")
    )
    asked: list[tuple[str, bool]] = []

    def prove(role: Role, subject: Entity, _at: datetime, missing: bool) -> Proof | Refusal:
        asked.append((role.name, missing))
        return Proof(role, subject, ()) if role.name == "rule_r" else Refusal(role, subject)

    decision = decide(rules, OWN.fedid, prove, "ab" * 20, Action("compute"), NOW, holds_nothing)
    assert decision.reason == "Rule r allows it."
    assert asked == [("rule_not-theirs", False), ("rule_r", False)]
