"""A lease knows its last spells: when it held what.

Revision ID: orders_0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "orders_0006"
down_revision = "orders_0005"


def upgrade() -> None:
    """Add the column. What runs already is counted from its next change on."""
    op.add_column("leases", sa.Column("spells", sa.Text, nullable=False, server_default="[]"))
