"""Who a user is to a lender: a name that this member asserts, the user's own fedid, and the credentials that say so.

    A.user <- U     A.user_<u> <- U     A.project_<p> <- U (or A.no_project)     said by this member A, for a day
    U.acting_for <- A                                                            said by the user

A lender gives A nothing; all that it lends it lends U, and A may only ask for U because U says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from federation_member.orders.model import User
from fedkit.clock import Clock
from fedkit.identity.keys import PrivateKey
from fedkit.identity.names import Name, role_part
from fedkit.policy.compact import issue
from fedkit.policy.model import Entity, Role, Statement
from fedkit.store import Tx

LIFE = timedelta(days=1)  # of what a member says of its users


@dataclass(frozen=True)
class Identity:
    """A user as a lender is shown them."""

    name: str  # three-level
    principal: str  # fedid
    credentials: tuple[str, ...]  # compact


class Identities(Protocol):
    """Knows the users of this member."""

    def of(self, tx: Tx, user: User) -> Identity:
        """Return how lenders are shown this user now; must not block."""


def vouch(member: PrivateKey, user: User, principal: str, expires: datetime) -> list[str]:
    """Sign what a member says of its user."""
    project = f"project_{role_part(user.project)}" if user.project else "no_project"
    roles = ("user", project, f"user_{role_part(user.name)}")
    says = (Statement(Role(member.fedid, role), (Entity(principal),)) for role in roles)
    return [issue(member, statement, expires).raw.decode() for statement in says]


class KeysOfThisRun:
    """Gives every user a key that lives as long as the process."""

    def __init__(self, member: PrivateKey, clock: Clock) -> None:
        self._member = member
        self._clock = clock
        self._keys: dict[User, PrivateKey] = {}
        self._known: dict[User, tuple[datetime, Identity]] = {}

    def of(self, tx: Tx, user: User) -> Identity:
        """See `Identities`."""
        now = self._clock()
        renew, identity = self._known.get(user, (now, None))
        if identity is None or renew <= now:
            identity = self._make(user, now + LIFE)
            self._known[user] = (now + LIFE / 2, identity)
        return identity

    def _make(self, user: User, expires: datetime) -> Identity:
        key = self._keys.setdefault(user, PrivateKey.generate())
        acting = Statement(Role(key.fedid, "acting_for"), (Entity(self._member.fedid),))
        credentials = [*vouch(self._member, user, key.fedid, expires), issue(key, acting, expires).raw.decode()]
        return Identity(str(Name(self._member.fedid, user.project, user.name)), key.fedid, tuple(credentials))
