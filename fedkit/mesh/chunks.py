"""Bodies larger than one stanza: sent ahead in acknowledged chunks, then referred to by their hash.

    sender ── mesh.chunk {sha256, offset, total, data} ──► receiver: appends, answers {received}
           …                                                (in memory: bounded in number, size and time)
           ── the command itself, with ref {sha256, size} ──► takes the assembled body, whose hash it checks

A chunk is a signed query of its own, so only its sender can add to its assemblies. `received` tells where to go on, so a lost chunk
or a restarted receiver costs only what it lost. Nothing here knows what the body says.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pydantic import Field

from fedkit.mesh.envelope import BODY_LIMIT
from fedkit.mesh.errors import BadBody, Busy, Incomplete
from fedkit.protocol import Body

OPERATION = "mesh.chunk"
CHUNK = 32 * 1024  # octets of the body in one chunk
PER_PEER = 4  # assemblies
IN_ALL = 64 * 1024 * 1024  # octets announced by all assemblies
LIFETIME = 120.0  # seconds since the last chunk


class Chunk(Body):
    """A part of a body that is being assembled."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the whole body")
    total: int = Field(ge=1, le=BODY_LIMIT, description="octets of the whole body")
    offset: int = Field(ge=0, lt=BODY_LIMIT)
    data: str = Field(max_length=math.ceil(CHUNK / 3) * 4, description="base64 (RFC 4648 §4)")


class Received(Body):
    """How many octets are there; the next chunk begins with that offset."""

    received: int = Field(ge=0, le=BODY_LIMIT)


def chunk(body: bytes, sha256: str, offset: int) -> Chunk:
    """Cut the chunk at `offset` out of `body`."""
    data = base64.b64encode(body[offset : offset + CHUNK]).decode()
    return Chunk(sha256=sha256, total=len(body), offset=offset, data=data)


@dataclass
class _Assembly:
    total: int
    touched: float
    data: bytearray = field(default_factory=bytearray)


class Assemblies:
    """The bodies that are arriving. `monotonic` is the time in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._open: OrderedDict[tuple[str, str], _Assembly] = OrderedDict()

    def add(self, sender: str, part: Chunk) -> Received:
        """Take a chunk if it is the next one; raise `BadBody` or `Busy`."""
        self._forget_old()
        assembly = self._open.get((sender, part.sha256)) or self._begin(sender, part)
        if part.total != assembly.total:
            raise BadBody(f"This body was announced with {assembly.total} octets.", fields=["total"])
        if part.offset == len(assembly.data) < assembly.total:
            data = _decoded(part)
            if len(assembly.data) + len(data) > assembly.total:
                raise BadBody("The chunk goes beyond the body's total.", fields=["data"])
            assembly.data += data
        assembly.touched = self._monotonic()
        self._open.move_to_end((sender, part.sha256))
        return Received(received=len(assembly.data))

    def get(self, sender: str, sha256: str, size: int) -> bytes:
        """Return an assembled body; raise `Incomplete` if it is not there whole, or is not what its hash says."""
        assembly = self._open.get((sender, sha256))
        if assembly is None or len(assembly.data) < assembly.total or assembly.total != size:
            raise Incomplete(f"The body {sha256} has not arrived whole; send its chunks again.")
        body = bytes(assembly.data)
        if hashlib.sha256(body).hexdigest() != sha256:
            self.drop(sender, sha256)
            raise Incomplete(f"What arrived is not the body {sha256}; send its chunks again.")
        return body

    def drop(self, sender: str, sha256: str) -> None:
        """Forget a body that has been used."""
        self._open.pop((sender, sha256), None)

    def _begin(self, sender: str, part: Chunk) -> _Assembly:
        mine = list(self._of(sender))
        if len(mine) >= PER_PEER:
            self.drop(sender, mine[0])  # the sender's own oldest: it hurts nobody else
        if sum(assembly.total for assembly in self._open.values()) + part.total > IN_ALL:
            raise Busy("Too many bodies are arriving at once.")
        assembly = self._open[sender, part.sha256] = _Assembly(part.total, self._monotonic())
        return assembly

    def _of(self, sender: str) -> Iterator[str]:
        return (sha256 for owner, sha256 in self._open if owner == sender)

    def _forget_old(self) -> None:
        limit = self._monotonic() - LIFETIME
        while self._open and next(iter(self._open.values())).touched < limit:
            self._open.popitem(last=False)


def _decoded(part: Chunk) -> bytes:
    try:
        data = base64.b64decode(part.data, validate=True)
    except ValueError as error:
        raise BadBody("The chunk's data is not base64.", fields=["data"]) from error
    if not data:
        raise BadBody("The chunk is empty.", fields=["data"])
    return data
