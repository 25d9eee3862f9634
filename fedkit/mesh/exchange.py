"""One attempt: sign a request, have the link carry it, verify that what comes back is this peer's answer to it.

Whatever is wrong with an answer makes it no answer (`BadAnswer`): garbage changes nothing but the peer's health.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from fedkit.identity.keys import PrivateKey
from fedkit.mesh import envelope
from fedkit.mesh.api import Peer
from fedkit.mesh.envelope import AnswerClaims, Draft
from fedkit.mesh.errors import BadAnswer, BadSignature, KeyConflict, Malformed
from fedkit.mesh.link import Kind, Link
from fedkit.mesh.pins import Pins
from fedkit.store import Database

log = structlog.get_logger()

EPOCH_BITS = 32
"""An attempt's number is `start << 32 | count`: it grows with every attempt, also past a crash, and no row is written for it."""


def attempt_numbers(epoch: int) -> Iterator[int]:
    """The numbers of the attempts of one process; `epoch` counts its starts."""
    number = epoch << EPOCH_BITS
    while True:
        number += 1
        yield number


@dataclass
class Exchange:
    """Carries requests of this node to its peers and verifies their answers."""

    key: PrivateKey
    me: Peer
    link: Link
    db: Database
    pins: Pins

    async def __call__(self, kind: Kind, draft: Draft, timeout: float) -> AnswerClaims:
        """Return the verified answer, which may be a refusal.

        Raises `LinkDown`, `Bounced`, `BadAnswer`, `KeyConflict` or `TimeoutError` after `timeout` seconds.
        """
        text = envelope.seal_request(self.key, self.me, draft)
        result = await self.link.request(draft.to.address, kind, text, timeout)
        try:
            key, answer = envelope.open_answer(result)
            self._check(draft, answer)
        except (Malformed, BadSignature, BadAnswer) as error:
            log.warning(
                "mesh_bad_answer", code=BadAnswer.code, peer=draft.to.address, id=draft.jti, reason=error.message
            )
            raise BadAnswer(f"{draft.to.address} sent no valid answer: {error.message}") from error
        try:
            if not self.pins.known(key):
                await self.db.run(lambda tx: self.pins.pin(tx, key, answer.iat))
        except KeyConflict as error:
            raise BadAnswer(error.message) from error
        return answer

    def _check(self, draft: Draft, answer: AnswerClaims) -> None:
        expected = (draft.to.fedid, draft.to.address, self.me.fedid, self.me.address, draft.jti, draft.n, draft.op)
        found = (answer.iss, answer.sjid, answer.aud, answer.rjid, answer.jti, answer.n, answer.op)
        for name, want, have in zip(("iss", "sjid", "aud", "rjid", "jti", "n", "op"), expected, found, strict=True):
            if want != have:
                raise BadAnswer(f"its {name} is {have}, not {want}")
