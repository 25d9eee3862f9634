"""The port book: which lease owns which port, kept across restarts.

Every public port has exactly one row from the first start on, free or owned, so that a port cannot have two owners whatever
the code does. A free port remembers when it was given back, and the one that has been free for longest is given first:
who still knows the address of a machine that is gone finds nobody there rather than somebody else.

`up` tells whether a machine holds the port open now. The live server knows better; the book repeats what the controllers were
told, so that after a crash they can be told the difference. Times are POSIX seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from fedkit.mesh.api import Peer
from fedkit.protocol.lending import Tunnel
from fedkit.protocol.tunnel import Grant, Granted
from fedkit.store import Tx
from reverse_tunnel.errors import AlreadyExpired, ForeignPort, KeyInUse, NoPort, PortLimit, UnknownLease
from reverse_tunnel.model import Lease, LeaseKey, Wanted, key_id

PREPARE_ROWS = 500  # rows of one INSERT: below the limit of variables of every database

metadata = MetaData()

leases = Table(
    "tunnel_leases",
    metadata,
    Column("controller", String(40), primary_key=True),
    Column("lease_id", String(36), primary_key=True),
    Column("address", String(253), nullable=False),
    Column("key_id", String(64), nullable=False, unique=True),
    Column("ports", Integer, nullable=False),
    Column("expires", Double, nullable=False, index=True),
    Column("revision", Integer, nullable=False),
)

ports = Table(
    "tunnel_ports",
    metadata,
    Column("port", Integer, primary_key=True, autoincrement=False),
    Column("controller", String(40)),
    Column("lease_id", String(36)),
    Column("name", String(64)),
    Column("up", Boolean, nullable=False),
    Column("freed", Double, nullable=False),
    ForeignKeyConstraint(["controller", "lease_id"], [leases.c.controller, leases.c.lease_id]),
    Index("tunnel_ports_names", "controller", "lease_id", "name", unique=True),
    Index("tunnel_ports_free", "lease_id", "freed", "port"),
)


@dataclass(frozen=True)
class Ended:
    """A lease that is over, and the ports that it held."""

    key: LeaseKey
    ports: list[int]


@dataclass(frozen=True)
class Assigned:
    """The port that an `ssh -R` gets; `created` tells that it was reserved for the first time."""

    name: str
    port: int
    created: bool


class PortBook:
    """Every change of the book, each a function of an open transaction."""

    def __init__(self, host: str, address: str, public: range) -> None:
        self._host = host
        self._address = address
        self._public = public

    def prepare(self, tx: Tx) -> list[LeaseKey]:
        """Make the book match the configured range at start; return the leases whose ports were up before.

        A port that left the range is forgotten once it is free; its owner keeps it until then.
        """
        known = set(tx.conn.scalars(select(ports.c.port)))
        missing = [port for port in self._public if port not in known]
        for start in range(0, len(missing), PREPARE_ROWS):
            rows = [{"port": port, "up": False, "freed": 0.0} for port in missing[start : start + PREPARE_ROWS]]
            tx.conn.execute(insert(ports), rows)
        tx.conn.execute(delete(ports).where(ports.c.lease_id.is_(None), ~self._is_public()))
        were_up = select(ports.c.controller, ports.c.lease_id).where(ports.c.up).distinct()
        return [LeaseKey(row.controller, row.lease_id) for row in tx.conn.execute(were_up)]

    def grant(self, tx: Tx, controller: Peer, wish: Grant, now: datetime) -> Granted:
        """Make or renew a lease and reserve the ports that are named; all of it or nothing."""
        if wish.expires <= now:
            raise AlreadyExpired(
                f"The lease ended at {wish.expires.isoformat()}; the server's time is {now.isoformat()}."
            )
        key = LeaseKey(controller.fedid, wish.lease_id)
        fields = {
            "address": controller.address,
            "key_id": key_id(wish.public_key),
            "ports": wish.ports,
            "expires": wish.expires.timestamp(),
        }
        self._require_own_key(tx, key, fields["key_id"])
        if self._locked(tx, key) is None:
            tx.conn.execute(
                insert(leases).values(controller=key.controller, lease_id=key.lease_id, revision=0, **fields)
            )
        else:
            tx.conn.execute(update(leases).where(_is(leases, key)).values(**fields))
        for name in wish.reserve:
            self._reserve(tx, self.read(tx.conn, key), name)
        return self._changed(tx, key)

    def revoke(self, tx: Tx, key: LeaseKey, now: datetime) -> Ended | None:
        """End a lease and give its ports back; None if there is none."""
        if self._locked(tx, key) is None:
            return None
        return self._end(tx, key, now)

    def reserve(self, tx: Tx, key: LeaseKey, name: str) -> Granted:
        """Reserve a port under a name; nothing new if the name has one."""
        if self._reserve(tx, self.read(tx.conn, key), name).created:
            return self._changed(tx, key)
        return self.view(tx.conn, key)

    def free(self, tx: Tx, key: LeaseKey, name: str, now: datetime) -> tuple[Granted, int | None]:
        """Give the port of a name back; return the lease, and the port if there was one."""
        port = self.read(tx.conn, key).names.get(name)
        if port is None:
            return self.view(tx.conn, key), None
        self._give_back(tx, ports.c.port == port, now)
        return self._changed(tx, key), port

    def assign(self, tx: Tx, key: LeaseKey, wanted: Wanted, taken: Iterable[int]) -> Assigned:
        """Find, or reserve, the port for an `ssh -R`.

        `taken` are the ports that the same machine holds open through other requests: whoever asks for
        just any port gets one of its others.
        """
        lease = self.read(tx.conn, key)
        if wanted.port:
            return _own_port(lease, wanted.port)
        assigned = self._reserve(tx, lease, wanted.name or _unnamed(lease, set(taken)))
        if assigned.created:
            self._changed(tx, key)
        return assigned

    def set_up(self, tx: Tx, key: LeaseKey, up: set[int]) -> tuple[Peer, Granted] | None:
        """Note which ports of a lease are open now; return whom to tell what, or None if that was known."""
        row = self._locked(tx, key)
        if row is None:
            return None
        were_up = set(tx.conn.scalars(select(ports.c.port).where(_is(ports, key), ports.c.up)))
        owned = set(tx.conn.scalars(select(ports.c.port).where(_is(ports, key))))
        are_up = up & owned
        if were_up == are_up:
            return None
        tx.conn.execute(update(ports).where(ports.c.port.in_(are_up - were_up)).values(up=True))
        tx.conn.execute(update(ports).where(ports.c.port.in_(were_up - are_up)).values(up=False))
        return Peer(key.controller, row.address), self._changed(tx, key)

    def expire(self, tx: Tx, now: datetime) -> list[Ended]:
        """End every lease whose time is over."""
        due = select(leases.c.controller, leases.c.lease_id).where(leases.c.expires <= now.timestamp())
        return [self._end(tx, LeaseKey(row.controller, row.lease_id), now) for row in tx.conn.execute(due).all()]

    def next_expiry(self, conn: Connection) -> float | None:
        """When the next lease ends."""
        earliest: float | None = conn.scalar(select(func.min(leases.c.expires)))
        return earliest

    def find_lease(self, conn: Connection, machine_key: str) -> Lease | None:
        """Find the lease of a machine's key by its SHA-256."""
        key = self._find(conn, machine_key)
        return None if key is None else self.read(conn, key)

    def _find(self, conn: Connection, machine_key: str) -> LeaseKey | None:
        row = conn.execute(select(leases.c.controller, leases.c.lease_id).where(leases.c.key_id == machine_key)).first()
        return None if row is None else LeaseKey(row.controller, row.lease_id)

    def read(self, conn: Connection, key: LeaseKey) -> Lease:
        """Read a lease with its names; raise `UnknownLease`."""
        row = self._row(conn, key)
        if row is None:
            raise UnknownLease("There is no such lease here (any more).")
        names = conn.execute(select(ports.c.name, ports.c.port).where(_is(ports, key)).order_by(ports.c.port))
        return Lease(key, row.ports, datetime.fromtimestamp(row.expires, UTC), {row.name: row.port for row in names})

    def view(self, conn: Connection, key: LeaseKey) -> Granted:
        """Return a lease as its controller sees it."""
        row = self._row(conn, key)
        if row is None:
            raise UnknownLease("There is no such lease here (any more).")
        owned = conn.execute(select(ports).where(_is(ports, key)).order_by(ports.c.port))
        return Granted(
            lease_id=key.lease_id,
            revision=row.revision,
            expires=datetime.fromtimestamp(row.expires, UTC),
            tunnels=[Tunnel(name=p.name, host=self._host, port=p.port, up=p.up, address=self._address) for p in owned],
        )

    def page(self, conn: Connection, controller: str, after: str, limit: int) -> tuple[list[Granted], bool]:
        """Return a controller's leases after an id, and whether nothing follows."""
        query = (
            select(leases.c.lease_id)
            .where(leases.c.controller == controller, leases.c.lease_id > after)
            .order_by(leases.c.lease_id)
            .limit(limit + 1)
        )
        found = list(conn.scalars(query))
        return [self.view(conn, LeaseKey(controller, lease_id)) for lease_id in found[:limit]], len(found) <= limit

    def controller(self, conn: Connection, key: LeaseKey) -> Peer:
        """Who controls a lease, and where it answers."""
        row = self._row(conn, key)
        if row is None:
            raise UnknownLease("There is no such lease here (any more).")
        return Peer(key.controller, row.address)

    def _row(self, conn: Connection, key: LeaseKey) -> Row[Any] | None:
        return conn.execute(select(leases).where(_is(leases, key))).first()

    def _locked(self, tx: Tx, key: LeaseKey) -> Row[Any] | None:
        return tx.conn.execute(select(leases).where(_is(leases, key)).with_for_update()).first()

    def _require_own_key(self, tx: Tx, key: LeaseKey, machine_key: object) -> None:
        holder = self._find(tx.conn, str(machine_key))
        if holder is not None and holder != key:
            raise KeyInUse("This key belongs to another lease; every machine needs a key of its own.")

    def _reserve(self, tx: Tx, lease: Lease, name: str) -> Assigned:
        if name in lease.names:
            return Assigned(name, lease.names[name], created=False)
        if len(lease.names) >= lease.ports:
            names = ", ".join(lease.names) or "none"
            raise PortLimit(f"The lease allows {lease.ports} ports, and these have theirs: {names}. Close one first.")
        free = select(ports.c.port).where(ports.c.lease_id.is_(None), self._is_public())
        longest = free.order_by(ports.c.freed, ports.c.port).limit(1)
        port = tx.conn.scalar(longest.with_for_update(skip_locked=True))
        if port is None:
            raise NoPort("Every public port of this tunnel server is taken; ask its operator for a larger range.")
        owner = {"controller": lease.key.controller, "lease_id": lease.key.lease_id, "name": name, "up": False}
        tx.conn.execute(update(ports).where(ports.c.port == port).values(**owner))
        lease.names[name] = port
        return Assigned(name, port, created=True)

    def _is_public(self) -> ColumnElement[bool]:
        return ports.c.port.between(self._public.start, self._public.stop - 1)

    def _changed(self, tx: Tx, key: LeaseKey) -> Granted:
        tx.conn.execute(update(leases).where(_is(leases, key)).values(revision=leases.c.revision + 1))
        return self.view(tx.conn, key)

    def _end(self, tx: Tx, key: LeaseKey, now: datetime) -> Ended:
        held = list(tx.conn.scalars(select(ports.c.port).where(_is(ports, key))))
        self._give_back(tx, _is(ports, key), now)
        tx.conn.execute(delete(leases).where(_is(leases, key)))
        return Ended(key, held)

    def _give_back(self, tx: Tx, which: ColumnElement[bool], now: datetime) -> None:
        nobody = {"controller": None, "lease_id": None, "name": None, "up": False, "freed": now.timestamp()}
        tx.conn.execute(update(ports).where(which).values(**nobody))


def _is(table: Table, key: LeaseKey) -> ColumnElement[bool]:
    return (table.c.controller == key.controller) & (table.c.lease_id == key.lease_id)


def _unnamed(lease: Lease, taken: set[int]) -> str:
    number = 1
    while lease.names.get(f"port-{number}") in taken:
        number += 1
    return f"port-{number}"


def _own_port(lease: Lease, port: int) -> Assigned:
    for name, owned in lease.names.items():
        if owned == port:
            return Assigned(name, port, created=False)
    owned_ports = ", ".join(f"{name}={owned}" for name, owned in lease.names.items()) or "none"
    raise ForeignPort(
        f"Port {port} is not this machine's. Its ports: {owned_ports}. Ask by name: ssh -R NAME:0:host:port"
    )
