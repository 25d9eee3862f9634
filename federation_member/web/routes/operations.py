"""What runs: stopping and starting it, its security rules, its console, and how much more of it there may be."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from federation_member.directory.errors import UnknownMember
from federation_member.errors import Cannot, NotRunning, NotYet, UnknownOrder
from federation_member.middleware.contract import NotAuthorised, Unavailable, UnusableSpec
from federation_member.orders.operations import OrderChange, QuotaAt
from federation_member.web.routes.orders import OrderPath
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from federation_member.web.views import ConsoleView, OrderView, QuotaPage, QuotaShown, order_view
from fedkit.mesh.errors import NoAnswer, PeerUnreachable

routes = Routes("operations")


class QuotaQuery(BaseModel):
    """Whose quota."""

    model_config = ConfigDict(extra="forbid")

    member: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description="name, address or fedid; without it, of every member that tells",
    )


@routes.add(
    "PATCH", "/orders/{order_id}", errors=(UnknownOrder, NotRunning, Cannot, UnusableSpec, NotYet, PeerUnreachable)
)
async def change_order(call: Call[Services], path: OrderPath, body: OrderChange) -> OrderView:
    """Stop, pause or start a machine, or give a network or public address other security rules.

    The answer shows the order as it is then. What takes its lender longer stands in `wanted_power` or `wanted_rules` until it is so.
    """
    return order_view(await call.services.orders.modify(call.user, path.order_id, body))


@routes.add(
    "GET",
    "/orders/{order_id}/console",
    errors=(UnknownOrder, NotRunning, Cannot, Unavailable, PeerUnreachable, NoAnswer),
)
async def show_console(call: Call[Services], path: OrderPath) -> ConsoleView:
    """Show the end of what a machine wrote on its console."""
    return ConsoleView(text=await call.services.orders.console(call.user, path.order_id))


@routes.add("GET", "/quota", errors=(UnknownMember, NotAuthorised))
async def show_quota(call: Call[Services], query: QuotaQuery) -> QuotaPage:
    """Show how much the caller may have, has, and everybody has with them, by member.

    A member that cannot be asked, or that lends the caller nothing, is shown with the reason.
    """
    return QuotaPage(items=[_shown(one) for one in await call.services.orders.quota(call.user, query.member)])


def _shown(told: QuotaAt) -> QuotaShown:
    view = told.view
    return QuotaShown(
        member=told.member,
        fedid=told.fedid,
        account=view.account if view else None,
        total=view.total if view else None,
        used=view.used if view else None,
        mine=view.mine if view else None,
        code=told.code,
        reason=told.reason,
    )
