"""`member.toml`: one site's Federation Member.

What stands in it:

    name = "site-a.test"
    [identity], [xmpp], [store]     see fedkit/mesh/config.py
    [api]                           where the REST API and the dashboard answer
    [rendezvous], [tunnel]          who they are: fedid and address; either may be another site's
    [middleware]                    what makes the machines; [middleware.options] are those of its kind
    [[identity_provider]]           who else knows users of this site; [identity_provider.options] are those of its kind
    [offer.attributes]              names for requirement expressions
    [policy]                        the file that says who else may have what; without it nobody else gets anything
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from fedkit.config import Section
from fedkit.mesh.config import Identity, Store, Xmpp
from fedkit.protocol.lending import Fedid
from fedkit.service import parse_listen

Domain = Annotated[str, StringConstraints(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
ProviderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,30}[a-z0-9])?$")]
AttributeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


def _check_listen(text: str) -> str:
    try:
        _host, port = parse_listen(text)
    except ValueError as error:
        raise ValueError("write HOST:PORT, such as 127.0.0.1:8080") from error
    if not 0 <= port <= 65535:
        raise ValueError("a port is 0 to 65535")
    return text


Listen = Annotated[str, AfterValidator(_check_listen)]


class Api(Section):
    """The REST API and the dashboard. TLS is the business of a reverse proxy; listen on the inside only."""

    listen: Listen = Field(default="127.0.0.1:8080", description="HOST:PORT")


class PeerSection(Section):
    """A component elsewhere in the mesh."""

    fedid: Fedid = Field(description="fedid of its key; its operator runs `fed id fingerprint`")
    address: Domain = Field(description="its address in the mesh")


class Rendezvous(PeerSection):
    """Where this member announces itself and learns of the others; without one it stays alone."""


class TunnelServer(PeerSection):
    """The reverse tunnel server that machines lent here dial; may be another site's."""


class MemberStore(Store):
    """Where the member keeps its orders and leases, and for how long."""

    keep_days: int = Field(default=90, ge=1, le=36500, description="ended orders and their history are kept so long")
    keep_usage_days: int = Field(
        default=1100, ge=1, le=36500, description="accounts of who used how much are kept so long"
    )


class MiddlewareSection(Section):
    """What makes the machines."""

    kind: str = Field(default="containers", max_length=64, description="an entry point of `fedmesh.middleware`")
    options: dict[str, Any] = Field(default_factory=dict, description="of that kind; `fed config check` checks them")


class IdentityProviderSection(Section):
    """Who else knows users of this site: they sign in there, and are called USER@NAME here."""

    name: ProviderName = Field(description="what stands after the @; to be chosen once and for all")
    kind: str = Field(default="keystone", max_length=64, description="an entry point of `fedmesh.identity_provider`")
    options: dict[str, Any] = Field(default_factory=dict, description="of that kind; `fed config check` checks them")


def _differ(sections: list[IdentityProviderSection]) -> list[IdentityProviderSection]:
    if len({section.name for section in sections}) < len(sections):
        raise ValueError("each identity provider has a name of its own")
    return sections


class OfferSection(Section):
    """What this member says of what it lends, besides flavours and images."""

    attributes: dict[AttributeName, str | int | float | bool] = Field(
        default_factory=dict, max_length=64, description="names for requirement expressions, such as arch or gpu"
    )


class PolicySection(Section):
    """Who may have what of this member. SIGHUP reads it again."""

    file: Path = Field(description="policy.toml; `fed config check` tries it, its own tests too")
    certificates: Path | None = Field(
        default=None,
        description="folder LEVEL/NAME.pem of certificates with their keys, for rules that map to one",
    )


class MemberConfig(Section):
    """The whole file."""

    name: Domain = Field(description="what people call this member: its site's domain")
    identity: Identity
    xmpp: Xmpp
    store: MemberStore
    api: Api = Api()
    rendezvous: Rendezvous | None = None
    tunnel: TunnelServer | None = None
    middleware: MiddlewareSection = MiddlewareSection()
    offer: OfferSection = OfferSection()
    identity_provider: Annotated[list[IdentityProviderSection], AfterValidator(_differ)] = Field(default=[])
    policy: PolicySection | None = None
