"""Attachments: a volume in a machine. Their mark stands in the metadata of the volume, which can be attached only once.

    fedmesh_attachment=KEY       written before Nova is asked, removed after the volume is out of the machine again
    fedmesh_machine=SERVER       written with it: what somebody else does with the volume is not taken for ours

So an attachment is known whatever crashed: a volume with the mark that is attached runs; one with the mark that is not was either
never attached (the order goes on with `create`) or was detached, or its machine went, behind our back.
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import replace
from typing import ClassVar

import structlog

from federation_member.middleware.contract import InstanceRequest, Owned, Status, StillUsed, UnusableSpec
from federation_member.middleware.openstack import servers
from federation_member.middleware.openstack.connection import Cloud, Empty, Service
from federation_member.middleware.openstack.errors import InConflict
from federation_member.middleware.openstack.kinds import Context, until_gone
from federation_member.middleware.openstack.marks import check
from federation_member.middleware.openstack.volumes import (
    ATTACHED_BY,
    ATTACHED_TO,
    Volume,
    all_volumes,
    detach,
    key_of,
    volumes_with_key,
    with_metadata,
)
from fedkit.protocol.lending import AttachmentSpec, Instance

log = structlog.get_logger()
ATTACHMENT = "attachment"
UNDER_WAY = frozenset({"attaching", "reserved"})


class AttachmentKind:
    """Volumes in machines."""

    name: ClassVar[str] = ATTACHMENT
    services: ClassVar[tuple[Service, ...]] = ("block_storage", "compute")

    def __init__(self, context: Context) -> None:
        self._context, self._marks = context, context.marks
        # Of volumes: two attachments must not mark one at the same time.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def create(self, cloud: Cloud, key: str, request: InstanceRequest) -> Owned:
        """Attach it, or say how far it is."""
        spec = request.spec
        if not isinstance(spec, AttachmentSpec):
            raise UnusableSpec("This is no attachment.")
        async with self._locks.setdefault(spec.volume, asyncio.Lock()):
            volume, server = await self._both(cloud, spec)
            await self._mark(cloud, key, volume, server)
            if volume.status == "available":
                await self._attach(cloud, volume, server, spec.device)
                volume = volume.model_copy(update={"status": "attaching"})
        there = _owned(key, volume, server)
        return replace(there, status=Status.CREATING) if volume.status == "detaching" else there

    async def _both(self, cloud: Cloud, spec: AttachmentSpec) -> tuple[Volume, str]:
        found, machines = await asyncio.gather(
            volumes_with_key(cloud, self._marks, spec.volume), servers.with_key(cloud, self._marks, spec.machine)
        )
        server = servers.the_one(machines)
        if not found:
            raise UnusableSpec(f"There is no volume {spec.volume} here.")
        if server is None:
            raise UnusableSpec(f"There is no machine {spec.machine} here.")
        return found[0], server.id

    async def _mark(self, cloud: Cloud, key: str, volume: Volume, server: str) -> None:
        holder = volume.metadata.get(ATTACHED_BY, "")
        if holder not in ("", key):
            raise StillUsed(f"The volume belongs to the attachment {holder}.")
        if any(attached.server_id != server for attached in volume.attachments):
            raise StillUsed("The volume is attached to another machine.")
        if not holder:
            body = {"metadata": {ATTACHED_BY: check(key), ATTACHED_TO: server}}
            await cloud.post("block_storage", f"/volumes/{volume.id}/metadata", body, Empty)

    async def _attach(self, cloud: Cloud, volume: Volume, server: str, device: str | None) -> None:
        """Where it was wished to, or else where the cloud likes: not every cloud lets anybody choose."""
        body = {"volumeId": volume.id} | ({"device": device} if device else {})
        try:
            await cloud.post("compute", f"/servers/{server}/os-volume_attachments", {"volumeAttachment": body}, Empty)
        except (UnusableSpec, StillUsed, InConflict) as error:
            if device is None:
                raise
            log.info("device_refused", volume=volume.id, device=device, reason=error.message)
            await self._attach(cloud, volume, server, None)  # whatever else is wrong is said again

    async def find(self, cloud: Cloud, key: str) -> Owned | None:
        """As Cinder tells it."""
        volume = next(iter(await with_metadata(cloud, ATTACHED_BY, check(key))), None)
        return None if volume is None else _owned(key, volume)

    async def delete(self, cloud: Cloud, key: str) -> None:
        """Detach it, wait until the volume is free, then remove the mark."""

        async def is_free() -> bool:
            marked = await with_metadata(cloud, ATTACHED_BY, check(key))
            for volume in marked:
                await self._detach(cloud, volume)
            return not marked

        await until_gone(self._context, f"the attachment {key}", is_free)

    async def _detach(self, cloud: Cloud, volume: Volume) -> None:
        """One step towards a free volume without the mark."""
        ours = [one for one in volume.attachments if one.server_id == volume.metadata.get(ATTACHED_TO)]
        for attached in ours:
            await detach(cloud, volume, attached)
        if not ours and volume.status not in UNDER_WAY:
            await cloud.delete("block_storage", f"/volumes/{volume.id}/metadata/{ATTACHED_BY}")

    async def owned(self, cloud: Cloud) -> list[Owned]:
        """All volumes with the mark of an attachment."""
        found = [volume for volume in await all_volumes(cloud) if ATTACHED_BY in volume.metadata]
        return [_owned(volume.metadata[ATTACHED_BY], volume) for volume in found if self._is_ours(volume)]

    def _is_ours(self, volume: Volume) -> bool:
        return key_of(self._marks, volume) is not None


def _owned(key: str, volume: Volume, server: str | None = None) -> Owned:
    """With `server` where the volume's metadata do not name it yet."""
    server = server or volume.metadata.get(ATTACHED_TO)
    attached = next((one for one in volume.attachments if one.server_id == server), None)
    instance = Instance(
        name=(volume.name or "")[:128], size_gb=volume.size, device=None if attached is None else attached.device
    )
    if attached is not None and volume.status == "in-use":
        return Owned(key, ATTACHMENT, Status.RUNNING, instance)
    if volume.status in UNDER_WAY:
        return Owned(key, ATTACHMENT, Status.CREATING, instance, "The cloud is attaching the volume.")
    return Owned(
        key,
        ATTACHMENT,
        Status.FAILED,
        instance,
        f"The volume is not attached to the machine; the cloud calls it {volume.status}.",
    )
