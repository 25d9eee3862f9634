"""The `containers` kind keeps the contract."""

from __future__ import annotations

from tests.component.middleware.contract import MiddlewareContract


class TestContainers(MiddlewareContract):
    """With real namespaces, bridges and runc."""
