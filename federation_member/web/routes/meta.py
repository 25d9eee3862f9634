"""Health of the member, and who the caller is."""

from __future__ import annotations

from pydantic import Field

from federation_member.accounts.errors import UnknownAccount
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from federation_member.web.views import View

routes = Routes("member")


class Health(View):
    """Whether this member can do its work, and what is missing if not."""

    ready: bool
    missing: list[str]


class Me(View):
    """The caller's three-level name, and the member that vouches for it."""

    member: str
    fedid: str = Field(description="the member's")
    project: str
    user: str
    principal: str = Field(
        description="fedid of the caller's own key, whoever keeps it; what others grant, they grant to it"
    )
    operator: bool = Field(description="whether they read this site's audit log")


@routes.add("GET", "/health", open=True)
async def get_health(call: Call[Services]) -> Health:
    """Tell whether this member can do its work. For load balancers, `/readyz` says the same with a status."""
    missing = call.services.missing()
    return Health(ready=not missing, missing=missing)


@routes.add("GET", "/me", errors=(UnknownAccount,))
async def get_me(call: Call[Services]) -> Me:
    """Tell who the caller is."""
    services, user = call.services, call.user
    account = await services.accounts.get(user.name)
    return Me(
        member=services.name,
        fedid=services.fedid,
        project=user.project,
        user=user.name,
        principal=account.principal,
        operator=user.operator,
    )
