"""RT0, the language of ABAC: who speaks, what is said, and how it is written.

    A.r <- B                    B has the role r of A
    A.r <- B.s                  whoever has B.s has A.r
    A.r <- B.s.t                whoever has C.t, for any C that has B.s (linking)
    A.r <- B.s & C.t.u & D      whoever has all of these (intersection)

A principal is a fedid and nothing else. Only A can say who has A.r: a statement is worth the signature of its head's principal
(Li, Mitchell, Winsborough: Design of a Role-Based Trust-Management Framework, 2002, §3; libabac 0.2).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from fedkit.errors import InputError
from fedkit.identity.keys import PublicKey, is_fedid

PARTS_LIMIT = 256  # of one intersection
STATEMENT_LIMIT = 64 * 1024  # characters
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")


class UnusableStatement(InputError):
    """A text that is no RT0 statement; the message says which part and why."""

    code = "policy.unusable_statement"


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """A principal, by its fedid."""

    fedid: str

    def __post_init__(self) -> None:
        _check_principal(self.fedid)

    def __str__(self) -> str:
        return self.fedid


@dataclass(frozen=True, slots=True, order=True)
class Role:
    """`A.r`: everybody of whom A says so."""

    principal: str
    name: str

    def __post_init__(self) -> None:
        _check_principal(self.principal)
        _check_role(self.name)

    def __str__(self) -> str:
        return f"{self.principal}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> Role:
        """Read `A.r`; raise `UnusableStatement`."""
        part = parse_part(text)
        if not isinstance(part, Role):
            raise UnusableStatement(f"A role is written <fedid>.<role>; {_short(text)} is not.")
        return part


@dataclass(frozen=True, slots=True, order=True)
class Linked:
    """`A.via.name`: everybody who has `B.name`, for any B that has `A.via`."""

    principal: str
    via: str
    name: str

    def __post_init__(self) -> None:
        _check_principal(self.principal)
        _check_role(self.via)
        _check_role(self.name)

    def __str__(self) -> str:
        return f"{self.principal}.{self.via}.{self.name}"

    @property
    def base(self) -> Role:
        """The role whose holders' roles count: `A.via`."""
        return Role(self.principal, self.via)


Part = Entity | Role | Linked
Subject = Entity | Role


@dataclass(frozen=True, slots=True, order=True)
class Statement:
    """`head <- tail`; a tail of several parts means all of them."""

    head: Role
    tail: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.tail) <= PARTS_LIMIT:
            raise UnusableStatement(f"A statement's tail has 1 to {PARTS_LIMIT} parts; this one has {len(self.tail)}.")

    @classmethod
    def parse(cls, text: str) -> Statement:
        """Read `A.r <- tail`, with or without blanks around `<-` and `&`; raise `UnusableStatement`."""
        if len(text) > STATEMENT_LIMIT:
            raise UnusableStatement(f"A statement has at most {STATEMENT_LIMIT} characters; this one has {len(text)}.")
        head, arrow, tail = text.partition("<-")
        if not arrow:
            raise UnusableStatement(f"A statement is written HEAD <- TAIL; {_short(text)} has no <-.")
        return cls(Role.parse(head.strip()), tuple(parse_part(part.strip()) for part in tail.split("&")))

    def __str__(self) -> str:
        return f"{self.head} <- {' & '.join(str(part) for part in self.tail)}"

    def principals(self) -> Iterator[str]:
        """Every fedid named, the head's first."""
        yield self.head.principal
        for part in self.tail:
            yield part.fedid if isinstance(part, Entity) else part.principal


@dataclass(frozen=True)
class Credential:
    """A statement that its head's principal has signed; who constructs one has checked the signature.

    `encoding` says in which form it was signed, `raw` is that form as it came (a member passes on the very octets).
    """

    statement: Statement
    issuer: PublicKey
    expires: datetime
    not_before: datetime | None
    encoding: str
    raw: bytes

    @cached_property
    def id(self) -> str:
        """SHA-256 (hex) of who says what and when: equal in whatever form and with whatever signature it was said.

        Revocation goes by it, so a revoked credential cannot come back with a blank more in its XML.
        """
        told = (self.issuer.spki.hex(), str(self.statement), _instant(self.not_before), _instant(self.expires))
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def holds_at(self, at: datetime) -> bool:
        """Tell whether `at` lies within its term."""
        return (self.not_before is None or self.not_before <= at) and at < self.expires


def parse_part(text: str) -> Part:
    """Read `A`, `A.r` or `A.r.s`; raise `UnusableStatement`."""
    match text.split("."):
        case [principal]:
            return Entity(principal)
        case [principal, name]:
            return Role(principal, name)
        case [principal, via, name]:
            return Linked(principal, via, name)
    raise UnusableStatement(
        f"A principal has at most two roles behind it, <fedid>.<role>.<role>; {_short(text)} has more."
    )


def _check_principal(text: str) -> None:
    if not is_fedid(text):
        raise UnusableStatement(f"A principal is a fedid, 40 lower-case hex digits; {_short(text)} is not.")


def _check_role(text: str) -> None:
    if not _ROLE.match(text):
        raise UnusableStatement(f"A role is letters, digits, - and _, a letter or digit first; {_short(text)} is not.")


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")


def _instant(at: datetime | None) -> str:
    return "" if at is None else at.astimezone(UTC).isoformat(timespec="seconds")
