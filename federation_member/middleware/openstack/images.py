"""Images: which are lent, and which one an order means."""

from __future__ import annotations

from dataclasses import dataclass

from federation_member.middleware.contract import UnknownImage
from federation_member.middleware.guest import How
from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.kinds import Context, Remembered, Thing
from fedkit.protocol.lending import ComputeSpec, Image

KEPT = 60.0  # seconds


@dataclass(frozen=True)
class Chosen:
    """What a machine is to boot from."""

    id: str
    user_data: How


class GlanceImage(Thing):
    """As Glance tells it."""

    name: str | None = None


class Images:
    """Images by name."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._all = Remembered(self._look, KEPT)

    async def offered(self, cloud: Cloud) -> list[Image]:
        """Those that can be ordered."""
        if self._context.config.images:
            return [Image(name=name, description=one.description) for name, one in self._context.config.images.items()]
        names = {image.name for image in await self._all.get(cloud) if image.name}
        return [Image(name=name) for name in sorted(names)]

    async def choose(self, cloud: Cloud, spec: ComputeSpec) -> Chosen:
        """The image that `spec` means; raises `UnknownImage`, or `InProgress` while it is being fetched."""
        config = self._context.config
        mapped = config.images.get(spec.image)
        if config.images and mapped is None:
            raise UnknownImage(f"There is no image {spec.image} here; there are {', '.join(config.images)}.")
        name = mapped.image if mapped else spec.image
        how = (mapped and mapped.user_data) or config.user_data
        for image in await self._all.get(cloud):
            if name in (image.name, image.id):
                return Chosen(image.id, how)
        raise UnknownImage(f"There is no image {spec.image} here.")

    async def _look(self, cloud: Cloud) -> list[GlanceImage]:
        return await cloud.all("image", "/images", "images", GlanceImage, status="active", limit=1000)
