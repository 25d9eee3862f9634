"""The demo's story (`deploy/demo`): a machine ordered at one site comes up at another behind two firewalls, and answers.

Each step does what a person would do, with the person's own tools (`fed`, `ssh`, a web client), from where that person sits, and
says what was observed. A step that fails ends the story; the exit status is that of the step's error (DESIGN §9).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeVar

from deploy.commands.errors import TimedOut
from deploy.commands.output import say
from deploy.lab.cli import demo_name
from deploy.lab.client import Lab
from deploy.lab.errors import LabFailed
from deploy.lab.places import RUN
from deploy.lab.topology import API_PORT, USER, Plan
from fedkit.errors import Exit, FedError

T = TypeVar("T")

HOME, LENDER = "site-a", "site-b"
REQUIREMENT = "attributes.gpu == true"  # which only the second site meets
PERSON, PROJECT = "alice", "physics"
DESK = RUN / "alice"  # home directory of the person
KEY = DESK / "id_ed25519"
ACCOUNT = "fed"  # at the machine
PAGE = "Served by a machine that nobody can reach, but by its tunnel."
PATIENCE = 60.0  # seconds; everything here takes one or two
LOOK_AGAIN = 0.1  # seconds


@dataclass(frozen=True)
class Step:
    """One thing that was seen, or not."""

    name: str
    ok: bool
    seconds: float
    observed: str


@dataclass
class Story:
    """What has happened so far."""

    begin: float = field(default_factory=time.monotonic)
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Tell one step: the block appends what was observed, or raises."""
        observed: list[str] = []
        begin = time.monotonic()
        try:
            yield observed
        except FedError as error:
            self._tell(name, False, begin, f"{error.message} [{error.code}]")
            raise
        self._tell(name, True, begin, "; ".join(observed))

    def to_dict(self, ok: bool) -> dict[str, Any]:
        """The shape that others rely on (DESIGN §9)."""
        seconds = round(time.monotonic() - self.begin, 2)
        return {"ok": ok, "seconds": seconds, "steps": [asdict(step) for step in self.steps]}

    def _tell(self, name: str, ok: bool, begin: float, observed: str) -> None:
        now = time.monotonic()
        self.steps.append(Step(name, ok, round(now - begin, 2), observed))
        mark = "✓" if ok else "✗"
        say(f"{now - self.begin:6.1f} s  {mark} {name} ({now - begin:.2f} s)\n            {observed}")


