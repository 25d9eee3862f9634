"""What services may know of an experiment: its topology, its people, and a secret from which all others are derived."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fedkit.topology.model import Computer, Topology

FIRST_ID, LAST_ID = 20_000, 59_999  # numbers of accounts and groups; below are those of images, above the system's
RESERVED = {"root", "nobody", "nogroup", "daemon", "sshd", "frr"}  # of systems, which nobody shall become by his name
_UNUSUAL = re.compile(r"[^a-z0-9_-]+")


@dataclass(frozen=True)
class Account:
    """A person's account, alike on all nodes."""

    name: str
    uid: int
    keys: tuple[str, ...] = ()  # OpenSSH public keys


@dataclass(frozen=True)
class Project:
    """A group of accounts."""

    name: str
    gid: int
    accounts: tuple[Account, ...] = ()


def project(name: str, people: Mapping[str, Sequence[str]]) -> Project:
    """A project of these people, with their ssh keys; numbers follow from the names, so they are alike wherever they are made."""
    taken: set[int] = set()
    accounts = [Account(account_name(person), _number(person, taken), tuple(keys)) for person, keys in people.items()]
    return Project(account_name(name), _number(name, set()), tuple(accounts))


def account_name(text: str) -> str:
    """A name as Linux takes it for accounts and groups (useradd(8)): lower case, at most 32 characters, no digit first."""
    name = _UNUSUAL.sub("-", text.lower()).strip("-")[:31].rstrip("-") or "user"
    return f"u{name}" if name in RESERVED or not (name[0].isalpha() or name[0] == "_") else name


def _number(name: str, taken: set[int]) -> int:
    span = LAST_ID - FIRST_ID + 1
    first = int.from_bytes(hashlib.sha256(account_name(name).encode()).digest()[:8], "big") % span
    number = next(n for step in range(span) if (n := FIRST_ID + (first + step) % span) not in taken)
    taken.add(number)
    return number


@dataclass(frozen=True)
class Scene:
    """An experiment with all nodes that its services have. `project_of` knows people; `user` is the account of its owner."""

    topology: Topology
    secret: str = field(repr=False)
    user: str
    project_of: Callable[[str], Project]
    _by_testbed: dict[str, list[Computer]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for computer in self.topology.computers:
            self._by_testbed.setdefault(str(computer.testbed), []).append(computer)

    def computers(self, *testbeds: str) -> Iterator[Computer]:
        """Those of these testbeds, in the order of the file."""
        for testbed in testbeds:
            yield from self._by_testbed.get(testbed, ())

    def key(self, purpose: str) -> str:
        """A secret for one purpose: who learns it learns nothing of the others."""
        return hmac.new(self.secret.encode(), purpose.encode(), hashlib.sha256).hexdigest()[:40]
