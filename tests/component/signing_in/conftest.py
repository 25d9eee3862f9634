"""A real Keystone, the one of the real OpenStack."""

from tests.support.openstack import real_openstack

__all__ = ["real_openstack"]
