"""The law of turns: whatever a lender answers and whatever is kept, it is asked at most twice under each name, each name in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from federation_member.orders.identities import Shown
from federation_member.orders.model import Access, Attempt, AttemptState, Sent, User
from federation_member.orders.store import AttemptRecord
from federation_member.orders.turns import NOT_ALLOWED, next_turn
from fedkit.identity.names import Name

MEMBER = "a" * 40
NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEPT = Shown("1" * 64, f"{MEMBER}.r <- {MEMBER}", "text", NOW)

names = st.lists(st.sampled_from(["p", "q", "r", "s"]), min_size=1, max_size=4, unique=True)
answers = st.lists(
    st.sampled_from([NOT_ALLOWED, NOT_ALLOWED, "lease.not_lent", "mesh.no_answer"]), min_size=9, max_size=9
)
completes = st.lists(st.booleans(), min_size=9, max_size=9)


def attempt(name: User, *, kept: bool) -> AttemptRecord:
    """An attempt that has just been made."""
    made = Attempt(
        lease_id="",
        order_id="",
        member="b.test",
        fedid="b" * 40,
        address="fm.b.test",
        state=AttemptState.ASKED,
        code="",
        reason="",
        started=NOW,
        changed=NOW,
        expires=None,
        name=str(Name(MEMBER, name.project, name.name)),
        sent=(Sent(KEPT.id, KEPT.statement, kept=True),) if kept else (),
    )
    return AttemptRecord(made, 1, 0, 600, NOW)


def refused(record: AttemptRecord, code: str) -> AttemptRecord:
    """What becomes of it."""
    state = AttemptState.NO_ANSWER if code.startswith("mesh.") else AttemptState.REFUSED
    return replace(record, attempt=replace(record.attempt, state=state, code=code, access=Access((("x",),))))


@given(names, answers, completes)
def test_each_name_in_turn_and_no_name_more_than_twice(
    projects: list[str], codes: list[str], completed: list[bool]
) -> None:
    users = [User(project, "alice") for project in projects]
    asked: list[AttemptRecord] = []

    def complete(_name: User, missing: Sequence[Sequence[str]]) -> tuple[Shown, ...]:
        assert missing == (("x",),)
        return (KEPT,) if completed[len(asked)] else ()

    while (turn := next_turn(users, asked, complete)) is not None:
        assert len(asked) < 2 * len(users)
        asked.append(refused(attempt(turn.name, kept=bool(turn.added)), codes[len(asked)]))
    turns = [Name.parse(record.attempt.name).project for record in asked]
    assert turns == sorted(turns, key=projects.index)
    assert all(turns.count(project) <= 2 for project in projects)
    if all(record.attempt.code == NOT_ALLOWED for record in asked):
        assert list(dict.fromkeys(turns)) == projects
    else:
        assert all(record.attempt.code == NOT_ALLOWED for record in asked[:-1]), "only its policy leads on"


def test_while_it_has_not_answered_there_is_nothing_to_say() -> None:
    users = [User("p", "alice"), User("q", "alice")]
    assert next_turn(users, [attempt(users[0], kept=False)], lambda _name, _missing: ()) is None
