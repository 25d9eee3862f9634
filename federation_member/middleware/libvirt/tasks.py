"""What goes on for an instance after `create` or `set_power` has answered: a boot, a copy, a slow stop; one task for each key."""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections.abc import Callable, Coroutine

import structlog

from federation_member.middleware.contract import MiddlewareError

log = structlog.get_logger()


class Tasks:
    """The tasks of one middleware; `failed(key, reason)` is told of one that did not get to its end."""

    def __init__(self, failed: Callable[[str, str], None]) -> None:
        self._failed = failed
        self._tasks: dict[str, Task[None]] = {}
        self._stirs: dict[str, asyncio.Event] = {}

    def begin(self, key: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Begin `work`, unless something goes on for this key already."""
        if key not in self._tasks:
            self._stirs[key] = asyncio.Event()
            task = self._tasks[key] = asyncio.create_task(self._run(key, work), name=f"libvirt {key}")
            task.add_done_callback(lambda _: self._forget(key, task))

    def goes_on(self, key: str) -> bool:
        """Whether something does for this key."""
        return key in self._tasks

    def stir(self, key: str) -> None:
        """Something happened to this machine: whoever waits for it looks."""
        if key in self._stirs:
            self._stirs[key].set()

    async def stirred(self, key: str, seconds: float) -> None:
        """Wait, in the key's own task, until something happens, but not longer than that."""
        stir = self._stirs[key]
        try:
            async with asyncio.timeout(seconds):
                await stir.wait()
        except TimeoutError:
            return
        stir.clear()

    async def end(self, key: str) -> None:
        """End what goes on for this key."""
        if (task := self._tasks.get(key)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def stop(self) -> None:
        """End all of them."""
        for key in list(self._tasks):
            await self.end(key)

    async def _run(self, key: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        try:
            await work()
        except MiddlewareError as error:
            log.warning("instance_failed", key=key, code=error.code, reason=error.message)
            self._failed(key, error.message)
        except Exception as error:
            log.exception("instance_failed", key=key)
            self._failed(key, f"{type(error).__name__} in the lender's middleware")

    def _forget(self, key: str, task: Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key], self._stirs[key]
