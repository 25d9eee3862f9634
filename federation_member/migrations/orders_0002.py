"""A lease knows what its grant hands to the borrower: the allocation's fedid, certificates, credentials."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "orders_0002"
down_revision = "orders_0001"


def upgrade() -> None:
    """Add the column; what was lent before has no grant, is not renewed, and ends with its lease."""
    op.add_column("leases", sa.Column("handed", sa.Text))
