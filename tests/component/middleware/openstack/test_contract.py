"""The `openstack` kind keeps the contract."""

from __future__ import annotations

from tests.component.middleware.contract import MiddlewareContract


class TestOpenStack(MiddlewareContract):
    """With a real OpenStack."""
