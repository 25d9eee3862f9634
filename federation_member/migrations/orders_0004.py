"""Orders and leases of every kind may use others, not only machines their networks.

Revision ID: orders_0004
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "orders_0004"
down_revision = "orders_0003"


def upgrade() -> None:
    """Keep who uses whom in one table for each book; what machines joined until now goes there."""
    op.create_table(
        "order_uses",
        sa.Column("order_id", sa.String(36), sa.ForeignKey("orders.id"), primary_key=True),
        sa.Column("used_id", sa.String(36), sa.ForeignKey("orders.id"), primary_key=True),
    )
    op.create_index("order_uses_by_used", "order_uses", ["used_id"])
    op.execute("INSERT INTO order_uses (order_id, used_id) SELECT order_id, network_id FROM order_networks")
    op.drop_table("order_networks")
    uses = op.create_table(
        "lease_uses",
        sa.Column("lease_id", sa.String(36), primary_key=True),
        sa.Column("used_id", sa.String(36), primary_key=True),
    )
    op.create_index("lease_uses_by_used", "lease_uses", ["used_id"])
    leases = op.get_bind().execute(sa.text("SELECT id, spec FROM leases WHERE kind = 'compute'")).all()
    rows = [
        {"lease_id": lease.id, "used_id": network}
        for lease in leases
        for network in dict.fromkeys(json.loads(lease.spec).get("networks", []))
    ]
    if rows:
        op.bulk_insert(uses, rows)
