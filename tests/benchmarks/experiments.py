"""How fast experiments come and go: `python -m tests.benchmarks.experiments` (as root).

One experiment over the three sites of a lab, LANs in a ring, with everything on the way: description, orders, mesh, tunnels, portals.
From `fed experiment create` until it is active, and from `terminate` until no site holds anything of it. Its parts are told by
its own log: how long the slowest segment took of it.

The reference in the same run is Mininet (Debian's package `mininet`, Linux bridges) with the same hosts and LANs on one machine and
nothing else: no root file systems, no ssh, no users, no firewalls. It runs in namespaces of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.topology import Plan

SITES = 3
LAN = 10  # nodes of one
PATIENCE = 600.0  # seconds
FILE = "/run/fedlab/tmp/bench.ns"
NAME = "bench"
MININET = Path(__file__).with_name("mininet_reference.py")
NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
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


def busy() -> float:
    """Seconds of processor time that this machine has spent, whoever did."""
    figures = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(figures[:3] + figures[5:7]) / os.sysconf("SC_CLK_TCK")


def of_mininet(nodes: int) -> Row:
    """The same hosts and LANs by Mininet."""
    question = json.dumps({"hosts": nodes, "lans": lans(nodes)})
    command = f"mount -t sysfs sysfs /sys && exec /usr/bin/python3 -I {MININET}"
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    before = busy()
    done = subprocess.run(
        [*NAMESPACES, "sh", "-c", command], input=question, capture_output=True, text=True, check=False, env=path
    )
    if done.returncode:
        raise SystemExit(f"Mininet (Debian packages mininet, bridge-utils): {done.stderr.strip()[-500:]}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row | {"busy": busy() - before}


def of_ours(lab: Lab, person: Person, nodes: int) -> Row:
    """One experiment's life."""
    sites = [site.name for site in lab.plan.sites]
    maps = [word for name, site in zip(NAMES, sites, strict=True) for word in ("--map", f"{name}={site}.test")]
    person.write(FILE, program(nodes, len(sites)))
    before, began = busy(), time.perf_counter()
    follow = ("--follow", "--timeout", str(PATIENCE))
    person.fed("experiment", "create", FILE, *maps, "--name", NAME, *follow, patience=PATIENCE)
    up = time.perf_counter() - began
    spent = busy() - before
    told = person.ask("experiment", "log", NAME)
    began = time.perf_counter()
    person.fed("experiment", "terminate", NAME, "--follow", patience=PATIENCE)
    down = time.perf_counter() - began
    for site in sites:
        until(lambda site=site: machines_at(lab, site) == [], f"{site} holds nothing", PATIENCE)  # type: ignore[misc]
    gone = time.perf_counter() - began
    return {"up": up, "down": down, "gone": gone, "busy": spent, **parts_of(told)}


def parts_of(told: list[dict[str, Any]]) -> Row:
    """When what happened, in seconds since the first line of its log."""
    times = [(datetime.fromisoformat(str(one["time"])), str(one.get("state"))) for one in told]
    start = times[0][0]
    first: dict[str, float] = {}
    for at, state in times:
        first.setdefault(state, (at - start).total_seconds())
    return {f"log:{state}": seconds for state, seconds in first.items()}


def rows(nodes: int, rounds: int) -> Iterator[tuple[str, Row]]:
    """Both take turns, so that a noisy machine is noisy to both."""
    with Lab.up(f"bench-{os.getpid()}", Plan(SITES)) as lab:
        person = Person(lab, lab.plan.sites[0].name, "bench")
        for _ in range(rounds):
            yield f"{nodes} nodes, {SITES} sites", of_ours(lab, person, nodes)
            yield f"Mininet, {nodes} hosts", of_mininet(nodes)


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("-o", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    found = list(rows(arguments.nodes, arguments.rounds))
    if arguments.o == "json":
        print(json.dumps([{"what": what, **row} for what, row in found]))
        return
    print(f"{'seconds':28}{'up':>8}{'down':>8}{'gone':>8}{'cpu':>8}{'up, ms/node':>14}{'cpu, ms/node':>14}")
    for what, row in found:
        share = row["up"] / arguments.nodes * 1e3, row["busy"] / arguments.nodes * 1e3
        figures = f"{row['up']:8.1f}{row['down']:8.1f}{row.get('gone', row['down']):8.1f}{row['busy']:8.1f}"
        print(f"{what:28}{figures}{share[0]:14.1f}{share[1]:14.1f}")
        print(
            *(f"    {name[4:]:24}{seconds:8.2f}" for name, seconds in row.items() if name.startswith("log:")), sep="\n"
        )


if __name__ == "__main__":
    main()
