"""Log-in with a key of one's own: a challenge, its signed answer, and the word that this member acts for its owner."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from federation_member.accounts.errors import KeyTaken, TooManyAttempts, TooManyTokens, UnusableMandate, WrongKey
from federation_member.web.routes.tokens import NewToken, token_view
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from federation_member.web.views import View
from fedkit.identity.challenge import ANSWER_LIMIT, NotPossessed
from fedkit.mesh.errors import KeyConflict
from fedkit.policy.compact import LIMIT
from fedkit.policy.errors import BadCredential

routes = Routes("login")


class Claim(BaseModel):
    """Who one says to be."""

    model_config = ConfigDict(extra="forbid")

    user: str = Field(max_length=63)


class Challenge(View):
    """What is to be signed, for whom, and until when."""

    nonce: str
    member: str = Field(description="fedid of this member: the answer's audience, and whom the user lets act for them")
    expires: datetime


class KeyAnswer(BaseModel):
    """The signed nonce; the signature carries the key."""

    model_config = ConfigDict(extra="forbid")

    answer: str = Field(max_length=ANSWER_LIMIT, description="JWS typ fedmesh-possession+jws, tied to the empty text")


class KeyView(View):
    """Who the caller is to others from now on."""

    user: str
    principal: str = Field(description="fedid of the key")


class Answer(BaseModel):
    """The signed nonce, and what it is tied to."""

    model_config = ConfigDict(extra="forbid")

    user: str = Field(max_length=63)
    answer: str = Field(max_length=ANSWER_LIMIT, description="JWS typ fedmesh-possession+jws; docs/users.md")
    acting_for: str = Field(
        max_length=LIMIT, description="credential <user>.acting_for <- <member>, for 30 days at most"
    )
    label: str = Field(default="", max_length=64, description="what the token is for; shown in the list")
    days: int = Field(default=90, ge=1, le=365, description="how long the token is valid")


@routes.add("POST", "/login/challenge", status=201, open=True, errors=(TooManyAttempts,))
async def begin_login(call: Call[Services], body: Claim) -> Challenge:
    """Get a nonce that the key's owner signs."""
    nonce, expires = await call.services.accounts.challenge(body.user, call.request.remote or "")
    return Challenge(nonce=nonce, member=call.services.fedid, expires=expires)


@routes.add(
    "POST",
    "/login",
    status=201,
    open=True,
    makes=("token_id", "$response.body#/id"),
    errors=(WrongKey, NotPossessed, UnusableMandate, BadCredential, TooManyAttempts, TooManyTokens),
)
async def finish_login(call: Call[Services], body: Answer) -> NewToken:
    """Get a token for the answer to a challenge, and let this member act for the key's owner."""
    services = call.services
    address = call.request.remote or ""
    await services.accounts.log_in_with_key(services.fedid, body.user, body.answer, body.acting_for, address)
    token, secret = await services.accounts.issue(body.user, body.label, body.days)
    return NewToken(token=secret, **token_view(token).model_dump())


@routes.add("POST", "/key", errors=(WrongKey, NotPossessed, KeyTaken, KeyConflict))
async def register_key(call: Call[Services], body: KeyAnswer) -> KeyView:
    """Register a key of the caller's own, in place of the one before; what runs elsewhere in the caller's name ends."""
    services = call.services
    account = await services.accounts.register_key(services.fedid, call.user.name, body.answer)
    return KeyView(user=account.name, principal=account.principal)
