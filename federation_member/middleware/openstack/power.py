"""Stops, pauses and starts machines, a step at a time: Nova stops only what runs, and unpauses only what is paused."""

from __future__ import annotations

from federation_member.middleware.contract import MiddlewareError
from federation_member.middleware.openstack import servers
from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.errors import InConflict
from federation_member.middleware.openstack.servers import Server
from fedkit.protocol.lending import Power

STEPS = {
    ("ACTIVE", Power.STOPPED): "os-stop",
    ("ACTIVE", Power.PAUSED): "pause",
    ("SHUTOFF", Power.RUNNING): "os-start",
    ("SHUTOFF", Power.PAUSED): "os-start",
    ("PAUSED", Power.RUNNING): "unpause",
    ("PAUSED", Power.STOPPED): "unpause",
    ("SUSPENDED", Power.RUNNING): "resume",
    ("SUSPENDED", Power.STOPPED): "resume",
    ("SHELVED", Power.RUNNING): "unshelve",
    ("SHELVED", Power.PAUSED): "unshelve",
    ("SHELVED_OFFLOADED", Power.RUNNING): "unshelve",
    ("SHELVED_OFFLOADED", Power.PAUSED): "unshelve",
}


async def step(cloud: Cloud, server: Server, power: Power) -> bool:
    """Begin what brings the machine nearer to `power`; whether it is not there yet."""
    action = STEPS.get((server.status, power))
    if action is None or server.is_going:
        return False
    if server.task_state is None:
        try:
            await servers.act(cloud, server, action)
        except InConflict:
            return True  # Nova has begun something else meanwhile
    return True


async def shown(cloud: Cloud, server: Server) -> Server:
    """The server as it is now."""
    now = await servers.show(cloud, server.id)
    if now is None:
        raise MiddlewareError("The machine is gone.")
    return now
