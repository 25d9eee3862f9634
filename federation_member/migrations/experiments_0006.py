"""An experiment has a kit.

Revision ID: experiments_0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "experiments_0006"
down_revision = "experiments_0005"


def upgrade() -> None:
    """Add the column; until now there was but one."""
    op.add_column("experiments", sa.Column("kit", sa.Text, nullable=False, server_default="federation"))
