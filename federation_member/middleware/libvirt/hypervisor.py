"""The connection to libvirtd.

libvirt's client is blocking C. Calls go through `Threads`; keep-alive messages, which an event loop in a thread of its own
sends, find a libvirtd that hangs and break the connection, which ends every call that hangs in it. Whoever asks meanwhile is
told `Unavailable` after a few seconds.

A connection is closed only when nobody is in a call over it any more, which libvirt's client would not survive.

A lost connection is made anew by the first who needs one, and by a task that keeps trying, because events are heard only over
a connection. What happened in between was not heard, so `again()` is told after each new connection.
"""

from __future__ import annotations

import asyncio
import functools
from asyncio import AbstractEventLoop, Future, Task
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any, TypeVar

import libvirt
import structlog

from federation_member.middleware.contract import MiddlewareError, NoCapacity, NotAuthorised, Unavailable
from federation_member.middleware.libvirt.threads import Threads

log = structlog.get_logger()
T = TypeVar("T")
CALLS = 8  # at once
CALL_LIMIT = 20.0  # seconds
KEEPALIVE, KEEPALIVE_COUNT = 4, 3  # seconds between messages; how many may stay without an answer
SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 15.0  # seconds between two attempts to connect
LOST = {libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_OPERATION_TIMEOUT}
NOT_ALLOWED = {libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_ACCESS_DENIED}
_once = Lock()


@dataclass(eq=False)
class _Link:
    """A connection, and how many have to do with it."""

    connection: Any
    users: int = 0

    def leave(self, _: object = None) -> None:
        self.users -= 1


