"""The life of an order in the lab, halted at a step of one's choice.

A step lasts as long as the process that would end it is stopped (SIGSTOP), so a test has all the time it needs to kill or
cut something at exactly that step:

    submitted   in the borrower's book, its request on the way              stopped: the borrower's XMPP server
    asked       at the lender, which has not looked at it                   stopped: the lender's member
    pending     accepted; the machine is being made, its port is awaited    stopped: the lender's tunnel server
    making      accepted, or nearly; nothing is stopped
    running     the machine runs; nothing is stopped
    renewing    the borrower has just started and asks for all its leases   stopped: the lender's member
    deleting    the lender's word is awaited                                stopped: the lender's member
"""

from __future__ import annotations

import json
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from deploy.lab.client import Lab
from deploy.lab.person import PATIENCE, Person, pauses, until
from deploy.lab.topology import USER
from tests.lab.books import Books

HOME, LENDER = "site-a", "site-b"
LENDER_ONLY = "attributes.gpu == true"
ENDED_ATTEMPTS = {"refused", "failed", "released"}
REST = """
import json, sys, time, urllib.request
wish = json.load(sys.stdin)
headers = {"Authorization": "Bearer " + wish["token"], "Content-Type": "application/json"}
body = None if wish["body"] is None else json.dumps(wish["body"]).encode()
deadline = time.monotonic() + wish["patience"]
while True:
    request = urllib.request.Request(wish["url"], body, headers, method=wish["method"])
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    if wish["state"] in (None, answer.get("state")):
        break
    if time.monotonic() > deadline:
        sys.exit("it did not become %s: %s" % (wish["state"], json.dumps(answer)))
    time.sleep(0.05)
print(json.dumps(answer))
"""
BANNER = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as connection:
    print(connection.recv(64).decode(errors="replace"))  # what follows the banner at once is binary
"""


class Life:
    """What tests do with orders of one person, and what they look at.

    They speak REST by a few lines of Python at the person's site: a hundred calls of `fed` would take a minute longer.
    """

    def __init__(self, lab: Lab, person: Person, *, image: str = "debian", patience: float = PATIENCE) -> None:
        """`image` is what machines boot, `patience` the seconds that anything may take."""
        self.lab = lab
        self.person = person
        self._image, self.patience = image, patience
        stored = lab.read(f"people/{person.site}-{person.name}/.config/fedmesh/credentials.toml")
        self._token = tomllib.loads(stored)["token"]

    def begin(self, **wish: Any) -> str:
        """Order a machine that only the lender has, and return the order's id at once."""
        spec = {"kind": "compute", "image": self._image, "requirements": LENDER_ONLY}
        return str(self.rest("POST", "orders", {"spec": spec, **wish})["items"][0]["id"])

    def delete(self, order_id: str) -> dict[str, Any]:
        """Begin to delete an order."""
        return self.rest("DELETE", f"orders/{order_id}")

    def show(self, order_id: str) -> dict[str, Any]:
        """The order as its owner sees it."""
        return self.rest("GET", f"orders/{order_id}")

    def reaches(self, order_id: str, state: str) -> dict[str, Any]:
        """Wait until an order is in a state, and return it."""
        return self.rest("GET", f"orders/{order_id}", until_state=state)

    def rest(self, method: str, path: str, body: Any = None, until_state: str | None = None) -> dict[str, Any]:
        """Ask the member; with `until_state`, again and again until the order is in that state."""
        wish = {
            "url": f"{self.person.url}/api/v1/{path}",
            "method": method,
            "token": self._token,
            "body": body,
            "state": until_state,
            "patience": self.patience,
        }
        command = ["python3", "-I", "-S", "-c", REST]
        answer: dict[str, Any] = json.loads(
            self.lab.run(self.person.site, command, text=json.dumps(wish), timeout=self.patience + 30).stdout
        )
        return answer

    def books_become(self, site: str, *lease_ids: str) -> None:
        """Wait until a site holds exactly the machines of these leases, by all of its witnesses."""
        expected = Books.with_machines(*lease_ids)
        deadline = time.monotonic() + self.patience
        pause = pauses()
        while (found := Books.of(self.lab, site)) != expected and time.monotonic() < deadline:
            time.sleep(next(pause))
        assert found == expected, f"{site} holds {found}, not {expected}"

    def settles_fulfilled(self, *order_ids: str) -> list[dict[str, Any]]:
        """Wait until each order has its one machine, which answers, and nothing else is left anywhere."""
        orders = [self.reaches(order_id, "fulfilled") for order_id in order_ids]
        self.books_become(LENDER, *(order["lease_id"] for order in orders))
        self.books_become(HOME)
        for order in orders:
            told = until(
                partial(self._counts_on, order["id"], 1), "the borrower counts on one attempt only", self.patience
            )
            until(partial(self.answers, order), "the machine answers through its tunnel", self.patience)
            assert (told["state"], told["lease_id"]) == ("fulfilled", order["lease_id"]), told["reason"]
        return orders

    def settles_deleted(self, *order_ids: str) -> None:
        """Wait until all orders are deleted and nothing is left anywhere."""
        for order_id in order_ids:
            self.reaches(order_id, "deleted")
            assert self._counts_on(order_id, 0)
        self.books_become(LENDER)
        self.books_become(HOME)

    def is_given_back(self, *order_ids: str) -> None:
        """Delete orders and wait until nothing is left anywhere."""
        for order_id in order_ids:
            self.delete(order_id)
        self.settles_deleted(*order_ids)

    def answers(self, order: dict[str, Any]) -> bool:
        """Whether the machine's ssh server is heard on the internet, through the tunnel that never changes its port."""
        tunnel = next(tunnel for tunnel in order["tunnels"] if tunnel["name"] == "ssh")
        command = ["python3", "-c", BANNER, tunnel["host"], str(tunnel["port"])]
        return self.lab.run(USER, command, check=False).stdout.startswith("SSH-2.0-")

    def _counts_on(self, order_id: str, number: int) -> dict[str, Any] | None:
        """The order, if all of its attempts but so many have ended."""
        told = self.rest("GET", f"orders/{order_id}/why")
        left = [attempt for attempt in told["attempts"] if attempt["state"] not in ENDED_ATTEMPTS]
        return told["order"] if len(left) == number else None


