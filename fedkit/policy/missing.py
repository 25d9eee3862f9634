"""What is missing for a proof: the smallest sets of statements that would complete it.

Backward from the goal over what is known, each goal collects the sets of statements that would reach it: from a fact the empty set, from a
rule the union of one set for each part of its tail, and from a *leaf* the statement "A.r <- B" itself. A leaf is a role that is given to
principals one by one: facts give it to somebody, or nothing defines it at all. A role that is defined only through others is left as
its owner defined it. Goals that rest on each other in a cycle collect nothing from it. For linking, A.v.n, also principals that could
have A.v, and those that already say something about the subject (first), are thought of as those in the middle.

The order: fewer statements first; then fewer that the goal's own principal would have to make (its policy is what refused); then fewer
whose issuer says nothing yet about whom they are about; then by their text. If no set is found, it is what always helps: the goal's
principal says so itself. For a role as subject this is the only answer.

The smallest explanation is a hard problem (NP), so the work is bounded: `SETS_KEPT` sets of at most `STATEMENTS` for each goal, and a
budget of steps. What is returned is right whatever was cut: each set completes a proof, and no part of it does, which is tried.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from itertools import product

from fedkit.policy.explore import who_could
from fedkit.policy.known import Budget, Goal, Known, OutOfBudgetError, Way
from fedkit.policy.model import Entity, Linked, Role, Statement, Subject
from fedkit.policy.search import Search

SETS = 5  # that are returned
SETS_KEPT = 16  # for each goal
STATEMENTS = 16  # in a set
MIDDLEMEN = 32  # principals thought of for linking, beside those that say something that matters

Statements = frozenset[Statement]
_NOTHING: Statements = frozenset()


def missing_sets(known: Known, role: Role, subject: Subject) -> tuple[Statements, ...]:
    """Return at most `SETS` sets, the best first, for a goal that cannot be reached over `known`, in what is left of its budget."""
    direct = frozenset({Statement(role, (subject,))})
    if isinstance(subject, Role):
        return (direct,)
    goal = Goal(role, subject)
    verification = Budget(known.budget.left // 4)
    abduction = _Abduction(known.with_budget(Budget(known.budget.left - verification.left)), goal)
    found: list[Statements] = []
    try:
        for statements in abduction.run():
            reduced = needed(known, goal, statements, verification)
            if reduced not in found:
                found.append(reduced)
    except OutOfBudgetError:
        pass  # those that are found are right; the rest would cost too much
    found.sort(key=abduction.rank)
    return tuple(found[:SETS]) or (direct,)


def needed(known: Known, goal: Goal, statements: Statements, budget: Budget) -> Statements:
    """Leave out of `statements` what the goal is reached without; a single one is needed, as it is not reached without any."""
    for statement in sorted(statements, key=str):
        fewer = statements - {statement}
        if fewer and Search(known.with_budget(budget, assumed=fewer)).reaches(goal):
            statements = fewer
    return statements


class _Use:
    """One way to `goal`: how many of those that it leads `over` lack any set; `due` while what they have collected is to be looked at."""

    __slots__ = ("due", "goal", "lack", "over")

    def __init__(self, goal: Goal, over: tuple[Goal, ...]) -> None:
        self.goal = goal
        self.over = over
        self.lack = 0
        self.due = False


class _Abduction:
    """Collects for each goal behind `root` the sets of statements that would reach it, until nothing new comes."""

    def __init__(self, known: Known, root: Goal) -> None:
        self._known = known
        self._root = root
        self._sets: dict[Goal, list[Statements]] = {}
        self._uses: defaultdict[Goal, list[_Use]] = defaultdict(list)
        self._due: deque[_Use] = deque()
        self._could: dict[Role, set[str]] = {}
        self._vouching: dict[str, set[str]] = {}
        self._ranks: dict[Statements, tuple[int, int, int, tuple[str, ...]]] = {}

    def run(self) -> list[Statements]:
        """Return the root's sets, the best first; fewer when the budget ends before all are known."""
        try:
            self._open_all()
            while self._due:
                use = self._due.popleft()
                use.due = False
                self._reach(use)
        except OutOfBudgetError:
            pass  # every set collected so far is right
        return self._sets.get(self._root, [])

    def rank(self, statements: Statements) -> tuple[int, int, int, tuple[str, ...]]:
        """The order of sets; see above."""
        rank = self._ranks.get(statements)
        if rank is None:
            own = sum(statement.head.principal == self._root.what.principal for statement in statements)
            strange = sum(not self._acquainted(statement) for statement in statements)
            rank = self._ranks[statements] = (len(statements), own, strange, tuple(sorted(map(str, statements))))
        return rank

    def _open_all(self) -> None:
        seen, pending = {self._root}, deque([self._root])
        while pending:
            goal = pending.popleft()
            self._known.budget.take()
            if isinstance(goal.what, Role) and isinstance(goal.subject, Entity) and self._is_leaf(goal.what):
                self._collect(goal, [frozenset({Statement(goal.what, (goal.subject,))})])
            for way in self._ways(goal):
                if not way.over:
                    self._collect(goal, [_NOTHING])
                    break
                use = _Use(goal, way.over)
                for ground in way.over:
                    use.lack += ground not in self._sets
                    self._uses[ground].append(use)
                    if ground not in seen:
                        seen.add(ground)
                        pending.append(ground)
                self._plan(use)

    def _ways(self, goal: Goal) -> Iterable[Way]:
        yield from self._known.ways(goal)
        if isinstance(goal.what, Linked) and isinstance(goal.subject, Entity):
            vouchers = self._vouchers(goal.subject.fedid)
            others = (self._who_could(goal.what.base) | vouchers) - self._known.middlemen(goal.what, goal.subject)
            order = sorted(others, key=lambda fedid: (fedid not in vouchers, fedid))
            for fedid in order[:MIDDLEMEN]:
                yield Way(None, (Goal(goal.what.base, Entity(fedid)), Goal(Role(fedid, goal.what.name), goal.subject)))

    def _reach(self, use: _Use) -> None:
        """Collect for the use's goal what reaches all that its way leads over."""
        self._known.budget.take()
        unions = [_NOTHING]
        for sets in map(self._sets.__getitem__, use.over):
            if unions == [_NOTHING]:
                unions = sets
            elif sets != [_NOTHING]:
                unions = self._best(a | b for a, b in product(unions, sets))
        self._collect(use.goal, unions)

    def _collect(self, goal: Goal, new: list[Statements]) -> None:
        """Take `new` sets for `goal`; whoever uses it looks again if that changes anything."""
        before = self._sets.get(goal, [])
        if len(before) == SETS_KEPT:
            new = [statements for statements in new if self.rank(statements) < self.rank(before[-1])]
        after = self._best([*before, *new]) if before and new else before or new
        if after == before:
            return
        self._sets[goal] = after
        for use in self._uses[goal]:
            use.lack -= not before
            self._plan(use)

    def _plan(self, use: _Use) -> None:
        if not use.lack and not use.due:
            use.due = True
            self._due.append(use)

    def _best(self, sets: Iterable[Statements]) -> list[Statements]:
        """The first few of `sets`, without those that another is a part of."""
        distinct = set(sets)
        self._known.budget.take(len(distinct))
        kept: list[Statements] = []
        for statements in sorted(distinct, key=self.rank):
            if len(statements) > STATEMENTS or len(kept) == SETS_KEPT:
                break
            if not any(smaller <= statements for smaller in kept):
                kept.append(statements)
        return kept

    def _is_leaf(self, role: Role) -> bool:
        return any(index.given(role) for index in self._known.indexes) or not self._known.rules(role)

    def _acquainted(self, statement: Statement) -> bool:
        (subject,) = statement.tail
        return isinstance(subject, Entity) and statement.head.principal in self._vouchers(subject.fedid)

    def _who_could(self, role: Role) -> set[str]:
        if role not in self._could:
            self._could[role] = who_could(self._known, role)
        return self._could[role]

    def _vouchers(self, fedid: str) -> set[str]:
        if fedid not in self._vouching:
            self._vouching[fedid] = self._known.vouchers(fedid)
        return self._vouching[fedid]
