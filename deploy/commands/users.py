"""`fed member user`: the local accounts of a member, written straight into its store (the member may be running)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from deploy.commands.client import Client
from deploy.commands.errors import UnusableFile
from deploy.commands.login import read_password
from deploy.commands.output import Format, OutputOption, say, show
from deploy.commands.processes import ConfigOption
from fedkit.errors import FedError

if TYPE_CHECKING:
    from federation_member.accounts.service import Accounts
    from federation_member.accounts.store import Account

T = TypeVar("T")

COLUMNS = {
    "user": "user",
    "projects": "projects",
    "fedid": "fedid",
    "key": "key",
    "operator": "operator",
    "suspended": "suspended",
    "created": "created",
}
WAKE_SECONDS = 5.0

app = typer.Typer(
    no_args_is_help=True,
    help="""The people of this site who may order.

    fed member user add alice --project physics -c member.toml

    fed member user revoke alice -c member.toml

    fed member user list -c member.toml
""",
)

NameArgument = Annotated[str, typer.Argument(metavar="USER")]
ProjectOption = Annotated[
    list[str], typer.Option("--project", help="A project of the user; the first is what they order for by default.")
]
StdinOption = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]


@app.command()
def add(
    name: NameArgument,
    project: ProjectOption,
    config: ConfigOption,
    operator: Annotated[bool, typer.Option("--operator", help="May read the site's audit log.")] = False,
    password_stdin: StdinOption = False,
) -> None:
    """Make an account, with a key that the member keeps for its user.

    Example: `fed member user add alice --project physics --project astronomy -c member.toml`
    """
    password = read_password(from_stdin=password_stdin, twice=True)
    default, *further = project
    _with_accounts(config, lambda accounts: accounts.add(name, default, password, further=further, operator=operator))
    say(f"Added {name} of {', '.join(project)}.")


@app.command()
def projects(name: NameArgument, project: ProjectOption, config: ConfigOption) -> None:
    """Say anew in which projects a user is; what runs elsewhere for one that is taken away ends.

    Example: `fed member user projects alice --project physics -c member.toml`
    """
    _with_accounts(config, lambda accounts: accounts.set_projects(name, project))
    _wake(config)
    say(f"{name} is in {', '.join(project)}.")


@app.command()
def key(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Certificate or public key, PEM or DER.")],
    config: ConfigOption,
) -> None:
    """Register a user's own public key in place of the one before; what runs elsewhere for the user ends.

    The user then logs in with `fed login URL --user NAME --key FILE`, which lets this member act for them.

    Example: `fed member user key alice alice.pub -c member.toml`
    """
    from fedkit.identity.keys import PublicKey

    try:
        public = PublicKey.from_file(file)
    except OSError as error:
        raise UnusableFile(f"{file} cannot be read: {error.strerror}.") from error
    _with_accounts(config, lambda accounts: accounts.set_key(name, public))
    _wake(config)
    say(f"{name} is {public.fedid} now.")


@app.command()
def revoke(name: NameArgument, config: ConfigOption) -> None:
    """Revoke what this member said of a user, who is suspended: what runs elsewhere in their name ends within seconds.

    Example: `fed member user revoke alice -c member.toml`
    """
    _with_accounts(config, lambda accounts: accounts.suspend(name))
    _wake(config)
    say(f"Revoked and suspended {name}; `fed member user restore {name}` ends that.")


@app.command()
def restore(name: NameArgument, config: ConfigOption) -> None:
    """End a user's suspension.

    Example: `fed member user restore alice -c member.toml`
    """
    _with_accounts(config, lambda accounts: accounts.restore(name))
    _wake(config)
    say(f"Restored {name}.")


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
    """Remove an account, its tokens and its wallet; what runs elsewhere in its name ends within seconds.

    Example: `fed member user remove alice -c member.toml`
    """
    _with_accounts(config, lambda accounts: accounts.remove(name))
    _wake(config)
    say(f"Removed {name}.")


@app.command("list")
def list_(config: ConfigOption, output: OutputOption = Format.TABLE) -> None:
    """List the accounts.

    Example: `fed member user list -c member.toml -o json`
    """
    found = _with_accounts(config, lambda accounts: accounts.everybody())
    show([_row(one) for one in found], output, COLUMNS)


def _row(account: Account) -> dict[str, Any]:
    return {
        "user": account.name,
        "project": account.project,
        "projects": ", ".join(account.projects),
        "fedid": account.principal,
        "key": "kept here" if account.custodial else "the user's own",
        "operator": account.operator,
        "suspended": account.suspended.isoformat() if account.suspended else "",
        "created": account.created.isoformat(),
    }


def _wake(config: Path) -> None:
    """Tell the member, if it runs, to look at its store now; otherwise it looks when it starts."""
    from federation_member.config import MemberConfig
    from fedkit.config import load

    listen = load(config, MemberConfig, "MEMBER").api.listen
    host, _, port = listen.rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - compared, not bound
    try:
        Client(f"http://{here}:{port}", seconds=WAKE_SECONDS).post("/look", None)
    except FedError as error:
        say(f"The member at {listen} was not told ({error.message}); it acts on this when it starts.")


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
