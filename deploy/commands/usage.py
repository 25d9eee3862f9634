"""`fed usage`: who used how much."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from deploy.commands.client import Client
from deploy.commands.errors import UnusableTime
from deploy.commands.output import Format, OutputOption, show

AMOUNTS = {"vcpu·h": "vcpu_hours", "ram gib·h": "ram_gb_hours", "disk gib·h": "disk_gb_hours", "h": "hours"}
KEYS = ("day", "member", "project", "user", "kind")


def usage(
    begin: Annotated[str | None, typer.Option("--from", help="Date or time, else 30 days before --to.")] = None,
    to: Annotated[str | None, typer.Option(help="Date or time, else now.")] = None,
    by: Annotated[str, typer.Option(help="Any of member, project, user, kind; joined by commas.")] = "project,user",
    daily: Annotated[bool, typer.Option("--daily", help="For each day, in UTC.")] = False,
    lent: Annotated[bool, typer.Option("--lent", help="What others had here; for operators.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Add up what was used: vCPUs, memory and disk, times hours. A stopped machine uses its disk alone.

    Users see their own, operators everybody's. What still runs is counted until now; a date is midnight UTC.

    Example: `fed usage --from 2026-11-01 --to 2026-12-01 --by member,kind -o json`
    """
    role = "lent" if lent else "borrowed"
    asked = {"from": _time(begin), "to": _time(to), "by": by, "role": role, "daily": "true" if daily else None}
    found = Client.of_this_user().get("/usage", **asked)
    if output is not Format.TABLE:
        show(found, output, {})
        return
    rows: list[dict[str, Any]] = found["items"]
    shown = [key for key in KEYS if any(row[key] is not None for row in rows)]
    rows = [*rows, {**dict.fromkeys(KEYS), **({shown[0]: "total"} if shown else {}), **found["total"]}]
    show(rows, output, {key: key for key in shown} | AMOUNTS)


def _time(text: str | None) -> str | None:
    """What a person wrote, with its zone; UTC where none is named."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise UnusableTime(f"{text} is no time; write 2026-11-01 or 2026-11-01T08:30+01:00.") from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()
