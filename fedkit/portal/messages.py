"""What two portals say to one another, as JSON in records of tag `CONTROL`.

    hello   {"hello": 1, "generation": n, "tags": […], "uso": bool, "udp": port or null, "forwards": [{"listen", "to"} …]}
    keys    {"keys": epoch, "key": hex, "salt": hex}      what the sender will encrypt its datagrams with
    keyed   {"keyed": epoch}                              the answer: from now on it may
    ping    {"ping": n}  ─►  {"pong": n}

The end that connects says hello first; the one that waits answers with its own. A connection whose generation is below one seen
before is late, and refused: the newest wins. Everything is bounded, and unknown messages of a later version are passed over.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from fedkit.portal.errors import Violation
from fedkit.portal.planes.sealing import EPOCHS, KEY, SALT, Secret

VERSION = 1
LIMIT = 60_000  # octets of a message
MOST_TAGS = 4095
HIGHEST_TAG = 4094
MOST_FORWARDS = 256
ENDPOINT = re.compile(r"^(?P<host>[A-Za-z0-9.:_-]{1,253}):(?P<port>[1-9][0-9]{0,4})\Z")


@dataclass(frozen=True)
class Forward:
    """A service: who connects to `listen` at one end, reaches `to` as the other end sees it; both are HOST:PORT."""

    listen: str
    to: str


@dataclass(frozen=True)
class Hello:
    """Who is there, and what it can do."""

    generation: int
    tags: tuple[int, ...]
    uso: bool
    udp: int | None = None
    forwards: tuple[Forward, ...] = ()


@dataclass(frozen=True)
class Keys:
    """See above."""

    secret: Secret = field(repr=False)


@dataclass(frozen=True)
class Keyed:
    """See above."""

    epoch: int


@dataclass(frozen=True)
class Ping:
    """See above."""

    number: int


@dataclass(frozen=True)
class Pong:
    """See above."""

    number: int


Message = Hello | Keys | Keyed | Ping | Pong


def encode(message: Message) -> bytes:
    """Write a message."""
    match message:
        case Hello():
            said: dict[str, Any] = {"hello": VERSION, **asdict(message)}
        case Keys(secret):
            said = {"keys": secret.epoch, "key": secret.key.hex(), "salt": secret.salt.hex()}
        case Keyed(epoch):
            said = {"keyed": epoch}
        case Ping(number):
            said = {"ping": number}
        case Pong(number):
            said = {"pong": number}
    return json.dumps(said, separators=(",", ":")).encode()


def decode(data: bytes) -> Message | None:
    """Read a message; None for one that this version does not know. Raises `Violation`."""
    if len(data) > LIMIT:
        raise Violation("A message is too long")
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Violation("A message is not JSON") from error
    if not isinstance(said, dict):
        raise Violation("A message is not an object")
    try:
        return _read(said)
    except (KeyError, TypeError, ValueError) as error:
        raise Violation(f"A message is malformed: {error}") from error


def _read(said: dict[str, Any]) -> Message | None:
    if "hello" in said:
        return _hello(said)
    if "keys" in said:
        key, salt = bytes.fromhex(said["key"]), bytes.fromhex(said["salt"])
        if len(key) != KEY or len(salt) != SALT:
            raise ValueError("a key of another size")
        return Keys(Secret(_number(said["keys"], EPOCHS), key, salt))
    if "keyed" in said:
        return Keyed(_number(said["keyed"], EPOCHS))
    if "ping" in said:
        return Ping(_number(said["ping"], 2**53))
    if "pong" in said:
        return Pong(_number(said["pong"], 2**53))
    return None


def _hello(said: dict[str, Any]) -> Hello:
    tags, forwards, udp = said["tags"], said.get("forwards", []), said.get("udp")
    if not isinstance(tags, list) or len(tags) > MOST_TAGS:
        raise ValueError("tags")
    if not isinstance(forwards, list) or len(forwards) > MOST_FORWARDS:
        raise ValueError("forwards")
    return Hello(
        generation=_number(said["generation"], 2**63),
        tags=tuple(_number(tag, HIGHEST_TAG + 1) for tag in tags),
        uso=said["uso"] is True,
        udp=None if udp is None else _number(udp, 65536),
        forwards=tuple(Forward(_endpoint(one["listen"]), _endpoint(one["to"])) for one in forwards),
    )


def _number(value: Any, below: int) -> int:
    if type(value) is not int or not 0 <= value < below:
        raise ValueError("a number out of its range")
    return value


def _endpoint(value: Any) -> str:
    if not isinstance(value, str) or not is_endpoint(value):
        raise ValueError("not HOST:PORT")
    return value


def is_endpoint(text: str) -> bool:
    """Whether it is HOST:PORT."""
    return ENDPOINT.match(text) is not None and endpoint(text)[1] <= 65535 and is_host(endpoint(text)[0])


def is_host(text: str) -> bool:
    """Whether it is an address, or a name that a resolver looks for (RFC 3490); others it would refuse for ever."""
    try:
        return bool(text.encode("idna"))
    except UnicodeError:
        return False


def endpoint(text: str) -> tuple[str, int]:
    """Split HOST:PORT."""
    host, _, port = text.rpartition(":")
    return host, int(port)
