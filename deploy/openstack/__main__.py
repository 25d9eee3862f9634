"""`python -m deploy.openstack up|run|status|down`; see the package."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from deploy.openstack import operator, running, template
from deploy.openstack.layout import Cloud, Profile
from fedkit.errors import FedError


def main() -> int:
    """Do what is asked; the exit status is that of the error (DESIGN §9)."""
    options = _parser().parse_args()
    status = 0
    try:
        _do(options)
    except* FedError as group:
        error = _first(group)
        print(f"{error.message} [{error.code}]", file=sys.stderr)
        status = int(error.exit)
    return status


def _do(options: argparse.Namespace) -> None:
    begin = time.monotonic()

    def report(what: str) -> None:
        print(f"{time.monotonic() - begin:6.1f} s  {what}", file=sys.stderr, flush=True)

    if options.command == "template":
        asyncio.run(template.ensure())
    elif options.command == "down":
        running.down(options.state)
    elif options.command == "held":
        print("\n".join(operator.held(running.cloud(options.state))))
    elif options.command == "status":
        found = running.members(options.state)
        print(json.dumps({"running": bool(found), "processes": found}, indent=2))
    elif options.command == "up":
        running.up(_cloud(options), lambda line: print(line, file=sys.stderr))
    else:
        asyncio.run(running.run(_cloud(options), report))


def _cloud(options: argparse.Namespace) -> Cloud:
    return Cloud(options.state, options.address, options.profile, options.public, options.uplink)


def _first(group: BaseExceptionGroup[FedError]) -> FedError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.openstack", description="A real OpenStack for the lab.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("template", help="make the state that new clouds are copied from, if there is none")
    for name in ("up", "run", "status", "held", "down"):
        command = commands.add_parser(name)
        command.add_argument("--state", type=lambda text: Path(text).absolute(), required=True, help="a directory")
        if name in ("up", "run"):
            command.add_argument("--profile", type=Profile, choices=list(Profile), default=Profile.SMALL)
            command.add_argument("--public", default=Cloud.public, help="prefix of the public network")
            command.add_argument("--uplink", help="full: the host's bridge that is the public network")
            command.add_argument("--address", required=True, help="IPv4 address to listen on")
    return parser


if __name__ == "__main__":
    sys.exit(main())
