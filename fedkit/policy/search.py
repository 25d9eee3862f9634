"""Search for a proof, backward from the goal.

Each goal is opened once, whoever asks for it, and gives a *clause* for each way to reach it (`known.py`). A clause asks for its goals one
after the other and draws its conclusion when the last is reached; conclusions travel to the clauses that wait for them. So a goal counts
only when it is founded on facts: a cycle of credentials waits for itself for ever, which is right, and the search ends when nothing is
left to open. Goals are opened breadth first, so short proofs come first. Nothing recurses.
"""

from __future__ import annotations

from collections import deque
from itertools import count

from fedkit.policy.known import Goal, Known, Way
from fedkit.policy.proof import Step


class _Clause:
    """A way to `node`'s goal, `reached` goals of which are reached."""

    __slots__ = ("node", "reached", "way")

    def __init__(self, node: _Node, way: Way) -> None:
        self.node = node
        self.way = way
        self.reached = 0


class _Node:
    """A goal: how it was reached (None: not yet) and as which one, and the clauses that wait for it."""

    __slots__ = ("goal", "opened", "order", "waiting", "way")

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self.opened = False
        self.way: Way | None = None
        self.order = 0
        self.waiting: list[_Clause] = []


class Search:
    """Reaches goals one after the other over what is `known`; what one has found out the next need not."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._nodes: dict[Goal, _Node] = {}
        self._queue: deque[_Node] = deque()
        self._order = count()

    def reaches(self, goal: Goal) -> bool:
        """Tell whether `goal` can be reached; raise `OutOfBudgetError`, after which this search is of no more use."""
        root = self._node(goal)
        self._queue.append(root)
        while root.way is None and self._queue:
            node = self._queue.popleft()
            # Reached meanwhile, or wanted only by those that are: not worth the work, until somebody else wants it.
            if node.opened or not (node is root or any(clause.node.way is None for clause in node.waiting)):
                continue
            node.opened = True
            self._known.budget.take()
            for way in self._known.ways(node.goal):
                self._queue.extend(self._advance(_Clause(node, way)))
                if node.way is not None:
                    break
        return root.way is not None

    def steps(self, goal: Goal) -> tuple[Step, ...]:
        """The steps by which a goal with a role was reached, each after those that it rests on."""
        wanted: dict[Goal, _Node] = {}
        pending = [goal]
        while pending:
            node = self._nodes[pending.pop()]
            if node.goal not in wanted:
                wanted[node.goal] = node
                pending.extend(node.way.over if node.way else ())
        steps: list[Step] = []
        numbers: dict[Goal, tuple[int, ...]] = {}
        for node in sorted(wanted.values(), key=lambda node: node.order):
            assert node.way is not None
            because = tuple(dict.fromkeys(number for ground in node.way.over for number in numbers[ground]))
            if node.way.credential is None:  # linking says nothing by itself: whoever rests on it rests on its grounds
                numbers[node.goal] = because
            else:
                numbers[node.goal] = (len(steps),)
                steps.append(Step(node.goal.what, node.goal.subject, node.way.credential, because))  # type: ignore[arg-type]
        return tuple(steps)

    def _node(self, goal: Goal) -> _Node:
        node = self._nodes.get(goal)
        if node is None:
            node = self._nodes[goal] = _Node(goal)
            node.opened = self._known.is_hopeless(goal)  # then there is nothing to open
        return node

    def _advance(self, clause: _Clause) -> list[_Node]:
        """Take `clause` and all that follows from it as far as they go; return the goals that they now wait for."""
        ready, wanted = deque([clause]), []
        while ready:
            clause = ready.popleft()
            self._known.budget.take()
            over = clause.way.over
            while clause.reached < len(over) and (node := self._node(over[clause.reached])).way is not None:
                clause.reached += 1
            if clause.reached < len(over):
                node.waiting.append(clause)
                if not node.opened:
                    wanted.append(node)
            elif clause.node.way is None:
                clause.node.way = clause.way
                clause.node.order = next(self._order)
                ready.extend(clause.node.waiting)
                clause.node.waiting.clear()
        return wanted
