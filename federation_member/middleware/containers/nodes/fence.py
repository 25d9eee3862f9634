"""What a node may do: limits, capabilities, and system calls, the same as a machine's (../oci.py), put on before it runs anything.

Its last steps, so whatever goes wrong earlier is told by a process that can still do so.
"""

from __future__ import annotations

import os
import resource
import signal
from typing import Any, NoReturn

from federation_member.middleware.containers.nodes import kernel

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


def become(argv: list[str], fence: dict[str, Any]) -> NoReturn:
    """Execute a program behind the fence; open descriptors above 2 that are to be closed must say so themselves."""
    os.setsid()
    os.umask(0o022)
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):  # the latter are the C library's
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for kind, soft, hard in fence["limits"]:
        resource.setrlimit(kind, (soft, hard))
    kernel.drop_capabilities(fence["capabilities"])
    kernel.filter_calls(fence["filter"])
    os.execve(argv[0], argv, ENVIRONMENT)  # noqa: S606  behind the fence, which is the point