class Hypervisor:
    """One libvirtd; `event(name)` is told of every domain that starts, stops or goes, `again()` of every new connection."""

    def __init__(self, uri: str, event: Callable[[str], None], again: Callable[[], None]) -> None:
        self._uri = uri
        self._event = event
        self._again = again
        self._link: _Link | None = None
        self._stale: list[_Link] = []  # connections that broke, to be closed
        self._opening: Task[_Link] | None = None
        self._keeper: Task[None] | None = None
        self._under_way: dict[str, set[Future[Any]]] = {}

    async def start(self) -> None:
        """Connect; raises `Unavailable` or `NotAuthorised`."""
        self._threads, self._opener = Threads(CALLS), Threads(1)
        self._lost = asyncio.Event()
        await self._connected()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Let the connection go."""
        tasks = [task for task in (self._keeper, self._opening) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keeper = self._opening = None
        if self._link is not None:
            self._stale.append(self._link)
            self._link = None
        if idle := self._idle():
            with suppress(TimeoutError):
                async with asyncio.timeout(CALL_LIMIT):
                    await asyncio.shield(await self._threads.begin(lambda: _close(idle)))

    async def call(self, work: Callable[[Any], T], about: str = "", seconds: float = CALL_LIMIT) -> T:
        """What `work(connection)` returns; it runs in a thread.

        `about` is a key: `settled` tells when nothing about it is under way any more, whoever gave up waiting for it. Raises a
        `MiddlewareError` with libvirt's words; `Unavailable` if there is no answer.
        """
        link = await self._connected()
        link.users += 1
        try:
            async with asyncio.timeout(seconds):
                future = await self._threads.begin(lambda: work(link.connection))
                self._note(about, link, future)
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise Unavailable(f"libvirt does not answer within {seconds:.0f} s.") from error
        except libvirt.libvirtError as error:
            raise self._translated(error, link) from error
        finally:
            link.leave()

    async def settled(self, about: str) -> None:
        """Wait for calls about this key that were given up; raises `Unavailable` if they hang."""
        pending = self._under_way.get(about)
        if pending:
            _, hanging = await asyncio.wait(pending, timeout=CALL_LIMIT)
            if hanging:
                raise Unavailable("libvirt still works on what was asked before.")

    def _note(self, about: str, link: _Link, future: Future[Any]) -> None:
        link.users += 1
        future.add_done_callback(link.leave)
        if about:
            self._under_way.setdefault(about, set()).add(future)
            future.add_done_callback(functools.partial(self._forget, about))

    def _forget(self, about: str, future: Future[Any]) -> None:
        futures = self._under_way[about]
        futures.discard(future)
        if not futures:
            del self._under_way[about]

    async def _connected(self) -> _Link:
        if self._link is not None:
            return self._link
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._establish(), name="libvirt connection")
            self._opening.add_done_callback(self._opened)
        try:
            async with asyncio.timeout(CALL_LIMIT):
                return await asyncio.shield(self._opening)
        except TimeoutError as error:
            raise Unavailable(f"libvirt at {self._uri} does not answer.") from error
        except libvirt.libvirtError as error:
            raise self._translated(error, None) from error

    async def _establish(self) -> _Link:
        """With a thread of its own, because calls that hang in a broken connection may have all others."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(await self._opener.begin(functools.partial(self._open, loop, self._idle())))

    def _open(self, loop: AbstractEventLoop, idle: list[_Link]) -> _Link:
        """In a thread: connect, and listen."""
        _run_events()
        _close(idle)
        connection = libvirt.open(self._uri)
        link = _Link(connection)

        def closed(_connection: Any, reason: int, _: object) -> None:
            _from_afar(loop, self._closed, link, reason)

        def event(_connection: Any, domain: Any, *_: Any) -> None:
            _from_afar(loop, self._event, domain.name())

        connection.setKeepAlive(KEEPALIVE, KEEPALIVE_COUNT)
        connection.registerCloseCallback(closed, None)
        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, event, None)
        return link

    def _opened(self, opening: Task[_Link]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._link = opening.result()
            self._lost.clear()
            self._again()

    def _closed(self, link: _Link, reason: int) -> None:
        log.warning("hypervisor_lost", uri=self._uri, reason=reason)
        self._drop(link)

    def _drop(self, link: _Link | None) -> None:
        if link is not None and link is self._link:
            self._link = None
            self._stale.append(link)
            self._lost.set()

    def _idle(self) -> list[_Link]:
        """Take the broken connections that nobody is in a call over."""
        idle = [link for link in self._stale if not link.users]
        self._stale = [link for link in self._stale if link.users]
        return idle

    async def _keep(self) -> None:
        """Connect again after each loss."""
        pause = SHORTEST_PAUSE
        while True:
            await self._lost.wait()
            try:
                await self._connected()
                pause = SHORTEST_PAUSE
            except MiddlewareError as error:
                log.info("hypervisor_unavailable", uri=self._uri, reason=error.message)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _translated(self, error: libvirt.libvirtError, link: _Link | None) -> MiddlewareError:
        """The same in the contract's words; a connection that is none any more is dropped."""
        words = f"libvirt: {error.get_error_message() or error}"
        code = error.get_error_code()
        if code in NOT_ALLOWED:
            return NotAuthorised(words)
        if link is None or code in LOST or not _is_alive(link.connection):
            self._drop(link)
            return Unavailable(words)
        return NoCapacity(words) if code == libvirt.VIR_ERR_NO_MEMORY else MiddlewareError(words)


def _is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive() == 1)
    except libvirt.libvirtError:
        return False


def _close(links: list[_Link]) -> None:
    """In a thread."""
    for link in links:
        with suppress(libvirt.libvirtError):
            link.connection.unregisterCloseCallback()
        with suppress(libvirt.libvirtError):
            link.connection.close()


def _from_afar(loop: AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    """Call in the loop's thread, if there is still a loop."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)


def _run_events() -> None:
    """libvirt's event loop, one for the process, before the first connection."""
    with _once:
        _begin_events()


@functools.cache
def _begin_events() -> Thread:
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised; they need not be printed as well
    libvirt.virEventRegisterDefaultImpl()
    thread = Thread(target=_run_for_ever, daemon=True, name="libvirt events")
    thread.start()
    return thread


def _run_for_ever() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
