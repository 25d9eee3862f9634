"""The member's end of a host program: starts it, asks it, watches it, ends it.

Whoever holds the segment's lock file is at work on it; the program's control socket is there when it is done, and a connection to it
tells who it is (SO_PEERCRED), so what is ended is never another process of the same number.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from federation_member.middleware.containers.nodes import mounts
from federation_member.middleware.containers.nodes.host import CONTROL
from federation_member.middleware.contract import MiddlewareError

PROJECT = Path(__file__).parents[4]
HERE = "import sys; sys.path.insert(0, sys.argv[1]); from federation_member.middleware.containers.nodes."
BOOT = f"{HERE}host import run; run()"
ABORT = f"{HERE}mounts import abort_all; abort_all(int(sys.argv[2]))"
LOCK = "lock"
GRACE = 1.0  # seconds in which everything ends, unless it waits for its own programs
LAUNCH_TIMEOUT, NODE_TIMEOUT = 30.0, 1.0  # seconds, for a segment and for each of its nodes, under heavy load
ASK_TIMEOUT = 60.0  # seconds
LOOK_AGAIN = 0.2  # seconds until a program that is busy is dialled again
ANSWER_LIMIT = 16 * 1024 * 1024  # octets
CREDENTIALS = struct.Struct("3i")  # struct ucred
TIME = struct.Struct("2l")  # struct timeval


class Look(NamedTuple):
    """How a node is; of a portal, if it says so, how it is joined (portals.py). Programs that run since long say less."""

    status: str
    reason: str
    brief: dict[str, Any] | None = None


Looks = dict[str, Look]  # by name


async def launch(plan: dict[str, Any], folder: Path) -> Looks:
    """Start the program and wait until all nodes are made; raises `MiddlewareError`."""
    (folder / LOCK).touch()
    (folder / CONTROL).unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", BOOT, str(PROJECT), str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=ANSWER_LIMIT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(LAUNCH_TIMEOUT + NODE_TIMEOUT * len(plan["nodes"])):
            process.stdin.write(json.dumps(plan).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
            if not line:
                said = (await process.stderr.read()).decode(errors="replace").strip()
                raise MiddlewareError(f"The segment cannot be started: {said[-400:] or 'no reason was given'}")
            process.stdin.write(b"stay\n")
            await process.stdin.drain()
            await process.wait()
    except TimeoutError as error:
        raise MiddlewareError("The segment was not started in time.") from error
    except ConnectionError as error:
        raise MiddlewareError("The segment's program ended while it started.") from error
    finally:
        process.stdin.close()  # what was not told to stay goes
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _looks(json.loads(line))


async def ask(folder: Path, **request: Any) -> dict[str, Any]:
    """One request and its answer; raises `MiddlewareError`. Whoever is cancelled wants it no longer."""
    try:
        connection = await asyncio.to_thread(_dial, folder)  # the program may have many to answer
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=ANSWER_LIMIT)
    except OSError as error:
        raise MiddlewareError("The segment ended.") from error
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        line = await reader.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"problem": "The segment ended."}
    except (ConnectionError, ValueError) as error:
        raise MiddlewareError(f"The segment's program does not answer: {error}.") from error
    finally:
        writer.transport.abort()
    if "problem" in answer:
        raise MiddlewareError(str(answer["problem"]))
    return answer


async def look(folder: Path) -> Looks:
    """How every node is; raises `MiddlewareError`."""
    async with asyncio.timeout(ASK_TIMEOUT):
        return _looks(await ask(folder, do="look"))


def _looks(answer: dict[str, Any]) -> Looks:
    return {name: Look(*said) for name, said in answer["nodes"].items()}


def end(folder: Path, first_id: int) -> None:
    """End the program and all nodes, or wait until one that is half made has ended; nothing there is success."""
    handle = handle_of(folder)
    if handle is not None:
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            while not select.select([handle], [], [], GRACE)[0]:
                _abort_mounts(folder, first_id)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)
    else:
        _abort_mounts(folder, first_id)  # the kernel may not have got beyond them
    with (folder / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / CONTROL).unlink(missing_ok=True)


def _abort_mounts(folder: Path, first_id: int) -> None:
    """So that nothing of a segment waits for its own programs when it shall end."""
    if mounts.are_possible(first_id):
        words = [sys.executable, "-I", "-S", "-c", ABORT, str(PROJECT), str(first_id + mounts.owner(str(folder)))]
        subprocess.run(words, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=LAUNCH_TIMEOUT)


def handle_of(folder: Path) -> int | None:
    """A pidfd of the program, for the caller to close; None if it does not run."""
    try:
        connection = _dial(folder)
    except OSError:
        return None
    with connection:
        number = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))[0]
        try:
            handle = os.pidfd_open(number)
        except ProcessLookupError:
            return None
        if select.select([connection], [], [], 0)[0]:  # it has ended, so the number may be another's
            os.close(handle)
            return None
        return handle


class Watch:
    """Calls `news` whenever something changes in a segment, and once when it has ended."""

    def __init__(self, folder: Path, news: Callable[[], None]) -> None:
        self._folder = folder
        self._news = news
        self._connection: socket.socket | None = None
        self._again: asyncio.TimerHandle | None = None
        self.alive = True
        self._begin()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._connection = _dial(self._folder, 0)
            self._connection.sendall(b'{"do": "watch"}\n')
        except BlockingIOError:  # it has many to answer
            self._again = loop.call_later(LOOK_AGAIN, self._begin)
        except OSError:
            self.alive = False
        else:
            loop.add_reader(self._connection, self._heard)

    def _heard(self) -> None:
        assert self._connection is not None
        try:
            is_over = not self._connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            is_over = True
        if is_over:
            self.close()
        self._news()

    def close(self) -> None:
        """Watch no longer."""
        if self.alive:
            self.alive = False
            if self._connection is not None:
                asyncio.get_running_loop().remove_reader(self._connection)
                self._connection.close()
            elif self._again is not None:
                self._again.cancel()


def _dial(folder: Path, seconds: float = ASK_TIMEOUT) -> socket.socket:
    """Connect to a program; the way over a descriptor is shorter than a path may be long.

    One that has many to answer is waited for so long, by the kernel: Python's own timeouts do not wait here. Without `seconds` nobody
    waits, now or later, and it raises `BlockingIOError`.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    place = os.open(folder, os.O_PATH)
    try:
        connection.setblocking(bool(seconds))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, TIME.pack(int(seconds), 0))
        connection.connect(f"/proc/self/fd/{place}/{CONTROL}")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(place)
    return connection
