"""Images from URLs, handed to Glance once and shared by all orders of an account.

    URL ──ImageStore──► checked file ──upload──► Glance image, with tags `fedmesh-site=SITE` and `fedmesh-sha256=…`

Tags, because Nova does not pass them on to images of machines, as it does with properties. An upload is a task of its own: it may
take minutes, which no call waits for. One that a crash cut off leaves an image that is not active: it is deleted, and the upload
begun anew. What Glance stored must have the size and the hash of what was sent. An image that nobody ordered for a week, and no
machine stands on, is removed again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from asyncio import TaskGroup
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import BinaryIO, NoReturn

import structlog
from pydantic import Field

from federation_member.middleware.contract import MiddlewareError, StillUsed, Unavailable
from federation_member.middleware.images import Fetching, ImagesConfig, ImageStore, Ready
from federation_member.middleware.openstack.connection import Cloud, Empty
from federation_member.middleware.openstack.errors import InConflict, NotThere
from federation_member.middleware.openstack.glance import GIB, GlanceImage
from federation_member.middleware.openstack.kinds import Context, InProgress, Thing
from federation_member.middleware.openstack.marks import Marks
from federation_member.middleware.openstack.threads import Threads
from fedkit.clock import Clock, now
from fedkit.protocol.lending import ComputeSpec

log = structlog.get_logger()
SHA256 = "fedmesh-sha256="  # starts a tag
USED = "fedmesh_used"  # property: when it was ordered last
UPLOADS = 2  # at the same time
UNUSED = timedelta(days=7)  # after which an image is removed
EACH = timedelta(hours=6)  # between two notes that an image is used
FORGET = 60.0  # seconds that a failed upload is told before it is tried again
PIECE = 1 << 20
PATCH = "application/openstack-images-v2.1-json-patch"


class Stored(GlanceImage):
    """An image that was fetched."""

    used: datetime | None = Field(default=None, alias="fedmesh_used")


@dataclass
class _Upload:
    """One image on its way to one account's Glance, or why it did not get there."""

    size: int
    sent: int = 0
    stopped: bool = False
    wanted_by: set[str] = field(default_factory=set)
    failed: MiddlewareError | None = None
    failed_at: float = 0.0


class _Source:
    """A file for the thread that sends it: counts, hashes, and stops when it is told to."""

    def __init__(self, file: BinaryIO, upload: _Upload) -> None:
        self._file, self._upload = file, upload
        self.digest = hashlib.sha512()

    def __len__(self) -> int:
        return self._upload.size

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(PIECE), b"")

    def read(self, size: int = -1) -> bytes:
        """The next octets."""
        if self._upload.stopped:
            raise OSError("the member stops")
        piece = self._file.read(size)
        self.digest.update(piece)
        self._upload.sent += len(piece)
        return piece


