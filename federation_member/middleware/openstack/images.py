"""Images: which are lent, and which one an order means.

By name: of those that the configuration lends, or that the account sees; never a snapshot or an image that was fetched for somebody,
though its id may be known. `snapshot:KEY`: a snapshot of ours in the same account. A URL: fetched and handed to Glance first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from federation_member.middleware.contract import UnknownImage, UnusableSpec
from federation_member.middleware.guest import How
from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.glance import GlanceImage, list_images, snapshots_with_key
from federation_member.middleware.openstack.kinds import Context, InProgress, Remembered
from federation_member.middleware.openstack.url_images import UrlImages
from fedkit.protocol.lending import SNAPSHOT, ComputeSpec, Image

KEPT = 60.0  # seconds
MOST_BASES = 16  # snapshots of snapshots


@dataclass(frozen=True)
class Chosen:
    """What a machine is to boot from."""

    id: str
    user_data: How


class Images:
    """Images by name, by URL, and those that machines left."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._all = Remembered(self._look, KEPT)
        urls = context.config.images_from_urls
        self._urls = None if urls is None else UrlImages(context, urls)

    async def start(self, changed: Callable[[str], None]) -> None:
        """Get ready to fetch; `changed(key)` says when it is worth to choose again."""
        if self._urls is not None:
            await self._urls.start(changed)

    async def stop(self) -> None:
        """End what is under way."""
        if self._urls is not None:
            await self._urls.stop()

    def release(self, key: str) -> None:
        """The machine `key` needs no image any more."""
        if self._urls is not None:
            self._urls.release(key)

    async def tidy(self, cloud: Cloud) -> None:
        """Remove fetched images that are unused for long."""
        if self._urls is not None:
            await self._urls.tidy(cloud)

    async def offered(self, cloud: Cloud) -> list[Image]:
        """Those that can be ordered by name."""
        if offered := self._context.config.images:
            return [
                Image(name=name, description=one.description, portal=one.portal, delays=one.delays)
                for name, one in offered.items()
            ]
        names = {image.name for image in await self._all.get(cloud) if image.name}
        return [Image(name=name) for name in sorted(names) if len(name) <= 128]

    async def choose(self, cloud: Cloud, key: str, spec: ComputeSpec) -> Chosen:
        """The image that `spec` means; raises `UnknownImage`, or `InProgress` while it is on its way."""
        if spec.image.startswith(SNAPSHOT):
            return await self._snapshot(cloud, spec.image.removeprefix(SNAPSHOT))
        if not spec.from_url:
            return await self._by_name(cloud, spec.image)
        if self._urls is None:
            raise UnusableSpec("Images are not fetched from URLs here.")
        return Chosen(await self._urls.choose(cloud, key, spec), self._context.config.user_data)

    async def _by_name(self, cloud: Cloud, wanted: str) -> Chosen:
        config = self._context.config
        mapped = config.images.get(wanted)
        if config.images and mapped is None:
            raise UnknownImage(f"There is no image {wanted} here; there are {', '.join(config.images)}.")
        name = mapped.image if mapped else wanted
        for image in await self._all.get(cloud):
            if name in (image.name, image.id):
                return Chosen(image.id, (mapped and mapped.user_data) or config.user_data)
        raise UnknownImage(f"There is no image {wanted} here.")

    async def _snapshot(self, cloud: Cloud, key: str) -> Chosen:
        for image in await snapshots_with_key(cloud, self._context.marks, key):
            if image.status == "active":
                return Chosen(image.id, await self._way_of(cloud, image))
            raise InProgress("the snapshot is being made")
        raise UnknownImage(f"There is no snapshot {key} here.")

    async def _way_of(self, cloud: Cloud, image: GlanceImage) -> How:
        """How a snapshot treats user data: as the image does that its machine was made from."""
        known = {one.id: one for one in await list_images(cloud)}
        base: GlanceImage | None = image
        for _ in range(MOST_BASES):
            if base is None or base.base is None:
                break
            base = known.get(base.base)
        names = set() if base is None else {base.id, base.name}
        found = [one.user_data for one in self._context.config.images.values() if one.image in names]
        return next((way for way in found if way is not None), self._context.config.user_data)

    async def _look(self, cloud: Cloud) -> list[GlanceImage]:
        return [image for image in await list_images(cloud, status="active") if image.is_on_offer]
