"""Who used how much: the table of spells."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "usage_0001"
down_revision = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "usage",
        sa.Column("role", sa.String(8), primary_key=True),
        sa.Column("lease_id", sa.String(36), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("member", sa.String(40), nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("vcpu", sa.BigInteger, nullable=False),
        sa.Column("ram_mb", sa.BigInteger, nullable=False),
        sa.Column("disk_gb", sa.BigInteger, nullable=False),
        sa.Column("began", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.BigInteger),
        sa.Column("until", sa.BigInteger),
    )
    op.create_index("usage_by_end", "usage", ["role", "ended"])
    op.create_index("usage_by_owner", "usage", ["role", "owner", "ended"])
