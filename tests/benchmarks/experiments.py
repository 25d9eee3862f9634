"""How fast experiments come and go: `python -m tests.benchmarks.experiments` (as root).

One experiment over the three sites of a lab, LANs in a ring, with everything on the way: description, orders, mesh, tunnels, portals.
From `fed experiment create` until it is active, and from `terminate` until no site holds anything of it. Its parts are told by
its own log: how long the slowest segment took of it. Then its nodes alone, as the middleware makes them.

The reference in the same run is Mininet (Debian's packages `mininet` and `bridge-utils`) with the same hosts and LANs on one machine
and nothing else: no rates, no root file systems, no ssh, no users, no firewalls. It runs in namespaces of its own. Processor time
is that of everything that was started, whoever else is busy on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Self

from deploy.image.build import build
from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.topology import Plan
from federation_member.middleware.contract import HostsSegments, NodeRequest, SegmentRequest, WireEnd
from fedkit.topology.shaping import Shape, Way
from tests.component.middleware.contract import new_key, running
from tests.component.middleware.place import ContainersSite, network_namespace

SITES = 3
LAN = 10  # nodes of one
PATIENCE = 600.0  # seconds
FILE = "/run/fedlab/tmp/bench.ns"
NAME = "bench"
MININET = Path(__file__).with_name("mininet_reference.py")
NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
HIERARCHY = Path("/sys/fs/cgroup/cpuacct")
NAMES = ("a", "b", "c")  # of the testbeds

Row = dict[str, float]


def lans(nodes: int) -> list[list[int]]:
    """Which nodes are on each LAN: ten, and the first one of the next."""
    return [[number % nodes for number in range(start, start + LAN + 1)] for start in range(0, nodes, LAN)]


def program(nodes: int, sites: int) -> str:
    """The description."""
    lines = ["source tb_compat.tcl", "set ns [new Simulator]"]
    for number in range(nodes):
        testbed = NAMES[number * sites // nodes]
        lines += [f"set n{number} [$ns node]", f"tb-set-node-testbed $n{number} {testbed}"]
    for number, members in enumerate(lans(nodes)):
        lines.append(f'set lan{number} [$ns make-lan "{" ".join(f"$n{one}" for one in members)}" 100Mb 0ms]')
    return "\n".join([*lines, "$ns rtproto Static", "$ns run", ""])


class Meter:
    """Processor time of a control group and all below (cpuacct, of version 1); not told where there is none."""

    def __init__(self, name: str, above: Path = HIERARCHY) -> None:
        self.group = above / name

    @contextmanager
    def joined(self) -> Iterator[Self]:
        """Be in it, with all that is started meanwhile; it goes when all of that has ended."""
        if not HIERARCHY.is_dir():
            yield self
            return
        self.group.mkdir()
        (self.group / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield self
        finally:
            (self.group.parent / "cgroup.procs").write_text(str(os.getpid()))
            until(self._is_removed, f"{self.group} is empty", PATIENCE)

    def read(self) -> float:
        """Seconds until now."""
        file = self.group / "cpuacct.usage"
        return int(file.read_text()) / 1e9 if file.exists() else float("nan")

    def _is_removed(self) -> bool:
        with suppress(OSError):
            self.group.rmdir()
        return not self.group.exists()


def apart(command: Sequence[str], question: str, environment: dict[str, str], above: Meter) -> Row:
    """Run a program; what it answers, and the processor time of all that it started."""
    meter = Meter("apart", above.group)
    with meter.joined():
        done = subprocess.run(command, input=question, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
        row: Row = json.loads(done.stdout.splitlines()[-1])
        return {"cpu": meter.read() - row.pop("before", 0.0)} | row


def of_mininet(nodes: int, meter: Meter) -> Row:
    """The same hosts and LANs by Mininet (packages mininet and bridge-utils)."""
    question = json.dumps({"hosts": nodes, "lans": lans(nodes)})
    command = f"mount -t sysfs sysfs /sys && exec /usr/bin/python3 -I {MININET}"
    return apart([*NAMESPACES, "sh", "-c", command], question, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, meter)


def of_nodes(nodes: int, meter: Meter) -> Row:
    """The same hosts and LANs by the middleware alone, as one segment, without the federation around it."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.experiments",
        "--alone",
        str(nodes),
        "--group",
        f"{meter.group}/apart",
    ]
    return apart(command, "", dict(os.environ), meter)


