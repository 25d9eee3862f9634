"""Accounts: passwords become tokens, tokens become users, and guessing is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import inspect, select

from federation_member.accounts import store
from federation_member.accounts.errors import (
    AccountExists,
    TooManyAttempts,
    Unauthenticated,
    UnknownAccount,
    UnknownToken,
    UnusableAccount,
    WrongPassword,
)
from federation_member.accounts.service import Accounts
from federation_member.orders.model import User
from fedkit.migrations import upgrade
from fedkit.store import Database

PASSWORD = "correct horse battery"


class World:
    """A database, an account service, and the two clocks that it is told the time by."""

    def __init__(self, db: Database) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.seconds = 0.0
        self.db = db
        self.accounts = Accounts(db, lambda: self.time, lambda: self.seconds)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with Database(database_url) as db:
        await asyncio.to_thread(upgrade, db.engine, "federation_member.migrations")
        world = World(db)
        await world.accounts.add("alice", "physics", PASSWORD)
        yield world
        world.accounts.close()


async def test_a_token_is_its_owner(world: World) -> None:
    await world.accounts.log_in("alice", PASSWORD, "192.0.2.1")
    token, secret = await world.accounts.issue("alice", "laptop", 30)
    assert await world.accounts.authenticate(secret) == User("physics", "alice")
    assert await world.accounts.tokens("alice") == [token]


async def test_neither_password_nor_token_is_stored(world: World) -> None:
    _token, secret = await world.accounts.issue("alice", "", 1)
    rows = await world.db.read(
        lambda conn: str([*conn.execute(select(store.tokens)), *conn.execute(select(store.accounts))])
    )
    assert secret not in rows
    assert PASSWORD not in rows


async def test_a_token_ends_with_its_time(world: World) -> None:
    _token, secret = await world.accounts.issue("alice", "", 1)
    world.time += timedelta(days=1)
    with pytest.raises(Unauthenticated):
        await world.accounts.authenticate(secret)


async def test_a_revoked_token_is_nobody(world: World) -> None:
    token, secret = await world.accounts.issue("alice", "", 1)
    await world.accounts.revoke("alice", token.id)
    with pytest.raises(Unauthenticated):
        await world.accounts.authenticate(secret)


async def test_nobody_revokes_anothers_token(world: World) -> None:
    await world.accounts.add("bob", "physics", PASSWORD)
    token, _secret = await world.accounts.issue("alice", "", 1)
    with pytest.raises(UnknownToken):
        await world.accounts.revoke("bob", token.id)


async def test_changing_the_password_revokes_all_tokens(world: World) -> None:
    _token, secret = await world.accounts.issue("alice", "", 1)
    await world.accounts.set_password("alice", "another password")
    with pytest.raises(Unauthenticated):
        await world.accounts.authenticate(secret)
    with pytest.raises(WrongPassword):
        await world.accounts.log_in("alice", PASSWORD, "192.0.2.1")
    await world.accounts.log_in("alice", "another password", "192.0.2.1")


async def test_removing_an_account_ends_its_tokens(world: World) -> None:
    _token, secret = await world.accounts.issue("alice", "", 1)
    await world.accounts.remove("alice")
    with pytest.raises(Unauthenticated):
        await world.accounts.authenticate(secret)
    with pytest.raises(UnknownAccount):
        await world.accounts.remove("alice")


async def test_unknown_user_and_wrong_password_look_alike(world: World) -> None:
    told = []
    for name in ("alice", "mallory"):
        with pytest.raises(WrongPassword) as caught:
            await world.accounts.log_in(name, "guess", "192.0.2.1")
        told.append(caught.value.to_dict())
    assert told[0] == told[1]


async def test_guessing_is_slowed_down_by_name_and_time_heals(world: World) -> None:
    for attempt in range(10):
        with pytest.raises(WrongPassword):
            await world.accounts.log_in("alice", "guess", f"192.0.2.{attempt}")
    with pytest.raises(TooManyAttempts) as caught:
        await world.accounts.log_in("alice", PASSWORD, "198.51.100.1")
    world.seconds += caught.value.details["retry_after"]
    await world.accounts.log_in("alice", PASSWORD, "198.51.100.1")


@pytest.mark.parametrize("name", ["", "Alice", "a b", "-a", "a" * 64, "a\n"])
async def test_unusable_names_are_refused(world: World, name: str) -> None:
    with pytest.raises(UnusableAccount):
        await world.accounts.add(name, "physics", PASSWORD)


async def test_a_name_is_given_once(world: World) -> None:
    with pytest.raises(AccountExists):
        await world.accounts.add("alice", "chemistry", PASSWORD)


async def test_short_passwords_are_refused(world: World) -> None:
    with pytest.raises(UnusableAccount):
        await world.accounts.add("bob", "physics", "short")


async def test_the_migration_makes_the_tables_that_the_store_uses(world: World) -> None:
    found = inspect(world.db.engine)
    for table in store.metadata.sorted_tables:
        assert {column["name"] for column in found.get_columns(table.name)} == {column.name for column in table.columns}
