"""What an account may have and has, as Nova, Cinder and Neutron count it.

Nova and Cinder tell both in their limits (-1: no limit). Neutron tells it in an extension (`quota_details`); a cloud without it, or
that keeps it from users, leaves networks and public addresses uncounted, and so does one without Cinder for volumes.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, Field

from federation_member.middleware.contract import NotAuthorised, Quota
from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.errors import NotThere
from fedkit.protocol.lending import Amounts


class ComputeLimits(BaseModel):
    """Nova's; memory in MiB."""

    machines: int = Field(alias="maxTotalInstances")
    machines_used: int = Field(alias="totalInstancesUsed")
    vcpu: int = Field(alias="maxTotalCores")
    vcpu_used: int = Field(alias="totalCoresUsed")
    ram: int = Field(alias="maxTotalRAMSize")
    ram_used: int = Field(alias="totalRAMUsed")


class VolumeLimits(BaseModel):
    """Cinder's; sizes in GiB."""

    volumes: int | None = Field(default=None, alias="maxTotalVolumes")
    volumes_used: int | None = Field(default=None, alias="totalVolumesUsed")
    size: int | None = Field(default=None, alias="maxTotalVolumeGigabytes")
    size_used: int | None = Field(default=None, alias="totalGigabytesUsed")


class Counted(BaseModel):
    """Neutron's, of one resource."""

    limit: int | None = None
    used: int | None = None


class NetworkLimits(BaseModel):
    """Neutron's."""

    network: Counted = Counted()
    floatingip: Counted = Counted()


class _Absolute(BaseModel):
    absolute: ComputeLimits


class _ComputeAnswer(BaseModel):
    limits: _Absolute


class _AbsoluteVolumes(BaseModel):
    absolute: VolumeLimits


class _VolumeAnswer(BaseModel):
    limits: _AbsoluteVolumes


class _NetworkAnswer(BaseModel):
    quota: NetworkLimits


async def quota(cloud: Cloud) -> Quota:
    """Of the account; all services are asked at the same time."""
    compute, volumes, networks = await asyncio.gather(_compute(cloud), _volumes(cloud), _networks(cloud))
    return Quota(
        total=Amounts(
            machines=_limit(compute.machines),
            vcpu=_limit(compute.vcpu),
            ram_mb=_limit(compute.ram),
            volumes=_limit(volumes.volumes),
            volume_gb=_limit(volumes.size),
            networks=_limit(networks.network.limit),
            public_ips=_limit(networks.floatingip.limit),
        ),
        used=Amounts(
            machines=compute.machines_used,
            vcpu=compute.vcpu_used,
            ram_mb=compute.ram_used,
            volumes=volumes.volumes_used,
            volume_gb=volumes.size_used,
            networks=networks.network.used,
            public_ips=networks.floatingip.used,
        ),
    )


def _limit(number: int | None) -> int | None:
    return None if number is None or number < 0 else number


async def _compute(cloud: Cloud) -> ComputeLimits:
    return (await cloud.get("compute", "/limits", _ComputeAnswer)).limits.absolute


async def _volumes(cloud: Cloud) -> VolumeLimits:
    if not await cloud.has("block_storage"):
        return VolumeLimits()
    return (await cloud.get("block_storage", "/limits", _VolumeAnswer)).limits.absolute


async def _networks(cloud: Cloud) -> NetworkLimits:
    try:
        answer = await cloud.get("network", f"/quotas/{await cloud.project_id()}/details.json", _NetworkAnswer)
    except (NotThere, NotAuthorised):
        return NetworkLimits()
    return answer.quota