class UrlImages:
    """Images that users name by URL and checksum."""

    def __init__(self, context: Context, config: ImagesConfig, clock: Clock = now) -> None:
        self._marks = context.marks
        self._store = ImageStore(config)
        self._clock = clock
        self._threads = Threads(UPLOADS)
        self._uploads: dict[tuple[str, str], _Upload] = {}  # by account and checksum
        self._changed: Callable[[str], None] = lambda key: None

    async def start(self, changed: Callable[[str], None]) -> None:
        """Get ready; `changed(key)` says when it is worth to ask again."""
        self._changed = changed
        await self._store.start(changed)
        self._tasks = TaskGroup()
        await self._tasks.__aenter__()
        self._running: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """End what is under way."""
        for upload in self._uploads.values():
            upload.stopped = True
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._store.stop()

    def release(self, key: str) -> None:
        """The machine `key` needs no image any more."""
        self._store.release(key)

    async def choose(self, cloud: Cloud, key: str, spec: ComputeSpec) -> str:
        """The id of the image; raises `InProgress` while it is fetched or handed over, and what is wrong with it."""
        assert spec.image_sha256 is not None
        sha256 = spec.image_sha256
        upload = self._uploads.get((cloud.account, sha256))
        if upload is None:
            for image in await stored(cloud, self._marks, sha256):
                if image.status == "active":
                    await self._note_use(cloud, image)
                    return image.id
            state = self._store.state(key, spec.image, sha256)
            if isinstance(state, Fetching):
                raise InProgress(str(state))
            # Another order may have begun it while this one looked into Glance.
            upload = self._uploads.get((cloud.account, sha256)) or self._begin(cloud, state)
        if upload.failed is not None:
            self._raise_failure(cloud, sha256, upload, upload.failed)
        upload.wanted_by.add(key)
        raise InProgress(f"handing the image to the cloud: {100 * upload.sent // max(upload.size, 1)} %")

    def _raise_failure(self, cloud: Cloud, sha256: str, upload: _Upload, error: MiddlewareError) -> NoReturn:
        if asyncio.get_running_loop().time() > upload.failed_at + FORGET:
            del self._uploads[cloud.account, sha256]  # so the next call begins anew
        raise type(error)(error.message)

    def _begin(self, cloud: Cloud, ready: Ready) -> _Upload:
        file = ready.path.open("rb")  # at once: from now on the store may remove it
        upload = self._uploads[cloud.account, ready.sha256] = _Upload(os.fstat(file.fileno()).st_size)
        task = self._tasks.create_task(self._run(cloud, ready, file, upload), name=f"upload {ready.sha256}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return upload

    async def _run(self, cloud: Cloud, ready: Ready, file: BinaryIO, upload: _Upload) -> None:
        try:
            with file:
                await self._hand_over(cloud, ready, file, upload)
            del self._uploads[cloud.account, ready.sha256]
        except (MiddlewareError, OSError) as error:
            reason = error.message if isinstance(error, MiddlewareError) else str(error)
            log.warning("image_not_handed_over", sha256=ready.sha256, account=cloud.account, reason=reason)
            if not isinstance(error, MiddlewareError) or isinstance(error, NotThere | InConflict):
                error = Unavailable(reason)  # the disk failed, or somebody deleted it in the cloud meanwhile
            upload.failed, upload.failed_at = error, asyncio.get_running_loop().time()
        for key in sorted(upload.wanted_by):
            self._changed(key)

    async def _hand_over(self, cloud: Cloud, ready: Ready, file: BinaryIO, upload: _Upload) -> None:
        for broken in await stored(cloud, self._marks, ready.sha256):
            if broken.status == "active":
                return
            await cloud.delete("image", f"/images/{broken.id}")
        image = await cloud.post("image", "/images", self._order(ready), Thing)
        source = _Source(file, upload)
        try:
            await cloud.upload(f"/images/{image.id}/file", source, self._threads)
            there = await cloud.get("image", f"/images/{image.id}", Stored)
            sent = ("active", upload.size, "sha512", source.digest.hexdigest())
            if (there.status, there.size, there.os_hash_algo, there.os_hash_value) != sent:
                raise Unavailable(f"The cloud did not store the image as it was sent; it is {there.status} there.")
        except MiddlewareError:
            await cloud.delete("image", f"/images/{image.id}")
            raise
        log.info("image_handed_over", sha256=ready.sha256, account=cloud.account, image=image.id)

    def _order(self, ready: Ready) -> dict[str, object]:
        return {
            "name": f"fetched {ready.sha256[:12]}",
            "disk_format": ready.format,
            "container_format": "bare",
            "visibility": "private",
            "min_disk": -(-ready.virtual_size // GIB),
            "tags": [self._marks.site_tag, SHA256 + ready.sha256],
            USED: self._clock().isoformat(),
        }

    async def _note_use(self, cloud: Cloud, image: Stored) -> None:
        moment = self._clock()
        if image.used is None or moment - image.used > EACH:
            change = [{"op": "add", "path": f"/{USED}", "value": moment.isoformat()}]
            await cloud.patch("image", f"/images/{image.id}", change, Empty, **{"Content-Type": PATCH})

    async def tidy(self, cloud: Cloud) -> None:
        """Remove what nobody ordered for long, no machine stands on, and is not under way."""
        for image in await stored(cloud, self._marks):
            under_way = any((cloud.account, tag.removeprefix(SHA256)) in self._uploads for tag in image.tags)
            if under_way or (image.used is not None and self._clock() - image.used < UNUSED):
                continue
            if await cloud.all("compute", "/servers", "servers", Thing, image=image.id):
                continue
            try:
                await cloud.delete("image", f"/images/{image.id}")
            except (InConflict, StillUsed) as error:
                log.info("image_stays", image=image.id, reason=error.message)


async def stored(cloud: Cloud, marks: Marks, sha256: str | None = None) -> list[Stored]:
    """The account's fetched images, of all checksums or one, whether whole or not; whole ones first."""
    tags = [marks.site_tag] if sha256 is None else [marks.site_tag, SHA256 + sha256]
    project = await cloud.project_id()
    found = await cloud.all("image", "/images", "images", Stored, limit=1000, owner=project, tag=tags)
    ours = [
        image
        for image in found
        if image.owner == project and {*tags} <= {*image.tags} and any(tag.startswith(SHA256) for tag in image.tags)
    ]
    return sorted(ours, key=lambda image: (image.status != "active", image.id))


async def remove_fetched(cloud: Cloud, marks: Marks) -> None:
    """Remove the account's fetched images, because the account itself goes."""
    for image in await stored(cloud, marks):
        await cloud.delete("image", f"/images/{image.id}")
