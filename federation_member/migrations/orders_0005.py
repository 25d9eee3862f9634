"""Leases and orders know how they are to be from now on: power and security rules, wanted and in force.

Revision ID: orders_0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "orders_0005"
down_revision = "orders_0004"


def upgrade() -> None:
    """Add the columns; of what exists nothing else is wanted, and the rules are those that it was made with."""
    for table in ("leases", "orders"):
        op.add_column(table, sa.Column("wanted_power", sa.Text))
        op.add_column(table, sa.Column("wanted_rules", sa.Text))
        op.add_column(table, sa.Column("rules", sa.Text))
