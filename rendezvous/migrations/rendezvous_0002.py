"""Revocation lists."""

import sqlalchemy as sa
from alembic import op

revision = "rendezvous_0002"
down_revision = "rendezvous_0001"


def upgrade() -> None:
    """Create the table of `rendezvous/revocations.py`."""
    op.create_table(
        "rendezvous_revocations",
        sa.Column("issuer", sa.String(40), primary_key=True),
        sa.Column("sender", sa.String(40), nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("signed", sa.Text, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False, unique=True),
    )
    op.create_index("ix_rendezvous_revocations_sender", "rendezvous_revocations", ["sender"])
