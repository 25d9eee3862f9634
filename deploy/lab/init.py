"""Pid 1 of the lab. Run by `deploy.lab.launch` inside fresh namespaces; whatever ends it, the kernel ends the whole lab.

    python -m deploy.lab.init LISTENER LEASH JANITOR CGROUPS PLAN

LISTENER: descriptor of the control channel's socket, bound outside, so that it is found outside. LEASH: descriptor of a
pipe, or -1; when its other end closes, whoever built the lab is gone, and the lab goes too. JANITOR: descriptor that tells
the janitor, as long as it is open, that the lab lives; or -1. CGROUPS: control groups to live under, separated by colons.
Standard error is a pipe to whoever waits for the lab to come up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from pathlib import Path

from deploy.lab import world
from deploy.lab.build import Lab
from deploy.lab.children import Children
from deploy.lab.control import Build, Control
from deploy.lab.places import PATH, RUN
from deploy.lab.topology import Plan
from fedkit.errors import FedError

ALL_IDS = 2**32 - 1  # what the first user namespace maps (user_namespaces(7))


def main() -> int:
    """Build the lab and serve its owner until told to go down."""
    listener, leash, janitor, groups, plan = sys.argv[1:]
    os.environ["PATH"] = PATH
    os.umask(0o022)  # whatever the person's is: what is secret here is made so one by one
    for descriptor in (int(leash), int(janitor)):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    try:
        asyncio.run(
            _run(
                socket.socket(fileno=int(listener)),
                int(leash),
                [Path(group) for group in groups.split(":") if group],
                Plan.from_json(plan),
            )
        )
    except FedError as error:
        print(error.message, file=sys.stderr)
        return int(error.exit)
    return 0


async def _run(listener: socket.socket, leash: int, groups: list[Path], plan: Plan) -> None:
    children = Children()
    user_namespace, can_drop = _ids()
    await world.make(children, groups, user_namespace=user_namespace)
    os.chdir(RUN)
    lab, build = Lab(plan, children, can_drop=can_drop), Build()
    control = Control(lab, build)
    _end_with(control.down, leash)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(build.run(lab)), group.create_task(control.serve(listener))]
        await control.down.wait()
        for task in tasks:
            task.cancel()


def _ids() -> tuple[bool, bool]:
    """Whether this is a user namespace of its own, and whether services can have users of their own.

    They can where more than one id is mapped and others may read our programs (a checkout made under umask 077 they may not).
    """
    mapped = [int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    programs = [world.PROJECT, world.PROJECT / "deploy", world.PROJECT / "deploy/cli.py", Path(sys.prefix)]
    readable = all(path.stat().st_mode & stat.S_IROTH for path in programs)
    return mapped != [ALL_IDS], sum(mapped) > 1 and readable


def _end_with(down: asyncio.Event, leash: int) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, down.set)
    if leash >= 0:
        loop.add_reader(leash, down.set)


if __name__ == "__main__":
    sys.exit(main())
