"""Who could have a role, what a subject could have: cheap supersets, from which a search then picks what is true."""

from __future__ import annotations

from collections import defaultdict

from fedkit.policy.known import Known
from fedkit.policy.model import Entity, Linked, Part, Role, Subject


def who_could(known: Known, role: Role) -> set[str]:
    """Fedids among which is everybody who has `role`.

    Whoever has a role is named by a fact or a rule that can be reached backward from it. All parts of an intersection must hold, so
    following one of them is enough. What linking asks of A's holders is asked of everybody found.
    """
    found: set[str] = set()
    seen, pending = {role}, [role]
    names: set[str] = set()  # of roles that linking asks of whoever has another

    def follow(others: set[Role]) -> None:
        known.budget.take(len(others))
        pending.extend(others - seen)
        seen.update(others)

    def meet(fedids: set[str]) -> None:
        follow({Role(fedid, name) for fedid in fedids - found for name in names})
        found.update(fedids)

    while pending:
        role = pending.pop()
        known.budget.take()
        for index in known.indexes:
            meet(index.given(role))
        for credential in known.rules(role):
            part = min(credential.statement.tail, key=_breadth)
            match part:
                case Entity(fedid):
                    meet({fedid})
                case Role():
                    follow({part})
                case Linked(name=name):
                    follow({part.base})
                    if name not in names:
                        names.add(name)
                        follow({Role(fedid, name) for fedid in found})
    return found


def what_could(known: Known, subject: Subject) -> set[Role]:
    """Roles among which is every other one that `subject` has: what can be reached forward if any part of a tail is enough."""
    heads: dict[Part | str, set[Role]] = defaultdict(set)  # by the part of the tail; linking by its last name
    for index in known.indexes:
        for credential in index.all_rules():
            known.budget.take()
            for part in credential.statement.tail:
                heads[part.name if isinstance(part, Linked) else part].add(credential.statement.head)
    found: set[Role] = set()
    pending: list[Role] = []

    def reach(roles: set[Role]) -> None:
        known.budget.take(len(roles))
        pending.extend(roles - found)
        found.update(roles)

    reach(set(heads[subject]))
    if isinstance(subject, Role):
        reach(set(heads[subject.name]))
    else:
        for index in known.indexes:
            reach(set(index.known_to(subject.fedid)))
    while pending:
        role = pending.pop()
        reach(heads[role] | heads[role.name])
    return found - {subject}


def _breadth(part: Part) -> int:
    """How many may be found through a part, roughly."""
    return (Entity, Role, Linked).index(type(part))
