"""`fed`: one command line for operators, users and researchers (DESIGN §9).

Each group's help explains by example. Exit status: 0 done, 1 a definite no, 2 unusable input, 3 not reachable, 4 timed out,
70 our fault. An error is one line with a stable code; `FED_DEBUG=1` shows the traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from deploy.commands import (
    abac,
    attaching,
    audit,
    config,
    credentials,
    experiment_logins,
    experiments,
    federation,
    ids,
    login,
    operations,
    orders,
    policy,
    processes,
    topology,
    tunnels,
    usage,
    users,
)
from deploy.commands.output import say
from deploy.lab import cli as lab
from fedkit.errors import Exit, FedError

app = typer.Typer(
    name="fed",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Order machines anywhere in a federation of independently run clouds and testbeds.",
)

app.command("login")(login.login)
app.command("logout")(login.logout)
app.command("whoami")(login.whoami)
app.command("members")(federation.members)
app.command("images")(federation.images)
app.command("flavours")(federation.flavours)
app.command("quota")(operations.quota)
for _command in (operations.stop, operations.start, operations.pause, operations.rules, operations.console):
    orders.app.command(_command.__name__)(_command)
app.command("usage")(usage.usage)
app.add_typer(orders.app, name="order")
app.add_typer(tunnels.app, name="tunnel")
app.add_typer(ids.app, name="id")
app.add_typer(credentials.app, name="credentials")
app.add_typer(abac.app, name="abac")
app.add_typer(config.app, name="config")
app.add_typer(policy.app, name="policy")
app.add_typer(audit.app, name="audit")
processes.member.add_typer(users.app, name="user")
app.add_typer(processes.member, name="member")
app.add_typer(processes.rendezvous, name="rendezvous")
app.add_typer(processes.tunnel_server, name="tunnel-server")
app.add_typer(topology.app, name="topology")
experiments.app.command("credentials")(experiment_logins.credentials)
experiments.app.command("attach")(attaching.attach)
experiments.app.command("detach")(attaching.detach)
experiments.app.command("attachments")(attaching.attachments)
app.add_typer(experiments.app, name="experiment")
app.add_typer(lab.app, name="demo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except FedError as error:
        if debugging():
            raise
        say(f"fed: {error.message} [{error.code}]")
        return int(error.exit)
    except KeyboardInterrupt:
        return 130  # as a shell shows SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has gone
        return int(Exit.DONE)
    except Exception as error:
        if debugging():
            raise
        kind = type(error).__name__
        say(f"fed: our fault: {kind}: {error} [internal]. Please report it with the output of FED_DEBUG=1.")
        return int(Exit.OUR_FAULT)


def _run(arguments: list[str]) -> int:
    try:
        status = app(arguments, prog_name="fed")
    except SystemExit as done:
        status = done.code
    return int(status) if isinstance(status, int) else int(Exit.DONE)


def debugging() -> bool:
    """Whether the person wants to see tracebacks."""
    return bool(os.environ.get("FED_DEBUG"))


if __name__ == "__main__":
    sys.exit(main())
