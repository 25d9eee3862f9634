"""`python -m fedkit.portal CONFIG [run|status|undo]`: be a portal until told to stop; show how it is; put back what a killed one left.

`undo` also destroys the keys: it is for the end of an experiment. Exit status as of every `fed` command (`fedkit/errors.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from fedkit.errors import FedError
from fedkit.portal import network
from fedkit.portal.clock import fine_loop
from fedkit.portal.config import PortalConfig, load
from fedkit.portal.errors import PortalError
from fedkit.portal.journal import Journal
from fedkit.portal.service import Portal
from fedkit.portal.status import StatusFile


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(prog="fedkit.portal", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("verb", nargs="?", choices=["run", "status", "undo"], default="run")
    told = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(message)s")
    os.environ.setdefault("LOGNAME", "root")  # asyncssh wants a name, and at boot, without accounts, there is none
    status = 0
    try:
        config = load(told.config)
        if told.verb == "status":
            print(_status(config), end="")
        elif told.verb == "undo":
            _undo(config)
        else:
            is_late = any(one.out.delay or one.back.delay for one in config.crossing)
            with asyncio.Runner(loop_factory=fine_loop if is_late else None) as runner:
                runner.run(_run(config))
    except* FedError as group:
        for error in _leaves(group):
            print(f"{error.code}: {error.message}", file=sys.stderr)
            status = max(status, int(error.exit))
    return status


async def _run(config: PortalConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Portal(config):
        await stop.wait()


def _status(config: PortalConfig) -> str:
    try:
        return (config.state / "status.json").read_text()
    except OSError as error:
        raise PortalError(f"No portal runs here: {error.strerror}: {error.filename}") from error


def _undo(config: PortalConfig) -> None:
    journal = Journal(config.state / "journal.json")
    network.undo(journal)
    StatusFile(config.state / "status.json").remove()
    for path in (config.ssh_privkey, config.ssh_pubkey):
        path.unlink(missing_ok=True)
    journal.close()


def _leaves(group: BaseExceptionGroup[FedError]) -> Iterator[FedError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    sys.exit(main())
