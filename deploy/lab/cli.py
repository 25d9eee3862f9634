"""`fed demo`: a federation on this machine to look at and to play with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from deploy.lab.client import Lab
from deploy.lab.errors import AlreadyUp
from deploy.lab.topology import API_PORT, Plan

NAME = "demo"

app = typer.Typer(no_args_is_help=True, help="A federation on this machine, in network namespaces; root is not needed.")


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print the data.")]


@app.command()
def up(sites: Annotated[int, typer.Option(help="How many sites; the third one lets nothing in.")] = 2) -> None:
    """Bring up sites behind firewalls, and everything that runs there.

    Example: fed demo up --sites 3
    """
    try:
        Lab.up(NAME, Plan(sites), lambda what, seconds: _say(f"{seconds:6.2f} s  {what}"), leashed=False)
    except AlreadyUp as error:
        _say(error.message)
    _say("Up. Next: fed demo status; fed demo exec site-a fed order list")


@app.command()
def status(output: OutputOption = Output.TABLE) -> None:
    """Show sites, addresses and processes.

    Example: fed demo status -o json
    """
    lab = Lab.attach(NAME)
    services = lab.status()
    sites = [
        {
            "name": site.domain,
            "public": site.public,
            "api": f"http://{site.lan}:{API_PORT}",
            "xmpp": site.server,
            "closed": site.closed,
        }
        for site in lab.plan.sites
    ]
    _print({"sites": sites, "services": services}, output, _tables)


@app.command("exec", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def exec_(
    host: Annotated[
        str, typer.Argument(metavar="SITE", help="site-a (its intranet), site-a/dmz, site-a/rt, user, internet")
    ],
    command: Annotated[list[str], typer.Argument(metavar="CMD...")],
) -> None:
    """Run a command at a site; it takes this terminal over.

    Examples: fed demo exec site-b/dmz ss -tln;  fed demo exec user ssh -p 20000 user@tunnel.site-b.test
    """
    line = Lab.attach(NAME).enter(host, command)
    sys.stdout.flush()
    os.execvp(line[0], line)  # noqa: S606 - exactly what was asked for


@app.command()
def down() -> None:
    """End the federation and all that it lent; nothing is left behind.

    Example: fed demo down
    """
    Lab.attach(NAME).down()
    _say("Down; nothing is left.")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _print(data: dict[str, Any], output: Output, tables: Callable[[dict[str, Any]], list[Table]]) -> None:
    if output is Output.JSON:
        print(json.dumps(data))
    elif output is Output.YAML:
        print(yaml.safe_dump(data, sort_keys=False), end="")
    else:
        console = Console()
        for table in tables(data):
            console.print(table)


def _tables(data: dict[str, Any]) -> list[Table]:
    sites = Table("site", "on the internet", "API, in its intranet", "XMPP server", "lets in")
    for site in data["sites"]:
        lets_in = "nothing" if site["closed"] else "5269, tunnels"
        sites.add_row(site["name"], site["public"], site["api"], site["xmpp"], lets_in)
    services = Table("service", "host", "pid", "state")
    for role, service in data["services"].items():
        ended = "never started" if service["status"] is None else f"ended with {service['status']}"
        state = "ready" if service["ready"] else "starting" if service["pid"] else ended
        services.add_row(role, service["host"], str(service["pid"] or ""), state)
    return [sites, services]
