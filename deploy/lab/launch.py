"""Starts the lab's pid 1 in namespaces of its own: as root, or without root in a user namespace.

    launcher ── unshare(1) ── pid 1 (deploy.lab.init) ── everything else

`unshare --kill-child` dies with whoever kills it and takes pid 1 along; pid 1 takes all processes, and with the last of
them go the mounts, namespaces, interfaces and files. Nothing is written outside, not even a pid file: a lab is found by
the name of its control socket, which lives in the abstract namespace of unix(7).
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.lab import cgroups
from deploy.lab.errors import AlreadyUp, LabFailed, Unknown, Unsupported
from deploy.lab.topology import Plan

NAMESPACES = ("--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child=SIGKILL", "--mount-proc")
NAME = re.compile(r"[a-z0-9-]{1,40}")
AS_ROOT: tuple[str, ...] = ()
WITH_RANGE = ("--map-root-user", "--map-auto")  # subordinate ids (subuid(5)): services get users of their own
WITH_ONE_ID = ("--map-root-user",)
SWITCHES = {
    "user.max_user_namespaces": "0"
}  # sysctls, with the value that closes user namespaces; not all kernels have all
SWITCHES_OF_OTHERS = {"kernel.unprivileged_userns_clone": "0", "kernel.apparmor_restrict_unprivileged_userns": "1"}
PROJECT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Launched:
    """What was started outside of the lab's namespaces."""

    process: subprocess.Popen[bytes]  # unshare
    leash: int  # descriptor that keeps the lab alive; -1: it lives by itself
    errors: int  # descriptor of what unshare and pid 1 say
    janitor: subprocess.Popen[bytes] | None  # removes control groups

    def why(self) -> str:
        """What was said; waits for the end of the process."""
        with os.fdopen(os.dup(self.errors), errors="replace") as file:
            return file.read().strip()

    def end(self) -> None:
        """Kill the lab, if it still runs, and wait until nothing of it is left."""
        self.process.kill()
        self.process.wait()
        if self.janitor is not None:
            self.janitor.wait()
        for fd in (self.leash, self.errors):
            if fd >= 0:
                os.close(fd)


def address(name: str) -> str:
    """The abstract socket name of this user's lab `name`."""
    return f"\0fedmesh-lab/{os.getuid()}/{name}"


def way() -> tuple[str, ...]:
    """The options with which this machine lets us make namespaces; raise `Unsupported` if there is no way."""
    ways = [WITH_RANGE, WITH_ONE_ID]
    said = []
    for options in [AS_ROOT, *ways] if os.geteuid() == 0 else ways:
        probe = subprocess.run(["unshare", *options, *NAMESPACES, "true"], capture_output=True, text=True, check=False)
        if probe.returncode == 0:
            return options
        said.append(probe.stderr.strip())
    raise Unsupported(
        f"This machine lets us make no namespaces. Run as root, or allow user namespaces: {_obstacle()}. "
        f"It said: {'; '.join(dict.fromkeys(said))}"
    )


def check_machines() -> None:
    """Raise `Unsupported` where root can make no user namespace, which each machine that is lent needs."""
    probe = subprocess.run(["unshare", "--user", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        raise Unsupported(
            "The machines to be lent need user namespaces, and the kernel refuses them even to root: "
            f"{_obstacle()}. It said: {probe.stderr.strip()}"
        )


def _obstacle() -> str:
    """What stands in the way of user namespaces, as far as can be seen."""
    for name, closed in (SWITCHES if os.geteuid() == 0 else SWITCHES | SWITCHES_OF_OTHERS).items():
        path = Path("/proc/sys") / name.replace(".", "/")
        if path.exists() and path.read_text().strip() == closed:
            return f"sysctl {name} is {closed}"
    return (
        "no sysctl forbids them, but the kernel allows none in a chroot (enter the root by pivot_root(2) instead, as "
        "systemd-nspawn does), and the profile of a container may forbid them"
    )


def launch(name: str, plan: Plan, *, leashed: bool) -> Launched:
    """Start the lab's pid 1. With `leashed` the lab ends when the calling process does."""
    if not NAME.fullmatch(name):
        raise Unknown(f"{name!r} cannot name a lab; use lower-case letters, digits and hyphens.")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address(name))
        listener.listen()  # a client may ask before pid 1 is there to answer
    except OSError as error:
        listener.close()
        raise AlreadyUp(f"A lab {name!r} runs already; see: fed demo status") from error
    options = way()
    if options == AS_ROOT and "member" in plan.services:
        check_machines()
    made = cgroups.make(name) if options == AS_ROOT else []
    janitor, janitor_pipe = cgroups.watch(made) if made else (None, -1)
    their_leash, our_leash = os.pipe() if leashed else (-1, -1)
    our_errors, their_errors = os.pipe()
    inherited = [listener.fileno(), their_leash, janitor_pipe]
    arguments = [*map(str, inherited), ":".join(map(str, made)), plan.to_json()]
    try:
        process = subprocess.Popen(
            ["unshare", *options, *NAMESPACES, sys.executable, "-m", "deploy.lab.init", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=their_errors,
            cwd=PROJECT,
            pass_fds=[fd for fd in inherited if fd >= 0],
            start_new_session=True,
        )
    except OSError as error:
        raise LabFailed(f"unshare cannot be started: {error.strerror}.") from error
    finally:
        listener.close()
        for fd in (their_errors, their_leash, janitor_pipe):
            if fd >= 0:
                os.close(fd)
    return Launched(process, our_leash, our_errors, janitor)
