"""The sending side of chunks (`chunks`): a body goes ahead, piece by acknowledged piece."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from uuid import uuid4

from pydantic import ValidationError

from fedkit.mesh import chunks
from fedkit.mesh.api import Peer
from fedkit.mesh.envelope import Draft
from fedkit.mesh.errors import BadAnswer, Bounced
from fedkit.mesh.exchange import Exchange


async def upload(exchange: Exchange, peer: Peer, body: bytes, now: Callable[[], float], timeout: float) -> str:
    """Send `body` ahead and return the content that refers to it; `timeout` seconds for each chunk.

    Raises what `Exchange` raises; a chunk that is refused counts as a bounce.
    """
    sha256 = hashlib.sha256(body).hexdigest()
    offset = 0
    for _ in range(2 * len(body) // chunks.CHUNK + 4):  # once more than once, should the receiver restart on the way
        if offset == len(body):
            return f'"ref":{{"sha256":"{sha256}","size":{len(body)}}}'
        issued = now()
        part = chunks.chunk(body, sha256, offset)
        draft = Draft(
            to=peer,
            jti=str(uuid4()),
            n=1,
            op=chunks.OPERATION,
            content=f'"body":{part.model_dump_json()}',
            iat=issued,
            exp=issued + timeout,
            since=issued,
        )
        answer = await exchange("get", draft, timeout)
        if answer.error is not None:
            raise Bounced("refused", answer.error.message, answer.error.code)
        try:
            offset = min(chunks.Received.model_validate(answer.body).received, len(body))
        except ValidationError as error:
            raise BadAnswer(f"{peer.address} acknowledged a chunk with garbage.") from error
    raise BadAnswer(f"{peer.address} has only {offset} octets of {len(body)} after all were sent twice.")
