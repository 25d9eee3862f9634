"""Orders to test with."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from federation_member.orders.model import Order, OrderState, OrderType, User
from fedkit.protocol.lending import ComputeSpec

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def an_order(**changes: Any) -> Order:
    """An open order of one machine."""
    values: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "owner": User("project", "alice"),
        "type": OrderType.ONE_TIME,
        "state": OrderState.OPEN,
        "reason": "",
        "spec": ComputeSpec(image="debian"),
        "location": None,
        "batch": str(uuid.uuid4()),
        "valid_from": None,
        "valid_until": None,
        "lease_seconds": 600,
        "created": START,
        "changed": START,
        "revision": 1,
        "member": None,
        "member_fedid": None,
        "lease_id": None,
        "lease_expires": None,
        "instance": None,
        "tunnels": (),
    }
    return Order(**values | changes)
