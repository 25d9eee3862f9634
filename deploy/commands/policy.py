"""`fed policy`: what a policy would decide and why, on files; with `-c` it knows the members and the audit log too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from deploy.commands.errors import UnusableFile
from deploy.commands.output import Format, OutputOption, say, show
from fedkit.errors import Exit

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from federation_member.access.rules import Rules
    from federation_member.access.suppose import Known, Supposition
    from federation_member.config import MemberConfig
    from fedkit.identity.keys import PublicKey

T = TypeVar("T")

EXPECTATIONS = {
    "number": "number",
    "who": "who",
    "action": "action",
    "expected": "expected",
    "decided": "decided",
    "rule": "rule",
}
COULD = {"rule": "rule", "who": "who", "account": "account", "count": "count", "hours": "hours", "now": "now"}
CHANGES = {
    "at": "at",
    "name": "name",
    "action": "action",
    "was": "was.result",
    "would be": "would_be.result",
    "rule": "would_be.rule",
    "reason": "would_be.reason",
}

app = typer.Typer(
    no_args_is_help=True,
    help="""Who may have what of a member: its policy file.

    fed config sample policy > policy.toml

    fed policy check policy.toml

    fed policy why-not site-a/proj1/alice compute flavour=small --file policy.toml

    fed policy who-could compute flavour=small --file policy.toml

    fed policy simulate new.toml -c member.toml

    fed policy import-fedd --access access_db --ec exp_access_db > policy.toml
""",
)

FileOption = Annotated[Path | None, typer.Option("--file", "-f", help="The policy; the member's own otherwise.")]
ConfigOption = Annotated[Path | None, typer.Option("-c", "--config", help="The member's configuration file.")]
AtOption = Annotated[datetime | None, typer.Option("--at", help="When, in UTC; now otherwise.")]
ActionArgument = Annotated[
    list[str], typer.Argument(metavar="ACTION", help="A kind, then flavour=, node_type=, image=, service= as needed.")
]


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]")] = None,
    config: ConfigOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Compile a policy, run the expectations in it, and say what is probably not meant.

    Example: `fed policy check policy.toml`
    """
    from federation_member.access.advice import advise
    from federation_member.access.compile import statements
    from federation_member.access.expectations import check as check_expectations
    from federation_member.access.expectations import outcomes
    from federation_member.access.questions import checked

    place = _place(file, config)
    supposition = place.supposition()
    found = outcomes(place.rules, supposition.own, place.members)
    said = statements(place.rules, supposition.own, place.members)
    data = {
        "file": str(place.file),
        **checked(supposition, said, found),
        "warnings": advise(place.rules, (), place.members),
    }
    show(data["expectations"] if output is Format.TABLE else data, output, EXPECTATIONS)
    for warning in data["warnings"]:
        say(f"warning: {warning}")
    number = check_expectations(place.rules, supposition.own, place.members)
    say(f"{place.file} is good: {len(place.rules.rules)} rules, {number} expectations met.")


