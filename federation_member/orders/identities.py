"""Who a user is to a lender: a name that this member asserts, the user's own fedid, and the credentials that say so.

A lender gives this member nothing; all that it lends it lends the user, and we may only ask because the user says so. Who knows all
that of the users is `federation_member/credentials/identities.py`; what the order engine asks of it stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection

from federation_member.orders.model import User
from fedkit.store import Tx


@dataclass(frozen=True)
class Shown:
    """A credential that a lender is shown: its id, what it says, its signed text, and until when it holds."""

    id: str
    statement: str
    text: str
    expires: datetime


@dataclass(frozen=True)
class Identity:
    """A user as a lender is shown them."""

    name: str  # three-level
    principal: str  # fedid
    credentials: tuple[Shown, ...]


class Identities(Protocol):
    """Knows the users of this member. Nothing here blocks; all of it may be called inside a transaction."""

    def names(self, conn: Connection, user: User) -> tuple[User, ...]:
        """Return the user's names in the turn in which a lender is asked under them, this one's project first.

        Raises a `FedError` where nothing may be asked in the user's name now.
        """

    def of(self, tx: Tx, user: User) -> Identity:
        """Return how lenders are shown this user now, under this name; raises as `names` does."""

    def complete(self, conn: Connection, user: User, missing: Sequence[Sequence[str]]) -> tuple[Shown, ...]:
        """Return what the user keeps that completes one of these sets of statements; nothing if that cannot be done."""

    def successors(self, conn: Connection, user: User, statements: Sequence[str]) -> tuple[Shown, ...]:
        """Return what the user keeps that says any of these statements, and holds longest."""

    def stands(self, conn: Connection, user: User, statements: Sequence[str]) -> bool:
        """Tell whether all of this that was said of the user here still holds; not if any was taken back."""
