"""The few statements that every request runs, in the dialect that SQLite and PostgreSQL share, without the toolkit's overhead.

Named parameters (`:name`) are what SQLite's own driver understands, so there a statement goes straight to it, inside of the
transaction that `fedkit.store` began: a third of the time. Elsewhere SQLAlchemy carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text


class Statement:
    """One statement, called with a connection and its parameters."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._clause = text(sql)

    def first(self, conn: Connection, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Run it and return the first row, or None."""
        if conn.dialect.name == "sqlite":
            rows = _driver(conn).execute(self._sql, parameters).fetchall()
            return rows[0] if rows else None
        row = conn.execute(self._clause, parameters).first()
        return None if row is None else tuple(row)

    def run(self, conn: Connection, parameters: Mapping[str, Any]) -> int:
        """Run it and return how many rows it changed."""
        if conn.dialect.name == "sqlite":
            return int(_driver(conn).execute(self._sql, parameters).rowcount)
        return conn.execute(self._clause, parameters).rowcount


class Savepoint:
    """A part of a transaction that can be undone by itself."""

    def __init__(self, conn: Connection) -> None:
        self._execute = _driver(conn).execute if conn.dialect.name == "sqlite" else conn.exec_driver_sql
        self._execute("SAVEPOINT part")

    def undo(self) -> None:
        """Undo what was done since; the savepoint stays."""
        self._execute("ROLLBACK TO SAVEPOINT part")

    def release(self) -> None:
        """Keep what was done since."""
        self._execute("RELEASE SAVEPOINT part")


def _driver(conn: Connection) -> Any:
    return conn.connection.driver_connection
