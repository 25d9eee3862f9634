"""An experiment may be under extension.

Revision ID: experiments_0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "experiments_0005"
down_revision = "experiments_0004"


def upgrade() -> None:
    """Add the column."""
    op.add_column("experiments", sa.Column("extension", sa.Text))