@app.command("why-not")
def why_not(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as site-a/proj1/alice.")],
    action: ActionArgument,
    has: Annotated[list[str] | None, typer.Option("--has", help="A role that the user has besides.")] = None,
    at: AtOption = None,
    file: FileOption = None,
    config: ConfigOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Say what would be decided for a user, by which rule and proof, or what each rule lacks. Exit status 1: denied.

    Example: `fed policy why-not site-a/proj1/alice compute flavour=small --file policy.toml`
    """
    from federation_member.access import questions

    supposition = _place(file, config).supposition()
    wanted = questions.action_of(action)
    answer = questions.why_not(supposition, supposition.somebody(name, has or []), wanted, _instant(at))
    if output is Format.TABLE:
        print("allowed" if answer["allowed"] else "denied")
        print("\n".join(answer["explanation"]))
    else:
        show(answer, output, {})
    if not answer["allowed"]:
        raise typer.Exit(Exit.REFUSED)


@app.command("who-could")
def who_could(
    action: ActionArgument,
    at: AtOption = None,
    file: FileOption = None,
    config: ConfigOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the rules that lend something, and to whom. Exit status 1: nobody could have it.

    Example: `fed policy who-could compute flavour=small --file policy.toml`
    """
    from federation_member.access import questions

    could = questions.who_could(_place(file, config).rules, questions.action_of(action), _instant(at))
    show(could, output, COULD)
    if not could:
        raise typer.Exit(Exit.REFUSED)


@app.command()
def simulate(
    file: Annotated[Path, typer.Argument(metavar="NEWFILE")],
    config: Annotated[Path, typer.Option("-c", "--config", help="The member's configuration file.")],
    days: Annotated[int, typer.Option(help="How far to look back.", min=1, max=3660)] = 31,
    output: OutputOption = Format.TABLE,
) -> None:
    """Try a new policy on the audit log: which decisions would have been others?

    Example: `fed policy simulate new.toml -c member.toml`
    """
    from federation_member.access import history
    from federation_member.access import simulate as simulation
    from federation_member.access.policy_file import load

    rules, member = load(file), _member(config)
    start, own = datetime.now(UTC) - timedelta(days=days), _key(member)
    tried = _read(member, lambda conn: simulation.simulate(rules, own, history.since(conn, start)))
    changes = [change.as_json() for change in tried.changes]
    show(changes if output is Format.TABLE else {"decisions": tried.decisions, "changes": changes}, output, CHANGES)
    say(f"{tried.decisions} decisions in {days} days; {len(changes)} would have been others.")


@app.command("import-fedd")
def import_fedd(
    access: Annotated[Path | None, typer.Option("--access", help="An access database.")] = None,
    ec: Annotated[Path | None, typer.Option("--ec", help="An experiment controller's database of users.")] = None,
    map_: Annotated[Path | None, typer.Option("--map", help="A map of testbed names to addresses.")] = None,
    simple: Annotated[Path | None, typer.Option("--simple", help="A component's database: fedid -> attribute.")] = None,
) -> None:
    """Convert fedd's text databases to a policy, printed to stdout; what cannot be carried over is said.

    Example: `fed policy import-fedd --access access_db --ec exp_access_db > policy.toml`
    """
    from federation_member.access.fedd_databases import Databases
    from federation_member.access.fedd_policy import convert

    files = {"access": access, "ec": ec, "map": map_, "simple": simple}
    given = {kind: (str(path), _text(path)) for kind, path in files.items() if path is not None}
    if not given:
        raise UnusableFile("Name at least one database: --access, --ec, --map or --simple.")
    text, warnings = convert(Databases.parse(given))
    print(text, end="")
    for warning in warnings:
        say(f"warning: {warning}")


@dataclass(frozen=True)
class _Place:
    """A policy and the member that it is for, as far as they are known."""

    file: Path
    rules: Rules
    own: str
    members: tuple[Known, ...]

    def supposition(self) -> Supposition:
        from federation_member.access.suppose import Supposition

        return Supposition(self.rules, self.own, self.members)


def _place(file: Path | None, config: Path | None) -> _Place:
    from federation_member.access.policy_file import load
    from federation_member.access.suppose import UNKNOWN, Known

    if config is None:
        if file is None:
            raise UnusableFile("Name a policy, or with -c a member's configuration that names one.")
        return _Place(file, load(file), UNKNOWN, ())
    member = _member(config)
    policy = file or (member.policy.file if member.policy else None)
    if policy is None:
        raise UnusableFile(f"{config} names no policy: it has no [policy] file.")
    own = Known(_key(member).fedid, member.xmpp.address)
    return _Place(policy, load(policy), own.fedid, (own, *_read(member, _members)))


def _member(config: Path) -> MemberConfig:
    from federation_member.config import MemberConfig
    from fedkit.config import load

    return load(config, MemberConfig, "MEMBER")


def _key(member: MemberConfig) -> PublicKey:
    from fedkit.identity.keys import PrivateKey

    try:
        return PrivateKey.load(member.identity.key).public
    except OSError as error:
        raise UnusableFile(f"[identity] key {member.identity.key} cannot be read: {error.strerror}.") from error


def _members(conn: Connection) -> tuple[Known, ...]:
    from federation_member.access.suppose import Known
    from federation_member.directory import store
    from fedkit.protocol.announcement import read_announcement

    announced = (read_announcement(row.signed).announcement for row in store.read_rows(conn, store.read_stamps(conn)))
    return tuple(Known(one.fedid, one.address) for one in announced)


def _read(member: MemberConfig, question: Callable[[Connection], T]) -> T:
    """Ask the member's database, which may be in use."""
    from fedkit.migrations import upgrade
    from fedkit.store import Database

    async def run() -> T:
        async with Database(member.store.url) as db:
            await asyncio.to_thread(upgrade, db.engine, "federation_member.migrations")
            return await db.read(question)

    return asyncio.run(run())


def _instant(at: datetime | None) -> datetime:
    from federation_member.access.policy_file import instant

    try:
        return datetime.now(UTC) if at is None else instant(at)
    except ValueError as error:
        raise UnusableFile(f"--at {at}: {error}.") from error


def _text(path: Path) -> str:
    from federation_member.access.fedd_databases import SIZE_LIMIT

    try:
        with path.open("rb") as file:
            return file.read(SIZE_LIMIT + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFile(f"{path} cannot be read: {error}") from error
