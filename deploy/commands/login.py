"""`fed login` and `fed logout`."""

from __future__ import annotations

import socket
import sys
from typing import Annotated

import typer

from deploy.commands.client import Client, credentials_file, segment, store_credentials, stored_credentials
from deploy.commands.errors import NotLoggedIn
from deploy.commands.output import say
from fedkit.errors import InputError


def login(
    url: Annotated[str, typer.Argument(help="Where the member's API is, such as https://fm.site-a.test")],
    user: Annotated[str, typer.Option("--user", "-u", help="Your name there.")],
    days: Annotated[int, typer.Option(help="How long the token is valid.", min=1, max=365)] = 90,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
) -> None:
    """Get a token for your password and store it for the commands that follow.

    The token is written to `~/.config/fedmesh/credentials.toml`, readable by you alone; the password is not kept.

    Example: `fed login https://fm.site-a.test --user alice`
    """
    password = read_password(from_stdin=password_stdin)
    client = Client(url.rstrip("/"))
    body = {"user": user, "password": password, "label": f"fed on {socket.gethostname()}"[:64], "days": days}
    made = client.post("/tokens", body)
    path = store_credentials(client.url, made["token"], made["id"])
    say(f"Logged in as {user}; the token in {path} is valid until {made['expires']}.")


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


def read_password(*, from_stdin: bool, twice: bool = False) -> str:
    """Ask for a password without showing it, or read the first line of stdin; it never stands in a command line."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=twice, err=True)
    if not password:
        raise InputError("The password is empty.")
    return password
