"""What is wanted of a lease: wishes add up, and what was done of them takes nothing from those that came meanwhile."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from federation_member.orders.wishes import NOTHING, Wishes, as_columns, of_columns, with_rules
from fedkit.protocol.lending import LeaseChange, NetworkSpec, Power, PublicIpSpec, SecurityRule, first_rules

RULES = st.lists(st.builds(SecurityRule, ports=st.sampled_from([None, (22, 22), (80, 443)])), max_size=3).map(tuple)
WISHES = st.builds(Wishes, st.none() | st.sampled_from(Power), st.none() | RULES)
LEASE = "00000000-0000-4000-8000-000000000000"


@given(WISHES, st.none() | RULES)
def test_a_row_holds_them_as_they_are(wishes: Wishes, rules: tuple[SecurityRule, ...] | None) -> None:
    assert of_columns(SimpleNamespace(**as_columns(wishes, rules))) == (wishes, rules)


@given(WISHES, WISHES)
def test_the_last_word_counts_and_what_is_not_named_stays(before: Wishes, said: Wishes) -> None:
    rules = None if said.rules is None else list(said.rules)
    after = before.and_then(LeaseChange(lease_id=LEASE, power=said.power, rules=rules))
    assert after.power == (said.power or before.power)
    assert after.rules == (before.rules if said.rules is None else said.rules)


@given(WISHES, WISHES)
def test_what_was_done_of_older_wishes_leaves_newer_ones(seen: Wishes, now: Wishes) -> None:
    left = now.without(seen, NOTHING)
    assert left.power is (None if now.power is seen.power else now.power)
    assert left.rules == (None if now.rules == seen.rules else now.rules)
    assert seen.without(seen, seen) == seen


def test_nothing_is_false_and_even_no_rules_are_a_wish() -> None:
    assert not NOTHING
    assert Wishes(rules=())
    assert Wishes(power=Power.STOPPED)


def test_rules_are_those_of_the_spec_until_they_are_changed() -> None:
    machine = LEASE
    assert [str(rule.protocol) for rule in first_rules(PublicIpSpec(machine=machine))] == ["tcp", "icmp"]
    net = NetworkSpec(cidr="10.8.0.0/24", rules=[SecurityRule()])
    assert first_rules(net) == (SecurityRule(),)
    assert with_rules(net, None) == net
    assert first_rules(with_rules(net, ())) == ()
