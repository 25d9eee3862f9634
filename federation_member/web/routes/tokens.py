"""Personal access tokens: how a password becomes something that a program may hold."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from federation_member.accounts.errors import TooManyAttempts, TooManyTokens, UnknownToken, WrongPassword
from federation_member.accounts.service import PASSWORD_MAXIMUM
from federation_member.accounts.store import Token
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from federation_member.web.views import View
from fedkit.protocol.lending import Uuid

routes = Routes("tokens")


class LogIn(BaseModel):
    """User and password, and what the token is for."""

    model_config = ConfigDict(extra="forbid")

    user: str = Field(max_length=63)
    password: str = Field(max_length=PASSWORD_MAXIMUM, repr=False)
    label: str = Field(default="", max_length=64, description="what the token is for; shown in the list")
    days: int = Field(default=90, ge=1, le=365, description="how long it is valid")


class TokenView(View):
    """A token, without its secret."""

    id: str
    label: str
    created: datetime
    expires: datetime


class NewToken(TokenView):
    """A token with its secret, which is shown this once."""

    token: str = Field(description="send it as `Authorization: Bearer …`")


class TokenPage(View):
    """The caller's tokens, oldest first."""

    items: list[TokenView]


class TokenPath(BaseModel):
    """Which token."""

    token_id: Uuid


def token_view(token: Token) -> TokenView:
    """Show a token."""
    return TokenView(id=token.id, label=token.label, created=token.created, expires=token.expires)


@routes.add(
    "POST",
    "/tokens",
    status=201,
    open=True,
    makes=("token_id", "$response.body#/id"),
    errors=(WrongPassword, TooManyAttempts, TooManyTokens),
)
async def create_token(call: Call[Services], body: LogIn) -> NewToken:
    """Get a token for user and password."""
    accounts = call.services.accounts
    await accounts.log_in(body.user, body.password, call.request.remote or "")
    token, secret = await accounts.issue(body.user, body.label, body.days)
    return NewToken(token=secret, **token_view(token).model_dump())


@routes.add("GET", "/tokens")
async def list_tokens(call: Call[Services]) -> TokenPage:
    """List the caller's tokens."""
    return TokenPage(items=[token_view(token) for token in await call.services.accounts.tokens(call.user.name)])


@routes.add("DELETE", "/tokens/{token_id}", status=204, errors=(UnknownToken,))
async def revoke_token(call: Call[Services], path: TokenPath) -> None:
    """Revoke one of the caller's tokens, perhaps the one in use."""
    await call.services.accounts.revoke(call.user.name, path.token_id)
