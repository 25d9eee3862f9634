"""`fed members` and `fed images`: who is there, and what is on offer."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.commands.client import Client
from deploy.commands.output import Format, OutputOption, say, show

MEMBER_COLUMNS = {"name": "name", "alive": "alive", "lends": "kinds", "fedid": "fedid"}
IMAGE_COLUMNS = {"member": "member", "image": "name", "description": "description"}

MemberOption = Annotated[str | None, typer.Option("--member", help="Only this one: name, address or fedid.")]


def members(output: OutputOption = Format.TABLE) -> None:
    """List the members of the federation.

    Example: `fed members -o json`
    """
    page = Client.of_this_user().get("/members")
    if page["state"] != "fresh":
        say(f"The list may be old: {page['state']}")
    show(page["items"], output, MEMBER_COLUMNS)


def images(member: MemberOption = None, output: OutputOption = Format.TABLE) -> None:
    """List the images on offer.

    Example: `fed images --member site-b.test`
    """
    show(Client.of_this_user().get("/images", member=member)["items"], output, IMAGE_COLUMNS)
