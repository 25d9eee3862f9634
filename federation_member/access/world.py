"""What decisions rest on here: the policy in force, the members known, and the prover that knows what this member says by them.

Both may change while requests come in: the policy by its operator, the members by themselves. A decision sees one state of
them and names it, so that it can be made again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import structlog

from federation_member.access import audit
from federation_member.access.compile import TERM, statements
from federation_member.access.policy_file import read
from federation_member.access.pool import Pool
from federation_member.access.rules import Rules
from fedkit.errors import InputError
from fedkit.identity.keys import PrivateKey
from fedkit.policy.compact import issue
from fedkit.policy.model import Credential, Statement
from fedkit.policy.prover import Prover
from fedkit.policy.revocation import RevocationList

log = structlog.get_logger()

BUDGET = 50_000  # steps of one query, some tens of milliseconds: it is made while others wait


@dataclass(frozen=True, order=True)
class Known:
    """A member, as far as a policy looks at it."""

    fedid: str
    address: str


@dataclass(frozen=True)
class Policy:
    """A policy with its text, and the certificates that its accounts may name."""

    rules: Rules
    text: str
    pool: Pool = field(default_factory=Pool)

    @classmethod
    def parse(cls, text: str, source: str, pool: Pool | None = None) -> Policy:
        """Read a policy's text; raise `UnusablePolicy` or `UnusableConfig`."""
        return cls(read(text.encode(), source), text, pool or Pool())


NOTHING = Policy.parse("", "no policy")


@dataclass(frozen=True)
class State:
    """Policy and members at one time; their texts stand beside the audit log under these names."""

    policy: Policy
    members: tuple[Known, ...]

    @cached_property
    def texts(self) -> tuple[str, str]:
        """Both, as they are kept."""
        return self.policy.text, members_text(self.members)

    @cached_property
    def names(self) -> dict[str, str]:
        """As an entry names them."""
        policy, members = map(audit.sha256, self.texts)
        return {"policy": policy, "members": members}

    @cached_property
    def id(self) -> str:
        """One name for both."""
        return audit.sha256(audit.canonical(self.names))


class World:
    """The present state; all methods may be called from any thread."""

    def __init__(self, key: PrivateKey, address: str) -> None:
        self._key = key
        self._me = Known(key.fedid, address)
        self._state = State(NOTHING, (self._me,))
        self._said: dict[Statement, Credential] = {}
        self._lock = threading.RLock()
        self.prover = Prover(budget=BUDGET)

    @property
    def own(self) -> str:
        """This member's fedid."""
        return self._key.fedid

    @property
    def key(self) -> PrivateKey:
        """This member's key."""
        return self._key

    @contextmanager
    def still(self) -> Iterator[State]:
        """The state, which nobody changes meanwhile."""
        with self._lock:
            yield self._state

    def set_policy(self, policy: Policy, now: datetime) -> None:
        """Let another policy be in force; raise `UnusablePolicy` and leave the old one if it cannot be compiled."""
        with self._lock:
            self._become(State(policy, self._state.members), now)

    def set_members(self, members: Iterable[Known], now: datetime) -> None:
        """Take in who is known. A policy that would become too large keeps to the members that it knew."""
        with self._lock:
            everybody = tuple(sorted({*members, self._me}))
            if everybody == self._state.members:
                return
            try:
                self._become(State(self._state.policy, everybody), now)
            except InputError as error:
                log.error("members_not_taken_in", code=error.code, reason=error.message)

    def revoke(self, listing: RevocationList) -> None:
        """Let what it names count no more."""
        self.prover.revoke(listing)

    def _become(self, state: State, now: datetime) -> None:
        wanted = statements(state.policy.rules, self.own, state.members)
        soon = now + TERM / 2
        kept = {s: c for s in wanted if (c := self._said.get(s)) is not None and c.expires > soon}
        for statement, credential in self._said.items():
            if statement not in kept:
                self.prover.remove(credential.id)
        new = {s: issue(self._key, s, now + TERM) for s in wanted if s not in kept}
        for credential in new.values():
            self.prover.add(credential)
        self._said = kept | new
        self._state = state


def members_text(members: Iterable[Known]) -> str:
    """The members, as they are kept beside the audit log."""
    return json.dumps([[member.fedid, member.address] for member in sorted(members)], separators=(",", ":"))


def members_of(text: str) -> tuple[Known, ...]:
    """The inverse of `members_text`."""
    return tuple(Known(fedid, address) for fedid, address in json.loads(text))
