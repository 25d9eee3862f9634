"""Grants, what they rest on, what is revoked, and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "access_0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, and the one row of the log's head."""
    op.create_table(
        "access_grants",
        sa.Column("lease_id", sa.String(36), primary_key=True),
        sa.Column("allocation", sa.String(40), nullable=False),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("private_key", sa.Text),
        sa.Column("member", sa.String(40), nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("principal", sa.String(40), nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("keys", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("how", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("certificate", sa.Text),
        sa.Column("world", sa.String(64), nullable=False),
        sa.Column("credentials", sa.Text, nullable=False),
        sa.Column("proof", sa.Text, nullable=False),
        sa.Column("proved_until", sa.BigInteger, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("active", sa.Integer, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )
    op.create_index("grants_by_rule", "access_grants", ["active", "rule"])
    op.create_index("grants_by_account", "access_grants", ["account", "active"])
    op.create_table(
        "access_grant_credentials",
        sa.Column("lease_id", sa.String(36), sa.ForeignKey("access_grants.lease_id"), primary_key=True),
        sa.Column("credential_id", sa.String(64), primary_key=True),
        sa.Column("issuer", sa.String(64), nullable=False),
    )
    op.create_index("grant_credentials_by_id", "access_grant_credentials", ["credential_id", "issuer"])
    op.create_table(
        "access_revocations",
        sa.Column("issuer", sa.String(64), primary_key=True),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "access_audit",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    head = op.create_table(
        "access_audit_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_table(
        "access_texts",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.execute(head.insert().values(id=1, sequence=0, hash="0" * 64))
