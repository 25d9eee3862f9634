"""The table of spells. A span of time is found by `ended`: it reads what ended since it began, and what is open."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

from federation_member.orders.tables import Instant

metadata = MetaData()

usage = Table(
    "usage",
    metadata,
    Column("role", String(8), primary_key=True),
    Column("lease_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("member", String(40), nullable=False),  # the other side
    Column("address", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("vcpu", BigInteger, nullable=False),
    Column("ram_mb", BigInteger, nullable=False),
    Column("disk_gb", BigInteger, nullable=False),
    Column("began", Instant, nullable=False),
    Column("ended", Instant),
    Column("until", Instant),  # a borrowed one, while it is open: when the lease ends by itself, as last told
    Index("usage_by_end", "role", "ended"),
    Index("usage_by_owner", "role", "owner", "ended"),
)
