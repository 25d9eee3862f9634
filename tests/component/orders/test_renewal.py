"""Leases are kept alive, however many there are at one lender and however much it has to say of each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncssh
import pytest

from federation_member.orders.model import OrderState
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, in_virtual_time, machine

MACHINES = 60  # the lender's certificates and credentials for these come to twice what one answer carries
LEASE = 60


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    """An empty federation."""
    return Federation(tmp_path, virtual=True)


@in_virtual_time
async def test_many_machines_at_one_lender_outlive_their_first_lease(world: Federation) -> None:
    a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    wish = machine(requirements="vcpu >= 4", count=MACHINES, ssh_keys=[key], lease_seconds=LEASE)
    orders = await a.orders.create(USER, wish, None)
    made = [await a.until(order.id, OrderState.FULFILLED) for order in orders]
    await asyncio.sleep(3 * LEASE)
    for order in made:
        now = await a.order(order.id)
        assert (now.state, now.lease_id) == (OrderState.FULFILLED, order.lease_id)
    assert len(b.cloud.made) == MACHINES
