"""The demo's second act: a researcher's experiment over both sites, which looks like one local testbed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from deploy.lab.client import Lab
from deploy.lab.errors import LabFailed
from deploy.lab.person import Person, machines_at, until
from deploy.lab.places import TEMPORARY

DESCRIPTION = Path(__file__).parent / "templates/experiment.ns"
NAME = "example"
PATIENCE = 120.0  # seconds
PINGED = ", 0% packet loss"
WAY = ["10.1.1.3", "10.1.3.2", "10.1.2.4"]  # b, then c beyond the portals, then e

Tell = Callable[[str], AbstractContextManager[list[str]]]


def tell(step: Tell, lab: Lab, person: Person, testbeds: dict[str, str]) -> None:
    """Create the experiment, use it, and give it back; `testbeds` says which site is which testbed."""
    with step("an experiment of five machines runs over both sites") as observed:
        nodes = _create(lab, person, testbeds)
        observed.extend(f"{name} at {site}" for name, site in sorted(nodes["sites"].items()))
    with step("a pings e by its name, through portals behind both firewalls") as observed:
        answer = until(partial(_ping, person, nodes["a"]), "a pings e", PATIENCE)
        observed.append(answer)
    with step("traceroute shows the way, and e's ssh server is e's") as observed:
        observed.append(" → ".join(_way(person, nodes["a"])))
        observed.append(_ssh_of_e(person, nodes["a"], nodes["e"]))
    with step("experiment terminated, nothing left at either site") as observed:
        person.fed("experiment", "terminate", NAME, "--follow", patience=PATIENCE)
        for site in testbeds.values():
            until(lambda site=site: not machines_at(lab, site), f"{site} holds nothing", PATIENCE)  # type: ignore[misc]
            observed.append(f"{site} holds no machine and no interface")


def _create(lab: Lab, person: Person, testbeds: dict[str, str]) -> dict[str, Any]:
    """The nodes by name, and under `sites` where each is."""
    file = str(TEMPORARY / DESCRIPTION.name)
    lab.run(person.site, ["tee", file], text=DESCRIPTION.read_text())
    places = [word for testbed, site in testbeds.items() for word in ("--map", f"{testbed}={site}.test")]
    wish = ("--name", NAME, "--ssh-key", person.public_key, "--follow", "--timeout", str(PATIENCE))
    person.fed("experiment", "create", file, *places, *wish, patience=PATIENCE)
    segments = person.ask("experiment", "show", NAME)["segments"]
    nodes = {node["name"]: node for segment in segments for node in segment["nodes"]}
    return nodes | {"sites": {node["name"]: segment["member"] for segment in segments for node in segment["nodes"]}}


def _ping(person: Person, node: dict[str, Any]) -> str | None:
    lines = person.at(node, "ping -c 3 -w 5 e; true").splitlines()
    return " ".join(lines[-2:]) if any(PINGED in line for line in lines) else None


def _way(person: Person, node: dict[str, Any]) -> list[str]:
    lines = person.at(node, "traceroute -n -w 3 -q 1 -m 5 e").splitlines()[1:]
    way = [line.split()[1] for line in lines]
    if way != WAY:
        raise LabFailed(f"The way to e is {way}, not {WAY}.")
    return way


def _ssh_of_e(person: Person, node: dict[str, Any], e: dict[str, Any]) -> str:
    """The host key that e shows to a, checked against what its lender said."""
    key = person.at(node, "ssh-keyscan -T 10 -t ed25519 e 2>/dev/null").split()[-1]
    if not any(key in host_key for host_key in e["host_keys"]):
        raise LabFailed("What a finds under the name e is not e.")
    return f"a's ssh sees the host key of e ({key[-12:]})"
