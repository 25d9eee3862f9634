"""The borrower's and the lender's books."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "orders_0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, and the one row of the event counter."""
    op.create_table(
        "lease_tombstones",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("borrower", sa.String(40), nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
    op.create_index("lease_tombstones_by_until", "lease_tombstones", ["until"])
    op.create_table(
        "leases",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("borrower", sa.String(40), nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("flavour", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("due", sa.BigInteger),
        sa.Column("instance", sa.Text),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claimed_until", sa.BigInteger),
        sa.Column("tunnel_fedid", sa.String(40)),
        sa.Column("tunnel_address", sa.Text),
        sa.Column("tunnel_key", sa.Text),
        sa.Column("tunnel_public", sa.Text),
        sa.Column("tunnel_expires", sa.BigInteger),
        sa.Column("tunnel_revision", sa.Integer, nullable=False),
        sa.Column("tunnels", sa.Text, nullable=False),
    )
    op.create_index("leases_by_borrower", "leases", ["borrower", "state"])
    op.create_index("leases_by_due", "leases", ["due"])
    op.create_table(
        "order_counter",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("events", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "order_events",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("order_id", sa.String(36), nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("events_by_order", "order_events", ["order_id", "sequence"])
    op.create_table(
        "order_requests",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("batch", sa.String(36), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("project", "owner", "key", name="order_requests_key"),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("location", sa.Text),
        sa.Column("batch", sa.String(36), nullable=False),
        sa.Column("valid_from", sa.BigInteger),
        sa.Column("valid_until", sa.BigInteger),
        sa.Column("lease_seconds", sa.Integer, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("next_try", sa.BigInteger),
        sa.Column("due", sa.BigInteger),
        sa.Column("lease_id", sa.String(36)),
        sa.Column("member", sa.Text),
        sa.Column("member_fedid", sa.String(40)),
        sa.Column("lease_expires", sa.BigInteger),
        sa.Column("instance", sa.Text),
        sa.Column("tunnels", sa.Text, nullable=False),
    )
    op.create_index("orders_by_batch", "orders", ["batch"])
    op.create_index("orders_by_due", "orders", ["due"])
    op.create_index("orders_by_owner", "orders", ["project", "owner", "created", "id"])
    op.create_index("orders_by_state", "orders", ["state", "created", "id"])
    op.create_table(
        "order_attempts",
        sa.Column("lease_id", sa.String(36), primary_key=True),
        sa.Column("order_id", sa.String(36), sa.ForeignKey("orders.id"), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("fedid", sa.String(40), nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("member", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("heard", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.Column("sync_due", sa.BigInteger),
    )
    op.create_index("attempts_by_order", "order_attempts", ["order_id", "started"])
    op.create_index("attempts_by_sync", "order_attempts", ["fedid", "sync_due"])
    op.create_table(
        "order_networks",
        sa.Column("order_id", sa.String(36), sa.ForeignKey("orders.id"), primary_key=True),
        sa.Column("network_id", sa.String(36), sa.ForeignKey("orders.id"), primary_key=True),
    )
    op.create_index("order_networks_by_network", "order_networks", ["network_id"])
    op.execute("INSERT INTO order_counter (id, events) VALUES (1, 0)")
