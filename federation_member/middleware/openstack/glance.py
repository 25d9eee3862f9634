"""Images as Glance tells them."""

from __future__ import annotations

from pydantic import Field

from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.kinds import Thing
from federation_member.middleware.openstack.marks import KEY, SITE, Marks

SERVER = "fedmesh_server"  # of a snapshot's properties: the server that it was made from
BEING_MADE = frozenset({"queued", "saving", "importing", "uploading"})
GONE = frozenset({"deleted", "pending_delete"})
GIB = 1 << 30


class GlanceImage(Thing):
    """One image. `base` and `instance` are written by Nova, when it makes an image of a machine."""

    name: str | None = None
    status: str = Field(default="", max_length=64)
    owner: str | None = None
    tags: list[str] = Field(default_factory=list)
    size: int | None = None
    updated_at: str = ""
    os_hash_algo: str | None = None
    os_hash_value: str | None = None
    base: str | None = Field(default=None, alias="base_image_ref")
    instance: str | None = Field(default=None, alias="instance_uuid")
    site: str | None = Field(default=None, alias="fedmesh_site")
    key: str | None = Field(default=None, alias="fedmesh_key")
    server: str | None = Field(default=None, alias="fedmesh_server")

    def snapshot_of(self, marks: Marks) -> str | None:
        """The key of a snapshot, if this is one of ours.

        Nova passes properties on to images of machines that were made from an image; it is ours only if it was made from the
        server that it names.
        """
        if self.server is None or self.server != self.instance or self.status in GONE:
            return None
        return marks.key_of_metadata({SITE: self.site or "", KEY: self.key or ""})

    @property
    def is_on_offer(self) -> bool:
        """Whether it can be ordered by its name: it is neither a snapshot nor one that was fetched for somebody."""
        return self.site is None and not any(tag.startswith("fedmesh-") for tag in self.tags)

    @property
    def size_gb(self) -> int | None:
        """GiB, as far as it is known."""
        return None if self.size is None else -(-self.size // GIB)


async def list_images(cloud: Cloud, **query: str | list[str]) -> list[GlanceImage]:
    """Every image that the account sees and the query means, in a fixed order."""
    found = await cloud.all("image", "/images", "images", GlanceImage, limit=1000, **query)
    return sorted(found, key=lambda image: (image.status != "active", image.id))


async def snapshots_with_key(cloud: Cloud, marks: Marks, key: str) -> list[GlanceImage]:
    """The snapshots under a key, whole ones first; several only after an answer was lost."""
    found = await list_images(cloud, owner=await cloud.project_id(), **marks.metadata(key))
    return [image for image in found if image.snapshot_of(marks) == key]
