"""`fed audit`: what this site decided about whom, and whether nobody has changed that since."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer

from deploy.commands.client import Client
from deploy.commands.output import Format, OutputOption, say, show
from fedkit.errors import Exit

COLUMNS = {"entry": "sequence", "at": "at", "kind": "kind", "what": "what"}
PAGE = 100

app = typer.Typer(
    no_args_is_help=True,
    help="""The audit log, for operators of this site.

    fed audit list

    fed audit show 17

    fed audit verify
""",
)


@app.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Option(help="Only decision, renewal, release, revocation, usage or policy.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="How many entries, newest first.")] = 50,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the newest entries.

    Example: `fed audit list --kind decision --last 10`
    """
    found = list(islice(_entries(Client.of_this_user(), kind, min(last, PAGE)), last))
    show([entry | {"what": _words(entry)} for entry in found] if output is Format.TABLE else found, output, COLUMNS)


@app.command("show")
def show_(
    entry: Annotated[int, typer.Argument(metavar="ENTRY", help="The entry's number.")],
    output: OutputOption = Format.YAML,
) -> None:
    """Show one entry with all that it rests on: proof, credentials, policy.

    Example: `fed audit show 17 -o json`
    """
    found = Client.of_this_user().get(f"/audit/{entry}")
    show(found, output, {"entry": "sequence", "at": "at", "kind": "kind", "hash": "hash", "said": "said"})


@app.command()
def verify(output: OutputOption = Format.TABLE) -> None:
    """Check that no entry was changed, and that each decision follows from what stands beside it. Exit status 1: it does not.

    Keep the hash that this prints somewhere else: it is there that an end cut off would show.

    Example: `fed audit verify -o json`
    """
    found = Client.of_this_user().get("/audit/check")
    show(found, output, {name: name for name in ("good", "entries", "hash", "broken_at", "problem", "differing")})
    if not found["good"]:
        where = found["broken_at"] or found["differing"][0]
        say(f"The audit log is not good from entry {where} on: {found['problem'] or 'its decision does not follow'}.")
        raise typer.Exit(Exit.REFUSED)


def _entries(client: Client, kind: str | None, limit: int) -> Any:
    before = None
    while True:
        page = client.get("/audit", kind=kind, before=before, limit=limit)
        yield from page["items"]
        before = page["next"]
        if before is None:
            return


def _words(entry: dict[str, Any]) -> str:
    """One line for a person."""
    said = entry["said"]
    match entry["kind"]:
        case "decision":
            who = said["applicant"]["name"].partition("/")[2]
            result = f"allowed by {said['rule']}" if said["allowed"] else f"denied: {said['reason']}"
            return f"{who} at {said['applicant']['address']}: {said['action']['kind']} {result}"
        case "renewal":
            return f"{said['allocation']} {'proved again' if said['allowed'] else 'not provable: ' + said['reason']}"
        case "release":
            return f"{said['allocation']} {said['reason']}".strip()
        case "revocation":
            return f"list {said['serial']} of {said['issuer']} ends {len(said['ends'])} grants"
        case "usage":
            held = said["sizes"]
            sizes = f"{held['vcpu']} vCPU, {held['ram_mb']} MiB, {held['disk_gb']} GiB"
            return f"{said['project']}/{said['user']} at {said['address']}: {said['lends']} ({sizes}) {said['event']}"
    return f"policy {said['policy'][:12]}"
