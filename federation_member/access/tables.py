"""Tables of access: what is granted, what was decided, and what has been revoked.

The audit log is never changed and never shortened. Texts that many entries speak of (credentials, policies, lists of members)
stand beside it, once each, under their SHA-256, which the entries name: so the log's chain covers them too.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

from federation_member.orders.tables import Instant

metadata = MetaData()

grants = Table(
    "access_grants",
    metadata,
    Column("lease_id", String(36), primary_key=True),
    Column("allocation", String(40), nullable=False),
    Column("public_key", Text, nullable=False),  # OpenSSH
    Column("private_key", Text),  # PEM; destroyed at release
    Column("member", String(40), nullable=False),
    Column("address", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("principal", String(40), nullable=False),
    Column("action", Text, nullable=False),  # JSON
    Column("keys", Text, nullable=False),  # OpenSSH public keys of its user, JSON
    Column("rule", Text, nullable=False),
    Column("how", Text, nullable=False),  # of the account's mapping
    Column("account", Text, nullable=False),
    Column("certificate", Text),  # path, where the account is a certificate of the pool
    Column("world", String(64), nullable=False),  # policy and members under which it was proved last
    Column("credentials", Text, nullable=False),  # SHA-256 of the texts that the borrower sent, JSON
    Column("proof", Text, nullable=False),  # JSON
    Column("proved_until", Instant, nullable=False),  # when the first credential of its proof expires
    Column("problem", Text, nullable=False),  # why it will not be renewed; empty if it will
    Column("until", Instant, nullable=False),
    Column("active", Integer, nullable=False),
    Column("created", Instant, nullable=False),
    Column("changed", Instant, nullable=False),
    Index("grants_by_rule", "active", "rule"),
    Index("grants_by_account", "account", "active"),
)

grant_credentials = Table(
    # What each active grant's proof rests on, so that a revocation finds it.
    "access_grant_credentials",
    metadata,
    Column("lease_id", String(36), ForeignKey("access_grants.lease_id"), primary_key=True),
    Column("credential_id", String(64), primary_key=True),
    Column("issuer", String(64), nullable=False),  # SHA-256 of its key
    Index("grant_credentials_by_id", "credential_id", "issuer"),
)

revocations = Table(
    # The newest list of each issuer.
    "access_revocations",
    metadata,
    Column("issuer", String(64), primary_key=True),  # SHA-256 of its key
    Column("serial", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
)

audit = Table(
    "access_audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("kind", Text, nullable=False),
    Column("entry", Text, nullable=False),  # canonical JSON
    Column("hash", String(64), nullable=False),
)

audit_head = Table(
    # One row. Taking it locks the log until the commit; decisions that count what exists are made under it.
    "access_audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

texts = Table(
    "access_texts",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("text", Text, nullable=False),
)
