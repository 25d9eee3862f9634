"""The contract between the member and whoever else knows its users: an identity provider such as a cloud's Keystone.

A kind is found by entry point (`fedmesh.identity_provider`): a class whose `Config` is a pydantic model and whose constructor takes
one; constructing it has no side effects. It is asked each time that somebody signs in, and never otherwise. What it says becomes an
account named `USER@PROVIDER`, which no local account can be called, and which stays bound to the provider's own id of that user.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel


@dataclass(frozen=True)
class SignedIn:
    """Whom a provider recognised."""

    subject: str  # the provider's id of that user, never given to anybody else
    user: str  # what they are called there
    projects: tuple[str, ...]  # of this site, the default one first
    until: datetime  # how long the provider answers for it
    operator: bool | None = None  # of this site; None leaves that to the site


class IdentityProvider(Protocol):
    """What every kind provides. Calls may run at the same time."""

    name: ClassVar[str]
    Config: ClassVar[type[BaseModel]]

    def __init__(self, config: Any) -> None: ...

    async def sign_in(self, user: str, password: str) -> SignedIn:
        """Have the provider check a password; it is not kept. Takes bounded time and memory, whatever the provider does.

        Raises `WrongPassword`, or `ProviderUnavailable` where there is no definite answer.
        """
