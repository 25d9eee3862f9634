"""One attempt at one or more commands: one signed stanza out, one verdict for each command back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pydantic_core
from pydantic import ValidationError

from fedkit.errors import FedError, RemoteError
from fedkit.mesh import packs
from fedkit.mesh.envelope import INLINE_LIMIT, AnswerFault, Draft
from fedkit.mesh.errors import (
    BadAnswer,
    Busy,
    Expired,
    Incomplete,
    KeyConflict,
    Misdirected,
    OutOfOrder,
    RateLimited,
    Replayed,
    SendAgain,
)
from fedkit.mesh.exchange import Exchange
from fedkit.mesh.outbox import Entry
from fedkit.mesh.upload import upload

ATTEMPT_TIMEOUT = 5.0  # seconds
UPLOAD_TIMEOUT = 60.0  # seconds for all chunks of one body

# Signed refusals that are about this moment, not about the command: nothing was executed, and it is tried again.
PEER_NOT_READY = {Expired.code, Misdirected.code, KeyConflict.code, Busy.code, RateLimited.code}
FOR_NOW = PEER_NOT_READY | {Replayed.code, Incomplete.code, SendAgain.code, OutOfOrder.code, FedError.code}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the peer said to one command."""

    answer: dict[str, Any]
    error: RemoteError | None

    @property
    def final(self) -> bool:
        """Whether that is how the command ends."""
        return self.error is None or self.error.code not in FOR_NOW


@dataclass
class Courier:
    """Carries commands to their peer and brings the verdicts. `now` is seconds since the epoch."""

    exchange: Exchange
    numbers: Iterator[int]
    now: Callable[[], float]

    async def deliver(self, batch: list[Entry], after: list[str | None]) -> list[Verdict]:
        """Make one attempt; raises what `Exchange` raises, for all of them alike."""
        if len(batch) == 1:
            return [await self._single(batch[0], after[0])]
        return await self._pack(batch, after)

    async def _single(self, entry: Entry, after: str | None) -> Verdict:
        content = f'"body":{entry.body}'
        body = entry.body.encode()
        if len(body) > INLINE_LIMIT:
            async with asyncio.timeout(UPLOAD_TIMEOUT):
                content = await upload(self.exchange, entry.peer, body, self.now, ATTEMPT_TIMEOUT)
        now = self.now()
        timeout = max(0.0, min(ATTEMPT_TIMEOUT, entry.deadline - now))
        draft = Draft(
            to=entry.peer,
            jti=entry.jti,
            n=next(self.numbers),
            op=entry.op,
            content=content,
            iat=now,
            exp=now + timeout,
            since=entry.created,
            after=after,
        )
        answer = await self.exchange("set", draft, timeout)
        return _verdict(answer.body, answer.error)

    async def _pack(self, batch: list[Entry], after: list[str | None]) -> list[Verdict]:
        numbers = [next(self.numbers) for _ in batch]
        items = ",".join(map(packs.print_item, batch, numbers, after))
        now = self.now()
        draft = Draft(
            to=batch[0].peer,
            jti=str(uuid4()),
            n=next(self.numbers),
            op=packs.OPERATION,
            content=f'"body":{{"items":[{items}]}}',
            iat=now,
            exp=now + ATTEMPT_TIMEOUT,
            since=now,
        )
        answer = await self.exchange("set", draft, ATTEMPT_TIMEOUT)
        if answer.error is not None:
            return [_verdict(None, answer.error)] * len(batch)
        try:
            answers = packs.PackAnswer.model_validate_json(pydantic_core.to_json(answer.body)).answers
        except ValidationError as error:
            raise BadAnswer(f"{draft.to.address} answered a pack with garbage.") from error
        if [(one.jti, one.n) for one in answers] != [(entry.jti, n) for entry, n in zip(batch, numbers, strict=True)]:
            raise BadAnswer(f"{draft.to.address} answered another pack than it was sent.")
        return [_verdict(one.body, one.error) for one in answers]


def _verdict(body: dict[str, Any] | None, error: AnswerFault | None) -> Verdict:
    refusal = None if error is None else RemoteError(error.code, error.message, error.details)
    return Verdict(body or {}, refusal)
