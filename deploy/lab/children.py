"""Pid 1's processes: started, waited for and reaped in one place.

As pid 1 of its namespace the lab inherits every orphan, so it reaps whatever ends. `asyncio.subprocess` and `subprocess`
want to wait for their own children and would fight with that; here one SIGCHLD handler reaps all.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.lab.errors import LabFailed

OUTPUT_LIMIT = 1 << 20  # octets of a helper's output that are kept
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them; its children should not


@dataclass(frozen=True)
class Child:
    """A running or ended process; `ended` yields its exit status, negative for a signal."""

    pid: int
    ended: asyncio.Future[int]


class Children:
    """Starts processes and reaps them, its own and the orphans."""

    def __init__(self) -> None:
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn(
        self, command: Sequence[str], environment: Mapping[str, str], *, stdin: int | None = None, output: int
    ) -> Child:
        """Start a process as leader of its own session; `output` takes its stdout and stderr."""
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        if stdin is None:
            actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
        else:
            actions.append((os.POSIX_SPAWN_DUP2, stdin, 0))
        try:
            pid = os.posix_spawnp(
                command[0], list(command), environment, file_actions=actions, setsid=True, setsigdef=DEFAULT_SIGNALS
            )
        except OSError as error:
            raise LabFailed(f"{command[0]} cannot be started: {error.strerror}.") from error
        # The handler runs in this thread's loop, so the child cannot be reaped before it is known.
        ended: asyncio.Future[int] = self._loop.create_future()
        self._ended[pid] = ended
        return Child(pid, ended)

    async def run(self, *command: str, text: str = "") -> str:
        """Run a helper with `text` as its stdin and return its output; raise `LabFailed` with it on failure."""
        stdin, output = os.memfd_create("stdin"), os.memfd_create("output")
        try:
            os.write(stdin, text.encode())
            os.lseek(stdin, 0, os.SEEK_SET)
            child = self.spawn(command, os.environ, stdin=stdin, output=output)
            status = await child.ended
            said = os.pread(output, OUTPUT_LIMIT, 0).decode(errors="replace")
        finally:
            os.close(stdin)
            os.close(output)
        if status:
            raise LabFailed(f"{' '.join(command)} failed with status {status}: {said.strip()}")
        return said

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            ended = self._ended.pop(pid, None)
            if ended is not None and not ended.done():
                ended.set_result(os.waitstatus_to_exitcode(status))
