"""A TCP connect scan, run on a host of the lab: `python -m tests.lab.scan ADDRESS…` prints `ADDRESS PORT` of what is open.

Reads the ports to try from stdin. A port that answers with a refusal is printed as well, as `ADDRESS PORT refused`: a firewall that
drops gives away nothing.

The kernel shakes hands, however busy the machine is; we only look afterwards what came of it.
"""

from __future__ import annotations

import errno
import itertools
import socket
import sys
import time
from contextlib import ExitStack

from deploy.lab.client import Lab
from deploy.lab.places import PYTHON, SOURCES

AT_ONCE = 4000
PATIENCE = 1.0  # seconds; an answer inside the lab takes less than a millisecond


def scan(lab: Lab, host: str, addresses: list[str], ports: list[int]) -> set[tuple[str, int, str]]:
    """Scan from a host of the lab; returns (address, port, `open` or `refused`)."""
    command = ["env", f"PYTHONPATH={SOURCES}", str(PYTHON), "-m", "tests.lab.scan", *addresses]
    output = lab.run(host, command, text=" ".join(map(str, ports)), timeout=110).stdout
    found = (line.split() for line in output.splitlines())
    return {(address, int(port), state) for address, port, state in found}


def _try(targets: list[tuple[str, int]]) -> None:
    with ExitStack() as stack:
        knocking = [(target, stack.enter_context(socket.socket())) for target in targets]
        for target, knock in knocking:
            knock.setblocking(False)
            if knock.connect_ex(target) == errno.ECONNREFUSED:
                print(*target, "refused")
        time.sleep(PATIENCE)
        for target, knock in knocking:
            outcome = knock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if outcome == errno.ECONNREFUSED:
                print(*target, "refused")
            elif outcome == 0 and _is_connected(knock):
                print(*target, "open")


def _is_connected(knock: socket.socket) -> bool:
    try:
        knock.getpeername()
    except OSError:
        return False  # no answer
    return True


if __name__ == "__main__":
    every = iter(itertools.product(sys.argv[1:], map(int, sys.stdin.read().split())))
    while batch := list(itertools.islice(every, AT_ONCE)):
        _try(batch)
