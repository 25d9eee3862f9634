"""Notices that the cloud no longer goes on with something: a service that was killed in mid-create forgets it, and nobody says so.

Nova shows such a server as being scheduled for ever. Time is counted by our clock, and only while the cloud answers: neither a clock
that is wrong nor a cloud that is down makes something look forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from federation_member.middleware.contract import MiddlewareError, Owned, Status


class Progress:
    """How long what is being made has looked the same."""

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit`: seconds without any change after which something has failed."""
        self._limit, self._clock = limit, clock
        self._seen: dict[str, tuple[Owned, float]] = {}  # by key: how it looks, and since when

    def see(self, owned: Owned) -> None:
        """Take note of how it looks now; raises `MiddlewareError` if that has been so for too long."""
        if owned.status is not Status.CREATING:
            return self.forget(owned.key)
        now = self._clock()
        before, since = self._seen.get(owned.key, (None, now))
        if before != owned:
            self._seen[owned.key] = (owned, now)
        elif now - since > self._limit:
            self.forget(owned.key)
            raise MiddlewareError(
                f"The cloud has not gone on with it for {self._limit:g} s; it last said: {owned.reason}"
            )
        return None

    def forget(self, key: str) -> None:
        """It is made, deleted or out of sight; if it is seen again, time starts anew."""
        self._seen.pop(key, None)
