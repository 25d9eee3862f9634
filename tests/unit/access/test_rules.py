"""What a rule lends, and how it says no."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from federation_member.access.hours import Hours
from federation_member.access.model import ACCOUNT_LIMIT, AccountMapping, Action, How
from federation_member.access.rules import Rule, Rules, allows
from fedkit.identity.names import Name

MONDAY = datetime(2026, 11, 23, 10, tzinfo=UTC)
SMALL = Action("compute", "small", "pc3000", "debian", ("SMB", "userconfig"))
RULE = Rule("r", (), ("compute", "network"))


def test_a_rule_without_limits_lends_its_kinds() -> None:
    assert RULE.refusal(SMALL, MONDAY, 10**6) is None
    assert RULE.refusal(Action("network"), MONDAY, 0) is None
    assert RULE.refusal(Action("volume"), MONDAY, 0) == "Rule r lends the kind compute, network, not volume."


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"flavours": ("large", "huge")}, "Rule r lends the flavour large, huge, not small."),
        ({"node_types": ("bvx*",)}, "Rule r lends the node type bvx*, not pc3000."),
        ({"images": ("ubuntu",)}, "Rule r lends the image ubuntu, not debian."),
        ({"services": ("SMB",)}, "Rule r lends the service SMB, not userconfig."),
        ({"services": ()}, "Rule r lends the service none, not SMB."),
        ({"count": 2}, "Rule r lends 2 at the same time, and 2 exist."),
        (
            {"hours": Hours.parse("sat,sun Europe/Berlin")},
            "Rule r lends only sat,sun Europe/Berlin; there it is mon 11:00 cet.",
        ),
    ],
)
def test_a_refusal_names_the_limit(limits: dict[str, object], told: str) -> None:
    assert replace(RULE, **limits).refusal(SMALL, MONDAY, 2) == told  # type: ignore[arg-type]


def test_limits_that_fit() -> None:
    rule = replace(
        RULE,
        flavours=("s*",),
        node_types=("pc?000",),
        images=("debian",),
        services=("*",),
        count=3,
        hours=Hours.parse("mon"),
    )
    assert rule.refusal(SMALL, MONDAY, 2) is None
    assert rule.refusal(SMALL, MONDAY, 3) is not None


def test_what_is_no_machine_has_no_flavour() -> None:
    rule = replace(RULE, flavours=("small",), node_types=("pc",), images=("debian",))
    assert rule.refusal(Action("network"), MONDAY, 0) is None
    told = rule.refusal(Action("compute"), MONDAY, 0)
    assert told == "Rule r lends the flavour small, not one without a name."


@pytest.mark.parametrize(
    ("images", "image", "lent"),
    [
        (("debian*",), "https://images.test/debian.qcow2", False),
        (("https://images.test/*",), "https://images.test/debian.qcow2", True),
        (("https://images.test/*",), "https://images.test.evil/debian.qcow2", False),
        (("debian*",), "snapshot:1", False),
        (("debian*", "snapshot:*"), "snapshot:1", True),
        (("*",), "https://anywhere.test/", True),
    ],
)
def test_urls_and_snapshots_are_images_like_others(images: tuple[str, ...], image: str, lent: bool) -> None:
    assert (replace(RULE, images=images).unfit(Action("compute", image=image)) is None) == lent


def test_services_are_looked_at_for_every_kind() -> None:
    assert replace(RULE, services=("SMB",)).refusal(Action("network", services=("x",)), MONDAY, 0) is not None


@pytest.mark.parametrize(
    ("patterns", "value", "allowed"),
    [
        (("*",), "", True),
        ((), "", False),
        (("a", "b*"), "bc", True),
        (("a", "b*"), "c", False),
        (("!a",), "a", False),
        (("!a",), "b", True),
        (("*", "!a*"), "ab", False),
        (("b", "!a"), "c", False),
        (("b", "!b"), "b", False),
        (("[!a]",), "b", True),
        (("A",), "a", False),
    ],
)
def test_lists_of_patterns(patterns: tuple[str, ...], value: str, allowed: bool) -> None:
    assert allows(patterns, value) is allowed


def test_rules_are_found_by_name() -> None:
    assert Rules(rules=(replace(RULE, name="q"), RULE)).rule("r") is RULE
    assert Rules().rule("r") is None
    assert RULE.role == "rule_r"


ALICE = Name("ab" * 20, "proj1", "alice")


@pytest.mark.parametrize("how", [How.STATIC, How.RIGHTS, How.CERTIFICATE])
def test_only_made_accounts_are_templates(how: How) -> None:
    assert AccountMapping(how, "proj1").account_of(ALICE) == "proj1"


@pytest.mark.parametrize(
    ("template", "account"),
    [
        ("fed-{project}", "fed-proj1"),
        ("{user}", "alice"),
        ("{testbed}-{project}", "abababababab-proj1"),
        ("x", "x"),
    ],
)
def test_accounts_are_made_from_the_name(template: str, account: str) -> None:
    assert AccountMapping(How.CREATE, template).account_of(ALICE) == account


def test_names_that_no_account_can_have_stay_apart() -> None:
    mapping = AccountMapping(How.CREATE, "fed-{project}")
    odd = ["a.b", "a@b", "A-b", "a-b", "x" * 100, "x" * 99, "x" * 28, "x" * 29, ""]
    accounts = [mapping.account_of(replace(ALICE, project=project)) for project in odd]
    assert len(set(accounts)) == len(odd)
    assert all(len(account) <= ACCOUNT_LIMIT for account in accounts)
    assert accounts[3] == "fed-a-b"
    assert accounts[6] == "fed-" + "x" * 28
    assert accounts[0].startswith("fed-a-b-")


def test_an_action_says_itself() -> None:
    assert str(SMALL) == "compute small pc3000 debian +SMB +userconfig"
    assert str(Action("network")) == "network"
