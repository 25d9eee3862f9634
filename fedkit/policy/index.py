"""Credentials, found by what a search asks for: who is given a role, what a role is defined through.

A *fact* says that a principal has a role (`A.r <- B`), a *rule* defines a role through others (every other tail).
Federations have many facts (a few for each user) and few rules. So facts are found by their subject first: whether
`A.r <- B` is said, and which principals say of B that it has *their* `r` (what linking asks), is then one look-up,
however many others have the role.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fedkit.policy.model import Credential, Entity, Role

_NONE: list[Credential] = []
_NOBODY: dict[str, list[Credential]] = {}


class Index:
    """A set of credentials; equal ids are one."""

    def __init__(self) -> None:
        self._all: dict[str, Credential] = {}
        # fedid of the subject -> role name -> principal of the head -> credentials
        self._facts: dict[str, dict[str, dict[str, list[Credential]]]] = {}
        # role name -> principal of the head -> credentials
        self._rules: dict[str, dict[str, list[Credential]]] = {}
        self._given: dict[Role, set[str]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, credential_id: str) -> bool:
        return credential_id in self._all

    def add(self, credential: Credential) -> bool:
        """Return whether it is new."""
        if credential.id in self._all:
            return False
        self._all[credential.id] = credential
        head, fact = credential.statement.head, _fact(credential)
        if fact is None:
            heads = self._rules.setdefault(head.name, {})
        else:
            heads = self._facts.setdefault(fact, {}).setdefault(head.name, {})
            self._given.setdefault(head, set()).add(fact)
        heads.setdefault(head.principal, []).append(credential)
        return True

    def remove(self, credential_id: str) -> bool:
        """Return whether it was there."""
        credential = self._all.pop(credential_id, None)
        if credential is None:
            return False
        head, fact = credential.statement.head, _fact(credential)
        heads = self._rules[head.name] if fact is None else self._facts[fact][head.name]
        heads[head.principal].remove(credential)
        if heads[head.principal]:
            return True
        del heads[head.principal]
        if fact is not None:
            self._given[head].discard(fact)
            _prune(self._given, head)
            _prune(self._facts[fact], head.name)
            _prune(self._facts, fact)
        else:
            _prune(self._rules, head.name)
        return True

    def facts(self, role: Role, fedid: str) -> list[Credential]:
        """Whoever says that `fedid` has `role`."""
        return self.facts_named(role.name, fedid).get(role.principal, _NONE)

    def facts_named(self, name: str, fedid: str) -> dict[str, list[Credential]]:
        """The principals that say of `fedid` that it has their role `name`, with what says so."""
        return self._facts.get(fedid, {}).get(name, _NOBODY)

    def rules(self, role: Role) -> list[Credential]:
        """What `role` is defined through."""
        return self.rules_named(role.name).get(role.principal, _NONE)

    def rules_named(self, name: str) -> dict[str, list[Credential]]:
        """The principals that define their role `name` through others, with their rules."""
        return self._rules.get(name, _NOBODY)

    def given(self, role: Role) -> set[str]:
        """The fedids that facts give `role` to."""
        return self._given.get(role, set())

    def known_to(self, fedid: str) -> Iterator[Role]:
        """The roles that facts give to `fedid`."""
        for name, heads in self._facts.get(fedid, {}).items():
            for principal in heads:
                yield Role(principal, name)

    def all_rules(self) -> Iterator[Credential]:
        """Every rule."""
        for heads in self._rules.values():
            for rules in heads.values():
                yield from rules


def _fact(credential: Credential) -> str | None:
    """The fedid of whom a fact speaks; None for a rule."""
    match credential.statement.tail:
        case (Entity(fedid),):
            return fedid
    return None


def _prune(table: dict[Any, Any], key: Any) -> None:
    if not table[key]:
        del table[key]
