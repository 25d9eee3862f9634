"""What is known of paths, and which plane that makes best."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedkit.portal.health import Health
from fedkit.portal.picker import LONG, LOSSY, STEADY, Choice, Path, pick
from fedkit.portal.planes.contract import PlaneName

STREAM, DATAGRAMS = PlaneName.SUPERFRAMES, PlaneName.DATAGRAMS
NEAR, FAR = Path(True, LONG / 10), Path(True, LONG * 4)
DEAD = Path(False)


def test_near_by_super_frames_and_far_away_datagrams() -> None:
    assert pick(Choice(), {STREAM: NEAR, DATAGRAMS: NEAR}, 0) == STREAM
    assert pick(Choice(), {STREAM: FAR, DATAGRAMS: FAR}, 0) == DATAGRAMS
    assert pick(Choice(), {STREAM: Path(True, 0.0, LOSSY), DATAGRAMS: NEAR}, 0) == DATAGRAMS
    assert pick(Choice(), {STREAM: Path(True, 0.3), DATAGRAMS: NEAR}, 0) == STREAM  # its own queue makes no line long


def test_a_dead_path_is_left_at_once_and_taken_again() -> None:
    choice = Choice()
    assert pick(choice, {STREAM: FAR, DATAGRAMS: FAR}, 0) == DATAGRAMS
    assert pick(choice, {STREAM: FAR, DATAGRAMS: DEAD}, 0.1) == STREAM
    assert pick(choice, {STREAM: FAR, DATAGRAMS: FAR}, 0.2) == STREAM  # not to and fro
    assert pick(choice, {STREAM: FAR, DATAGRAMS: FAR}, 0.1 + STREAM_AGAIN) == DATAGRAMS
    assert choice.changes == 2


STREAM_AGAIN = STEADY + 0.1

paths = st.builds(Path, st.booleans(), st.none() | st.floats(0, 1), st.floats(0, 1))


@given(st.lists(st.dictionaries(st.sampled_from(PlaneName), paths), max_size=20))
def test_what_is_chosen_is_alive_if_anything_is(story: list[dict[PlaneName, Path]]) -> None:
    choice = Choice()
    before = None
    for now, known in enumerate(story):
        chosen = pick(choice, known, float(now))
        alive = {name for name, path in known.items() if path.alive}
        assert chosen in alive if alive else chosen == (before if before in known else None)
        before = chosen


def test_some_answers_bring_to_life_and_some_losses_end_it() -> None:
    health = Health(1.0)
    for now in range(3):
        assert not health.alive
        health.answered(health.probe(float(now)), now + 0.25)
    assert health.alive
    assert health.delay == 0.25
    for now in range(10, 13):
        assert health.alive
        health.probe(float(now))
    health.expire(20.0)
    assert not health.alive
    assert health.loss == 0.5
    number = health.probe(20.0)
    health.answered(number, 20.1)
    assert not health.alive


def test_answers_that_nobody_waits_for_tell_nothing() -> None:
    health = Health(1.0)
    health.answered(5, 1.0)
    number = health.probe(1.0)
    health.answered(number, 1.5)
    health.answered(number, 1.6)
    assert health.delay == 0.5
    assert health.delay_now == 0.5
