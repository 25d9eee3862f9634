"""Attempts know as whom and with what a lender was asked; an order is its user's in whatever project.

Revision ID: orders_0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "orders_0003"
down_revision = "orders_0002"


def upgrade() -> None:
    """Add the columns; whose an order is no longer depends on its project."""
    op.add_column("orders", sa.Column("handle", sa.Text))
    op.drop_index("orders_by_owner", "orders")
    op.create_index("orders_by_owner", "orders", ["owner", "created", "id"])
    op.add_column("order_attempts", sa.Column("number", sa.Integer, nullable=False, server_default="0"))
    op.add_column("order_attempts", sa.Column("name", sa.Text, nullable=False, server_default=""))
    op.add_column("order_attempts", sa.Column("sent", sa.Text, nullable=False, server_default="[]"))
    op.add_column("order_attempts", sa.Column("access", sa.Text))
    op.add_column("order_attempts", sa.Column("fresh_due", sa.BigInteger))
