"""`fed demo`: a federation on this machine to look at and to play with."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from deploy.commands.output import Format, OutputOption, say, show
from deploy.lab.topology import API_PORT, LENDERS, Plan, Site

SITE_COLUMNS = {"site": "name", "on the internet": "public", "API": "api", "XMPP": "xmpp", "lets in": "lets_in"}
SERVICE_COLUMNS = {"service": "role", "host": "host", "pid": "pid", "state": "state"}

app = typer.Typer(
    no_args_is_help=True,
    help="""A federation on this machine, in network namespaces; root is not needed.

    fed demo up

    fed demo exec site-a fed members

    fed demo down
""",
)


def demo_name() -> str:
    """The name of this person's demo; `FED_DEMO` chooses another, so that several stand side by side."""
    return os.environ.get("FED_DEMO", "demo")


@app.command()
def up(
    sites: Annotated[int, typer.Option(min=1, max=50, help="How many; the third one lets nothing in.")] = 2,
    middleware: Annotated[str, typer.Option(help=f"What site-b lends with: {', '.join(LENDERS)}.")] = LENDERS[0],
) -> None:
    """Bring up sites behind firewalls, and all that runs there.

    Example: `fed demo up --sites 3`

    Example: `fed demo up --middleware openstack`
    """
    from deploy.lab.client import Lab
    from deploy.lab.errors import AlreadyUp
    from deploy.lab.person import populate

    try:
        plan = Plan(sites, middleware={} if middleware == LENDERS[0] else {"site-b": middleware})
        lab = Lab.up(demo_name(), plan, lambda what, seconds: say(f"{seconds:6.2f} s  {what}"), leashed=False)
        populate(lab)
    except AlreadyUp as error:
        say(error.message)
    say("Up, with a user alice at each site. Next: fed demo status; fed demo exec site-a fed members")


@app.command()
def status(output: OutputOption = Format.TABLE) -> None:
    """Show sites, addresses and processes.

    Example: `fed demo status -o json`
    """
    from deploy.lab.client import Lab

    lab = Lab.attach(demo_name())
    sites = [_site(site) for site in lab.plan.sites]
    services = [{"role": role, **told, "state": _state(told)} for role, told in lab.status().items()]
    if output is not Format.TABLE:
        show({"sites": sites, "services": services}, output, {})
        return
    show(sites, output, SITE_COLUMNS)
    show(services, output, SERVICE_COLUMNS)


@app.command("exec", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def exec_(
    host: Annotated[str, typer.Argument(metavar="SITE", help="site-a (its intranet), site-a/dmz, site-a/rt, user")],
    command: Annotated[list[str], typer.Argument(metavar="CMD...")],
) -> None:
    """Run a command at a site (where `fed` is logged in as alice), or as `user` on the internet; it takes this terminal over.

    Example: `fed demo exec site-a fed order list`
    """
    from deploy.lab.client import Lab
    from deploy.lab.person import home

    lab = Lab.attach(demo_name())
    site = lab.plan.host(host).partition("/")[0]
    line = lab.enter(host, ["env", f"HOME={home(site)}", *command])
    sys.stdout.flush()
    os.execvp(line[0], line)  # noqa: S606 - exactly what was asked for


@app.command()
def down() -> None:
    """End the federation and all that it lent; nothing is left behind.

    Example: `fed demo down`
    """
    from deploy.lab.client import Lab

    Lab.attach(demo_name()).down()
    say("Down; nothing is left.")


def _site(site: Site) -> dict[str, Any]:
    return {
        "name": site.domain,
        "public": site.public,
        "api": f"http://{site.lan}:{API_PORT}",
        "xmpp": site.server,
        "lets_in": "nothing" if site.closed else "5269, tunnels",
    }


def _state(service: dict[str, Any]) -> str:
    if service["pid"]:
        return "ready" if service["ready"] else "starting"
    return "not started" if service["status"] is None else f"ended with {service['status']}"
