"""When a segment was told to start, and why it was given up.

Revision ID: experiments_0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "experiments_0003"
down_revision = "experiments_0002"


def upgrade() -> None:
    """Add the columns; of what runs already nobody waits for the start."""
    op.add_column("experiment_segments", sa.Column("started", sa.BigInteger))
    op.add_column("experiment_segments", sa.Column("code", sa.Text, nullable=False, server_default=""))
    op.add_column("experiment_segments", sa.Column("reason", sa.Text, nullable=False, server_default=""))
