"""The few statements that every request runs, in the dialect that SQLite and PostgreSQL share, without the toolkit's overhead.

Named parameters (`:name`) are what SQLite's own driver understands, so there a statement goes straight to it, inside of the
transaction that `fedkit.store` began: a third of the time. Elsewhere SQLAlchemy carries it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import text

from fedkit.store import Tx


class Statement:
    """One statement, called with a transaction and its parameters."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._clause = text(sql)

    def first(self, tx: Tx, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Run it and return the first row, or None."""
        if tx.driver is not None:
            rows: list[tuple[Any, ...]] = tx.driver.execute(self._sql, parameters).fetchall()
            return rows[0] if rows else None
        row = tx.conn.execute(self._clause, parameters).first()
        return None if row is None else tuple(row)

    def run(self, tx: Tx, parameters: Mapping[str, Any]) -> int:
        """Run it and return how many rows it changed."""
        if tx.driver is not None:
            return tx.driver.execute(self._sql, parameters).rowcount
        return tx.conn.execute(self._clause, parameters).rowcount


class Savepoint:
    """A part of a transaction that can be undone by itself."""

    def __init__(self, tx: Tx) -> None:
        self._execute: Callable[[str], object] = tx.driver.execute if tx.driver else tx.conn.exec_driver_sql
        self._execute("SAVEPOINT part")

    def undo(self) -> None:
        """Undo what was done since; the savepoint stays."""
        self._execute("ROLLBACK TO SAVEPOINT part")

    def release(self) -> None:
        """Keep what was done since."""
        self._execute("RELEASE SAVEPOINT part")
