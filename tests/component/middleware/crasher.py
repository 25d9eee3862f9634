"""Runs one operation of a middleware, and is killed with -9: at the n-th call of a function of the package, or after a time.

python -m tests.component.middleware.crasher OPERATION KEY STEP|SECONDSs  < pickle of (kind, options, request)
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import threading
from importlib import import_module
from types import FrameType
from typing import Any

PACKAGE = f"{os.sep}federation_member{os.sep}middleware{os.sep}"


def kill_at(step: int) -> None:
    """Count calls, returns and resumptions of the package's functions; die at number `step`."""
    count = 0

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        if event in ("call", "return") and PACKAGE in frame.f_code.co_filename:
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile)


async def main(operation: str, key: str, moment: str) -> None:
    """Start the middleware in peace, then do the operation on borrowed time."""
    kind, options, request = pickle.load(sys.stdin.buffer)
    module, name = kind.split(":")
    cls = getattr(import_module(module), name)
    middleware = cls(cls.Config.model_validate(options))
    await middleware.start(lambda key: None)
    if moment.endswith("s"):
        threading.Timer(float(moment[:-1]), os.kill, (os.getpid(), signal.SIGKILL)).start()
    else:
        kill_at(int(moment))
    match operation:
        case "create":
            await middleware.create(key, request)
        case "start_segment":
            await middleware.start_segment(key, request)
        case "ensure_account":
            await middleware.ensure_account(request)
        case _:
            await getattr(middleware, operation)(key)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3]))
