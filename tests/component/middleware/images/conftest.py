"""A store of images beside a server of them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from federation_member.middleware.contract import MiddlewareError
from federation_member.middleware.images import Fetching, ImagesConfig, ImageStore, Ready
from tests.component.middleware.images.servers import Names, Server, serving
from tests.support.disk_images import qcow2_image

GOOD = qcow2_image(bytes(3 << 20))
HERE = "127.0.0.1/32"  # the only address that stores of these tests may fetch from


def sha256(data: bytes) -> str:
    """As an order names it."""
    return hashlib.sha256(data).hexdigest()


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that nobody tells of."""
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


class Bench:
    """Makes stores over one folder, one after another, and asks them as a middleware does."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server
        self.pauses: list[float] = []
        self.woken: asyncio.Queue[str] = asyncio.Queue()

    def config(self, **given: Any) -> ImagesConfig:
        """Like the default, with `given`."""
        options = {"folder": self.folder, "allow": [HERE], "ports": [self.server.port], "spare": 0} | given
        return ImagesConfig.model_validate(options)

    def store(self, names: Names | None = None, **given: Any) -> ImageStore:
        """A store that is not started; it pauses for no time."""

        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        return ImageStore(self.config(**given), names, pause)

    async def outcome(self, store: ImageStore, url: str, digest: str = sha256(GOOD), key: str = "lease") -> Ready:
        """Ask until the image is there; raise what the store says is wrong."""
        while isinstance(state := store.state(key, url, digest), Fetching):
            while await self.woken.get() != key:
                pass
        return state

    async def failure(self, store: ImageStore, path: str, digest: str = sha256(GOOD)) -> MiddlewareError:
        """What is wrong with the image at `path`, or at a whole URL."""
        url = path if "://" in path else self.server.url(path)
        with pytest.raises(MiddlewareError) as caught:
            await self.outcome(store, url, digest)
        return caught.value

    def files(self) -> set[str]:
        """All that lies in the folder, without the lock."""
        return {path.name for path in self.folder.rglob("*") if path.is_file() and path.name != "lock"}


Starts = Callable[..., Any]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server at the address that may be fetched from; it has a good image."""
    async with serving() as server:
        yield server


@pytest.fixture
def bench(tmp_path: Path, server: Server) -> Bench:
    """The folder is new."""
    return Bench(tmp_path / "images", server)


@pytest.fixture
async def start(bench: Bench) -> AsyncIterator[Starts]:
    """Starts stores, which are stopped after the test."""
    async with AsyncExitStack() as stack:

        async def started(names: Names | None = None, **given: Any) -> ImageStore:
            store = bench.store(names, **given)
            await store.start(bench.woken.put_nowait)
            stack.push_async_callback(store.stop)
            return store

        yield started
