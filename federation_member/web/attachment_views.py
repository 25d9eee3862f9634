"""What the API shows of desktops that are attached to experiments."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from federation_member.experiments.desktops import Attached, Standing
from federation_member.web.views import View
from fedkit.protocol.segments import Host, Route


class WaitingPortal(View):
    """Where a desktop connects to: an ssh server with this key, that knows the desktop's own."""

    host: str
    port: int
    host_key: str


class AttachmentView(View):
    """A desktop that is attached, and what it must know."""

    id: str
    name: str
    user: str
    state: Standing = Field(
        description="`ready`: its portal waits for it; `failed`: code and reason say why it never will"
    )
    code: str
    reason: str
    testbed: str = Field(description="whose piece it is a part of: it sees what that one's nodes see")
    at: str = Field(description="the link or LAN that it is on")
    address: str
    prefix_length: int
    tag: int = Field(description="of the crossing, as its portal calls it")
    hosts: list[Host]
    routes: list[Route]
    portal: WaitingPortal | None
    created: datetime
    expires: datetime = Field(description="taken out then, unless it is asked for again before")


class AttachmentList(View):
    """The oldest first."""

    items: list[AttachmentView]


def attachment_view(one: Attached) -> AttachmentView:
    """Show one."""
    attachment, portal = one.attachment, one.portal
    waiting = None
    if portal is not None and portal.host and portal.port and portal.host_key:
        waiting = WaitingPortal(host=portal.host, port=portal.port, host_key=portal.host_key)
    same = ("id", "name", "user", "code", "reason", "testbed", "prefix_length", "tag", "created")
    return AttachmentView(
        state=one.state,
        at=attachment.substrate,
        address=attachment.ip4,
        hosts=one.told.hosts,
        routes=one.told.routes,
        portal=waiting,
        expires=one.expires,
        **{name: getattr(attachment, name) for name in same},
    )