@contextmanager
def frozen(lab: Lab, role: str) -> Iterator[None]:
    """Stop a process for as long as the context is open; if it is killed meanwhile, it stays dead."""
    lab.kill(role, signal.SIGSTOP)
    try:
        yield
    finally:
        if lab.status()[role]["pid"] is not None:
            lab.kill(role, signal.SIGCONT)


@contextmanager
def submitted(life: Life) -> Iterator[str]:
    """The request does not leave the home site."""
    with frozen(life.lab, f"{HOME}/xmpp"):
        yield life.begin()


@contextmanager
def asked(life: Life) -> Iterator[str]:
    """The lender does not look at the request."""
    with frozen(life.lab, f"{LENDER}/member"):
        yield life.begin()


@contextmanager
def pending(life: Life) -> Iterator[str]:
    """The lender waits for a tunnel port."""
    with frozen(life.lab, f"{LENDER}/tunnel"):
        order_id = life.begin()
        life.reaches(order_id, "pending")
        yield order_id


@contextmanager
def making(life: Life) -> Iterator[str]:
    """The lender is at it."""
    yield life.begin()


@contextmanager
def running(_life: Life, _order_id: str) -> Iterator[None]:
    """Nothing happens."""
    yield


@contextmanager
def renewing(life: Life, _order_id: str) -> Iterator[None]:
    """The lender does not answer the question for the lease, which its borrower asks when it starts."""
    with frozen(life.lab, f"{LENDER}/member"):
        life.lab.restart(f"{HOME}/member")
        yield


@contextmanager
def deleting(life: Life, order_id: str) -> Iterator[None]:
    """The lender does not confirm."""
    with frozen(life.lab, f"{LENDER}/member"):
        assert life.delete(order_id)["state"] == "deleting"
        yield


BEGINNINGS: dict[str, Callable[[Life], AbstractContextManager[str]]] = {
    step.__name__: step for step in (submitted, asked, pending, making)
}
"""Steps of a new order; entering gives its id."""
