"""The port book: who owns what, for how long, and that a port never has two owners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import asyncssh
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Engine, create_engine, inspect, select

from fedkit.mesh.api import Peer
from fedkit.migrations import upgrade
from fedkit.protocol.tunnel import Grant, Granted
from fedkit.store import Database, Tx
from reverse_tunnel.errors import (
    AlreadyExpired,
    ForeignPort,
    KeyInUse,
    NoPort,
    PortLimit,
    TunnelRefusal,
    UnknownLease,
)
from reverse_tunnel.model import LeaseKey, Wanted, key_id
from reverse_tunnel.store import PortBook, metadata, ports

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALICE, BOB = Peer("a" * 40, "fm.site-a.test"), Peer("b" * 40, "fm.site-b.test")
KEYS = [asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip() for _ in range(5)]
LEASES = [f"{i:08x}-0000-4000-8000-000000000000" for i in range(5)]
ANY = Wanted("", 0)


class Book:
    """A book in memory; each call is a transaction that a refusal rolls back."""

    def __init__(self, size: int = 6) -> None:
        self.engine: Engine = create_engine("sqlite://")
        metadata.create_all(self.engine)
        self.prepare(range(20000, 20000 + size))

    @contextmanager
    def tx(self) -> Iterator[Tx]:
        with self.engine.begin() as conn:
            yield Tx(conn)

    def prepare(self, wanted: range) -> list[LeaseKey]:
        self.book = PortBook("tunnel.site-b.test", "198.51.100.12", wanted)
        with self.tx() as tx:
            return self.book.prepare(tx)

    def grant(
        self, who: Peer, i: int, key: int | None = None, limit: int = 2, names: tuple[str, ...] = ("ssh",)
    ) -> Granted:
        public = KEYS[i if key is None else key]
        wish = Grant(lease_id=LEASES[i], public_key=public, ports=limit, expires=NOW + HOUR, reserve=list(names))
        with self.tx() as tx:
            return self.book.grant(tx, who, wish, NOW)

    def assign(self, who: Peer, i: int, wanted: Wanted, taken: tuple[int, ...] = ()) -> int:
        with self.tx() as tx:
            return self.book.assign(tx, lease(who, i), wanted, taken).port


def lease(who: Peer, i: int) -> LeaseKey:
    return LeaseKey(who.fedid, LEASES[i])


def names(granted: Granted) -> dict[str, int]:
    return {tunnel.name: tunnel.port for tunnel in granted.tunnels}


def test_a_grant_reserves_at_once_and_is_idempotent() -> None:
    book = Book()
    first = book.grant(ALICE, 0)
    again = book.grant(ALICE, 0)
    assert names(first) == names(again) == {"ssh": 20000}
    assert again.revision > first.revision


def test_the_same_id_of_two_controllers_is_two_leases() -> None:
    book = Book()
    mine, yours = book.grant(ALICE, 0), book.grant(BOB, 0, key=1)
    assert names(mine) != names(yours)
    with book.tx() as tx:
        book.book.revoke(tx, lease(BOB, 0), NOW)
        assert book.book.view(tx.conn, lease(ALICE, 0)) == mine


def test_a_key_names_one_machine() -> None:
    book = Book()
    book.grant(ALICE, 0)
    with pytest.raises(KeyInUse):
        book.grant(BOB, 1, key=0)
    book.grant(ALICE, 0, key=1)  # a machine that was made anew
    book.grant(BOB, 1, key=0)


def test_a_named_port_stays_and_a_number_is_checked() -> None:
    book = Book()
    book.grant(ALICE, 0)
    theirs = names(book.grant(ALICE, 1))["ssh"]
    web = book.assign(ALICE, 0, Wanted("web", 0))
    assert book.assign(ALICE, 0, Wanted("web", 0)) == web
    assert book.assign(ALICE, 0, Wanted("", web)) == web
    for foreign in (theirs, 20005, 22):
        with pytest.raises(ForeignPort):
            book.assign(ALICE, 0, Wanted("", foreign))


def test_unnamed_ports_are_used_again_unless_they_are_taken() -> None:
    book = Book()
    book.grant(ALICE, 0, limit=3)
    first = book.assign(ALICE, 0, ANY)
    assert book.assign(ALICE, 0, ANY) == first
    second = book.assign(ALICE, 0, ANY, (first,))
    assert second != first
    assert book.assign(ALICE, 0, ANY, (second,)) == first
    with pytest.raises(PortLimit):
        book.assign(ALICE, 0, ANY, (first, second))


def test_the_last_port_is_refused_and_a_grant_is_all_or_nothing() -> None:
    book = Book(2)
    book.grant(ALICE, 0)
    with pytest.raises(NoPort) as refusal:
        book.grant(ALICE, 1, names=("ssh", "web"))
    assert refusal.value.code == "tunnel.no_port"
    with book.tx() as tx, pytest.raises(UnknownLease):
        book.book.view(tx.conn, lease(ALICE, 1))
    book.grant(ALICE, 1)


def test_the_port_that_was_free_for_longest_is_given_first() -> None:
    book = Book(3)
    book.grant(ALICE, 0)
    with book.tx() as tx:
        book.book.revoke(tx, lease(ALICE, 0), NOW)
    assert names(book.grant(ALICE, 1)) == {"ssh": 20001}
    assert names(book.grant(ALICE, 2)) == {"ssh": 20002}
    assert names(book.grant(ALICE, 3)) == {"ssh": 20000}


def test_a_lease_ends_when_its_time_is_over() -> None:
    book = Book()
    book.grant(ALICE, 0)
    with book.tx() as tx:
        assert book.book.expire(tx, NOW + HOUR - timedelta(seconds=1)) == []
        assert book.book.next_expiry(tx.conn) == (NOW + HOUR).timestamp()
        ended = book.book.expire(tx, NOW + HOUR)
        assert [(e.key, e.ports) for e in ended] == [(lease(ALICE, 0), [20000])]
        assert book.book.find_lease(tx.conn, key_id(KEYS[0])) is None
        assert book.book.next_expiry(tx.conn) is None


def test_a_lease_that_is_over_before_it_begins_is_refused() -> None:
    book = Book()
    wish = Grant(lease_id=LEASES[0], public_key=KEYS[0], ports=1, expires=NOW)
    with book.tx() as tx, pytest.raises(AlreadyExpired):
        book.book.grant(tx, ALICE, wish, NOW)


def test_what_is_up_is_told_once_and_only_of_own_ports() -> None:
    book = Book()
    book.grant(ALICE, 0)
    with book.tx() as tx:
        told = book.book.set_up(tx, lease(ALICE, 0), {20000, 20005})
        assert told is not None
        assert told[0] == ALICE
        assert [t.up for t in told[1].tunnels] == [True]
        assert book.book.set_up(tx, lease(ALICE, 0), {20000}) is None
        down = book.book.set_up(tx, lease(ALICE, 0), set())
        assert down is not None
        assert down[1].revision > told[1].revision
        assert book.book.set_up(tx, lease(ALICE, 3), {20000}) is None


def test_a_restart_finds_what_was_up_and_a_smaller_range_takes_nothing_away() -> None:
    book = Book()
    book.grant(ALICE, 0)
    with book.tx() as tx:
        book.book.set_up(tx, lease(ALICE, 0), {20000})
    assert book.prepare(range(20004, 20006)) == [lease(ALICE, 0)]
    assert names(book.grant(ALICE, 0)) == {"ssh": 20000}
    assert names(book.grant(ALICE, 1)) == {"ssh": 20004}
    with book.tx() as tx:
        book.book.revoke(tx, lease(ALICE, 0), NOW)
    assert names(book.grant(ALICE, 2)) == {"ssh": 20005}  # and a port that left the range is not given again
    book.prepare(range(20004, 20006))
    with book.tx() as tx:
        assert set(tx.conn.scalars(select(ports.c.port))) == {20004, 20005}


def test_pages_show_a_controller_its_own() -> None:
    book = Book()
    for i in range(3):
        book.grant(ALICE, i)
    book.grant(BOB, 3)
    with book.tx() as tx:
        page, complete = book.book.page(tx.conn, ALICE.fedid, "", 2)
        rest, end = book.book.page(tx.conn, ALICE.fedid, page[-1].lease_id, 2)
    assert [g.lease_id for g in page + rest] == LEASES[:3]
    assert (complete, end) == (False, True)


def test_freeing_gives_back_one_port() -> None:
    book = Book()
    book.grant(ALICE, 0, names=("ssh", "web"))
    with book.tx() as tx:
        left, port = book.book.free(tx, lease(ALICE, 0), "web", NOW)
        assert (names(left), port) == ({"ssh": 20000}, 20001)
        assert book.book.free(tx, lease(ALICE, 0), "web", NOW) == (left, None)


def test_the_migration_makes_these_tables(tmp_path: object) -> None:
    engine = Database(f"sqlite:///{tmp_path}/t.db").engine
    upgrade(engine, "reverse_tunnel.migrations")
    made, wanted = inspect(engine), create_engine("sqlite://")
    metadata.create_all(wanted)
    for name in metadata.tables:
        shape = [(c["name"], str(c["type"]), c["nullable"]) for c in made.get_columns(name)]
        assert shape == [(c["name"], str(c["type"]), c["nullable"]) for c in inspect(wanted).get_columns(name)]
        keys = [(i["column_names"], i["unique"]) for i in made.get_indexes(name)]
        assert keys == [(i["column_names"], i["unique"]) for i in inspect(wanted).get_indexes(name)]
    engine.dispose()


class BookMachine(RuleBasedStateMachine):
    """Whatever controllers and machines do, in whatever order, with restarts in between."""

    members = Bundle("members")

    @initialize()
    def begin(self) -> None:
        self.book = Book(4)
        self.now = NOW
        self.owner: dict[int, tuple[LeaseKey, str]] = {}
        self.limits: dict[LeaseKey, int] = {}

    def observe(self, key: LeaseKey) -> None:
        """Compare the lease with what it was: names only ever come with a port that nobody else has."""
        with self.book.tx() as tx:
            for tunnel in self.book.book.view(tx.conn, key).tunnels:
                assert self.owner.setdefault(tunnel.port, (key, tunnel.name)) == (key, tunnel.name)

    @rule(who=st.sampled_from([ALICE, BOB]), i=st.integers(0, 4), key=st.integers(0, 4), limit=st.integers(1, 3))
    def grant(self, who: Peer, i: int, key: int, limit: int) -> None:
        try:
            self.book.grant(who, i, key, limit)
        except (KeyInUse, NoPort, PortLimit):
            return
        self.limits[lease(who, i)] = limit
        self.observe(lease(who, i))

    @rule(
        who=st.sampled_from([ALICE, BOB]),
        i=st.integers(0, 4),
        name=st.sampled_from(["ssh", "web", ""]),
        port=st.sampled_from([0, 20000, 20003, 30000]),
    )
    def assign(self, who: Peer, i: int, name: str, port: int) -> None:
        key = lease(who, i)
        before = {p for p, (owner, _) in self.owner.items() if owner == key}
        try:
            got = self.book.assign(who, i, Wanted(name, 0 if name else port))
        except TunnelRefusal:
            return
        assert key in self.limits
        if not name and port:
            assert got == port
            assert got in before
        self.observe(key)
        if got not in before:
            assert len(before) < self.limits[key]

    @rule(who=st.sampled_from([ALICE, BOB]), i=st.integers(0, 4))
    def revoke(self, who: Peer, i: int) -> None:
        with self.book.tx() as tx:
            ended = self.book.book.revoke(tx, lease(who, i), self.now)
        assert (ended is not None) == (lease(who, i) in self.limits)
        self.forget(lease(who, i))

    @rule(who=st.sampled_from([ALICE, BOB]), i=st.integers(0, 4), name=st.sampled_from(["ssh", "web", "port-1"]))
    def free(self, who: Peer, i: int, name: str) -> None:
        with self.book.tx() as tx:
            try:
                _, port = self.book.book.free(tx, lease(who, i), name, self.now)
            except UnknownLease:
                return
        if port is not None:
            assert self.owner.pop(port) == (lease(who, i), name)

    @rule()
    def expire(self) -> None:
        with self.book.tx() as tx:
            for ended in self.book.book.expire(tx, NOW + HOUR):
                self.forget(ended.key)
        assert not self.limits

    @rule(first=st.integers(19998, 20002))
    def restart(self, first: int) -> None:
        self.book.prepare(range(first, first + 4))

    def forget(self, key: LeaseKey) -> None:
        self.limits.pop(key, None)
        self.owner = {port: owner for port, owner in self.owner.items() if owner[0] != key}

    @invariant()
    def every_owned_port_is_in_the_book_once(self) -> None:
        with self.book.tx() as tx:
            rows = tx.conn.execute(select(ports).where(ports.c.lease_id.is_not(None))).all()
        found = {row.port: (LeaseKey(row.controller, row.lease_id), row.name) for row in rows}
        assert len(found) == len(rows)
        assert found == self.owner


BookMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestBookMachine = BookMachine.TestCase
