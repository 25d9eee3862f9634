"""`rendezvous.toml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from fedkit.config import Section
from fedkit.mesh.config import Identity, Store, Xmpp

Allowed = Annotated[str, StringConstraints(pattern=r"^(\*|[0-9a-f]{40})$")]


class HttpSection(Section):
    """Where `/healthz`, `/readyz` and `/metrics` answer; keep it inside the site."""

    listen: str = Field(default="127.0.0.1:9090", description="HOST:PORT")


class RendezvousSection(Section):
    """Who may take part, and for how long silence is believed."""

    allow: list[Allowed] = Field(description='fedids of members, or "*" for whoever proves a key')
    max_ttl: int = Field(default=300, ge=5, le=3600, description="seconds; a member that asks for more gets this")
    max_members: int = Field(default=5000, ge=1, le=100_000, description="members listed at most, alive or gone")
    max_revocations: int = Field(
        default=5000, ge=1, le=100_000, description="revocation lists kept, one of each issuer"
    )


class RendezvousConfig(Section):
    """The whole file."""

    identity: Identity
    xmpp: Xmpp
    store: Store
    http: HttpSection = HttpSection()
    rendezvous: RendezvousSection
