"""The part of `fed experiment` that asks a member: create, list, show, topology, log, operate, grant, renew, terminate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.commands.client import Client, segment
from deploy.commands.errors import NotFulfilled, Refused, UnusableOption
from deploy.commands.experiment_following import ENDED, follow_until
from deploy.commands.experiment_keys import new_key
from deploy.commands.order_specs import read_keys, read_text
from deploy.commands.output import Format, OutputOption, printable, say, show
from deploy.commands.topology import NONE, FileArgument, FromOption, Source, WithOption, experiment

OPERATING = 600.0  # seconds; members bound what they do for us
MOMENTS = ["%Y-%m-%dT%H:%M:%S%z"]
COLUMNS = {
    "id": "id",
    "name": "name",
    "state": "state",
    "reason": "reason",
    "created": "created",
    "ends": "valid_until",
}
RECORD = COLUMNS | {"project": "project", "user": "user", "kit": "kit", "fedid": "fedid"}
NODE_COLUMNS = {name: name for name in ("testbed", "member", "node", "state", "address", "reason")}
GRANT_COLUMNS = {name: name for name in ("principal", "party", "expires", "granted", "revoked")}
LOG_COLUMNS = {"at": "at", "state": "state", "code": "code", "reason": "reason"}

app = experiment  # the whole group: what needs the description alone stands in topology.py


class NodeOperation(StrEnum):
    """What can be done to nodes."""

    STOP = "stop"
    START = "start"
    REBOOT = "reboot"
    RUN = "run"
    CONSOLE = "console"


SPEAKING = (NodeOperation.RUN, NodeOperation.CONSOLE)
ExperimentArgument = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Its name, or its id.")]
CredentialOption = Annotated[
    list[Path], typer.Option("--credential", help="What lets you operate somebody else's; repeatable.")
]
FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Tell each step until it is done.")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds that --follow waits.", min=0)]
UntilOption = Annotated[datetime | None, typer.Option("--until", help="It ends by itself then.", formats=MOMENTS)]


@experiment.command()
def create(
    file: FileArgument,
    name: Annotated[str | None, typer.Option(help="What you call it; else what FILE is called.")] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="TESTBED=MEMBER: who lends what a testbed runs; repeatable.")
    ] = None,
    places: Annotated[
        list[str] | None,
        typer.Option(
            "--place", help="Put computers that name no testbed here: TESTBED, or TESTBED=MACHINES at most; repeatable."
        ),
    ] = None,
    services: Annotated[
        list[str] | None, typer.Option("--service", help="name:exporters:importers:attribute=value;… Repeatable.")
    ] = None,
    portals: Annotated[int, typer.Option(min=1, max=64, help="Portals between two testbeds, at most.")] = 1,
    kit: Annotated[
        str | None, typer.Option(help="What joins its pieces and runs on its nodes; without it, the federation's.")
    ] = None,
    ssh_key: Annotated[list[Path] | None, typer.Option("--ssh-key", help="Public key file; may be repeated.")] = None,
    parties: Annotated[
        list[str] | None,
        typer.Option(
            "--party", help="PARTY=TESTBED[,TESTBED…]: seen and reached by nobody of another party; repeatable."
        ),
    ] = None,
    party_keys: Annotated[
        list[str] | None,
        typer.Option("--party-key", help="PARTY=FILE: a public key that enters the nodes of its testbeds; repeatable."),
    ] = None,
    project: Annotated[str | None, typer.Option(help="One of your projects; the default one otherwise.")] = None,
    until: UntilOption = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Keep the experiment's own key in this new file, and not with your login."),
    ] = None,
    source: FromOption = None,
    sent: WithOption = NONE,
    follow: FollowOption = False,
    timeout: TimeoutOption = 600,
    output: OutputOption = Format.TABLE,
) -> None:
    """Split FILE over testbeds, have all pieces promised, start and join them.

    Example: `fed experiment create exp.ns --map deter=site-a.test --map ucb=site-b.test --follow`
    """
    body = _description(file, source, sent, mapping, places) | {
        "name": name or _name_of(file),
        "services": services or [],
        "portals": portals,
        "ssh_keys": [line for path in ssh_key or () for line in read_keys(path)],
        "parties": _parties(parties or [], party_keys or []),
        "project": project,
        "valid_until": until.isoformat() if until else None,
    }
    if kit is not None:
        body["kit"] = kit
    client = Client.of_this_user()
    with new_key(key) as keep:
        made = _make(client, "/experiments", body, {})
        keep(made["id"], made.pop("private_key"))
    say(f"{made['id']}: {made['state']}: {made['reason']}")
    shown = follow_until(client, made["id"], "active", timeout, {}) if follow else made
    _show_one(shown, output)


@experiment.command()
def extend(
    name: ExperimentArgument,
    file: FileArgument,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="TESTBED=MEMBER: who lends what a new testbed runs; repeatable.")
    ] = None,
    places: Annotated[
        list[str] | None,
        typer.Option("--place", help="Put new computers that name no testbed here: TESTBED, or TESTBED=MACHINES."),
    ] = None,
    source: FromOption = None,
    sent: WithOption = NONE,
    credential: CredentialOption = NONE,
    follow: FollowOption = False,
    timeout: TimeoutOption = 600,
    output: OutputOption = Format.TABLE,
) -> None:
    """Add nodes, links and testbeds to an active experiment; FILE describes the whole, with all that it is already.

    What runs goes on as it is; a FILE that would change it is refused, and what would change is told. Everything is added, or nothing.

    Example: `fed experiment extend EXPERIMENT larger.ns --map isi=site-c.test --follow`
    """
    body = _description(file, source, sent, mapping, places)
    client = Client.of_this_user()
    told = _last_line(client, name, credential) if follow else 0
    begun = _make(client, f"/experiments/{segment(name)}/extend", body, headers_of(credential))
    wanted = set(begun.pop("wanted"))
    shown = begun
    if follow:
        shown = follow_until(client, begun["id"], "active", timeout, headers_of(credential), told)
    _show_one(shown, output)
    there = {node["name"] for part in shown["segments"] for node in part["nodes"]}
    if follow and not wanted <= there:
        raise NotFulfilled(f"It was not extended, and is as it was; `fed experiment log {name}` tells why.")


@experiment.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", "-a", help="Ended ones too.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """List your experiments, newest first.

    Example: `fed experiment list -o json`
    """
    found = Client.of_this_user().get("/experiments")["items"]
    show([one for one in found if all_ or one["state"] not in ENDED], output, COLUMNS)


@experiment.command("show")
def show_(name: ExperimentArgument, credential: CredentialOption = NONE, output: OutputOption = Format.TABLE) -> None:
    """Show an experiment with its nodes and portals.

    Example: `fed experiment show EXPERIMENT`
    """
    _show_one(ask(Client.of_this_user(), name, "", credential), output)


@experiment.command()
def topology(
    name: ExperimentArgument,
    services: Annotated[
        bool, typer.Option("--services", help="With the nodes and LANs that its services brought.")
    ] = False,
    credential: CredentialOption = NONE,
) -> None:
    """Write the topology of an experiment as JSON, addresses and testbeds included: as it was described, to be extended, say.

    Example: `fed experiment topology EXPERIMENT`
    """
    found = ask(Client.of_this_user(), name, f"/topology?services={str(services).lower()}", credential)
    print(json.dumps(found, indent=2, ensure_ascii=False))


@experiment.command()
def log(name: ExperimentArgument, credential: CredentialOption = NONE, output: OutputOption = Format.TABLE) -> None:
    """Show what happened to an experiment, oldest first.

    Example: `fed experiment log EXPERIMENT`
    """
    show(ask(Client.of_this_user(), name, "/log", credential)["items"], output, LOG_COLUMNS)


@experiment.command()
def grant(
    name: ExperimentArgument,
    principal: Annotated[
        str, typer.Argument(metavar="FEDID", help="Of who may operate it; `fed whoami` tells them theirs.")
    ],
    until: Annotated[datetime, typer.Option("--until", help="Until then.", formats=MOMENTS)],
    party: Annotated[
        str | None, typer.Option("--party", help="What this party may know, and its nodes, and nothing else.")
    ] = None,
) -> None:
    """Let somebody operate your experiment, or a party's part; the credential that you give them goes to stdout.

    They keep it with `fed credentials add`, or name it with --credential.

    Example: `fed experiment grant EXPERIMENT FEDID --until 2027-01-31T12:00:00+00:00 > for-bob.cred`
    """
    body = {"principal": principal, "expires": until.isoformat(), "party": party}
    print(Client.of_this_user().post(f"/experiments/{segment(name)}/grants", body)["credential"])


@experiment.command()
def grants(name: ExperimentArgument, output: OutputOption = Format.TABLE) -> None:
    """List who may operate your experiment by what you granted, and until when.

    Example: `fed experiment grants EXPERIMENT`
    """
    show(Client.of_this_user().get(f"/experiments/{segment(name)}/grants")["items"], output, GRANT_COLUMNS)


@experiment.command()
def revoke(
    name: ExperimentArgument,
    principal: Annotated[str, typer.Argument(metavar="FEDID", help="Of who may operate it no more.")],
    output: OutputOption = Format.TABLE,
) -> None:
    """Let somebody operate your experiment no more, whatever they were given, until you grant them something anew.

    Example: `fed experiment revoke EXPERIMENT FEDID`
    """
    left = Client.of_this_user().delete(f"/experiments/{segment(name)}/grants/{segment(principal)}")
    show(left["items"], output, GRANT_COLUMNS)


@experiment.command()
def renew(
    name: ExperimentArgument,
    until: UntilOption = None,
    credential: CredentialOption = NONE,
    output: OutputOption = Format.TABLE,
) -> None:
    """Let an experiment end at another time, or not by itself.

    Example: `fed experiment renew EXPERIMENT --until 2027-01-31T12:00:00+00:00`
    """
    body = {"valid_until": until.isoformat() if until else None}
    path = f"/experiments/{segment(name)}/renew"
    _show_one(Client.of_this_user().post(path, body, headers_of(credential)), output)


@experiment.command()
def operate(
    name: ExperimentArgument,
    operation: Annotated[NodeOperation, typer.Argument(help="What to do.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="NODE…|-- COMMAND…", help="To which nodes; of `run`: what. All nodes if none is named."),
    ] = None,
    node: Annotated[list[str] | None, typer.Option("--node", help="To which node; may be repeated.")] = None,
    credential: CredentialOption = NONE,
    output: OutputOption = Format.TABLE,
) -> None:
    """Stop, start or reboot nodes, run a command in them as root, or show what they said last on their consoles.

    The words of a command go to a shell with spaces between them, as `ssh` sends them. What it prints is shown to its end, bounded;
    it may take a minute.

    Examples: `fed experiment operate EXPERIMENT stop n1 n2`, `fed experiment operate EXPERIMENT run --node n1 -- ping -c 1 n2`
    """
    body: dict[str, Any] = {"operation": operation.value, "nodes": [*(node or []), *(words or [])]}
    if operation is NodeOperation.RUN:
        body |= {"nodes": node or [], "command": " ".join(words or [])}
    path = f"/experiments/{segment(name)}/operate"
    client = replace(Client.of_this_user(), seconds=OPERATING)
    done = client.post(path, body, headers_of(credential))
    if output is not Format.TABLE:
        show(done, output, {})
    elif operation in SPEAKING:
        _print_each(done)
    else:
        rows = [{"node": each, "result": "done"} for each in done["output"]]
        rows += [{"node": each, "result": f"not done: {why}"} for each, why in done["failed"].items()]
        show(rows, output, {"node": "node", "result": "result"})
    failed = [*done["failed"], *(each for each, status in done["status"].items() if status)]
    if failed:
        raise NotFulfilled(f"It was not done to {', '.join(failed)}.")


def _print_each(done: dict[str, Any]) -> None:
    """What nodes say, line by line with who says it; why one says nothing goes to stderr."""
    for node, text in done["output"].items():
        for line in text.splitlines():
            print(f"{node}: {printable(line)}")
        if done["status"].get(node):
            say(f"{node}: ended with status {done['status'][node]}")
    for node, why in done["failed"].items():
        say(f"{node}: not done: {why}")


@experiment.command()
def terminate(
    name: ExperimentArgument,
    credential: CredentialOption = NONE,
    follow: FollowOption = False,
    timeout: TimeoutOption = 600,
    output: OutputOption = Format.TABLE,
) -> None:
    """Give back everything that an experiment holds. Repeating is harmless.

    Example: `fed experiment terminate EXPERIMENT --follow`
    """
    client = Client.of_this_user()
    told = _last_line(client, name, credential) if follow else 0
    shown = client.request("DELETE", f"/experiments/{segment(name)}", headers=headers_of(credential))
    if follow:
        shown = follow_until(client, shown["id"], "terminated", timeout, headers_of(credential), told)
    _show_one(shown, output)


def _description(
    file: Path, source: Source | None, sent: Sequence[Path], mapping: Sequence[str] | None, places: Sequence[str] | None
) -> dict[str, Any]:
    """What a request says of what is to be, and where."""
    return {
        "description": read_text(file),
        "file": _file_name(file),
        "form": None if source is None else source.value,
        "files": {path.name: read_text(path) for path in sent},
        "members": dict(_pair(text, "--map wants TESTBED=MEMBER, such as deter=site-a.test") for text in mapping or ()),
        "places": dict(_place(text) for text in places or ()),
    }


def _make(client: Client, path: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    """Ask for it; of a bad description every error is told, the first one by the refusal itself."""
    try:
        made: dict[str, Any] = client.post(path, body, headers)
    except Refused as refusal:
        for problem in refusal.details.get("errors", [])[1:]:
            say(f"{problem['file']}:{problem['line']}: {problem['message']} [{problem['code']}]")
        raise
    return made


def ask(client: Client, name: str, part: str, credential: Sequence[Path]) -> Any:
    """Read a part of an experiment."""
    return client.request("GET", f"/experiments/{segment(name)}{part}", headers=headers_of(credential))


def _last_line(client: Client, name: str, credential: Sequence[Path]) -> int:
    """The number of the newest line of its log."""
    return max((line["number"] for line in ask(client, name, "/log", credential)["items"]), default=0)


def headers_of(credential: Sequence[Path]) -> dict[str, str]:
    """What lets one operate somebody else's experiment, as the API wants it."""
    shown = [read_text(path).strip() for path in credential]
    return {"Experiment-Credential": ", ".join(shown)} if shown else {}


