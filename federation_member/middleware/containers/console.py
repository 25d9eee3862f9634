"""Reads what a machine wrote while it started, out of its own file system.

Whoever is in the machine may have put anything there: a link, a pipe, a file that grows. So each step of the path is opened by
itself and no link is followed (a link's target would be looked up on the host), nothing is waited for, and only the end of a
regular file is read.
"""

from __future__ import annotations

import os
import stat

from federation_member.middleware.console import last_of, printable
from fedkit.protocol.lending import CONSOLE_LIMIT

LOGS = ("var/log/boot.log", "var/log/cloud-init-output.log")  # machine/init.sh writes them
OCTETS = 4 * CONSOLE_LIMIT  # as many as so many characters may have in UTF-8
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read(root: int) -> str:
    """The end of a machine's logs; `root` is a descriptor of its root directory."""
    return last_of(printable("".join(_end_of(root, log).decode(errors="replace") for log in LOGS)))


def _end_of(root: int, path: str) -> bytes:
    """The end of one file; nothing if there is no such file, or it is something else than a file."""
    *folders, name = path.split("/")
    opened: list[int] = []
    try:
        for folder in folders:
            opened.append(os.open(folder, _FOLDER, dir_fd=opened[-1] if opened else root))
        opened.append(os.open(name, _FILE, dir_fd=opened[-1]))
        found = os.fstat(opened[-1])
        if not stat.S_ISREG(found.st_mode):
            return b""
        return os.pread(opened[-1], OCTETS, max(0, found.st_size - OCTETS))
    except OSError:
        return b""
    finally:
        for descriptor in opened:
            os.close(descriptor)
