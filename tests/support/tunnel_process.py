"""A reverse tunnel server as a process that a test may kill: `python -m tests.support.tunnel_process FOLDER LISTEN PORTS [BIND]`.

Each line of standard input is a machine to grant a lease to (a JSON list: lease id, public key), answered with a line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from fedkit.service import configure_logging
from tests.support.tunnel_site import BIND, MachineKey, open_site


async def main(folder: Path, listen: str, ports: str, bind: str = BIND) -> None:
    configure_logging()
    loop = asyncio.get_running_loop()
    async with open_site(folder, tunnel={"listen": listen, "ports": ports, "bind": bind}) as site:
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            lease_id, public = json.loads(line)
            print(json.dumps(await site.controller.grant(MachineKey(lease_id, folder, public))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
