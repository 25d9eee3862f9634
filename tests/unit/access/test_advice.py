"""What is probably not meant in a policy is told; what may be meant is not."""

from __future__ import annotations

import pytest

from federation_member.access.advice import advise
from tests.unit.access.policies import MEMBERS, OWN, STRANGER, policy, rule

CREATE = "account = {create = 'fed-{project}'}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (rule("hours = '08:00-08:00'"), "Rule r is never open: the hours 08:00-08:00 are empty; write 00:00-24:00"),
        (rule(may='"volume"'), "Rule r lends volume, and this member lends only compute, network."),
        (rule("flavours = []"), "Rule r has no flavours, so it lends no machine."),
        (rule("images = []"), "Rule r has no images, so it lends no machine."),
        (rule("node_types = []"), "Rule r has no node_types, so it lends no machine."),
        (rule(CREATE, who="'*/*/*'"), "Rule r makes equal accounts for several testbeds, and only the first gets it;"),
        (
            rule(CREATE, who="'fm.*/*/*'"),
            "Rule r makes equal accounts for several testbeds, and only the first gets it;",
        ),
        (
            rule(CREATE, who="'site-a/*/*', 'site-b/*/*'"),
            "Rule r makes equal accounts for several testbeds, and only the first gets it;",
        ),
        (rule(who="'site-a'"), "Rule r: site-a is a member's own key, not its users; those are "),
        (rule(who="'self'"), "Rule r: self is a member's own key, not its users; those are self/*/*."),
        (rule(who="'*.org/*/*'"), "Rule r: no known member has an address like *.org."),
        ("[roles]\np = ['fm.site-z.test/*/*']", "Role p: no known member has an address like fm.site-z.test."),
        (
            rule(who="'self.partner'"),
            "Rule r: self.partner: this policy gives nobody the role partner; write it into [roles]",
        ),
        (
            rule(who="'self.friends.customer'"),
            "Rule r: self.friends.customer: this policy gives nobody the role friends;",
        ),
        (rule(who="'self.rule_q'"), "Rule r: self.rule_q: this policy gives nobody the role rule_q;"),
        (rule(who="'self.rule_r'"), "Nobody can have r: it rests on itself and on nothing else."),
        ("[roles]\na = ['self.b']\nb = ['self.a & acme.x']", "Nobody can have a: it rests on itself"),
        ("[roles]\na = ['self.b']\nb = ['self.a & acme.x']", "Nobody can have b: it rests on itself"),
        (rule() + rule(name="q"), "Rule q is never reached: r before it already lends all of it to all of them."),
        (rule() + rule("count = 1", "'site-a/p/*'", "q"), "Rule q is never reached: r before it"),
        (rule(may="'*'") + rule("hours = 'mon'", name="q"), "Rule q is never reached: r before it"),
        (rule("hours = 'mon'") + rule("hours = 'mon'", name="q"), "Rule q is never reached: r before it"),
        (rule("flavours = ['a', 'b']") + rule("flavours = ['b']", name="q"), "Rule q is never reached: r before it"),
        (rule(who="'*/*/*'") + rule(who="'fm.site-a.test/p/*'", name="q"), "Rule q is never reached: r before it"),
        (rule(who="'acme.x'") + rule(who="'acme.x & acme.y'", name="q"), "Rule q is never reached: r before it"),
        (
            rule(who="'site-a/*/* & acme.x'") + rule(who="'acme.x & acme.y & site-a/p/u'", name="q"),
            "Rule q is never reached: r before it",
        ),
    ],
)
def test_what_is_probably_not_meant(text: str, told: str) -> None:
    advice = advise(policy(text), ["compute", "network"], MEMBERS)
    assert any(word.startswith(told) for word in advice), advice


@pytest.mark.parametrize(
    "text",
    [
        "",
        rule(),
        rule("hours = '08:00-08:00,09:00-10:00'"),
        rule(may='"volume", "compute"'),
        rule(may='"*"'),
        rule("services = []"),
        rule(CREATE),
        rule(CREATE, who="'acme.x', 'site-a/p/*'"),
        rule("account = {create = 'fed-{testbed}-{project}'}", who="'*/*/*'"),
        rule(who="'alice', 'acme'"),
        rule(who="'self.member', 'self.testbed_x'"),
        rule(who="'fm.*/*/*', 'self/*/*', 'site-b/*/*'"),
        rule(who=f"'{STRANGER.fedid}/*/*'"),
        "[roles]\np = ['acme.x']\nnobody = []\n" + rule(who="'self.p', 'self.nobody'"),
        "[roles]\na = ['self.b', 'acme.x']\nb = ['self.a']",
        rule("count = 1") + rule(name="q"),
        rule("hours = 'mon'") + rule(name="q"),
        rule("hours = 'mon'") + rule("hours = 'tue'", name="q"),
        rule("flavours = ['a']") + rule("flavours = ['a', 'b']", name="q"),
        rule("flavours = ['*', '!a']") + rule("flavours = ['a']", name="q"),
        rule("flavours = ['!a']") + rule(name="q"),
        rule("services = ['a']") + rule("services = []", name="q", who="'site-b/*/*'"),
        rule(may='"network"') + rule(name="q"),
        rule(who="'site-a/p/*'") + rule(name="q"),
        rule(who="'*/*/*'") + rule(name="q"),  # site-a need not be a member
        rule(who="'*/*/*'") + rule(who="'self/*/*'", name="q"),
        rule(who="'/site-a/*'") + rule(who="'site-a/*/*'", name="q"),
        rule(who="'acme.x & acme.y'") + rule(who="'acme.x'", name="q"),
        rule(who="'site-a/*/*'") + rule(who="'site-a/*/*', 'site-b/*/*'", name="q"),
    ],
)
def test_what_may_be_meant(text: str) -> None:
    assert advise(policy(text), ["compute", "network"], MEMBERS) == []


def test_what_is_not_known_is_not_advised_on() -> None:
    assert advise(policy(rule(who="'*.org/*/*', 'site-a'", may='"volume"'))) == []


def test_a_shadowed_rule_is_told_once() -> None:
    text = rule(name="a") + rule(name="b") + rule(name="c")
    assert [word[:7] for word in advise(policy(text))] == ["Rule b ", "Rule c "]


def test_equal_empty_lists_are_alike() -> None:
    text = rule("services = []") + rule("services = []", name="q")
    assert len(advise(policy(text))) == 1
    assert OWN.fedid not in str(advise(policy(text)))
