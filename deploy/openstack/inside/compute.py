"""Nova's fake hypervisor, as far as a lender's behaviour needs more than Nova's own tests do.

Guests outlive a restart, as those of a real hypervisor do, and a snapshot ends as an image that is there.
"""

# OpenStack is not in the environment that checks this code.
# mypy: disable-error-code="import-not-found,import-untyped,misc"

from __future__ import annotations

import io
from typing import Any

from nova import context as nova_context
from nova import objects
from nova.compute import power_state, vm_states
from nova.image import glance
from nova.virt import fake, node

CONTENT = b"\0" * 4096  # what a guest that does not exist has on its disc


class LastingFakeDriver(fake.FakeDriver):
    """A host of 1000 processors with guests that are only remembered."""

    def init_host(self, host: str) -> None:
        """Bring back the guests that the database knows."""
        super().init_host(host)
        for instance in objects.InstanceList.get_by_host(nova_context.get_admin_context(), host):
            on = instance.vm_state in (vm_states.ACTIVE, vm_states.PAUSED)
            state = power_state.RUNNING if on else power_state.SHUTDOWN
            self.instances[instance.uuid] = fake.FakeInstance(instance.name, state, instance.uuid)

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        """What the host has, under the identity that it keeps: Nova refuses a host that has lost its own."""
        return {**super().get_available_resource(nodename), "uuid": node.get_local_node_uuid()}

    def get_nodenames_by_uuid(self, refresh: bool = False) -> dict[str, str]:
        """The one host."""
        return {node.get_local_node_uuid(): self.get_available_nodes()[0]}

    def snapshot(self, context: Any, instance: Any, image_id: str, update_task_state: Any) -> None:
        """Upload an image."""
        super().snapshot(context, instance, image_id, update_task_state)
        images = glance.API()
        told = images.get(context, image_id)
        told.update(disk_format="raw", container_format="bare")
        images.update(context, image_id, told, data=io.BytesIO(CONTENT), purge_props=False)
