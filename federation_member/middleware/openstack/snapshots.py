"""Snapshots: images in Glance that Nova makes of a machine's disk, with our marks and the server's id among their properties."""

from __future__ import annotations

from typing import ClassVar

from federation_member.middleware.contract import InstanceRequest, Owned, Status, StillUsed, UnusableSpec
from federation_member.middleware.openstack import servers
from federation_member.middleware.openstack.connection import Cloud, Empty, Service
from federation_member.middleware.openstack.errors import InConflict
from federation_member.middleware.openstack.glance import (
    BEING_MADE,
    SERVER,
    GlanceImage,
    list_images,
    snapshots_with_key,
)
from federation_member.middleware.openstack.kinds import Context, until_gone
from fedkit.protocol.lending import Instance, SnapshotSpec

SNAPSHOT = "snapshot"


class SnapshotKind:
    """Images of machines."""

    name: ClassVar[str] = SNAPSHOT
    services: ClassVar[tuple[Service, ...]] = ("compute", "image")

    def __init__(self, context: Context) -> None:
        self._context, self._marks = context, context.marks

    async def create(self, cloud: Cloud, key: str, request: InstanceRequest) -> Owned:
        """Have it made, or say how far it is."""
        spec = request.spec
        if not isinstance(spec, SnapshotSpec):
            raise UnusableSpec("This is no snapshot.")
        found = await snapshots_with_key(cloud, self._marks, key)
        if found:
            return _owned(key, found[0])
        server = servers.the_one(await servers.with_key(cloud, self._marks, spec.machine))
        if server is None:
            raise UnusableSpec(f"There is no machine {spec.machine} here.")
        marks = self._marks.metadata(key) | {SERVER: server.id}
        body = {"createImage": {"name": spec.name, "metadata": marks}}
        waiting = Owned(key, SNAPSHOT, Status.CREATING, Instance(name=spec.name), "The cloud is making the snapshot.")
        try:
            await cloud.post("compute", f"/servers/{server.id}/action", body, Empty)
        except InConflict as error:  # the machine is busy: with another snapshot, with being stopped, …
            return Owned(key, SNAPSHOT, Status.CREATING, waiting.instance, error.message)
        return waiting

    async def find(self, cloud: Cloud, key: str) -> Owned | None:
        """As Glance tells it."""
        found = await snapshots_with_key(cloud, self._marks, key)
        return _owned(key, found[0]) if found else None

    async def delete(self, cloud: Cloud, key: str) -> None:
        """Remove it."""

        async def is_gone() -> bool:
            left = await snapshots_with_key(cloud, self._marks, key)
            for image in left:
                await _end(cloud, image)
            return not left

        await until_gone(self._context, f"the snapshot {key}", is_gone)

    async def owned(self, cloud: Cloud) -> list[Owned]:
        """All that have our mark."""
        found: dict[str, Owned] = {}
        for image in await list_images(cloud, owner=await cloud.project_id(), fedmesh_site=self._marks.site):
            if (key := image.snapshot_of(self._marks)) is not None:
                found.setdefault(key, _owned(key, image))
        return list(found.values())


async def _end(cloud: Cloud, image: GlanceImage) -> None:
    try:
        await cloud.delete("image", f"/images/{image.id}")
    except InConflict as error:
        raise StillUsed(error.message) from error


def _owned(key: str, image: GlanceImage) -> Owned:
    instance = Instance(name=(image.name or "")[:128], size_gb=image.size_gb)
    if image.status == "active":
        return Owned(key, SNAPSHOT, Status.RUNNING, instance)
    if image.status in BEING_MADE:
        return Owned(key, SNAPSHOT, Status.CREATING, instance, "The cloud is making the snapshot.")
    return Owned(key, SNAPSHOT, Status.FAILED, instance, f"The cloud says that the snapshot is {image.status}.")
