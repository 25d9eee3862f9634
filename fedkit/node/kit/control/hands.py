"""What an agent does on its own node: tells how it is, and runs commands."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from fedkit.node.kit.errors import BadRequest

OUTPUT_LIMIT = 64 * 1024  # octets of the end of what a command prints
RUN_LIMIT = 60.0  # seconds
COMMAND_LIMIT = 16 * 1024  # characters
TIMED_OUT = 124  # as timeout(1)


def state() -> dict[str, Any]:
    """How this node is: load, memory in KiB, seconds since it booted, octets by interface."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return {
        "load": os.getloadavg()[0],
        "free_kib": int(memory["MemAvailable"].split()[0]),
        "up_seconds": float(Path("/proc/uptime").read_text().split()[0]),
        "interfaces": {name: {"received": rx, "sent": tx} for name, rx, tx in _interfaces()},
    }


def _interfaces() -> list[tuple[str, int, int]]:
    found = []
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = rest.split()
        found.append((name.strip(), int(numbers[0]), int(numbers[8])))
    return found


def run(command: Any, timeout: Any) -> dict[str, Any]:
    """Run a command of the shell; its status and the end of what it prints."""
    if not isinstance(command, str) or not command or len(command) > COMMAND_LIMIT:
        raise BadRequest(f"a command has 1 to {COMMAND_LIMIT} characters")
    limit = min(float(timeout), RUN_LIMIT)
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd="/",
    ) as process:
        assert process.stdout is not None
        until = time.monotonic() + limit
        output, in_time = _end_of(process.stdout.fileno(), until)
        in_time = in_time and _ended(process, until)
        if not in_time:
            _kill(process.pid)
    status = process.returncode if in_time else TIMED_OUT
    return {"status": status, "output": output.decode(errors="replace")}


def _end_of(pipe: int, until: float) -> tuple[bytes, bool]:
    """The last octets that come before the end or that moment; whether the end came."""
    output = b""
    while (left := until - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            piece = os.read(pipe, OUTPUT_LIMIT)
            if not piece:
                return output, True
            output = (output + piece)[-OUTPUT_LIMIT:]
    return output, False


def _ended(process: subprocess.Popen[bytes], until: float) -> bool:
    """Whether it ends before that moment; it may run on with its output closed."""
    try:
        process.wait(max(until - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
