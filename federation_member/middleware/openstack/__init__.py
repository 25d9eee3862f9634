"""The `openstack` kind: machines, networks, volumes and addresses of an OpenStack cloud, through openstacksdk."""

from federation_member.middleware.openstack.service import OpenStackMiddleware

__all__ = ["OpenStackMiddleware"]
