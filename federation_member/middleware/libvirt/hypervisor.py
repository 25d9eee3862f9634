"""The connections to libvirtd.

libvirt's client is blocking C. Calls run in `Threads`, each over a connection of its own: where several share one and libvirtd
hangs, the client of libvirt 9 leaves all but one waiting for ever, and crashes when libvirtd comes back. Keep-alive messages,
which an event loop in a thread of its own sends, find a libvirtd that hangs and break the connection, which ends the call.
Whoever asks meanwhile is told `Unavailable` after a few seconds.

One more connection only listens. When it is lost, a task makes it anew, as soon as that can be; what happened in between was not
heard, so `again()` is told then.
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
CALLS = 4  # at once
CALL_LIMIT, CLOSE_LIMIT = 20.0, 2.0  # seconds
KEEPALIVE, KEEPALIVE_COUNT = 4, 3  # seconds between messages; how many may stay without an answer
SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 15.0  # seconds between two attempts to listen again
LOST = {libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_OPERATION_TIMEOUT}
NOT_ALLOWED = {libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_ACCESS_DENIED}
_once = Lock()


class Hypervisor:
    """One libvirtd; `event(name)` is told of every domain that starts, stops or goes, `again()` of listening again."""

    def __init__(self, uri: str, event: Callable[[str], None], again: Callable[[], None]) -> None:
        self._uri = uri
        self._event = event
        self._again = again
        self._idle: list[Any] = []  # connections that nobody uses now; threads take from it and put back
        self._ear: Any = None
        self._listener: Task[None] | None = None
        self._under_way: dict[str, set[Future[Any]]] = {}

    async def start(self) -> None:
        """Connect; raises `Unavailable` or `NotAuthorised`."""
        self._threads, self._ears = Threads(CALLS), Threads(1)
        self._lost = asyncio.Event()
        await self._listen()
        self._listener = asyncio.create_task(self._keep_listening(), name="libvirt listener")

    async def stop(self) -> None:
        """Let the connections go."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
            self._listener = None
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_LIMIT):
                    await asyncio.shield(await self._ears.begin(self._close_all))

    async def call(self, work: Callable[[Any], T], about: str = "", seconds: float = CALL_LIMIT) -> T:
        """What `work(connection)` returns; it runs in a thread.

        `about` is a key: `settled` tells when nothing about it is under way any more, whoever gave up waiting for it. Raises a
        `MiddlewareError` with libvirt's words; `Unavailable` if there is no answer.
        """
        try:
            async with asyncio.timeout(seconds):
                future = await self._threads.begin(lambda: self._over_a_connection(work))
                if about:
                    self._under_way.setdefault(about, set()).add(future)
                    future.add_done_callback(functools.partial(self._forget, about))
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise Unavailable(f"libvirt does not answer within {seconds:.0f} s.") from error

    async def settled(self, about: str) -> None:
        """Wait for calls about this key that were given up; raises `Unavailable` if they hang."""
        pending = self._under_way.get(about)
        if pending:
            _, hanging = await asyncio.wait(pending, timeout=CALL_LIMIT)
            if hanging:
                raise Unavailable("libvirt still works on what was asked before.")

    def _forget(self, about: str, future: Future[Any]) -> None:
        futures = self._under_way[about]
        futures.discard(future)
        if not futures:
            del self._under_way[about]

    # In threads

    def _over_a_connection(self, work: Callable[[Any], T]) -> T:
        connection = self._take()
        try:
            result = work(connection)
        except libvirt.libvirtError as error:
            raise _translated(error, connection if self._give_back(connection) else None) from error
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)
        return result

    def _take(self) -> Any:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if _is_alive(connection):
                    return connection
                _close(connection)
        return self._open()

    def _give_back(self, connection: Any) -> bool:
        """Keep it for others, if it is still good."""
        if alive := _is_alive(connection):
            self._idle.append(connection)
        else:
            _close(connection)
        return alive

    def _open(self) -> Any:
        _run_events()
        try:
            connection = libvirt.open(self._uri)
            connection.setKeepAlive(KEEPALIVE, KEEPALIVE_COUNT)
        except libvirt.libvirtError as error:
            raise _translated(error, None) from error
        return connection

    def _open_ear(self, loop: AbstractEventLoop) -> None:
        if self._ear is not None:
            ear, self._ear = self._ear, None
            with suppress(libvirt.libvirtError):
                ear.unregisterCloseCallback()
            _close(ear)
        ear = self._open()

        def closed(*_: Any) -> None:
            _from_afar(loop, self._lost.set)

        def event(_connection: Any, domain: Any, *_: Any) -> None:
            _from_afar(loop, self._event, domain.name())

        try:
            ear.registerCloseCallback(closed, None)
            ear.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, event, None)
        except libvirt.libvirtError as error:
            raise _translated(error, None) from error
        self._ear = ear

    def _close_all(self) -> None:
        if self._ear is not None:
            with suppress(libvirt.libvirtError):
                self._ear.unregisterCloseCallback()
            _close(self._ear)
            self._ear = None
        with suppress(IndexError):
            while True:
                _close(self._idle.pop())

    # Listening

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._lost.clear()
        try:
            async with asyncio.timeout(CALL_LIMIT):
                await asyncio.shield(await self._ears.begin(functools.partial(self._open_ear, loop)))
        except TimeoutError as error:
            raise Unavailable(f"libvirt at {self._uri} does not answer.") from error

    async def _keep_listening(self) -> None:
        """Listen again after each loss."""
        while True:
            await self._lost.wait()
            log.warning("hypervisor_lost", uri=self._uri)
            pause = SHORTEST_PAUSE
            while not await self._listens():
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            log.info("hypervisor_found", uri=self._uri)
            self._again()

    async def _listens(self) -> bool:
        try:
            await self._listen()
        except MiddlewareError as error:
            log.info("hypervisor_unavailable", uri=self._uri, reason=error.message)
            return False
        return True


def _translated(error: libvirt.libvirtError, connection: Any) -> MiddlewareError:
    """The same in the contract's words; without a connection it was the connection that failed."""
    words = f"libvirt: {error.get_error_message() or error}"
    code = error.get_error_code()
    if code in NOT_ALLOWED:
        return NotAuthorised(words)
    if connection is None or code in LOST:
        return Unavailable(words)
    return NoCapacity(words) if code == libvirt.VIR_ERR_NO_MEMORY else MiddlewareError(words)


def _is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive() == 1)
    except libvirt.libvirtError:
        return False


def _close(connection: Any) -> None:
    with suppress(libvirt.libvirtError):
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
