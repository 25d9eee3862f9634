"""Several commands in one signed text: what a busy sender saves in signatures, stanzas and wake-ups.

A pack is an IQ of type set whose operation is `mesh.pack`; its body lists commands with their own id, attempt number and
`since`, and its answer lists their answers in the same order. The signature, the binding to both parties and the times
are the pack's; each command in it is otherwise treated as if it had come alone, in the order of the list. The pack itself
has no inbox row: there is nothing in it that could be repeated except its commands, which have theirs.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from fedkit.mesh.envelope import INLINE_LIMIT, AnswerFault, operation_pattern, uuid_pattern
from fedkit.mesh.outbox import Entry

OPERATION = "mesh.pack"
PACK = 32  # commands in one pack
OCTETS = 32_000  # of their bodies: with what stands around them they fit one text


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Item(_Strict):
    """One command."""

    jti: str = Field(pattern=uuid_pattern)
    n: int = Field(ge=1, lt=2**53)
    op: str = Field(max_length=64, pattern=operation_pattern)
    since: float = Field(allow_inf_nan=False)
    after: str | None = Field(default=None, pattern=uuid_pattern)
    body: dict[str, Any]


class Pack(_Strict):
    """The body of a pack."""

    items: list[Item] = Field(min_length=1, max_length=PACK)


class ItemAnswer(_Strict):
    """The answer to one command: exactly one of `body` and `error`."""

    jti: str = Field(pattern=uuid_pattern)
    n: int = Field(ge=1, lt=2**53)
    body: dict[str, Any] | None = None
    error: AnswerFault | None = None


class PackAnswer(_Strict):
    """The answers to a pack, in the order of its commands."""

    answers: list[ItemAnswer] = Field(max_length=PACK)


def print_item(entry: Entry, n: int, after: str | None) -> str:
    """One command as JSON; its body is JSON already."""
    head = {"jti": entry.jti, "n": n, "op": entry.op, "since": entry.created, **({"after": after} if after else {})}
    return f'{json.dumps(head, separators=(",", ":"))[:-1]},"body":{entry.body}}}'


def print_answers(answers: list[tuple[str, int, str]], too_much: str) -> bytes:
    """The answers (id, attempt, content) as the body of a pack's answer; `too_much` stands for those that do not fit."""
    printed = []
    room = INLINE_LIMIT - 20 - len(answers) * (len(too_much) + 90)
    for jti, n, content in answers:
        size = len(content.encode())
        room -= size
        printed.append(f'{{"jti":"{jti}","n":{n},{content if room >= 0 else too_much}}}')
        if room < 0:
            room += size
    return f'{{"answers":[{",".join(printed)}]}}'.encode()
