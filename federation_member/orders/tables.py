"""Tables of the two books: the borrower's orders and the lender's leases.

Whatever waits for a time has that time in an indexed column of its row (`due`, `sync_due`), so that finding work never
reads what has none, however many orders stand open.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """An aware time as whole microseconds since 1970: exact, ordered and alike on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Turn a time into microseconds."""
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Turn microseconds into a time in UTC."""
        return None if value is None else EPOCH + value * MICROSECOND


metadata = MetaData()

orders = Table(
    "orders",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("project", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("location", Text),
    Column("batch", String(36), nullable=False),
    Column("valid_from", Instant),
    Column("valid_until", Instant),
    Column("lease_seconds", Integer, nullable=False),
    Column("created", Instant, nullable=False),
    Column("changed", Instant, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("round", Integer, nullable=False),  # grows each time that all candidates are asked afresh
    Column("failures", Integer, nullable=False),  # rounds in a row that found nobody: the back-off
    Column("next_try", Instant),  # when all candidates are asked afresh; none unless all have refused
    Column("due", Instant),  # when the scheduler must look at it next; none while it waits for others
    Column("lease_id", String(36)),  # the attempt under way
    Column("member", Text),
    Column("member_fedid", String(40)),
    Column("lease_expires", Instant),
    Column("instance", Text),
    Column("tunnels", Text, nullable=False),
    Column("handle", Text),
    Column("wanted_power", Text),  # how its lender is making it now
    Column("wanted_rules", Text),
    Column("rules", Text),  # that are in force
    Index("orders_by_due", "due"),
    Index("orders_by_batch", "batch"),
    Index("orders_by_owner", "owner", "created", "id"),
    Index("orders_by_state", "state", "created", "id"),
)

order_uses = Table(
    "order_uses",
    metadata,
    Column("order_id", String(36), ForeignKey("orders.id"), primary_key=True),
    Column("used_id", String(36), ForeignKey("orders.id"), primary_key=True),
    Index("order_uses_by_used", "used_id"),
)

order_attempts = Table(
    "order_attempts",
    metadata,
    Column("lease_id", String(36), primary_key=True),
    Column("order_id", String(36), ForeignKey("orders.id"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("fedid", String(40), nullable=False),
    Column("address", Text, nullable=False),
    Column("member", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("revision", Integer, nullable=False),  # of the lender's last view that we have seen
    Column("seconds", Integer, nullable=False),
    Column("started", Instant, nullable=False),
    Column("changed", Instant, nullable=False),
    Column("heard", Instant, nullable=False),  # when the lender last spoke of it
    Column("expires", Instant),
    Column("sync_due", Instant),  # when to renew; none unless the lease is alive
    Column("number", Integer, nullable=False, server_default="0"),  # of the attempt at its order
    Column("name", Text, nullable=False, server_default=""),
    Column("sent", Text, nullable=False, server_default="[]"),
    Column("access", Text),  # what the lender said of it: the proof, or what is missing
    Column("fresh_due", Instant),  # when its lender must be shown fresh credentials
    Index("attempts_by_order", "order_id", "started"),
    Index("attempts_by_sync", "fedid", "sync_due"),
)

order_events = Table(
    "order_events",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("order_id", String(36), nullable=False),
    Column("project", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("state", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("events_by_order", "order_id", "sequence"),
)

order_counter = Table(
    # One row. Taking the next number locks it until the commit, so numbers become visible in their order.
    "order_counter",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("events", BigInteger, nullable=False),
)

order_requests = Table(
    "order_requests",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("project", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("body_hash", String(64), nullable=False),
    Column("batch", String(36), nullable=False),
    Column("created", Instant, nullable=False),
    UniqueConstraint("project", "owner", "key", name="order_requests_key"),
)

leases = Table(
    "leases",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("borrower", String(40), nullable=False),
    Column("address", Text, nullable=False),  # where the borrower answers
    Column("project", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("flavour", Text),  # the one chosen, as JSON
    Column("state", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("created", Instant, nullable=False),
    Column("changed", Instant, nullable=False),
    Column("expires", Instant, nullable=False),
    Column("due", Instant),  # when the keeper must look at it next
    Column("instance", Text),
    Column("claimed_by", Text),  # which process talks to the middleware about it, until when
    Column("claimed_until", Instant),
    Column("tunnel_fedid", String(40)),  # the tunnel server that was asked; none: no tunnels
    Column("tunnel_address", Text),
    Column("tunnel_key", Text),  # the machine's private key; forgotten once the machine runs
    Column("tunnel_public", Text),
    Column("tunnel_expires", Instant),
    Column("tunnel_revision", Integer, nullable=False),
    Column("tunnels", Text, nullable=False),
    Column("handed", Text),  # what its grant hands to the borrower, while it is used
    Column("wanted_power", Text),  # what the keeper has to make it
    Column("wanted_rules", Text),
    Column("rules", Text),  # that are in force; none: those that it was made with
    Column("spells", Text, nullable=False, server_default="[]"),  # the last ones, as JSON
    Column("parent", String(36)),  # the segment that it is a part of
    Column("part", Text, nullable=False, server_default=""),  # which
    Column("segment", Text),  # a segment's own state
    Index("leases_by_due", "due"),
    Index("leases_by_parent", "parent"),
    Index("leases_by_borrower", "borrower", "state"),
)

lease_uses = Table(
    "lease_uses",
    metadata,
    Column("lease_id", String(36), primary_key=True),
    Column("used_id", String(36), primary_key=True),
    Index("lease_uses_by_used", "used_id"),
)

lease_tombstones = Table(
    # Leases released before they were ever asked for: a late request for one is refused.
    "lease_tombstones",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("borrower", String(40), nullable=False),
    Column("until", Instant, nullable=False),
    Index("lease_tombstones_by_until", "until"),
)
