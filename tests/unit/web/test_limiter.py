"""The attempt limiter: laws that hold for any sequence of attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federation_member.accounts.limiter import AttemptLimiter

BURST = 3
SECONDS = 10.0


class Clock:
    """Seconds that the test owns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=50))
def test_never_more_than_the_burst_and_what_time_gave_back(pauses: list[float]) -> None:
    clock = Clock()
    limiter = AttemptLimiter(BURST, SECONDS, clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        passed += limiter.take("key") == 0
        assert passed <= BURST + clock.now / SECONDS


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=50))
def test_whoever_waits_as_told_is_let_in(pauses: list[float]) -> None:
    clock = Clock()
    limiter = AttemptLimiter(BURST, SECONDS, clock)
    for pause in pauses:
        clock.now += pause
        if wait := limiter.take("key"):
            clock.now += wait + 1e-6
            assert limiter.take("key") == 0


def test_keys_do_not_slow_one_another() -> None:
    limiter = AttemptLimiter(1, SECONDS, Clock())
    assert limiter.take("one") == 0
    assert limiter.take("other") == 0
    assert limiter.take("one") > 0


def test_memory_is_bounded() -> None:
    limiter = AttemptLimiter(1, SECONDS, Clock(), remembered=10)
    for number in range(1000):
        limiter.take(str(number))
    assert len(limiter._buckets) == 10


def test_whoever_proved_himself_starts_afresh() -> None:
    limiter = AttemptLimiter(1, SECONDS, Clock())
    limiter.take("key")
    limiter.forgive("key")
    assert limiter.take("key") == 0