async def alone(nodes: int, site: ContainersSite, meter: Meter) -> Row:
    """One segment's life."""
    wires = {f"lan{number}": f"10.{1 + number // 250}.{number % 250}.0/24" for number in range(len(lans(nodes)))}
    ends: dict[int, list[WireEnd]] = {number: [] for number in range(nodes)}
    for (wire, prefix), members in zip(wires.items(), lans(nodes), strict=True):
        for place, member in enumerate(members, start=2):
            ends[member].append(WireEnd(wire, str(IPv4Network(prefix)[place]), Shape(Way(100_000.0), Way(100_000.0))))
    made = tuple(NodeRequest(f"n{n}", site.image, site.flavour, f"w{n}", tuple(on)) for n, on in ends.items())
    async with running(site) as middleware:
        assert isinstance(middleware, HostsSegments)
        before, began = meter.read(), time.perf_counter()
        await middleware.start_segment(key := new_key(), SegmentRequest(site.account, wires, made))
        up = time.perf_counter() - began
        began = time.perf_counter()
        await middleware.delete(key)
        row = {"before": before, "up": up, "down": time.perf_counter() - began}
    if left := await site.leftovers():
        raise SystemExit(f"left: {left}")
    return row


def run_alone(nodes: int, meter: Meter) -> None:
    """As a program of its own."""
    with tempfile.TemporaryDirectory() as folder, network_namespace():
        subprocess.run(["ip", "address", "add", "10.99.0.1/16", "dev", "br0"], check=True)
        extra = {"limits": {"machines": 1000}, "subnet": "10.99.0.0/16", "gateway": "10.99.0.1"}
        site = ContainersSite(build(), Path(folder) / "state", extra=extra)
        print(json.dumps(asyncio.run(alone(nodes, site, meter))))


def of_ours(lab: Lab, person: Person, nodes: int, meter: Meter) -> Row:
    """One experiment's life."""
    sites = [site.name for site in lab.plan.sites]
    maps = [word for name, site in zip(NAMES, sites, strict=True) for word in ("--map", f"{name}={site}.test")]
    person.write(FILE, program(nodes, len(sites)))
    before, began = meter.read(), time.perf_counter()
    follow = ("--follow", "--timeout", str(PATIENCE))
    person.fed("experiment", "create", FILE, *maps, "--name", NAME, *follow, patience=PATIENCE)
    up = time.perf_counter() - began
    told = person.ask("experiment", "log", NAME)
    began = time.perf_counter()
    person.fed("experiment", "terminate", NAME, "--follow", patience=PATIENCE)
    down = time.perf_counter() - began
    for site in sites:
        until(lambda site=site: machines_at(lab, site) == [], f"{site} holds nothing", PATIENCE)  # type: ignore[misc]
    gone = time.perf_counter() - began
    return {"up": up, "down": down, "gone": gone, "cpu": meter.read() - before, **parts_of(told)}


def parts_of(told: list[dict[str, Any]]) -> Row:
    """When what happened, in seconds since the first line of its log."""
    times = [(datetime.fromisoformat(str(one["at"])), str(one.get("state"))) for one in told]
    start = times[0][0]
    first: dict[str, float] = {}
    for at, state in times:
        first.setdefault(state, (at - start).total_seconds())
    return {f"log:{state}": seconds for state, seconds in first.items()}


def rows(nodes: int, rounds: int) -> Iterator[tuple[str, Row]]:
    """Both take turns, so that a noisy machine is noisy to both."""
    meter = Meter(f"fedmesh-bench-{os.getpid()}")
    with meter.joined(), Lab.up(f"bench-{os.getpid()}", Plan(SITES)) as lab:
        person = Person(lab, lab.plan.sites[0].name, "bench")
        for _ in range(rounds):
            yield f"experiment, {SITES} sites", of_ours(lab, person, nodes, meter)
            yield "its nodes alone", of_nodes(nodes, meter)
            yield "reference: Mininet", of_mininet(nodes, meter)


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--alone", type=int, help="the middleware alone, with so many nodes (used by itself)")
    parser.add_argument("--group", type=Path, default=HIERARCHY, help="the control group of that")
    parser.add_argument("-o", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    if arguments.alone:
        run_alone(arguments.alone, Meter(arguments.group.name, arguments.group.parent))
        return
    found = list(rows(arguments.nodes, arguments.rounds))
    if arguments.o == "json":
        print(json.dumps([{"what": what, **row} for what, row in found]))
        return
    print(f"{arguments.nodes} nodes, seconds")
    print(f"{'':24}{'up':>8}{'down':>8}{'gone':>8}{'cpu':>8}{'up, ms/node':>14}{'cpu, ms/node':>14}")
    for what, row in found:
        shares = "".join(f"{row[one] / arguments.nodes * 1e3:14.1f}" for one in ("up", "cpu"))
        print(
            f"{what:24}{row['up']:8.1f}{row['down']:8.1f}{row.get('gone', row['down']):8.1f}{row['cpu']:8.1f}{shares}"
        )
        for name, since in row.items():
            if name.startswith("log:"):
                print(f"    {name[4:]:20}{since:8.2f}")


if __name__ == "__main__":
    main()
