"""A TCP connect scan, run on a host of the lab: `python -m tests.lab.scan ADDRESS…` prints `ADDRESS PORT` of what is open.

Reads the ports to try from stdin. A port that answers with a refusal is printed as well, as `ADDRESS PORT refused`: a firewall that
drops gives away nothing.
"""

from __future__ import annotations

import asyncio
import sys

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


async def _main(addresses: list[str], ports: list[int]) -> None:
    slots = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as group:
        for address in addresses:
            for port in ports:
                await slots.acquire()
                task = group.create_task(_try(address, port))
                task.add_done_callback(lambda _: slots.release())


async def _try(address: str, port: int) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        print(address, port, "refused")
    except OSError:
        return  # no answer (TimeoutError), or the router says that there is no way
    else:
        writer.close()
        print(address, port, "open")


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:], [int(port) for port in sys.stdin.read().split()]))
