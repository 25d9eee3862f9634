"""`fed order stop`, `start`, `pause`, `rules`, `console`, and `fed quota`: what runs, and how much more may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from deploy.commands.client import Client, segment
from deploy.commands.errors import NotFulfilled, NotReachable, NotTold
from deploy.commands.output import Format, OutputOption, say, show
from deploy.commands.rules import parse, text_of
from deploy.commands.waiting import wait_until
from fedkit.errors import InputError

OrderArgument = Annotated[str, typer.Argument(metavar="ORDER", help="The order's id.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until it is so.")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds that --wait waits.", min=0)]

POWER_RECORD = {"id": "id", "name": "spec.name", "member": "member", "power": "power", "wanted": "wanted_power"}
POWER_RECORD |= {"state": "state", "reason": "reason"}
MESH = "mesh."  # family of the codes of what did not come to or from a member
RULES_COLUMNS = {"rule": "rule", "state": "state"}
QUOTA_COLUMNS = {
    "member": "member",
    "account": "account",
    "what": "what",
    "total": "total",
    "used by all": "used",
    "used by me": "mine",
    "reason": "reason",
}
AMOUNTS = {
    "machines": "machines",
    "vcpu": "CPUs",
    "ram_mb": "MiB of memory",
    "volumes": "volumes",
    "volume_gb": "GiB of volumes",
    "networks": "networks",
    "public_ips": "public addresses",
}


def stop(
    order: OrderArgument, wait: WaitOption = False, timeout: TimeoutOption = 300, output: OutputOption = Format.TABLE
) -> None:
    """Stop a machine. It keeps its disk, its addresses and its lease.

    Example: `fed order stop ORDER --wait`
    """
    _set_power(order, "stopped", timeout if wait else None, output)


def start(
    order: OrderArgument, wait: WaitOption = False, timeout: TimeoutOption = 300, output: OutputOption = Format.TABLE
) -> None:
    """Start a machine that was stopped or paused.

    Example: `fed order start ORDER --wait`
    """
    _set_power(order, "running", timeout if wait else None, output)


def pause(
    order: OrderArgument, wait: WaitOption = False, timeout: TimeoutOption = 300, output: OutputOption = Format.TABLE
) -> None:
    """Pause a machine: it keeps its memory and does nothing until it is started.

    Example: `fed order pause ORDER`
    """
    _set_power(order, "paused", timeout if wait else None, output)


def rules(
    order: OrderArgument,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", help="Traffic to let through, such as 'tcp 80 from 0.0.0.0/0'; may be repeated."),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Let nothing through.")] = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = 300,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the security rules of a network or public address, or replace all of them.

    Example: `fed order rules ORDER --allow 'tcp 22 from 192.0.2.0/24' --allow icmp`
    """
    if allow and none:
        raise InputError("--allow and --none do not go together.")
    client = Client.of_this_user()
    path = f"/orders/{segment(order)}"
    if not allow and not none:
        _show_rules(client.get(path), output)
        return
    wanted = [parse(text) for text in allow or []]
    shown = client.patch(path, {"rules": wanted})
    if wait:
        shown = _wait(client, shown, "wanted_rules", lambda now: bool(now["rules"] == wanted), timeout)
    _show_rules(shown, output)


def console(order: OrderArgument, output: OutputOption = Format.TABLE) -> None:
    """Show the end of what a machine wrote on its console.

    Example: `fed order console ORDER | tail`
    """
    told = Client.of_this_user().get(f"/orders/{segment(order)}/console")
    if output is Format.TABLE:
        text = "".join(char for char in told["text"] if char.isprintable() or char in "\n\t")
        print(text, end="" if text.endswith("\n") or not text else "\n")
    else:
        show(told, output, {})


def quota(
    member: Annotated[str | None, typer.Option("--member", help="Only this one: name, address or fedid.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show how much you may have at each member, how much of it is used, and how much of that is yours.

    It fails only if no member tells: with 3 if none can be reached, else with 1. Example: `fed quota --member site-b.test`
    """
    items = Client.of_this_user().get("/quota", member=member)["items"]
    show(items if output is not Format.TABLE else [row for item in items for row in _rows(item)], output, QUOTA_COLUMNS)
    if items and all(item["code"] for item in items):
        who = ", ".join(item["member"] for item in items)
        if all(item["code"].startswith(MESH) for item in items):
            raise NotReachable(f"No answer came from {who}.")
        raise NotTold(f"No quota was told by {who}.")


def _set_power(order: str, power: str, patience: float | None, output: Format) -> None:
    client = Client.of_this_user()
    shown = client.patch(f"/orders/{segment(order)}", {"power": power})
    say(f"{shown['id']}: {shown['reason']}")
    if patience is not None:
        shown = _wait(client, shown, "wanted_power", lambda now: bool(now["power"] == power), patience)
    show(shown, output, POWER_RECORD)


def _wait(
    client: Client, order: dict[str, Any], wish: str, so: Callable[[dict[str, Any]], bool], timeout: float
) -> dict[str, Any]:
    """Wait until nothing is wanted of an order any more; raises `NotFulfilled` if it is not so then."""
    order = wait_until(client, order["id"], lambda now: now[wish] is None, timeout)
    if not so(order):
        raise NotFulfilled(f"Order {order['id']}: {order['reason']}", code=order["code"])
    return order


def _show_rules(order: dict[str, Any], output: Format) -> None:
    if output is not Format.TABLE:
        show({name: order[name] for name in ("id", "rules", "wanted_rules")}, output, {})
        return
    if order["rules"] is None:
        raise InputError(f"A {order['spec']['kind']} has no security rules; networks and public addresses have.")
    rows = [{"rule": text_of(rule), "state": "in force"} for rule in order["rules"]]
    rows += [{"rule": text_of(rule), "state": "wanted"} for rule in order["wanted_rules"] or []]
    if not rows:
        say("Nothing is let through.")
    elif order["wanted_rules"] == []:
        say("Nothing is to be let through; the lender has not done it yet.")
    show(rows, output, RULES_COLUMNS)


def _rows(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One line for each amount that somebody counts; a member that did not answer has one line with the reason."""
    if item["code"]:
        yield {"member": item["member"], "reason": f"{item['reason']} [{item['code']}]"}
        return
    for name, what in AMOUNTS.items():
        values = {column: item[column][name] for column in ("total", "used", "mine")}
        if any(values.values()) or values["total"] is not None:
            yield {"member": item["member"], "account": item["account"], "what": what, **values}
