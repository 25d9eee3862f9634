"""Runs a command in a node, and tells its end and what it printed, without anybody else waiting for it."""

from __future__ import annotations

import json
import os
import select
import socket
from typing import Any

from federation_member.middleware.containers.nodes import birth

KEPT = 64 * 1024  # octets of what it prints, its end
AT_ONCE = 16 * 1024  # octets of one read


def run(node: int, folders: list[str], wall: dict[str, Any], command: str, caller: socket.socket) -> None:
    """Begin; another process of ours waits, answers the caller, and ends the command if the caller goes away first."""
    if os.fork():
        return
    try:
        read, write = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        process = birth.enter(node, folders, wall, ["/bin/sh", "-c", command], (nothing, write, write), attended=True)
        os.close(write)
        output = _listen(read, process, caller)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        answer = {"output": output.decode(errors="replace"), "status": status}
        caller.settimeout(None)
        caller.sendall(json.dumps(answer).encode() + b"\n")
    finally:
        os._exit(0)


def _listen(read: int, process: int, caller: socket.socket) -> bytes:
    """The end of what is printed until the command ends, or nobody wants to know any more."""
    kept = b""
    handle = os.pidfd_open(process)
    while True:
        ready = select.select([read, handle, caller.fileno()], [], [])[0]
        if caller.fileno() in ready:
            os.kill(process, 9)
            return kept
        if read in ready:
            data = os.read(read, AT_ONCE)
            kept = (kept + data)[-KEPT:]
            if data:
                continue
            select.select([handle, caller.fileno()], [], [])
            return kept
        if handle in ready:
            return kept
