"""The connection to libvirtd.

libvirt's client is blocking C. Calls go through `Threads`; keep-alive messages, which an event loop in a thread of its own
sends, find a libvirtd that hangs and break the connection, which ends every call that hangs in it. Whoever asks meanwhile is
told `Unavailable` after a few seconds.

A lost connection is made anew by the first who needs one, and by a task that keeps trying, because events are heard only over
a connection. What happened in between was not heard, so `again()` is told after each new connection.
"""

from __future__ import annotations

import asyncio
import functools
from asyncio import AbstractEventLoop, Future, Task
from collections.abc import Callable
from contextlib import suppress
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


class Hypervisor:
    """One libvirtd; `event(name)` is told of every domain that starts, stops or goes, `again()` of every new connection."""

    def __init__(self, uri: str, event: Callable[[str], None], again: Callable[[], None]) -> None:
        self._uri = uri
        self._event = event
        self._again = again
        self._connection: Any = None
        self._stale: Any = None  # a connection that broke, to be closed
        self._opening: Future[Any] | None = None
        self._keeper: Task[None] | None = None
        self._under_way: dict[str, set[Future[Any]]] = {}

    async def start(self) -> None:
        """Connect; raises `Unavailable` or `NotAuthorised`."""
        self._threads = Threads(CALLS)
        self._lost = asyncio.Event()
        await self._connected()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Let the connection go."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CALL_LIMIT):
                    await asyncio.shield(await self._threads.begin(lambda: _close(connection)))

    async def call(self, work: Callable[[Any], T], about: str = "", seconds: float = CALL_LIMIT) -> T:
        """What `work(connection)` returns; it runs in a thread.

        `about` is a key: `settled` tells when nothing about it is under way any more, whoever gave up waiting for it. Raises a
        `MiddlewareError` with libvirt's words; `Unavailable` if there is no answer.
        """
        connection = await self._connected()
        try:
            async with asyncio.timeout(seconds):
                future = await self._threads.begin(lambda: work(connection))
                self._note(about, future)
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise Unavailable(f"libvirt does not answer within {seconds:.0f} s.") from error
        except libvirt.libvirtError as error:
            raise self._translated(error, connection) from error

    async def settled(self, about: str) -> None:
        """Wait for calls about this key that were given up; raises `Unavailable` if they hang."""
        pending = self._under_way.get(about)
        if pending:
            _, hanging = await asyncio.wait(pending, timeout=CALL_LIMIT)
            if hanging:
                raise Unavailable("libvirt still works on what was asked before.")

    def _note(self, about: str, future: Future[Any]) -> None:
        if about:
            self._under_way.setdefault(about, set()).add(future)
            future.add_done_callback(functools.partial(self._forget, about))

    def _forget(self, about: str, future: Future[Any]) -> None:
        futures = self._under_way[about]
        futures.discard(future)
        if not futures:
            del self._under_way[about]

    async def _connected(self) -> Any:
        if self._connection is not None:
            return self._connection
        if self._opening is None or self._opening.done():
            loop = asyncio.get_running_loop()
            self._opening = await self._threads.begin(functools.partial(self._open, loop, self._stale))
            self._opening.add_done_callback(self._opened)
        try:
            async with asyncio.timeout(CALL_LIMIT):
                return await asyncio.shield(self._opening)
        except TimeoutError as error:
            raise Unavailable(f"libvirt at {self._uri} does not answer.") from error
        except libvirt.libvirtError as error:
            raise self._translated(error, None) from error

    def _open(self, loop: AbstractEventLoop, stale: Any) -> Any:
        """In a thread: connect, and listen."""
        _run_events()
        if stale is not None:
            _close(stale)
        connection = libvirt.open(self._uri)
        connection.setKeepAlive(KEEPALIVE, KEEPALIVE_COUNT)
        connection.registerCloseCallback(functools.partial(_from_afar, loop, self._closed), None)

        def event(_connection: Any, domain: Any, *_: Any) -> None:
            _from_afar(loop, self._event, domain.name())

        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, event, None)
        return connection

    def _opened(self, opening: Future[Any]) -> None:
        if opening.exception() is None:
            self._connection, self._stale = opening.result(), None
            self._lost.clear()
            self._again()

    def _closed(self, connection: Any, reason: int, _: object) -> None:
        log.warning("hypervisor_lost", uri=self._uri, reason=reason)
        self._drop(connection)

    def _drop(self, connection: Any) -> None:
        if connection is self._connection and connection is not None:
            self._connection, self._stale = None, connection
            self._lost.set()

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

    def _translated(self, error: libvirt.libvirtError, connection: Any) -> MiddlewareError:
        """The same in the contract's words; a connection that is none any more is dropped."""
        words = f"libvirt: {error.get_error_message() or error}"
        code = error.get_error_code()
        if code in NOT_ALLOWED:
            return NotAuthorised(words)
        if connection is None or code in LOST or not _is_alive(connection):
            self._drop(connection)
            return Unavailable(words)
        return NoCapacity(words) if code == libvirt.VIR_ERR_NO_MEMORY else MiddlewareError(words)


def _is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive() == 1)
    except libvirt.libvirtError:
        return False


def _close(connection: Any) -> None:
    with suppress(libvirt.libvirtError):
        connection.unregisterCloseCallback()
        connection.close()


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
