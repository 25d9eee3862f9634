"""Short texts for statements and credentials: principals are single capital letters, each with one key for the whole run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from fedkit.identity.keys import PrivateKey
from fedkit.policy.model import Credential, Entity, Role, Statement, Subject, parse_part
from fedkit.policy.proof import Proof, Refusal
from fedkit.policy.prover import Prover

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
KEYS = {letter: PrivateKey.generate() for letter in "ABCDEFUVWXYZ"}
FEDIDS = {letter: key.fedid for letter, key in KEYS.items()}
_BY_FEDID = {key.fedid: key for key in KEYS.values()}
_LETTERS = {fedid: letter for letter, fedid in FEDIDS.items()}


def statement(text: str) -> Statement:
    """`A.r <- B.s & C`"""
    return Statement.parse(_fedids(text))


def role(text: str) -> Role:
    return Role.parse(_fedids(text))


def subject(text: str) -> Subject:
    part = parse_part(_fedids(text))
    assert isinstance(part, Entity | Role)
    return part


def credential(
    said: str | Statement, until: datetime = NOW + timedelta(days=1), since: datetime | None = None
) -> Credential:
    """As a reader returns it; nothing here looks at signatures, so none is made."""
    said = statement(said) if isinstance(said, str) else said
    return Credential(said, _BY_FEDID[said.head.principal].public, until, since, "said", str(said).encode())


def credentials(texts: str) -> list[Credential]:
    """One for each line."""
    return [credential(line.strip()) for line in texts.strip().splitlines()]


def prove(known: Iterable[Credential], goal: str, whom: str, **options: Any) -> Proof | Refusal:
    """Ask a fresh prover."""
    return Prover(known, **options).prove(role(goal), subject(whom), NOW)


def letters(text: object) -> str:
    """The text with letters for fedids."""
    return re.sub("[0-9a-f]{40}", lambda match: _LETTERS.get(match[0], match[0]), str(text))


def missing(answer: Proof | Refusal) -> list[set[str]]:
    """The missing sets of a refusal, in letters."""
    assert isinstance(answer, Refusal)
    return [set(map(letters, statements)) for statements in answer.missing]


def used(answer: Proof | Refusal) -> list[str]:
    """What the proof rests on, in the order of its steps, in letters."""
    assert isinstance(answer, Proof)
    answer.check(NOW)
    return [letters(credential.statement) for credential in answer.credentials]


def _fedids(text: str) -> str:
    return re.sub(r"\b[A-Z]\b", lambda match: FEDIDS[match[0]], text)
