"""Images by URL and checksum: asked for until they are there.

    store.state(key, url, sha256)   ──►  Fetching(percent)  …  Fetching  …  Ready(path, format, virtual_size)
                                         or what is wrong, as an error

`state` is level-triggered: it begins a download if none is under way, and is asked again later; `changed(key)` says when
that is worth it. `key` is the lease that needs the image: orders for the same image share one download, which ends early
when the last of them is released. An image that is there is found by its checksum alone, wherever it came from. A download
belongs to its URL as well, so that somebody who names the right checksum and a bad URL holds nobody else up.

A failure is remembered for a while, so that a hundred orders for a broken URL cost one download and not a hundred.
"""

from __future__ import annotations

import asyncio
import re
from asyncio import Task, TaskGroup
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from aiohttp.abc import AbstractResolver
from yarl import URL

from federation_member.middleware.contract import MiddlewareError, NoCapacity, Unavailable, UnusableImage
from federation_member.middleware.images import urls
from federation_member.middleware.images.config import ImagesConfig
from federation_member.middleware.images.download import Downloader
from federation_member.middleware.images.shelf import Ready, Shelf

log = structlog.get_logger()
SHA256 = re.compile(r"[0-9a-f]{64}")
PAUSES = (2.0, 8.0)  # seconds before the second and the third attempt
REMEMBERED = {UnusableImage: 300.0, MiddlewareError: 30.0}  # seconds that a failure is told without trying again
FAILURES = 1000  # remembered at most
MIB = 1 << 20


@dataclass(frozen=True)
class Fetching:
    """An image on its way. `percent` is None while nobody knows how much there is."""

    received: int  # octets
    percent: int | None

    def __str__(self) -> str:
        how_far = f"{self.received // MIB} MiB" if self.percent is None else f"{self.percent} %"
        return f"fetching the image: {how_far}"


@dataclass
class _Job:
    """One download; `wanted_by` are the keys that wait for it."""

    task: Task[None] | None = None
    wanted_by: set[str] = field(default_factory=set)
    received: int = 0
    announced: int | None = None


_Source = tuple[str, str]  # URL and checksum


class ImageStore:
    """Fetches, checks, keeps. `pause` and `resolver` are for tests, which own time and names."""

    def __init__(
        self,
        config: ImagesConfig,
        resolver: AbstractResolver | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._config = config
        self._shelf = Shelf(config)
        self._downloader = Downloader(config, resolver)
        self._pause = pause
        self._jobs: dict[_Source, _Job] = {}
        self._failures: dict[_Source, tuple[float, MiddlewareError]] = {}
        self._free = asyncio.Semaphore(config.parallel)
        self._changed: Callable[[str], None] = lambda key: None

    async def start(self, changed: Callable[[str], None]) -> None:
        """Take the folder; raise `Unavailable` if another process has it."""
        self._shelf.open()
        self._changed = changed
        self._tasks = TaskGroup()
        await self._tasks.__aenter__()

    async def stop(self) -> None:
        """End what is under way. Whole images stay."""
        for job in self._jobs.values():
            assert job.task is not None
            job.task.cancel()
        await self._tasks.__aexit__(None, None, None)
        self._shelf.close()

    def state(self, key: str, url: str, sha256: str) -> Fetching | Ready:
        """How the image is for the lease `key`; begin to fetch it if it is neither there nor on its way.

        Raises `UnusableImage` for good; `Unavailable` and `NoCapacity` may pass.
        """
        if not SHA256.fullmatch(sha256):
            raise UnusableImage("A sha256 is 64 hexadecimal digits, lower case.")
        if ready := self._shelf.find(sha256):
            return ready
        source = (url, sha256)
        self._raise_failure(source)
        job = self._jobs.get(source) or self._begin(source)
        job.wanted_by.add(key)
        percent = None if not job.announced else min(100 * job.received // job.announced, 100)
        return Fetching(job.received, percent)

    def release(self, key: str) -> None:
        """The lease needs no image any more; what nobody else waits for is not fetched further."""
        for source, job in list(self._jobs.items()):
            job.wanted_by.discard(key)
            if not job.wanted_by:
                del self._jobs[source]  # at once: who asks for it now must not wait for what is about to end
                assert job.task is not None
                job.task.cancel()

    def _begin(self, source: _Source) -> _Job:
        urls.parse(source[0], self._config.ports)
        if len(self._jobs) >= self._config.waiting:
            raise NoCapacity(f"{len(self._jobs)} images are being fetched here; try again later.")
        job = self._jobs[source] = _Job()
        job.task = self._tasks.create_task(self._run(source, job), name=f"image {source[1]}")
        return job

    async def _run(self, source: _Source, job: _Job) -> None:
        try:
            async with self._free:
                await self._fetch(source, job)
        except MiddlewareError as error:
            log.info("image_refused", sha256=source[1], code=error.code, reason=error.message)
            self._remember(source, error)
        except Exception:  # a server that finds a hole in a library must not end the member
            log.exception("image_failed", sha256=source[1])
            self._remember(source, MiddlewareError("The image could not be fetched; the member's log tells why."))
        finally:
            if self._jobs.get(source) is job:
                del self._jobs[source]
        for key in sorted(job.wanted_by):
            self._changed(key)

    async def _fetch(self, source: _Source, job: _Job) -> None:
        """Try until it is there, it will never be, or it failed too often or for too long."""
        pauses = iter(PAUSES)
        try:
            async with asyncio.timeout(self._config.seconds):
                while not await self._succeeds(source, job, last=(pause := next(pauses, None)) is None):
                    assert pause is not None
                    await self._pause(pause)
        except TimeoutError as error:
            raise UnusableImage(f"The image could not be fetched within {self._config.seconds:.0f} s.") from error

    async def _succeeds(self, source: _Source, job: _Job, *, last: bool) -> bool:
        try:
            await self._attempt(source, job)
        except Unavailable as error:
            if last:
                raise
            log.info("image_retried", sha256=source[1], reason=error.message)
            return False
        return True

    async def _attempt(self, source: _Source, job: _Job) -> None:
        url, sha256 = source
        if self._shelf.find(sha256):
            return  # it came by another URL
        path = self._shelf.begin()

        def progress(received: int, announced: int | None) -> None:
            job.received, job.announced = received, announced
            self._shelf.grow(path, received)

        try:
            disk = await self._downloader.fetch(url, sha256, path, progress)
            self._shelf.keep(path, sha256, disk)
            log.info("image_fetched", host=URL(url).host, sha256=sha256, octets=job.received, format=disk.format)
        except OSError as error:
            raise Unavailable(f"The image cannot be stored: {error.strerror}.") from error
        finally:
            self._shelf.forget(path)

    def _remember(self, source: _Source, error: MiddlewareError) -> None:
        while len(self._failures) >= FAILURES:
            del self._failures[next(iter(self._failures))]
        lasts = next(seconds for kind, seconds in REMEMBERED.items() if isinstance(error, kind))
        self._failures[source] = (asyncio.get_running_loop().time() + lasts, error)

    def _raise_failure(self, source: _Source) -> None:
        until, error = self._failures.get(source, (0.0, None))
        if error is not None and asyncio.get_running_loop().time() < until:
            raise type(error)(error.message)
        self._failures.pop(source, None)
