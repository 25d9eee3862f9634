"""What the cloud no longer goes on with has failed; what only takes long has not."""

from __future__ import annotations

import uuid

import pytest

from federation_member.middleware.contract import MiddlewareError, Owned, Status
from federation_member.middleware.openstack.progress import Progress
from fedkit.protocol.lending import Instance

KEY = str(uuid.UUID(int=1))
LIMIT = 60.0


class Clock:
    """Goes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress(LIMIT, clock)


def machine(reason: str, status: Status = Status.CREATING) -> Owned:
    return Owned(KEY, "compute", status, Instance(name="machine"), reason)


def test_what_looks_the_same_for_too_long_has_failed(progress: Progress, clock: Clock) -> None:
    progress.see(machine("scheduling"))
    clock.now = LIMIT
    progress.see(machine("scheduling"))
    clock.now += 1
    with pytest.raises(MiddlewareError, match="scheduling"):
        progress.see(machine("scheduling"))


def test_what_goes_on_may_take_as_long_as_it_takes(progress: Progress, clock: Clock) -> None:
    for percent in range(100):
        progress.see(machine(f"fetching the image: {percent} %"))
        clock.now += LIMIT


def test_what_runs_may_look_the_same_for_ever(progress: Progress, clock: Clock) -> None:
    for _ in range(3):
        progress.see(machine("", Status.RUNNING))
        clock.now += 2 * LIMIT


def test_time_in_which_nothing_was_seen_does_not_count(progress: Progress, clock: Clock) -> None:
    progress.see(machine("scheduling"))
    clock.now += 2 * LIMIT
    progress.forget(KEY)
    progress.see(machine("scheduling"))
