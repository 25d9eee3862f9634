"""Desktops of experiments: attach one, have it stay, look, detach it. The work on the desktop is `fed experiment attach`'s."""

from __future__ import annotations

from pydantic import Field

from federation_member.experiments.attaching import NewAttachment
from federation_member.experiments.errors import (
    NotAttachable,
    TooManyAttachments,
    UnknownAttachment,
    UnusableAttachment,
)
from federation_member.web.attachment_views import AttachmentList, AttachmentView, attachment_view
from federation_member.web.routes.experiments import SEEING, CredentialHeader, ExperimentPath
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from fedkit.protocol.lending import Uuid

routes = Routes("experiments")


class AttachmentPath(ExperimentPath):
    """Which attachment."""

    attachment: Uuid = Field(description="the id that was chosen for it")


@routes.add(
    "POST",
    "/experiments/{experiment}/attachments",
    status=201,
    errors=(*SEEING, UnusableAttachment, NotAttachable, TooManyAttachments),
)
async def attach_desktop(
    call: Call[Services], path: ExperimentPath, headers: CredentialHeader, body: NewAttachment
) -> AttachmentView:
    """Attach a machine of the caller's to an active experiment: it gets an address, and a portal that waits for its key.

    Repeating it with the same id and key changes nothing, and renews it: what is not asked for again for half an hour is taken out.
    """
    desktops = call.services.experiments.desktops
    return attachment_view(await desktops.attach(call.user, path.experiment, body, headers.shown))


@routes.add("GET", "/experiments/{experiment}/attachments", errors=SEEING)
async def list_desktops(call: Call[Services], path: ExperimentPath, headers: CredentialHeader) -> AttachmentList:
    """List the desktops that are attached to an experiment; a party's people see those at their own testbeds."""
    found = await call.services.experiments.desktops.page(call.user, path.experiment, headers.shown)
    return AttachmentList(items=[attachment_view(one) for one in found])


@routes.add("GET", "/experiments/{experiment}/attachments/{attachment}", errors=(*SEEING, UnknownAttachment))
async def get_desktop(call: Call[Services], path: AttachmentPath, headers: CredentialHeader) -> AttachmentView:
    """Show one desktop that is attached; once it is `ready` its portal can be connected to."""
    desktops = call.services.experiments.desktops
    return attachment_view(await desktops.get(call.user, path.experiment, path.attachment, headers.shown))


@routes.add("DELETE", "/experiments/{experiment}/attachments/{attachment}", status=202, errors=SEEING)
async def detach_desktop(call: Call[Services], path: AttachmentPath, headers: CredentialHeader) -> AttachmentList:
    """Detach a desktop: its portal goes, and its name. Repeating is harmless; the answer lists those that are still there."""
    desktops = call.services.experiments.desktops
    await desktops.detach(call.user, path.experiment, path.attachment, headers.shown)
    found = await desktops.page(call.user, path.experiment, headers.shown)
    return AttachmentList(items=[attachment_view(one) for one in found])