def _show_one(shown: dict[str, Any], output: Format) -> None:
    show(shown, output, RECORD)
    if shown["ends_soon"]:
        say(f"It ends at {shown['valid_until']} unless you renew it: fed experiment renew {shown['name']} --until …")
    rows = [
        {"testbed": part["testbed"], "member": part["member"]} | row
        for part in shown["segments"]
        for row in (*map(_node_row, part["nodes"]), *map(_portal_row, part["portals"]))
    ]
    if output is Format.TABLE and rows:
        show(rows, output, NODE_COLUMNS)


def _node_row(node: dict[str, Any]) -> dict[str, Any]:
    return {"node": node["name"], "state": node["status"], "address": node["address"], "reason": node["reason"]}


def _portal_row(portal: dict[str, Any]) -> dict[str, Any]:
    address = f"{portal['host']}:{portal['port']}" if portal["host"] else None
    state = "joined" if portal["joined"] else portal["status"]
    reason = portal["reason"] or _way(portal)
    return {"node": portal["connector"], "state": state, "address": address, "reason": reason}


def _way(portal: dict[str, Any]) -> str:
    """By which plane a portal is joined, and what that was measured to do."""
    said = {"by {}": "plane", "{:g} ms": "delay_ms", "{:g} Mbit/s": "mbps"}
    return ", ".join(form.format(portal[key]) for form, key in said.items() if portal.get(key))


