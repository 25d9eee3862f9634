"""Links that are late, where the kernel has no netem: the host program's end of the process that carries their frames (wire.py).

    node  eth1 = tap ── wire.py: a line each way ── tap = p1x1 in the bridge

The host program makes both taps of such an interface, hands them over, and moves one into the node. Rates and losses stay with the kernel,
at the tap in the bridge. Taps are there while somebody holds them, so an interface goes with its node, or with that process: then
the nodes that had one have failed, because a link that is not late would be another.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fedkit.portal.errors import NoTap
from fedkit.portal.tap import Tap

BROKEN = "The program that delays its links has ended."
PROJECT = Path(__file__).parents[4]
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from federation_member.middleware.containers.nodes.wire import run; run()"


def is_late(plug: dict[str, Any]) -> bool:
    """Whether an interface delays what it sends or receives."""
    shape = plug["shape"]
    return shape is not None and any(delay for _rate, delay, _loss in (shape["to"], shape["back"]))


class Wires:
    """Makes such interfaces; `tun` is the device for taps."""

    def __init__(self, tun: str) -> None:
        self._tun = Path(tun)
        self._hand: socket.socket | None = None
        self.process = 0

    def make(self, plug: dict[str, Any]) -> str:
        """Make the two ends of an interface; return what the one is called that goes into the node. Raises `OSError`."""
        names = f"t{plug['outside']}", plug["outside"]
        delays = {way: plug["shape"][way][1] / 1000 for way in ("to", "back")}
        with ExitStack() as stack:
            taps = [self._tap(name, stack) for name in names]
            socket.send_fds(self._started(), [json.dumps(delays).encode()], taps)
        return names[0]

    def _tap(self, name: str, stack: ExitStack) -> int:
        try:
            tap = Tap(name, self._tun, stays=False)
        except NoTap as error:
            raise OSError(error.message) from error
        stack.callback(tap.close)
        tap.offloads(True, tap.takes_uso)
        return tap.fd

    def _started(self) -> socket.socket:
        if self._hand is None:
            self._hand, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [sys.executable, "-I", "-S", "-c", BOOT, str(PROJECT)]
            streams: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [(os.POSIX_SPAWN_DUP2, other.fileno(), 0)]
            streams += [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
            with other:  # whose end the host program learns of as of all its children's
                self.process = os.posix_spawn(sys.executable, command, os.environ, file_actions=streams)
        return self._hand

    def ended(self) -> None:
        """The process has ended, and with it every interface that it carried."""
        self.process, self._hand = 0, None
