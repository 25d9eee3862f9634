"""`fed tunnel`: the public ports of a machine."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.commands.client import Client, segment
from deploy.commands.output import Format, OutputOption, say, show

COLUMNS = {"order": "order", "name": "name", "host": "host", "port": "port", "up": "up", "command": "command"}

app = typer.Typer(
    no_args_is_help=True,
    help="""Ports of your machines that can be reached from outside.

A machine's `ssh` port is there by itself. Reserve another, then open it from within the machine:

    fed tunnel open ORDER web

    machine$ ssh -R web:0:localhost:8080 tunnel     # see the machine's /etc/fedmesh

    fed tunnel list ORDER
""",
)

OrderArgument = Annotated[str, typer.Argument(metavar="ORDER", help="The machine's order.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What you call the port, such as web.")]


@app.command("list")
def list_(
    order: Annotated[str | None, typer.Argument(metavar="[ORDER]", help="Only of this machine.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """List tunnels, of one machine or of all.

    Example: `fed tunnel list`
    """
    client = Client.of_this_user()
    machines = {"state": "fulfilled", "kind": "compute"}
    orders = [client.get(f"/orders/{segment(order)}")] if order else client.items("/orders", **machines)
    found = [{"order": one["id"], **tunnel} for one in orders for tunnel in one["tunnels"]]
    show(found, output, COLUMNS)


@app.command("open")
def open_(order: OrderArgument, name: NameArgument, output: OutputOption = Format.TABLE) -> None:
    """Reserve a public port for a machine.

    Example: `fed tunnel open ORDER web`
    """
    made = Client.of_this_user().post(f"/orders/{segment(order)}/tunnels", {"name": name})
    show({"order": order, **made}, output, COLUMNS)


@app.command()
def close(order: OrderArgument, name: NameArgument) -> None:
    """Give a port back.

    Example: `fed tunnel close ORDER web`
    """
    Client.of_this_user().delete(f"/orders/{segment(order)}/tunnels/{segment(name)}")
    say(f"Closed {name}.")
