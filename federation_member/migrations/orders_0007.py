"""A lease may be part of another: a segment's machines and networks are its children.

Revision ID: orders_0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "orders_0007"
down_revision = "orders_0006"


def upgrade() -> None:
    """Add the columns; no lease of before has a parent or is a segment."""
    op.add_column("leases", sa.Column("parent", sa.String(36)))
    op.add_column("leases", sa.Column("part", sa.Text, nullable=False, server_default=""))
    op.add_column("leases", sa.Column("segment", sa.Text))
    op.create_index("leases_by_parent", "leases", ["parent"])
