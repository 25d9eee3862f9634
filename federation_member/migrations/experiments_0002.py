"""Experiments have parties, and events say which testbeds they are about.

Revision ID: experiments_0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "experiments_0002"
down_revision = "experiments_0001"


def upgrade() -> None:
    """Add the columns; no experiment of before has parties, and what its events are about is unknown."""
    op.add_column("experiments", sa.Column("parties", sa.Text, nullable=False, server_default="{}"))
    op.add_column("experiments", sa.Column("about", sa.Text))
    op.add_column("experiment_events", sa.Column("about", sa.Text))
