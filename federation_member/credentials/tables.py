"""The tables of credentials.

`credentials_signed` is what this member said of its users, and what they said of it (`U.acting_for <- A`): used again while it
is fresh, and kept until it expires, because only what is known can be revoked; `revoked` is since when it is. It outlives its
account. `credentials_kept` is the users' wallet. `credentials_lists` holds the newest revocation list of each issuer that
speaks through this member; `sent` is the serial that the Rendezvous was last given.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table, Text

from federation_member.orders.tables import Instant

metadata = MetaData()

signed = Table(
    "credentials_signed",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("account", String(63), nullable=False),
    Column("issuer", String(40), nullable=False),
    Column("statement", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("expires", Instant, nullable=False),
    Column("revoked", Instant),
    Index("credentials_signed_by_account", "account", "expires"),
    Index("credentials_signed_by_issuer", "issuer", "revoked"),
    Index("credentials_signed_by_expiry", "expires"),
)

kept = Table(
    "credentials_kept",
    metadata,
    Column("account", String(63), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("text", Text, nullable=False),
    Column("expires", Instant, nullable=False),
    Column("added", Instant, nullable=False),
)

lists = Table(
    "credentials_lists",
    metadata,
    Column("issuer", String(40), primary_key=True),
    Column("account", String(63), nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("sent", BigInteger, nullable=False),
    Column("signed", Text, nullable=False),
    Column("expires", Instant, nullable=False),
    Index("credentials_lists_by_account", "account"),
)
