"""`python -m fedkit.desktop.room DESCRIPTOR`: inside new namespaces, make the place of a command, and become that command.

    asked for (JSON) ──► interface, address, routes; a hosts file over the machine's ──► the interface's descriptor ──► "go" ──► exec

Whoever asked holds the other end of the socket; if it dies, so does this. All is gone with the namespaces: nothing is to be undone.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from fedkit.desktop.errors import DesktopError, NoNamespace
from fedkit.desktop.interface import make
from fedkit.errors import FedError

ASKED_LIMIT = 16 * 1024 * 1024  # octets
HOSTS = "/etc/hosts"
SCRATCH = "/tmp"  # noqa: S108  another one, in this namespace alone
PR_SET_PDEATHSIG = 1  # linux/prctl.h
MADE, NOT_MADE, GO = b"+", b"-", b"g"


def main() -> int:
    """Run the program; return its exit status, if it cannot become the command."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with socket.socket(fileno=int(sys.argv[1])) as asker, asker.makefile("rb") as words:
        asked: dict[str, Any] = json.loads(words.readline(ASKED_LIMIT))
        try:
            tap = _make(asked)
        except FedError as error:
            asker.sendall(NOT_MADE + error.message.encode())
            return int(error.exit)
        socket.send_fds(asker, [MADE], [tap])
        os.close(tap)
        if words.read(1) != GO:
            return int(DesktopError.exit)
    command = asked["command"]
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127


def _make(asked: dict[str, Any]) -> int:
    """All that is asked for; returns the interface's descriptor."""
    _run("ip", "link", "set", "dev", "lo", "up")
    routes = [(IPv4Network(network), IPv4Address(via)) for network, via in asked["routes"]]
    tap = make(asked["interface"], IPv4Interface(asked["address"]), routes)
    _run("mount", "-t", "tmpfs", "none", SCRATCH)
    hosts = Path(SCRATCH, "hosts")
    hosts.write_text(asked["hosts"], errors="surrogateescape")
    _run("mount", "--bind", str(hosts), HOSTS)
    _run("umount", "--lazy", SCRATCH)
    return tap.fd


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoNamespace(f"{command[0]} cannot be run: {error.strerror}.") from error
    if done.returncode:
        raise NoNamespace(f"{' '.join(command)}: {done.stderr.strip()[:500]}")


if __name__ == "__main__":
    sys.exit(main())
