"""How fast machines come and go: `python -m tests.benchmarks.containers` (as root, or under `unshare -Urnmpf --mount-proc`).

From the call of `create` until the machine's ssh server has answered, alone and eight at a time, and `delete`. The
reference in the same run is what runc itself takes to run `true` over the same base, without accounts, network and ssh.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from deploy.image.build import DEFAULT, build
from federation_member.middleware.containers import oci
from federation_member.middleware.containers.ids import IdSpace
from federation_member.middleware.contract import Middleware
from tests.component.middleware.contract import compute, new_key, running
from tests.component.middleware.place import ContainersSite, network_namespace

TOGETHER = 8


def bare_runc(base: Path, folder: Path) -> float:
    """Seconds of `runc run` with the program `true`."""
    ids = IdSpace.of_this_process().of_machine(1)
    spec = oci.config(
        root=str(base), hostname="box", ids=ids, processes=64, cgroup="/fedmesh-bench", memory_bytes=1 << 28, vcpu=1
    )
    if not IdSpace.of_this_process().separate:
        del spec["linux"]["cgroupsPath"], spec["linux"]["resources"]
    spec["root"]["readonly"] = True
    spec["process"]["args"] = ["/bin/true"]
    (folder / "config.json").write_text(json.dumps(spec))
    began = time.perf_counter()
    subprocess.run(
        ["runc", "--root", str(folder / "notes"), "run", "--bundle", str(folder), f"bench-{os.getpid()}"],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


async def one(middleware: Middleware, site: ContainersSite) -> tuple[float, float]:
    """Seconds of create and of delete."""
    key = new_key()
    began = time.perf_counter()
    await middleware.create(key, compute(site))
    made = time.perf_counter()
    await middleware.delete(key)
    return made - began, time.perf_counter() - made


async def together(middleware: Middleware, site: ContainersSite) -> float:
    """Seconds until the last of several machines, ordered at once, has answered."""
    keys = [new_key() for _ in range(TOGETHER)]
    began = time.perf_counter()
    await asyncio.gather(*(middleware.create(key, compute(site)) for key in keys))
    taken = time.perf_counter() - began
    await asyncio.gather(*(middleware.delete(key) for key in keys))
    return taken


async def measure(site: ContainersSite, number: int) -> dict[str, list[float]]:
    """All figures; the variants take turns, so that a noisy machine is noisy to all of them."""
    figures: dict[str, list[float]] = {}
    async with running(site) as middleware:
        for _ in range(number):
            with tempfile.TemporaryDirectory() as name:
                figures.setdefault("reference: runc run true", []).append(
                    await asyncio.to_thread(bare_runc, site.base, Path(name))
                )
            created, deleted = await one(middleware, site)
            figures.setdefault("create until ssh answers", []).append(created)
            figures.setdefault("delete until all is gone", []).append(deleted)
        figures[f"create {TOGETHER} at once, until the last"] = [await together(middleware, site) for _ in range(3)]
    return figures


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--base", type=Path, default=DEFAULT)
    parser.add_argument("-o", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, network_namespace():
        site = ContainersSite(build(arguments.base), Path(folder) / "state")
        figures = asyncio.run(measure(site, arguments.number))
    rows = {
        name: {"p50": round(median(times) * 1e3), "p95": round(quantiles(times, n=20)[18] * 1e3)}
        for name, times in figures.items()
    }
    if arguments.o == "json":
        print(json.dumps(rows))
        return
    print(f"{'milliseconds':36}{'p50':>8}{'p95':>8}")
    for name, row in rows.items():
        print(f"{name:36}{row['p50']:8}{row['p95']:8}")


if __name__ == "__main__":
    main()
