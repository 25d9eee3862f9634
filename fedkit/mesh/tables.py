"""The mesh's tables. They live in the component's own database, beside its state, because one transaction writes both.

Times are seconds since the epoch. `sender` and `fedid` are 40 hex digits.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()
_Serial = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only in an INTEGER key

outbox = Table(
    "mesh_outbox",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("jti", String(36), nullable=False, unique=True),
    Column("fedid", String(40), nullable=False),
    Column("address", String(255), nullable=False),
    Column("op", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("deadline", Float, nullable=False),
    Column("ordered", Boolean, nullable=False),
    Index("mesh_outbox_peer", "fedid", "id"),
    Index("mesh_outbox_deadline", "deadline"),
    sqlite_autoincrement=True,
)

inbox = Table(
    "mesh_inbox",
    metadata,
    Column("sender", String(40), primary_key=True),
    Column("jti", String(36), primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("answer", Text, nullable=False),
    Column("keep_until", Float, nullable=False),
    Index("mesh_inbox_keep_until", "keep_until"),
    sqlite_with_rowid=False,
)

keys = Table(
    "mesh_keys",
    metadata,
    Column("fedid", String(40), primary_key=True),
    Column("spki", LargeBinary, nullable=False),
    Column("pinned", Float, nullable=False),
)

peers = Table(
    "mesh_peers",
    metadata,
    Column("fedid", String(40), primary_key=True),
    Column("address", String(255), nullable=False),
    Column("failures", Integer, nullable=False),
    Column("next_attempt", Float, nullable=False),
    Column("last_error", Text, nullable=False),
    Column("last_heard", Float, nullable=False),
)

# How often this node was started: the high part of its attempt numbers (see `dispatcher`).
epochs = Table("mesh_epochs", metadata, Column("address", String(255), primary_key=True), Column("epoch", BigInteger))


def create_mesh_tables(conn: Connection) -> None:
    """Create the mesh's tables; called by each component's first migration (`op.get_bind()`)."""
    metadata.create_all(conn)
