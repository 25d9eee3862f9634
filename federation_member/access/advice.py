"""What is probably not meant in a policy: rules that nobody can ever meet, and what two rules make of each other.

Advice is careful: it says only what is certain from the file (and, where they are given, from the known members and what this
member lends). A policy with advice still works.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from federation_member.access.compile import MEMBER, Member
from federation_member.access.model import How
from federation_member.access.rules import ANYTHING, Rule, Rules, allows
from federation_member.access.who import SELF, Reference, Term, Who
from fedkit.identity.keys import is_fedid
from fedkit.identity.patterns import ANY, NamePattern, is_wild


def advise(rules: Rules, kinds: Collection[str] = (), members: Iterable[Member] = ()) -> list[str]:
    """Warnings, one sentence each; `kinds` are those that this member lends, where that is known, `members` those known."""
    known = list(members)
    return [
        *_roles_of_nobody(rules),
        *(word for rule in rules.rules for word in _about(rule, kinds)),
        *(word for place, who in _lines(rules) for word in _about_who(place, who, known)),
        *_shadowed(rules.rules),
    ]


def _lines(rules: Rules) -> Iterator[tuple[str, Who]]:
    yield from ((f"Role {name}", who) for name, lines in rules.roles.items() for who in lines)
    yield from ((f"Rule {rule.name}", who) for rule in rules.rules for who in rule.who)


def _about(rule: Rule, kinds: Collection[str]) -> Iterator[str]:
    name = f"Rule {rule.name}"
    if rule.hours is not None and rule.hours.empty:
        yield f"{name} is never open: the hours {rule.hours.text} are empty; write 00:00-24:00 for a whole day."
    if kinds and not any(allows(rule.may, kind) for kind in kinds):
        yield f"{name} lends {', '.join(rule.may)}, and this member lends only {', '.join(sorted(kinds))}."
    for what in ("flavours", "node_types", "images"):
        if not getattr(rule, what):
            yield f"{name} has no {what}, so it lends no machine."
    testbeds = {term.asserter for who in rule.who for term in who.terms if isinstance(term, NamePattern)}
    several = len(testbeds) > 1 or any(is_wild(testbed) for testbed in testbeds)
    if rule.account.how is How.CREATE and "{testbed}" not in rule.account.text and several:
        yield f"{name} makes equal accounts for several testbeds, and only the first gets it; put {{testbed}} into account."


def _about_who(place: str, who: Who, members: Sequence[Member]) -> Iterator[str]:
    fedids = {member.fedid for member in members}
    for term in who.terms:
        if isinstance(term, Reference) and not term.roles and term.principal in fedids | {SELF}:
            yield f"{place}: {who.text} is a member's own key, not its users; those are {term}/*/*."
        if isinstance(term, NamePattern) and members and _nobody_has_address(term.asserter, members):
            yield f"{place}: no known member has an address like {term.asserter}."


def _nobody_has_address(asserter: str, members: Sequence[Member]) -> bool:
    return _by_address(asserter) and not any(fnmatchcase(member.address, asserter) for member in members)


def _roles_of_nobody(rules: Rules) -> Iterator[str]:
    """Own roles that are used and never given, and those that rest only on one another."""
    given: Mapping[str, Sequence[Who]] = {**rules.roles, **{rule.role: rule.who for rule in rules.rules}}
    for place, who in _lines(rules):
        for role in _own_roles(who):
            if role != MEMBER and role not in given and not role.startswith("testbed_"):
                yield (
                    f"{place}: {who.text}: this policy gives nobody the role {role}; "
                    f"write it into [roles], or sign credentials for it with `fed abac sign`."
                )
    for role in _founded_on_nothing(given):
        yield f"Nobody can have {role.removeprefix('rule_')}: it rests on itself and on nothing else."


def _own_roles(who: Who) -> set[str]:
    """The roles of this member that a line rests on: `self.role`, or `self.role.other` by its holders."""
    return {t.roles[0] for t in who.terms if isinstance(t, Reference) and t.principal == SELF and t.roles}


def _founded_on_nothing(given: Mapping[str, Sequence[Who]]) -> list[str]:
    """The roles of which every line needs a role of the same kind: what is left when all that can be met is taken away."""
    left = {role: [_own_roles(who) for who in lines] for role, lines in given.items()}
    while True:
        met = {role for role, lines in left.items() if any(needs.isdisjoint(left) for needs in lines) or not lines}
        if not met:
            return list(left)
        left = {role: lines for role, lines in left.items() if role not in met}


def _shadowed(rules: Sequence[Rule]) -> Iterator[str]:
    for number, later in enumerate(rules):
        for earlier in rules[:number]:
            if _covers(earlier, later):
                yield f"Rule {later.name} is never reached: {earlier.name} before it already lends all of it to all of them."
                break


def _covers(earlier: Rule, later: Rule) -> bool:
    lists = ("may", "flavours", "node_types", "images", "services")
    return (
        earlier.count is None
        and (earlier.hours is None or (later.hours is not None and earlier.hours.text == later.hours.text))
        and all(_wider(getattr(earlier, name), getattr(later, name)) for name in lists)
        and all(any(_includes(wide, narrow) for wide in earlier.who) for narrow in later.who)
    )


def _wider(wide: tuple[str, ...], narrow: tuple[str, ...]) -> bool:
    if wide == narrow:
        return True
    if any(pattern.startswith("!") for pattern in wide):
        return False
    return ANYTHING[0] in wide or (bool(narrow) and set(narrow) <= set(wide))


def _includes(wide: Who, narrow: Who) -> bool:
    """Whether everybody of `narrow` is one of `wide`: each of its terms is asked for in `narrow` too, perhaps more narrowly."""
    return all(any(_term_includes(term, other) for other in narrow.terms) for term in wide.terms)


def _term_includes(wide: Term, narrow: Term) -> bool:
    if not (isinstance(wide, NamePattern) and isinstance(narrow, NamePattern)):
        return wide == narrow
    inner = zip(wide.parts[wide.level + 1 :], narrow.parts[wide.level + 1 :], strict=True)
    return (
        wide.level == narrow.level
        and (wide.asserter == narrow.asserter or (wide.asserter == ANY and _by_address(narrow.asserter)))
        and all(one in (other, ANY) for one, other in inner)
    )


def _by_address(asserter: str) -> bool:
    """Whether members are meant by their addresses, all of which are known; a fedid may be somebody's who is not."""
    return asserter != SELF and not is_fedid(asserter)
