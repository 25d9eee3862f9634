"""Signing in where somebody else knows the user: an identity provider of this site."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from federation_member.accounts.errors import (
    AccountExists,
    NoProject,
    ProviderUnavailable,
    TooManyAttempts,
    TooManyTokens,
    UnknownProvider,
    UnusableAccount,
    WrongPassword,
)
from federation_member.accounts.service import PASSWORD_MAXIMUM
from federation_member.web.routes.tokens import NewToken, token_view
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from federation_member.web.views import View

routes = Routes("sessions")


class ProviderPage(View):
    """The identity providers of this site, besides its own accounts."""

    items: list[str]


class SignInBody(BaseModel):
    """User and password there, and what the token is for."""

    model_config = ConfigDict(extra="forbid")

    provider: str = Field(max_length=63, description="one of GET /providers")
    user: str = Field(min_length=1, max_length=255, description="what they are called there")
    password: str = Field(max_length=PASSWORD_MAXIMUM, repr=False)
    label: str = Field(default="", max_length=64, description="what the token is for; shown in the list")
    days: int = Field(default=90, ge=1, le=365, description="how long it is valid, if the provider's word is as long")


class NewSession(NewToken):
    """A token, and who its owner is here."""

    user: str
    project: str


@routes.add("GET", "/providers", open=True)
async def list_providers(call: Call[Services]) -> ProviderPage:
    """List where one may sign in but for accounts of this site itself."""
    return ProviderPage(items=call.services.sign_in.names)


@routes.add(
    "POST",
    "/sessions",
    status=201,
    open=True,
    makes=("token_id", "$response.body#/id"),
    errors=(
        UnknownProvider,
        WrongPassword,
        ProviderUnavailable,
        NoProject,
        AccountExists,
        UnusableAccount,
        TooManyAttempts,
        TooManyTokens,
    ),
)
async def create_session(call: Call[Services], body: SignInBody) -> NewSession:
    """Sign in at an identity provider; the token ends when its word does."""
    account, token, secret = await call.services.sign_in.sign_in(
        body.provider, body.user, body.password, call.request.remote or "", body.label, body.days
    )
    return NewSession(token=secret, user=account.name, project=account.project, **token_view(token).model_dump())
