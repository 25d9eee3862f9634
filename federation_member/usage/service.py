"""Accounts as people ask for them."""

from __future__ import annotations

from federation_member.usage.report import Line, Question, add_up
from fedkit.clock import Clock
from fedkit.store import Database


class Usage:
    """Reads the book of spells."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def add_up(self, question: Question) -> list[Line]:
        """Answer a question as of now."""
        return await self._db.read(lambda conn: add_up(conn, question, self._clock()))
