"""Volumes: disks of Cinder with our marks in their metadata, and in their description too, so that they are found again when
somebody changed the metadata.

Cinder takes an order and answers `creating`; what it could not make stays as `error`, and its messages say why. A volume that is
in use cannot be deleted, and what else still hangs on it (snapshots that somebody made) is named in Cinder's own words.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, Field

from federation_member.middleware.contract import (
    InstanceRequest,
    MiddlewareError,
    Owned,
    Status,
    StillUsed,
    UnusableSpec,
)
from federation_member.middleware.openstack import servers
from federation_member.middleware.openstack.connection import Cloud, Service
from federation_member.middleware.openstack.errors import InConflict, fault
from federation_member.middleware.openstack.kinds import Context, Thing, until_gone
from federation_member.middleware.openstack.marks import KEY, Marks, check
from fedkit.protocol.lending import Instance, VolumeSpec

VOLUME = "volume"
ATTACHED_BY, ATTACHED_TO = "fedmesh_attachment", "fedmesh_machine"  # of metadata: the attachment's key, the server's id
BEING_MADE = frozenset({"creating", "downloading"})
BEING_CHANGED = BEING_MADE | {"attaching", "detaching", "reserved", "uploading", "retyping", "extending", "deleting"}


class Attached(BaseModel):
    """Where a volume is attached."""

    server_id: str | None = None
    attachment_id: str = ""
    device: str | None = Field(default=None, max_length=64)


class Volume(Thing):
    """As Cinder tells it."""

    name: str | None = None
    description: str | None = None
    status: str = Field(max_length=64)
    size: int = Field(ge=0)
    metadata: dict[str, str] = Field(default_factory=dict)
    attachments: list[Attached] = Field(default_factory=list)


class OneVolume(BaseModel):
    """An answer with one."""

    volume: Volume


class Message(Thing):
    """Why Cinder could not do something."""

    user_message: str = ""
    created_at: str = ""


async def all_volumes(cloud: Cloud, **query: str) -> list[Volume]:
    """Every volume of the account that the query means."""
    return await cloud.all("block_storage", "/volumes/detail", "volumes", Volume, **query)


async def with_metadata(cloud: Cloud, name: str, value: str) -> list[Volume]:
    """Every volume of the account with this in its metadata; `value` has no quotes."""
    found = await all_volumes(cloud, metadata=f"{{'{name}': '{value}'}}")
    return sorted((volume for volume in found if volume.metadata.get(name) == value), key=lambda volume: volume.id)


async def volumes_with_key(cloud: Cloud, marks: Marks, key: str) -> list[Volume]:
    """Those with this key's mark, those that work before those that failed; several only after an answer was lost."""
    found = await with_metadata(cloud, KEY, check(key)) or await all_volumes(cloud)
    ours = [volume for volume in found if key_of(marks, volume) == key]
    return sorted(ours, key=lambda volume: (volume.status.startswith("error"), volume.id))


def key_of(marks: Marks, volume: Volume) -> str | None:
    """The key of a volume, if it is ours."""
    return marks.key_of_metadata(volume.metadata) or marks.key_of_description(volume.description)


class VolumeKind:
    """Volumes."""

    name: ClassVar[str] = VOLUME
    services: ClassVar[tuple[Service, ...]] = ("block_storage",)

    def __init__(self, context: Context) -> None:
        self._context, self._marks = context, context.marks

    async def create(self, cloud: Cloud, key: str, request: InstanceRequest) -> Owned:
        """Have it made; raises what Cinder says when it could not."""
        spec = request.spec
        if not isinstance(spec, VolumeSpec):
            raise UnusableSpec("This is no volume.")
        volume = next(iter(await volumes_with_key(cloud, self._marks, key)), None)
        if volume is None:
            body = {
                "name": spec.name,
                "size": spec.size_gb,
                "description": self._marks.description(key),
                "metadata": self._marks.metadata(key),
            }
            volume = (await cloud.post("block_storage", "/volumes", {"volume": body}, OneVolume)).volume
        if volume.status == "error":
            raise fault(await self._why(cloud, volume))
        return _owned(key, volume)

    async def _why(self, cloud: Cloud, volume: Volume) -> str:
        """Cinder's last words about it."""
        try:
            said = await cloud.all("block_storage", "/messages", "messages", Message, resource_uuid=volume.id)
        except MiddlewareError:  # a volume failed: that is the news, with or without more words
            return ""
        return max(said, key=lambda message: message.created_at).user_message if said else ""

    async def find(self, cloud: Cloud, key: str) -> Owned | None:
        """As Cinder tells it."""
        volume = next(iter(await volumes_with_key(cloud, self._marks, key)), None)
        return None if volume is None else _owned(key, volume)

    async def delete(self, cloud: Cloud, key: str) -> None:
        """Remove it; raises `StillUsed` while something that is not ours uses it."""

        async def is_gone() -> bool:
            left = await volumes_with_key(cloud, self._marks, key)
            for volume in left:
                if volume.attachments and ATTACHED_BY not in volume.metadata:
                    await self._free(cloud, volume)
                elif volume.status not in BEING_CHANGED:
                    await _end(cloud, volume)
            return not left

        await until_gone(self._context, f"the volume {key}", is_gone)

    async def _free(self, cloud: Cloud, volume: Volume) -> None:
        """Detach it from machines of ours, if the mark of its attachment was lost; raises `StillUsed` if it is in others."""
        ours = {server.id for server in await servers.of_site(cloud, self._marks)}
        for attached in volume.attachments:
            if attached.server_id not in ours:
                raise StillUsed(f"The volume is attached to the server {attached.server_id}, which is not ours.")
            await detach(cloud, volume, attached)

    async def owned(self, cloud: Cloud) -> list[Owned]:
        """All that have our mark."""
        found: dict[str, Owned] = {}
        for volume in sorted(
            await all_volumes(cloud), key=lambda volume: (not volume.status.startswith("error"), volume.id)
        ):
            if (key := key_of(self._marks, volume)) is not None:
                found[key] = _owned(key, volume)
        return list(found.values())


async def detach(cloud: Cloud, volume: Volume, attached: Attached) -> None:
    """Begin to take it out of a machine, which may be gone."""
    server = attached.server_id or ""
    try:
        there = await cloud.delete("compute", f"/servers/{server}/os-volume_attachments/{volume.id}")
        if not there and await servers.show(cloud, server) is None:
            # The machine went, and Cinder was not told.
            await cloud.delete("block_storage", f"/attachments/{attached.attachment_id}")
    except (InConflict, StillUsed, UnusableSpec):
        return  # it is on its way in or out; the next look tells


async def _end(cloud: Cloud, volume: Volume) -> None:
    try:
        await cloud.delete("block_storage", f"/volumes/{volume.id}")
    except (UnusableSpec, InConflict) as error:  # Cinder answers 400 to what is in use
        raise StillUsed(error.message) from error


def _owned(key: str, volume: Volume) -> Owned:
    status, reason = Status.RUNNING, ""
    if volume.status in BEING_MADE:
        status, reason = Status.CREATING, "The cloud is making the volume."
    elif volume.status == "deleting":
        status, reason = Status.FAILED, "The cloud is deleting the volume."
    elif volume.status.startswith("error"):
        status, reason = Status.FAILED, f"The cloud says that the volume is in the state {volume.status}."
    return Owned(key, VOLUME, status, Instance(name=(volume.name or "")[:128], size_gb=volume.size), reason)
