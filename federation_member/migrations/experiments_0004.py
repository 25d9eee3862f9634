"""What was granted in experiments, what of that was revoked, and who is let in no more.

Revision ID: experiments_0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "experiments_0004"
down_revision = "experiments_0003"


def upgrade() -> None:
    """Make the tables; what was granted before is not listed, and ends when it expires or its principal is barred."""
    op.create_table(
        "experiment_grants",
        sa.Column("experiment_id", sa.String(36), sa.ForeignKey("experiments.id"), primary_key=True),
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("principal", sa.String(40), nullable=False),
        sa.Column("party", sa.Text),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("granted", sa.BigInteger, nullable=False),
        sa.Column("revoked", sa.BigInteger),
    )
    op.create_table(
        "experiment_barred",
        sa.Column("experiment_id", sa.String(36), sa.ForeignKey("experiments.id"), primary_key=True),
        sa.Column("principal", sa.String(40), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
