"""The demo's story (`deploy/demo`): a machine ordered at one site comes up at another behind two firewalls, and answers; then an
experiment over both sites (research.py).

Each step does what a person would do, with the person's own tools (`fed`, `ssh`, a web client), from where that person sits, and
says what was observed. A step that fails ends the story; the exit status is that of the step's error (DESIGN §9).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from deploy import research
from deploy.commands.output import say
from deploy.lab.cli import demo_name
from deploy.lab.client import Lab
from deploy.lab.errors import LabFailed
from deploy.lab.person import ALICE, Person, machines_at, until
from deploy.lab.topology import Plan
from deploy.lab.traces import Traces
from fedkit.errors import Exit, FedError

HOME, LENDER = "site-a", "site-b"
REQUIREMENT = "attributes.gpu == true"  # which only the second site meets
TUNNEL = "web:0:127.0.0.1:8000"
BY_OPENSSH = f"ssh -f -N -R {TUNNEL} tunnel"
BY_DROPBEAR = f"dbclient -f -N -K 15 -i tunnel.key -R {TUNNEL} $(cat /etc/fed/tunnel_address)"
FOR_DROPBEAR = (
    "dropbearconvert openssh dropbear /etc/fed/tunnel_key tunnel.key && mkdir -p .ssh"
    " && cat /etc/fed/tunnel_known_hosts >>.ssh/known_hosts"
)
PAGE = "Served by a machine that nobody can reach, but by its tunnel."


@dataclass(frozen=True)
class Means:
    """What the second site lends with, and how its machines are used."""

    image: str
    patience: int  # seconds that a machine may take to start
    open_tunnel: str
    prepare: str = "true"
    experiments: bool = False  # whether the second act, which takes seven machines more, can be told


MEANS = {
    "containers": Means("debian", 60, BY_OPENSSH, experiments=True),
    "libvirt": Means("tiny", 600, BY_DROPBEAR, FOR_DROPBEAR),
    "openstack": Means("tiny", 600, BY_DROPBEAR, FOR_DROPBEAR),
}


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


def _tell(story: Story, lab: Lab, means: Means) -> None:
    """The story, from the person's account to the end of the machine."""
    with story.step(f"{ALICE} has an account at {HOME}") as observed:
        person = Person(lab, HOME)
        observed.append(f"logged in at {person.url}, which only the intranet of {HOME} reaches")
    with story.step("the members see one another") as observed:
        members = until(partial(_everybody, lab, person), f"{HOME} sees all members")
        observed.extend(f"{member['name']} ({member['fedid'][:8]}…)" for member in members)
    with story.step(f"order fulfilled at {LENDER}") as observed:
        wish = ["--image", means.image, "--requirements", REQUIREMENT]
        order = person.order(*wish, patience=means.patience)
        observed.extend(_whereabouts(lab, order))
    ports = _use(story, person, order, means)
    _give_back(story, lab, person, order, ports)
    if means.experiments:
        research.tell(story.step, lab, person, {"deter": HOME, "ucb": LENDER})


def _everybody(lab: Lab, person: Person) -> list[dict[str, Any]] | None:
    alive = [member for member in person.ask("members") if member["alive"]]
    return alive if {member["name"] for member in alive} >= {site.domain for site in lab.plan.sites} else None


def _whereabouts(lab: Lab, order: dict[str, Any]) -> list[str]:
    lender = lab.plan.site(LENDER).domain
    if order["member"] != lender:
        raise LabFailed(f"The order went to {order['member']}, not to {lender}.")
    if not machines_at(lab, LENDER):
        raise LabFailed(f"The order is {order['state']}, but {LENDER} has no machine.")
    instance = order["instance"]
    return [
        f"{instance['name']} runs at {lender}, {instance['flavour']['name']}, {instance['address']}",
        f"ordered at {HOME} for {REQUIREMENT}",
    ]


def _use(story: Story, person: Person, order: dict[str, Any], means: Means) -> list[dict[str, Any]]:
    with story.step("ssh from the internet through the tunnel") as observed:
        ssh = person.tunnel(order, patience=means.patience)
        told = person.ssh(order, "echo $(id -un) at $(hostname) on $(uname -s)").strip()
        observed.append(f"{ssh['host']}:{ssh['port']}, host key checked: {told}")
    with story.step("the machine opens an HTTP tunnel on demand") as observed:
        person.ssh(order, f"mkdir -p www && echo '{PAGE}' > www/index.html && busybox httpd -p 127.0.0.1:8000 -h www")
        person.ssh(order, f"{means.prepare} && {means.open_tunnel} >tunnel.log 2>&1 </dev/null")
        web = person.tunnel(order, "web")
        observed.append(f"{means.open_tunnel}: {web['host']}:{web['port']}")
    with story.step("a page is fetched through it from the internet") as observed:
        url = f"http://{web['host']}:{web['port']}/"
        page = person.fetch(url)
        if page != PAGE:
            raise LabFailed(f"{url} brought another page: {page!r}")
        observed.append(f"{url}: {page}")
    return [ssh, web]


def _give_back(story: Story, lab: Lab, person: Person, order: dict[str, Any], ports: list[dict[str, Any]]) -> None:
    with story.step("order deleted, machine gone") as observed:
        person.delete(order)
        if left := machines_at(lab, LENDER):
            raise LabFailed(f"{LENDER} still has {', '.join(left)}.")
        observed.append(f"{LENDER} holds no machine and no interface")
    with story.step("its ports are closed") as observed:
        for tunnel in ports:
            until(partial(person.refused, tunnel), f"{tunnel['host']}:{tunnel['port']} is closed")
            observed.append(f"{tunnel['host']}:{tunnel['port']} refuses")


def _play(story: Story, once: bool, lender: str) -> None:
    plan = Plan(2, middleware={LENDER: lender})
    with story.step("two sites behind firewalls are up") as observed:
        lab = Lab.up(demo_name(), plan, lambda what, seconds: say(f"{seconds:16.1f} s  {what}"))
        observed.append(
            f"{', '.join(f'{site.name} ({site.server})' for site in plan.sites)}; {len(lab.status())} services"
        )
        observed.append(f"{LENDER} lends with {lender}")
    try:
        _tell(story, lab, MEANS[lender])
        if not once:
            say("\nIt stays up until Ctrl-C. In another terminal: .venv/bin/fed demo exec site-a fed members")
            _wait_for_interrupt()
    except FedError:
        for role in lab.status():
            say(f"\n--- the end of the log of {role}\n{lab.log(role)}")
        raise
    finally:
        _clean_up(story, lab)


def _clean_up(story: Story, lab: Lab) -> None:
    with story.step("the sites are down") as observed:
        traces = Traces(lab.name, lab.pid)
        lab.down()
        if left := traces.left():
            raise LabFailed(f"Left behind: {', '.join(left)}.")
        observed.append(f"{len(traces.processes)} processes ended; no mount, interface, control group or file is left")


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
    parser.add_argument("--middleware", choices=MEANS, default="containers", help=f"what {LENDER} lends with")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    story, status = Story(), Exit.DONE
    try:
        _play(story, options.once, options.middleware)
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
