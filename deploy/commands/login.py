"""`fed login`, `fed logout` and `fed whoami`."""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.commands.client import Client, credentials_file, segment, store_credentials, stored_credentials
from deploy.commands.errors import NotLoggedIn, UnusableFile
from deploy.commands.output import Format, OutputOption, say, show
from fedkit.errors import InputError

WHO = {"user": "user", "project": "project", "fedid": "principal", "member": "member", "member's fedid": "fedid"}


def login(
    url: Annotated[str, typer.Argument(help="Where the member's API is, such as https://fm.site-a.test")],
    user: Annotated[str, typer.Option("--user", "-u", help="Your name there.")],
    days: Annotated[int, typer.Option(help="How long the token is valid.", min=1, max=365)] = 90,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
    provider: Annotated[
        str | None,
        typer.Option("--provider", help="Sign in at this identity provider of the site, with your password there."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Your own private key (PEM), instead of a password.")
    ] = None,
    act_days: Annotated[
        int, typer.Option("--act-days", help="With --key: how long the member may act for you.", min=1, max=30)
    ] = 7,
) -> None:
    """Get a token for your password, or with your own key, and store it for the commands that follow.

    The token is written to `~/.config/fedmesh/credentials.toml`, readable by you alone; the password is not kept.
    With a key you also sign that this member acts for you towards others, for as long as you say; log in again to prolong it.

    At an identity provider (a cloud's Keystone, say) the token ends when the provider's word does; log in again then.

    Example: `fed login https://fm.site-a.test --user alice --key me.pem --act-days 14`
    """
    if key is not None and provider is not None:
        raise InputError("Log in with your key or at an identity provider, not both.")
    client = Client(url.rstrip("/"))
    body: dict[str, Any] = {"user": user, "label": f"fed on {socket.gethostname()}"[:64], "days": days}
    if key is not None:
        made = client.post("/login", body | _answer_challenge(client, user, key, act_days))
    else:
        body["password"] = read_password(from_stdin=password_stdin)
        made = client.post("/sessions", body | {"provider": provider}) if provider else client.post("/tokens", body)
    path = store_credentials(client.url, made["token"], made["id"])
    say(f"Logged in as {made.get('user', user)}; the token in {path} is valid until {made['expires']}.")


def _answer_challenge(client: Client, user: str, file: Path, days: int) -> dict[str, str]:
    """Prove possession of the key, and let the member act for its owner for so many days."""
    from fedkit.identity import challenge
    from fedkit.identity.keys import PrivateKey
    from fedkit.policy import compact
    from fedkit.policy.model import Entity, Role, Statement

    try:
        key = PrivateKey.load(file)
    except OSError as error:
        raise UnusableFile(f"{file} cannot be read: {error.strerror}.") from error
    asked = client.post("/login/challenge", {"user": user})
    member = str(asked["member"])
    statement = Statement(Role(key.fedid, "acting_for"), (Entity(member),))
    acting_for = compact.issue(key, statement, datetime.now(UTC) + timedelta(days=days)).raw.decode()
    return {"answer": challenge.answer(key, asked["nonce"], member, user, acting_for), "acting_for": acting_for}


def logout() -> None:
    """Revoke the stored token and forget it.

    Example: `fed logout`
    """
    stored = stored_credentials()
    if not stored:
        raise NotLoggedIn("No token is stored here.")
    Client(stored["url"], stored["token"]).delete(f"/tokens/{segment(stored['token_id'])}")
    credentials_file().unlink()
    say(f"Logged out of {stored['url']}.")


def whoami(output: OutputOption = Format.TABLE) -> None:
    """Show who you are to your member, and the fedid by which others know you and grant you things.

    Example: `fed whoami`
    """
    show(Client.of_this_user().get("/me"), output, WHO)


def read_password(*, from_stdin: bool, twice: bool = False) -> str:
    """Ask for a password without showing it, or read the first line of stdin; it never stands in a command line."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=twice, err=True)
    if not password:
        raise InputError("The password is empty.")
    return password