class Demo:
    """The steps, in their order; each uses what the ones before it have found."""

    def __init__(self, story: Story, lab: Lab) -> None:
        self._story = story
        self._lab = lab
        self._order: dict[str, Any] = {}

    def play(self) -> None:
        """Tell the whole story up to the end of the machine."""
        for chapter in (self.people, self.members, self.order, self.reach, self.publish, self.fetch, self.give_back):
            chapter()

    def people(self) -> None:
        """A person gets an account at the home site, and a key pair."""
        with self._story.step(f"{PERSON} has an account at {HOME}") as observed:
            password = "correct horse battery staple"  # noqa: S105 - of a site that lives for a minute
            self._run(USER, ["mkdir", "-p", "-m", "700", str(DESK)])
            self._run(USER, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", PERSON, "-f", str(KEY)])
            config = str(RUN / HOME / "member/member.toml")
            account = [PERSON, "--project", PROJECT, "-c", config, "--password-stdin"]
            self._fed("member", "user", "add", *account, text=password)
            site = self._lab.plan.site(HOME)
            url = f"http://{site.lan}:{API_PORT}"
            self._fed("login", url, "--user", PERSON, "--password-stdin", text=password)
            observed.append(f"logged in at {url}, which only the intranet of {HOME} reaches")

    def members(self) -> None:
        """The home site's member knows of the other one."""
        with self._story.step("the members see one another") as observed:
            wanted = {site.domain for site in self._lab.plan.sites}

            def alive() -> list[dict[str, Any]] | None:
                listed = [member for member in self._fed_json("members") if member["alive"]]
                return listed if {member["name"] for member in listed} >= wanted else None

            found = _until(alive, f"{HOME} sees {', '.join(sorted(wanted))}")
            observed += [f"{member['name']} ({member['fedid'][:8]}…)" for member in found]

    def order(self) -> None:
        """A machine is ordered at home and comes up elsewhere."""
        with self._story.step(f"order fulfilled at {LENDER}") as observed:
            wish = ["--image", "debian", "--requirements", REQUIREMENT, "--ssh-key", f"{KEY}.pub", "--wait"]
            self._order = self._fed_json("order", "create", *wish, "--timeout", str(PATIENCE))[0]
            lender = self._lab.plan.site(LENDER).domain
            if self._order["member"] != lender:
                raise LabFailed(f"The order went to {self._order['member']}, not to {lender}.")
            instance = self._order["instance"]
            observed.append(
                f"{instance['name']} runs at {lender}, {instance['flavour']['name']}, {instance['address']}"
            )
            observed.append(f"ordered at {HOME} for {REQUIREMENT}")

    def reach(self) -> None:
        """An outside user logs in through the lender's tunnel server."""
        with self._story.step("ssh from the internet through the tunnel") as observed:
            tunnel = self._tunnel("ssh")
            hosts = [f"[{tunnel['host']}]:{tunnel['port']} {key}" for key in self._order["instance"]["host_keys"]]
            self._run(USER, ["tee", str(DESK / "known_hosts")], text="\n".join(hosts) + "\n")
            told = self._ssh("echo $(id -un) at $(hostname) on $(uname -s)").strip()
            observed.append(f"{tunnel['host']}:{tunnel['port']}, host key checked: {told}")

    def publish(self) -> None:
        """The machine opens a second tunnel by itself."""
        with self._story.step("the machine opens an HTTP tunnel on demand") as observed:
            self._ssh(f"mkdir -p www && echo '{PAGE}' > www/index.html && busybox httpd -p 127.0.0.1:8000 -h www")
            self._ssh("ssh -f -N -R web:0:127.0.0.1:8000 tunnel >tunnel.log 2>&1 </dev/null")
            tunnel = self._tunnel("web")
            observed.append(f"ssh -R web:0:127.0.0.1:8000 tunnel: {tunnel['host']}:{tunnel['port']}")

    def fetch(self) -> None:
        """An outside user fetches a page through it."""
        with self._story.step("a page is fetched through it from the internet") as observed:
            tunnel = self._tunnel("web")
            url = f"http://{tunnel['host']}:{tunnel['port']}/"
            script = (
                "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
            )
            page = self._run(USER, ["python3", "-c", script, url]).strip()
            if page != PAGE:
                raise LabFailed(f"{url} brought another page: {page!r}")
            observed.append(f"{url}: {page}")

    def give_back(self) -> None:
        """The order is deleted; nothing of the machine is left, neither at its lender nor outside."""
        ports = [self._tunnel(name) for name in ("ssh", "web")]
        with self._story.step("order deleted, machine gone") as observed:
            self._fed("order", "delete", self._order["id"], "--wait", "--timeout", str(PATIENCE))
            left = self._machines()
            if left:
                raise LabFailed(f"{LENDER} still has {', '.join(left)}.")
            observed.append(f"{LENDER} holds no machine and no interface")
        with self._story.step("its ports are closed") as observed:
            for tunnel in ports:
                _until(partial(self._refuses, tunnel), f"{tunnel['host']}:{tunnel['port']} is closed")
                observed.append(f"{tunnel['host']}:{tunnel['port']} refuses")

    def _machines(self) -> list[str]:
        """What the lender's host shows of machines: their records, and their interfaces on the intranet."""
        state = RUN / LENDER / "member/machines"
        records = self._run(LENDER, ["find", str(state), "-name", "record.json"]).split()
        plugged = self._run(LENDER, ["ip", "-brief", "link", "show", "master", "machines"]).splitlines()
        return records + [line.split()[0] for line in plugged]

    def _refuses(self, tunnel: dict[str, Any]) -> bool:
        script = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).recv(1)"
        command = ["python3", "-c", script, tunnel["host"], str(tunnel["port"])]
        return "ConnectionRefusedError" in self._lab.run(USER, command, check=False).stderr

    def _tunnel(self, name: str) -> dict[str, Any]:
        """The public port of that name, once the machine holds it open."""

        def find() -> dict[str, Any] | None:
            listed = self._fed_json("tunnel", "list", self._order["id"])
            return next((tunnel for tunnel in listed if tunnel["name"] == name and tunnel["up"]), None)

        return _until(find, f"the tunnel {name} is up")

    def _ssh(self, command: str) -> str:
        tunnel = self._tunnel("ssh")
        options = [
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            f"UserKnownHostsFile={DESK}/known_hosts",
        ]
        line = ["ssh", "-F", "none", "-i", str(KEY), *options, "-p", str(tunnel["port"]), f"{ACCOUNT}@{tunnel['host']}"]
        return self._run(USER, [*line, command])

    def _fed_json(self, *arguments: str) -> Any:
        return json.loads(self._fed(*arguments, "-o", "json"))

    def _fed(self, *arguments: str, text: str | None = None) -> str:
        return self._run(HOME, ["env", f"HOME={DESK}", "fed", *arguments], text=text)

    def _run(self, host: str, command: Sequence[str], text: str | None = None) -> str:
        return self._lab.run(host, command, text=text, timeout=PATIENCE + 30).stdout


def _until(find: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + PATIENCE
    while not (found := find()):
        if time.monotonic() > deadline:
            raise TimedOut(f"After {PATIENCE:.0f} s it was not seen that {what}.")
        time.sleep(LOOK_AGAIN)
    return found


def _play(story: Story, once: bool) -> None:
    plan = Plan(2)
    with story.step("two sites behind firewalls are up") as observed:
        lab = Lab.up(demo_name(), plan)
        observed.append(
            f"{', '.join(f'{site.name} ({site.server})' for site in plan.sites)}; {len(lab.status())} services"
        )
    try:
        Demo(story, lab).play()
        if not once:
            say("\nIt stays up until Ctrl-C. In another terminal: .venv/bin/fed demo status")
            _wait_for_interrupt()
    except FedError:
        for role in lab.status():
            say(f"\n--- the end of the log of {role}\n{lab.log(role)}")
        raise
    finally:
        with story.step("the sites are down") as observed:
            lab.down()
            observed.append("no process, namespace, mount, interface or file is left")


def _wait_for_interrupt() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        say("")


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Tell the story; see `deploy/demo`."""
    parser = argparse.ArgumentParser(
        prog="deploy/demo", description="Order a machine at one site, reach it at another."
    )
    parser.add_argument("--once", action="store_true", help="clean up and end when all has been seen")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="json: the steps on stdout")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    story, status = Story(), Exit.DONE
    try:
        _play(story, options.once)
    except FedError as error:
        if not story.steps or story.steps[-1].ok:
            say(f"{error.message} [{error.code}]")
        status = error.exit
    except KeyboardInterrupt:
        status = Exit.REFUSED
        say("Interrupted.")
    if options.output == "json":
        print(json.dumps(story.to_dict(ok=status is Exit.DONE), ensure_ascii=False, indent=2))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
