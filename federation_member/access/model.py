"""What is asked for, and what it is mapped to. No I/O; grants and audit entries build on it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from fedkit.identity.names import Name

KINDS = ("compute", "network", "volume", "attachment", "public_ip", "snapshot", "segment")
MACHINES = frozenset({"compute"})  # kinds that have a flavour, a node type and an image
ACCOUNT_LIMIT = 32  # characters: what useradd(8) takes
TESTBED_DIGITS = 12  # of a testbed's fedid in an account's name: 48 bits, so nobody meets another by chance
_UNUSUAL = re.compile(r"[^a-z0-9_-]")


@dataclass(frozen=True)
class Action:
    """What somebody wants to have: one instance of a kind.

    `flavour` is the one that the lender chose; `node_type` is blank where a cloud has no such thing.
    """

    kind: str
    flavour: str = ""
    node_type: str = ""
    image: str = ""
    services: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [self.kind, self.flavour, self.node_type, self.image]
        return " ".join([part for part in said if part] + [f"+{service}" for service in self.services])


class How(StrEnum):
    """The four ways to a local account."""

    STATIC = "name"  # exists, with the rights that it has
    RIGHTS = "rights"  # exists; rights and keys are added while the grant lasts
    CREATE = "create"  # made with the first grant, removed with the last
    CERTIFICATE = "certificate"  # one of a pool, by access level


@dataclass(frozen=True)
class AccountMapping:
    """A rule's account; `text` is its name, a template of one, or the access level."""

    how: How = How.STATIC
    text: str = "federation"

    def account_of(self, name: Name) -> str:
        """The local account for somebody of this name; only made accounts (`CREATE`) have a template.

        `{testbed}`, `{project}` and `{user}` stand for the name's parts. What no account can be called is replaced, and a hash
        of the whole keeps different names apart.
        """
        if self.how is not How.CREATE:
            return self.text
        testbed = name.asserter[:TESTBED_DIGITS]
        wanted = self.text.format(testbed=testbed, project=name.project, user=name.user)
        usable = _UNUSUAL.sub("-", wanted)
        if usable == wanted and len(wanted) <= ACCOUNT_LIMIT:
            return wanted
        digest = hashlib.sha256(wanted.encode()).hexdigest()[:8]
        return f"{usable[: ACCOUNT_LIMIT - len(digest) - 1]}-{digest}"
