"""`fed members`, `fed images` and `fed flavours`: who is there, and what is on offer."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deploy.commands.client import Client
from deploy.commands.output import Format, OutputOption, say, show

MEMBER_COLUMNS = {
    "name": "name",
    "alive": "alive",
    "lends": "kinds",
    "flavours": "flavours",
    "images": "images",
    "can": "abilities",
    "fedid": "fedid",
}
FLAVOUR_COLUMNS = {"member": "member", "flavour": "name", "cpus": "vcpu", "ram mib": "ram_mb", "disk gib": "disk_gb"}
IMAGE_COLUMNS = {"member": "member", "image": "name", "description": "description"}

MemberOption = Annotated[str | None, typer.Option("--member", help="Only this one: name, address or fedid.")]


def members(output: OutputOption = Format.TABLE) -> None:
    """List the members of the federation, what each lends and what can be done with it.

    Example: `fed members -o json`
    """
    page = Client.of_this_user().get("/members")
    if page["state"] != "fresh":
        say(f"The list may be old: {page['state']}")
    members = page["items"]
    if output is Format.TABLE:
        members = [member | {what: _names(member[what]) for what in ("flavours", "images")} for member in members]
    show(members, output, MEMBER_COLUMNS)


def images(member: MemberOption = None, output: OutputOption = Format.TABLE) -> None:
    """List the images on offer.

    Example: `fed images --member site-b.test`
    """
    show(Client.of_this_user().get("/images", member=member)["items"], output, IMAGE_COLUMNS)


def flavours(member: MemberOption = None, output: OutputOption = Format.TABLE) -> None:
    """List the sizes of machines on offer.

    Example: `fed flavours --member site-b.test`
    """
    show(Client.of_this_user().get("/flavours", member=member)["items"], output, FLAVOUR_COLUMNS)


def _names(offered: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in offered]
