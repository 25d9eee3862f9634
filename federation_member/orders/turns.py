"""Under which name, and with what, a lender is asked next: the user's identities in turn.

    the order's own name ─ not allowed ─► the same, with what the user keeps of what was missing ─ not allowed ─► the next name …

Read off the attempts at that lender, so a crash changes nothing. Each name is asked at most twice, and only a refusal by the
lender's policy leads on to the next: whoever has no room has none under another name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from federation_member.orders.identities import Shown
from federation_member.orders.model import AttemptState, User
from federation_member.orders.store import AttemptRecord
from fedkit.identity.names import Name

NOT_ALLOWED = "member.not_allowed"

Complete = Callable[[User, Sequence[Sequence[str]]], tuple[Shown, ...]]


@dataclass(frozen=True)
class Turn:
    """One way to ask: as whom, and with which credentials of the user's besides those that every request needs."""

    name: User
    added: tuple[Shown, ...] = ()


def next_turn(names: Sequence[User], asked: Sequence[AttemptRecord], complete: Complete) -> Turn | None:
    """Return how to ask a lender next; None if there is nothing new to say to it.

    `asked` are the attempts at it that still count, oldest first; `complete` finds what a user keeps of what is missing.
    """
    if not asked:
        return Turn(names[0])
    last = asked[-1].attempt
    if last.state is not AttemptState.REFUSED or last.code != NOT_ALLOWED:
        return None
    name = user_of(last.name)
    if name in names and not any(sent.kept for sent in last.sent):
        added = complete(name, last.access.missing)
        if added:
            return Turn(name, added)
    tried = {user_of(record.attempt.name) for record in asked}
    return next((Turn(name) for name in names if name not in tried), None)


def user_of(name: str) -> User:
    """Return whom of our users a three-level name is."""
    parsed = Name.parse(name)
    return User(parsed.project, parsed.user)
