"""Somebody who uses the federation of a lab as people do: with `fed` from a site's intranet, with `ssh` from the internet."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from deploy.commands.errors import TimedOut
from deploy.lab.client import Lab
from deploy.lab.places import PYTHON, RUN, SOURCES
from deploy.lab.topology import API_PORT, USER

T = TypeVar("T")

ALICE = "alice"  # whoever a demo is shown by
ACCOUNT = "fed"  # at every machine
PATIENCE = 60.0  # seconds; everything here takes one or two
FOR_THE_NEXT = ("security group", "image fetched")  # what stays in a cloud's project when nothing is lent
LOOK_AGAIN, LONGEST = 0.1, 2.0  # seconds between two looks; each costs a start of `fed`, so they become fewer


def home(site: str, name: str = ALICE) -> Path:
    """The home directory of somebody at a site; it holds the key pair and what `fed login` stored."""
    return RUN / f"people/{site}-{name}"


def populate(lab: Lab) -> None:
    """Give every site its Alice."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda site: Person(lab, site.name), lab.plan.sites))


class Person:
    """One user: an account at a site, a home directory with a key pair there and on the internet."""

    def __init__(
        self, lab: Lab, site: str, name: str = ALICE, projects: Sequence[str] = ("physics",), *, operator: bool = False
    ) -> None:
        """Make the account and log in; the first project is the default one."""
        self._lab = lab
        self._site = lab.plan.site(site)
        self.site = self._site.name
        self.name = name
        self.url = f"http://{self._site.lan}:{API_PORT}"
        self._home = home(self._site.name, name)
        self._key = self._home / "id_ed25519"
        lab.run(USER, ["mkdir", "-p", "-m", "700", str(self._home)])
        lab.run(USER, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self._key)])
        password = secrets.token_urlsafe()
        options = [option for project in projects for option in ("--project", project)]
        options += ["--operator"] if operator else []
        self.account("add", *options, "--password-stdin", text=password)
        self.fed("login", self.url, "--user", name, "--password-stdin", text=password)

    @property
    def public_key(self) -> str:
        """The file with it, in the intranet and on the internet."""
        return f"{self._key}.pub"

    def account(self, verb: str, *options: str, text: str | None = None) -> str:
        """Do to this account what the site's operator does: `fed member user VERB`."""
        config = str(RUN / self._site.name / "member/member.toml")
        return self.fed("member", "user", verb, self.name, *options, "-c", config, text=text)

    def write(self, file: str, text: str) -> None:
        """Write a file in the intranet."""
        self._lab.run(self._site.name, ["tee", file], text=text)

    def fed(self, *arguments: str, text: str | None = None, patience: float = PATIENCE) -> str:
        """Run `fed` in the intranet and return its stdout; raise `LabFailed` with what it said if it fails."""
        return self._lab.run(self._site.name, self._fed(arguments), text=text, timeout=patience + PATIENCE).stdout

    def fed_status(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `fed` in the intranet, whatever its exit status."""
        return self._lab.run(self._site.name, self._fed(arguments), timeout=2 * PATIENCE, check=False)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `fed` in the intranet; its stdout is a pipe."""
        return self._lab.popen(self._site.name, self._fed(arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def ask(self, *arguments: str, patience: float = PATIENCE) -> Any:
        """Run `fed … -o json` and return the data."""
        return json.loads(self.fed(*arguments, "-o", "json", patience=patience))

    def order(self, *arguments: str, patience: float = PATIENCE) -> Any:
        """Order one machine, wait until it runs, and return the order."""
        return self.orders(*arguments, patience=patience)[0]

    def orders(self, *arguments: str, patience: float = PATIENCE) -> Any:
        """Order machines (`--count`), wait until all run (`patience` seconds at most), and return their orders."""
        wish = ["--image", "debian", "--ssh-key", f"{self._key}.pub", "--wait", "--timeout", str(patience)]
        return self.ask("order", "create", *wish, *arguments, patience=patience)

    def delete(self, order: dict[str, Any]) -> Any:
        """Delete an order and wait until its lender has confirmed that all is gone."""
        return self.ask("order", "delete", order["id"], "--wait", "--timeout", str(PATIENCE))

    def tunnel(self, order: dict[str, Any], name: str = "ssh", patience: float = PATIENCE) -> dict[str, Any]:
        """The public port of that name, once the machine holds it open, which takes a virtual one as long as its system to start."""

        def find() -> dict[str, Any] | None:
            listed = self.ask("tunnel", "list", order["id"])
            return next((tunnel for tunnel in listed if tunnel["name"] == name and tunnel["up"]), None)

        return until(find, f"the tunnel {name} is up", patience)

    def ssh(self, order: dict[str, Any], command: str) -> str:
        """Run a command on the machine, from the internet, checking its host key against what its lender said."""
        return self._enter(order["id"], ACCOUNT, self.tunnel(order), order["instance"]["host_keys"], command)

    def at(self, node: dict[str, Any], command: str, account: str = "root") -> str:
        """Run a command on a node of an experiment, likewise."""
        return self._enter(node["name"], account, node, node["host_keys"], command)

    def _enter(self, name: str, account: str, place: dict[str, Any], host_keys: Sequence[str], command: str) -> str:
        known = self._home / f"known_hosts-{name}"
        lines = "".join(f"[{place['host']}]:{place['port']} {key}\n" for key in host_keys)
        self.outside(["tee", str(known)], text=lines)
        options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}"]
        line = ["ssh", "-F", "none", "-i", str(self._key), *options, "-p", str(place["port"])]
        return self.outside([*line, f"{account}@{place['host']}", command])

    def fetch(self, url: str) -> str:
        """Fetch a page from the internet."""
        script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
        return self.outside(["python3", "-c", script, url]).strip()

    def refused(self, tunnel: dict[str, Any]) -> bool:
        """Whether a public port refuses connections."""
        script = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).recv(1)"
        command = ["python3", "-c", script, tunnel["host"], str(tunnel["port"])]
        return "ConnectionRefusedError" in self._lab.run(USER, command, check=False).stderr

    def outside(self, command: Sequence[str], text: str | None = None) -> str:
        """Run a command on the internet and return its stdout."""
        return self._lab.run(USER, command, text=text).stdout

    def _fed(self, arguments: Sequence[str]) -> list[str]:
        return ["env", f"HOME={self._home}", "fed", *arguments]


def machines_at(lab: Lab, site: str) -> list[str]:
    """What a site shows of what it lent.

    Records of machines and their interfaces on the intranet's bridge or, where it has a cloud, what the federation's project holds.
    """
    found = lab.plan.site(site)
    if lab.plan.lender(found).startswith("openstack"):
        command = [str(PYTHON), "-m", "deploy.openstack", "held", "--state", str(RUN / found.name / "lender")]
        held = lab.run(found.name, ["env", f"PYTHONPATH={SOURCES}", *command]).stdout.splitlines()
        return [each for each in held if not each.startswith(FOR_THE_NEXT)]
    state = RUN / found.name / "member/machines"
    records = lab.run(found.name, ["find", str(state), "-name", "record.json"]).stdout.split()
    plugged = lab.run(found.name, ["ip", "-brief", "link", "show", "master", "machines"]).stdout.splitlines()
    return records + [line.split()[0] for line in plugged]


def until(find: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """Ask again and again until there is an answer; raise `TimedOut` after `patience` seconds."""
    deadline = time.monotonic() + patience
    pause = pauses()
    while not (found := find()):
        if time.monotonic() > deadline:
            raise TimedOut(f"After {patience:.0f} s it was not seen that {what}.")
        time.sleep(next(pause))
    return found


def pauses() -> Iterator[float]:
    """Seconds until the next look: the longer it has taken, the longer."""
    begin = time.monotonic()
    while True:
        yield min(LOOK_AGAIN + (time.monotonic() - begin) / 8, LONGEST)