def _name_of(file: Path) -> str:
    """What an experiment is called whose file is called so."""
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in file.stem.lower()).strip("-")[:63]
    return letters.strip("-") or "experiment"


def _file_name(file: Path) -> str:
    letters = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in file.name)[:128]
    return letters.lstrip(".-") or "experiment"


def _pair(text: str, wanted: str) -> tuple[str, str]:
    left, _, right = text.partition("=")
    if not left or not right:
        raise UnusableOption(f"{wanted}; {text!r} is not.")
    return left, right


def _parties(testbeds: Sequence[str], keys: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Each party's testbeds and keys; what is given twice is put together."""
    found: dict[str, dict[str, list[str]]] = {}
    for text in testbeds:
        name, names = _pair(text, "--party wants PARTY=TESTBED[,TESTBED…], such as attacker=deter/attack")
        party = found.setdefault(name, {"testbeds": [], "ssh_keys": []})
        party["testbeds"] += [testbed for testbed in names.split(",") if testbed]
    for text in keys:
        name, path = _pair(text, "--party-key wants PARTY=FILE, such as attacker=mallory.pub")
        if name not in found:
            raise UnusableOption(f"--party-key names {name}, and no --party does; say which testbeds are its own.")
        found[name]["ssh_keys"] += read_keys(Path(path))
    return found


def _place(text: str) -> tuple[str, int | None]:
    testbed, equals, machines = text.partition("=")
    if not testbed or (equals and not machines.isdecimal()):
        raise UnusableOption(f"--place wants TESTBED or TESTBED=MACHINES, such as deter=20; {text!r} is neither.")
    return testbed, int(machines) if equals else None
