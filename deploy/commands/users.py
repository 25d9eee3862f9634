"""`fed member user`: the local accounts of a member, written straight into its store (the member may be running)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from deploy.commands.login import read_password
from deploy.commands.output import Format, OutputOption, say, show
from deploy.commands.processes import ConfigOption

if TYPE_CHECKING:
    from federation_member.accounts.service import Accounts

T = TypeVar("T")

COLUMNS = {"user": "user", "project": "project", "created": "created"}

app = typer.Typer(
    no_args_is_help=True,
    help="""The people of this site who may order.

    fed member user add alice --project physics -c member.toml

    fed member user list -c member.toml
""",
)

NameArgument = Annotated[str, typer.Argument(metavar="USER")]
StdinOption = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]


@app.command()
def add(
    name: NameArgument,
    project: Annotated[str, typer.Option(help="The project that the user orders for.")],
    config: ConfigOption,
    password_stdin: StdinOption = False,
) -> None:
    """Make an account.

    Example: `fed member user add alice --project physics -c member.toml`
    """
    password = read_password(from_stdin=password_stdin, twice=True)
    _with_accounts(config, lambda accounts: accounts.add(name, project, password))
    say(f"Added {name} of {project}.")


@app.command()
def password(name: NameArgument, config: ConfigOption, password_stdin: StdinOption = False) -> None:
    """Change a password; all tokens of the user are revoked.

    Example: `fed member user password alice -c member.toml`
    """
    new = read_password(from_stdin=password_stdin, twice=True)
    _with_accounts(config, lambda accounts: accounts.set_password(name, new))
    say(f"Changed the password of {name} and revoked all tokens.")


@app.command()
def remove(name: NameArgument, config: ConfigOption) -> None:
    """Remove an account and its tokens; what the user has ordered stays ordered.

    Example: `fed member user remove alice -c member.toml`
    """
    _with_accounts(config, lambda accounts: accounts.remove(name))
    say(f"Removed {name}.")


@app.command("list")
def list_(config: ConfigOption, output: OutputOption = Format.TABLE) -> None:
    """List the accounts.

    Example: `fed member user list -c member.toml -o json`
    """
    found = _with_accounts(config, lambda accounts: accounts.everybody())
    people = [{"user": one.name, "project": one.project, "created": one.created.isoformat()} for one in found]
    show(people, output, COLUMNS)


def _with_accounts(config: ConfigOption, action: Callable[[Accounts], Awaitable[T]]) -> T:
    from federation_member.accounts.service import Accounts
    from federation_member.config import MemberConfig
    from fedkit.config import load
    from fedkit.migrations import upgrade
    from fedkit.store import Database

    url = load(config, MemberConfig, "MEMBER").store.url

    async def run() -> T:
        async with Database(url) as db:
            await asyncio.to_thread(upgrade, db.engine, "federation_member.migrations")
            accounts = Accounts(db)
            try:
                return await action(accounts)
            finally:
                accounts.close()

    return asyncio.run(run())
