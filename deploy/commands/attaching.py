"""`fed experiment attach` and `detach`: a researcher's own machine, or one command on it, as a part of an experiment that runs.

What is changed is written down before (fedkit/desktop/traces.py), so that `detach`, or the next `attach`, puts back what a killed one left.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from deploy.commands.client import Client
from deploy.commands.errors import NotLoggedIn, NotReachable, Refused, UnusableOption
from deploy.commands.experiments import CredentialOption, ExperimentArgument, ask, headers_of
from deploy.commands.output import Format, OutputOption, say, show
from deploy.commands.topology import NONE

COLUMNS = {name: name for name in ("name", "user", "state", "at", "address", "testbed", "expires", "reason")}


def attach(
    name: ExperimentArgument,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND…]", help="Runs in a namespace of its own; the machine stays as it is."),
    ] = None,
    at: Annotated[str | None, typer.Option(help="A link or LAN; else the first with a free address.")] = None,
    called: Annotated[str | None, typer.Option("--name", help="What nodes call this machine; else desktop.")] = None,
    credential: CredentialOption = NONE,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until it is joined.", min=0)] = 600,
    output: OutputOption = Format.TABLE,
) -> None:
    """Join this machine to an active experiment, until Ctrl-C: an address on a link or LAN, the names of nodes, routes.

    That needs root. Anybody can join a COMMAND instead, such as a shell: it reaches the experiment and nothing else.

    Examples: `sudo -E fed experiment attach EXPERIMENT --at lan0`, `fed experiment attach EXPERIMENT -- ping n1`
    """
    if not command and os.geteuid() != 0:
        raise UnusableOption(
            "Only root can join a whole machine; anybody can join a command, such as: fed experiment attach … -- bash"
        )
    from deploy.commands.attachment import Attachment
    from fedkit.desktop.traces import trace

    client, headers = Client.of_this_user(), headers_of(credential)
    wanted = ask(client, name, "", credential)["id"]
    _clean_up(headers)
    chosen = str(uuid.uuid4())
    body = {"id": chosen, "at": at, "name": called}
    about = {"experiment": wanted, "name": name, "member": client.url}
    with trace(chosen, about) as kept:
        attachment = Attachment(client, wanted, headers, body, kept, command or [], timeout, output)
        try:
            status = asyncio.run(attachment.run())
        finally:
            _forget(about, headers, chosen)
    raise typer.Exit(status)


def detach(
    name: Annotated[str | None, typer.Argument(metavar="[EXPERIMENT]", help="None named: from all.")] = None,
    credential: CredentialOption = NONE,
) -> None:
    """Take this machine out of an experiment, and put back what a killed `attach` left. Repeating is harmless.

    Example: `sudo -E fed experiment detach EXPERIMENT`
    """
    from fedkit.desktop.traces import end, listed

    for one in listed():
        if name in (None, one.about.get("experiment"), one.about.get("name")):
            end(one)
    _clean_up(headers_of(credential))


def attachments(
    name: ExperimentArgument, credential: CredentialOption = NONE, output: OutputOption = Format.TABLE
) -> None:
    """List the machines that are attached to an experiment.

    Example: `fed experiment attachments EXPERIMENT`
    """
    show(ask(Client.of_this_user(), name, "/attachments", credential)["items"], output, COLUMNS)


def _clean_up(headers: Mapping[str, str]) -> None:
    """Put back what killed ones left here, and have their members forget them."""
    from fedkit.desktop.traces import abandoned

    with abandoned() as left:
        for one in left:
            one.clean()
            say(f"Put back what an attachment to {one.about.get('name')} had left.")
            _forget(one.about, headers, one.folder.name)


def _forget(about: Mapping[str, Any], headers: Mapping[str, str], attachment: str) -> None:
    """Have the member take it out; one that cannot be told does so by itself before long."""
    from deploy.commands.attachment import path_of

    if "experiment" not in about:  # it was killed before it asked for anything
        return
    try:
        client = _client_of(about["member"])
        client.request("DELETE", path_of(about["experiment"], attachment), headers=headers)
    except (NotLoggedIn, NotReachable, Refused) as error:
        say(f"The member was not told, and takes it out by itself within half an hour: {error.message}")


def _client_of(url: str) -> Client:
    """The client of that member, which alone is shown its token."""
    client = Client.of_this_user()
    if client.url != url:
        raise NotLoggedIn(f"You are logged in at {client.url}, and it was made at {url}.")
    return client
