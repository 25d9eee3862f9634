"""The tables of experiments.

`experiments.private` is the experiment's own key, kept as the keys of users are that the member keeps; it signs who may operate it,
and what is secret among its services follows from it. It is destroyed (empty) when the experiment has ended.
`experiment_segments.told` is the last `SegmentGo` and the lease that it went to, so that a lender is told what is new and no more;
`started` is when that lease was first told to start, or to become another. `code` and `reason` say why a segment was given up for good.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, Text

from federation_member.orders.tables import Instant

metadata = MetaData()

experiments = Table(
    "experiments",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("owner", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("fedid", String(40), nullable=False),
    Column("private", LargeBinary, nullable=False),
    Column("description", Text, nullable=False),  # topdl of the whole, testbeds included
    Column("routing", Text),
    Column("services", Text, nullable=False),  # a line each
    Column("portals", Integer, nullable=False),  # between two testbeds, at most
    Column("created", Instant, nullable=False),
    Column("changed", Instant, nullable=False),
    Column("valid_until", Instant),
    Column("warned", Boolean, nullable=False),  # that it ends soon
    Column("events", Integer, nullable=False),  # how many there are
    Column("parties", Text, nullable=False),  # JSON, by name
    Column("about", Text),  # a testbed on each line; null: not for those who see a part alone
    Column("extension", Text),  # JSON, while one is under way
    Column("kit", Text, nullable=False),
    Index("experiments_by_owner", "owner", "created"),
    Index("experiments_by_state", "state"),
)

segments = Table(
    "experiment_segments",
    metadata,
    Column("experiment_id", String(36), ForeignKey("experiments.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("testbed", Text, nullable=False),
    Column("order_id", String(36), nullable=False),
    Column("told_lease", String(36)),
    Column("told", Text),
    Column("started", Instant),
    Column("code", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Index("experiment_segments_by_order", "order_id"),
)

events = Table(
    "experiment_events",
    metadata,
    Column("experiment_id", String(36), ForeignKey("experiments.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("state", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("about", Text),  # as an experiment's
)

grants = Table(
    "experiment_grants",
    metadata,
    Column("experiment_id", String(36), ForeignKey("experiments.id"), primary_key=True),
    Column("id", String(64), primary_key=True),  # the credential's
    Column("principal", String(40), nullable=False),
    Column("party", Text),
    Column("expires", Instant, nullable=False),
    Column("granted", Instant, nullable=False),
    Column("revoked", Instant),
)

relays = Table(
    "experiment_relays",
    metadata,
    Column("id", String(36), primary_key=True),  # of the right at the tunnel server
    Column("experiment_id", String(36), ForeignKey("experiments.id"), nullable=False),
    Column("testbed", Text, nullable=False),
    Column("connector", Text, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("server_fedid", String(40), nullable=False),
    Column("server_address", Text, nullable=False),
    Column("expires", Instant, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("port", Text),  # JSON, of the server's last word
    Column("described", Text),  # JSON
    Column("reason", Text, nullable=False),
    Column("retry", Instant),
    Index("experiment_relays_by_experiment", "experiment_id"),
)

barred = Table(
    "experiment_barred",
    metadata,
    Column("experiment_id", String(36), ForeignKey("experiments.id"), primary_key=True),
    Column("principal", String(40), primary_key=True),
    Column("at", Instant, nullable=False),
)

attachments = Table(
    "experiment_attachments",
    metadata,
    Column("experiment_id", String(36), ForeignKey("experiments.id"), primary_key=True),
    Column("id", String(36), primary_key=True),  # whoever is attached chose it
    Column("user", Text, nullable=False),
    Column("expires", Instant, nullable=False),
    Column("content", Text, nullable=False),  # JSON
    Column("told", Text, nullable=False),  # JSON, which may be long
)
