"""An event loop whose timers are as fine as the kernel's.

epoll waits whole milliseconds (epoll_wait(2)), and asyncio rounds up to them: each line of a crossing would make its frames half a
millisecond late on average, which on a link of two is a lot. A timerfd (timerfd_create(2)) among the descriptors ends the wait in time.
It costs one call each time that the loop waits, so only portals with delays have one.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import selectors

CLOCK_MONOTONIC = 1  # which is what `loop.time()` tells
FLAGS = os.O_NONBLOCK | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class _Moment(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Moment), ("value", _Moment))


class FineSelector(selectors.EpollSelector):
    """Waits no longer than it is told."""

    def __init__(self) -> None:
        super().__init__()
        self._timer = _libc.timerfd_create(CLOCK_MONOTONIC, FLAGS)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._own = self.register(self._timer, selectors.EVENT_READ)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As of every selector."""
        if timeout is not None and timeout <= 0:
            return self._others(super().select(0))
        self._set(timeout or 0)
        return self._others(super().select(None))

    def _others(self, ready: list[tuple[selectors.SelectorKey, int]]) -> list[tuple[selectors.SelectorKey, int]]:
        return [one for one in ready if one[0] is not self._own]

    def _set(self, seconds: float) -> None:
        """Ring after so long (0: never), and forget that it has rung."""
        whole = int(seconds)
        value = _Moment(whole, max(int((seconds - whole) * 1e9), 1 if seconds else 0))
        if _libc.timerfd_settime(self._timer, 0, ctypes.byref(_Setting(_Moment(0, 0), value)), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """As of every selector."""
        super().close()
        if self._timer >= 0:
            os.close(self._timer)
            self._timer = -1


def fine_loop() -> asyncio.AbstractEventLoop:
    """Make one."""
    return asyncio.SelectorEventLoop(FineSelector())
