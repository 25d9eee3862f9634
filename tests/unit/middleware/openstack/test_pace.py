"""Looks are few, and close to when a machine is made."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.middleware.openstack.pace import OPENS, SELDOM, SLOWING, SOONEST, Pace

BEGUN = 100.0


def looks(pace: Pace, until: float) -> list[float]:
    """The moments of looks, up to the first one `until` seconds after the beginning or later; in seconds after it."""
    moments = [BEGUN]
    while moments[-1] - BEGUN < until:
        moments.append(pace.next_look(BEGUN, moments[-1]))
    return [moment - BEGUN for moment in moments[1:]]


def learned(*seconds: float) -> Pace:
    pace = Pace()
    for took in seconds:
        pace.learn(took)
    return pace


def test_without_experience_it_looks_soon() -> None:
    assert looks(Pace(), 1.0)[:3] == pytest.approx([SOONEST, 2 * SOONEST, 3 * SOONEST])


def test_with_experience_the_first_look_is_shortly_before_it_is_made() -> None:
    moments = looks(learned(1.0, 1.2, 9.0), 1.2)
    assert moments[0] == pytest.approx(OPENS * 1.2 if OPENS * 1.2 < SELDOM else SELDOM)
    assert len(moments) <= 5
    assert 1.2 <= moments[-1] < 1.4


def test_what_was_seen_late_is_looked_for_earlier_next_time() -> None:
    pace = learned(3.0)
    for _ in range(20):
        pace.learn(next(moment for moment in looks(pace, 10.0) if moment >= 0.5))
    assert looks(pace, 0.5)[-1] < 0.75


@given(st.lists(st.floats(0.01, 3600), max_size=10), st.floats(0.1, 600))
def test_there_is_always_a_next_look_and_none_is_far_away(times: list[float], until: float) -> None:
    for before, after in pairwise([0.0, *looks(learned(*times), until)]):
        assert 0 < after - before <= max(SELDOM, before / SLOWING) + 1e-6


@given(st.floats(0.5, 600))
def test_what_takes_as_long_as_usual_is_seen_in_time_with_few_looks(usual: float) -> None:
    moments = looks(learned(usual), usual)
    assert moments[-1] - usual <= max(usual / SLOWING / 4, 0.1) + 1e-6
    assert len(moments) < 60
