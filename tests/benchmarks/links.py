"""What a described link comes to: `python -m tests.benchmarks.links` (as root). Rates asked for and reached between two nodes."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from deploy.image.build import build
from federation_member.middleware.containers.service import ContainersMiddleware
from federation_member.middleware.contract import NodeRequest, SegmentRequest, WireEnd
from fedkit.protocol.segments import Operation
from fedkit.topology.shaping import Shape, Way
from tests.component.middleware.contract import new_key, running
from tests.component.middleware.place import ContainersSite, network_namespace

RATES = (1_000, 10_000, 100_000)  # kb/s
SECONDS = 4  # that each takes, about
SEND = "nc -l -p 5000 -e head -c {size} /dev/zero"
TAKE = """until nc b 5000 </dev/null >/tmp/taken 2>/dev/null && [ -s /tmp/taken ]; do sleep 0.1; done"""
MEASURE = f"began=$(cut -d' ' -f1 /proc/uptime); {TAKE}; wc -c </tmp/taken; echo $began; cut -d' ' -f1 /proc/uptime"


async def reached(middleware: ContainersMiddleware, site: ContainersSite, rate: int | None) -> float:
    """The goodput, in kb/s, of one TCP connection from b to a."""
    way = Way(None if rate is None else float(rate))
    ends = [WireEnd("wire", f"10.1.1.{number}", Shape(way, way)) for number in (2, 3)]
    nodes = tuple(
        NodeRequest(name, site.image, site.flavour, name, (end,)) for name, end in zip("ab", ends, strict=True)
    )
    request = SegmentRequest(site.account, {"wire": "10.1.1.0/24"}, nodes, hosts={"10.1.1.3": ["b"]})
    await middleware.start_segment(key := new_key(), request)
    try:
        size = min((rate or 1_000_000) * 1000 // 8 * SECONDS, 30_000_000)
        sending = asyncio.create_task(middleware.operate(key, Operation.RUN, "b", SEND.format(size=size)))
        octets, began, ended = map(float, (await middleware.operate(key, Operation.RUN, "a", MEASURE)).text.split())
        await sending
        return octets * 8 / 1000 / max(ended - began, 0.01)
    finally:
        await middleware.delete(key)


async def measure(site: ContainersSite) -> dict[str, float]:
    """All rates, and none."""
    async with running(site) as middleware:
        assert isinstance(middleware, ContainersMiddleware)
        return {str(rate or "as it is"): await reached(middleware, site, rate) for rate in (*RATES, None)}


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, network_namespace():
        found = asyncio.run(measure(ContainersSite(build(), Path(folder) / "state")))
    if arguments.o == "json":
        print(json.dumps(found))
        return
    print(f"{'asked for, kb/s':>16}{'reached, kb/s':>16}")
    for asked, got in found.items():
        print(f"{asked:>16}{got:16.0f}")


if __name__ == "__main__":
    main()
