"""`member.toml`: one site's Federation Member.

What stands in it:

    name = "site-a.test"
    [identity], [xmpp], [store]     see fedkit/mesh/config.py
    [api]                           where the REST API and the dashboard answer
    [rendezvous], [tunnel]          who they are: fedid and address; either may be another site's
    [middleware]                    what makes the machines; [middleware.options] are those of its kind
    [offer.attributes]              names for requirement expressions
    [[lend]]                        which other members may have what; without a rule they get nothing
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from fedkit.config import Section
from fedkit.mesh.config import Identity, Store, Xmpp
from fedkit.protocol.lending import Fedid
from fedkit.service import parse_listen

Domain = Annotated[str, StringConstraints(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=253)]
AttributeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
ANYBODY = ["*"]


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


class MiddlewareSection(Section):
    """What makes the machines."""

    kind: str = Field(default="containers", max_length=64, description="an entry point of `fedmesh.middleware`")
    options: dict[str, Any] = Field(default_factory=dict, description="of that kind; `fed config check` checks them")


class OfferSection(Section):
    """What this member says of what it lends, besides flavours and images."""

    attributes: dict[AttributeName, str | int | float | bool] = Field(
        default_factory=dict, max_length=64, description="names for requirement expressions, such as arch or gpu"
    )


class Lend(Section):
    """One rule: who may have how much of what. The first that fits decides; patterns as in a shell (`*`, `?`)."""

    members: list[Pattern] = Field(default=ANYBODY, description="fedids or addresses of borrowing members; `*` is all")
    projects: list[Pattern] = Field(default=ANYBODY, description="of the user, at the borrower")
    users: list[Pattern] = Field(default=ANYBODY, description="local names at the borrower")
    kinds: list[Pattern] = Field(default=ANYBODY, description="order kinds: compute, network")
    instances: int = Field(default=100, ge=0, description="how many at the same time under this rule; 0 forbids")
    account: str = Field(default="federation", min_length=1, max_length=63, description="local account they run under")


class MemberConfig(Section):
    """The whole file."""

    name: Domain = Field(description="what people call this member: its site's domain")
    identity: Identity
    xmpp: Xmpp
    store: Store
    api: Api = Api()
    rendezvous: Rendezvous | None = None
    tunnel: TunnelServer | None = None
    middleware: MiddlewareSection = MiddlewareSection()
    offer: OfferSection = OfferSection()
    lend: list[Lend] = Field(default_factory=list, max_length=1000)
