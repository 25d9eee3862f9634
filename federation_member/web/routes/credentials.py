"""The caller's credentials: those that others gave, kept here to be shown where a lender asks for them; and taking back one's own."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from federation_member.credentials.errors import (
    CredentialExpired,
    StaleList,
    TooManyLists,
    TooMuchKept,
    UnknownCredential,
)
from federation_member.credentials.wallet import CREDENTIAL_SIZE, Kept
from federation_member.web.errors import NoSuchPath
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from federation_member.web.views import View
from fedkit.policy.errors import BadCredential, BadRevocationList
from fedkit.protocol.lending import Fedid
from fedkit.protocol.rendezvous import SIGNED_LIMIT

routes = Routes("credentials")


class NewCredential(BaseModel):
    """A credential that somebody gave the caller."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=CREDENTIAL_SIZE, description="in the compact form; `fed abac convert` writes that")


class CredentialView(View):
    """A credential, and what it says."""

    id: str
    statement: str
    issuer: str
    expires: datetime
    added: datetime


class CredentialPage(View):
    """What the caller keeps, oldest first."""

    items: list[CredentialView]


class CredentialPath(BaseModel):
    """Which credential."""

    credential_id: str = Field(pattern=r"^[0-9a-f]{64}$")


class NewList(BaseModel):
    """A revocation list that its issuer signed; it takes the place of the issuer's list before."""

    model_config = ConfigDict(extra="forbid")

    signed: str = Field(max_length=SIGNED_LIMIT, description="compact JWS, typ fedmesh-revocations+jws")


class ListView(View):
    """A published revocation list."""

    issuer: str
    serial: int
    issued: datetime
    revoked: dict[str, datetime] = Field(description="ids of credentials, and when each expires")


class IssuerPath(BaseModel):
    """Whose list."""

    issuer: Fedid


def _view(kept: Kept) -> CredentialView:
    credential = kept.credential
    return CredentialView(
        id=credential.id,
        statement=str(credential.statement),
        issuer=credential.issuer.fedid,
        expires=credential.expires,
        added=kept.added,
    )


@routes.add(
    "POST",
    "/credentials",
    status=201,
    makes=("credential_id", "$response.body#/id"),
    errors=(BadCredential, CredentialExpired, TooMuchKept),
)
async def add_credential(call: Call[Services], body: NewCredential) -> CredentialView:
    """Keep a credential, to be shown to lenders whose rules ask for it, and to nobody else."""
    return _view(await call.services.credentials.add(call.user.name, body.text))


@routes.add("GET", "/credentials")
async def list_credentials(call: Call[Services]) -> CredentialPage:
    """List what the caller keeps."""
    return CredentialPage(items=[_view(kept) for kept in await call.services.credentials.kept(call.user.name)])


@routes.add("DELETE", "/credentials/{credential_id}", status=204, errors=(UnknownCredential,))
async def remove_credential(call: Call[Services], path: CredentialPath) -> None:
    """Keep a credential no longer. What was lent by it stays lent."""
    await call.services.credentials.remove(call.user.name, path.credential_id)


@routes.add("POST", "/revocations", status=201, errors=(BadRevocationList, StaleList, TooManyLists))
async def publish_revocations(call: Call[Services], body: NewList) -> ListView:
    """Publish a revocation list: whatever was lent because of a credential in it ends everywhere."""
    heard = await call.services.credentials.publish(call.user.name, body.signed)
    return ListView(issuer=heard.issuer.fedid, serial=heard.serial, issued=heard.issued, revoked=dict(heard.revoked))


@routes.add("GET", "/revocations/{issuer}", errors=(NoSuchPath,))
async def get_revocations(call: Call[Services], path: IssuerPath) -> NewList:
    """Show the newest list of an issuer that was published here: the next one is made from it."""
    signed = await call.services.credentials.published(path.issuer)
    if signed is None:
        raise NoSuchPath("No revocation list of that issuer was published here.")
    return NewList(signed=signed)


@routes.add("POST", "/look", status=204, open=True)
async def look_again(call: Call[Services]) -> None:
    """Look at the store again: another program (`fed member user`) has written to it. Harmless, so nobody need say who it is."""
    call.services.credentials.look()
