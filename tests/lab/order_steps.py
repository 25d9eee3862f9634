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

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from deploy.lab.client import Lab
from deploy.lab.person import LOOK_AGAIN, PATIENCE, Person, until
from deploy.lab.topology import USER
from tests.lab.books import Books

HOME, LENDER = "site-a", "site-b"
LENDER_ONLY = ("--requirements", "attributes.gpu == true")
ENDED_ATTEMPTS = {"refused", "failed", "released"}
BANNER = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as connection:
    print(connection.recv(64).decode())
"""


class Life:
    """What tests do with orders of one person, and what they look at."""

    def __init__(self, lab: Lab, person: Person) -> None:
        self.lab = lab
        self.person = person

    def begin(self, *arguments: str) -> str:
        """Order a machine that only the lender has, and return the order's id at once."""
        wish = ["--image", "debian", *LENDER_ONLY, *arguments]
        return str(self.person.ask("order", "create", *wish)[0]["id"])

    def delete(self, order_id: str) -> dict[str, Any]:
        """Begin to delete an order."""
        order: dict[str, Any] = self.person.ask("order", "delete", order_id)
        return order

    def show(self, order_id: str) -> dict[str, Any]:
        """The order as its owner sees it."""
        order: dict[str, Any] = self.person.ask("order", "show", order_id)
        return order

    def reaches(self, order_id: str, state: str, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait until an order is in a state, and return it."""
        arguments = ("order", "watch", order_id, "--until", state, "--timeout", str(patience))
        order: dict[str, Any] = self.person.ask(*arguments)
        return order

    def asks_lender(self, order_id: str) -> dict[str, Any]:
        """Wait until the borrower's book says that the lender is being asked."""

        def find() -> dict[str, Any] | None:
            order = self.show(order_id)
            return order if order["reason"] == f"asks {self.lab.plan.site(LENDER).domain}" else None

        return until(find, "the lender is asked")

    def books_become(self, site: str, *lease_ids: str) -> None:
        """Wait until a site holds exactly the machines of these leases, by all of its witnesses."""
        expected = Books.with_machines(*lease_ids)
        deadline = time.monotonic() + PATIENCE
        while (found := Books.of(self.lab, site)) != expected and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN)
        assert found == expected, f"{site} holds {found}, not {expected}"

    def settles_fulfilled(self, order_id: str) -> dict[str, Any]:
        """Wait until an order has its one machine, which answers, and nothing else is left of it anywhere."""
        order = self.reaches(order_id, "fulfilled")
        self.books_become(LENDER, order["lease_id"])
        self.books_become(HOME)
        told = until(lambda: self._counts_on(order_id, 1), "the borrower counts on one attempt only")
        until(lambda: self.answers(order), "the machine answers through its tunnel")
        assert (told["state"], told["lease_id"]) == ("fulfilled", order["lease_id"]), told["reason"]
        return order

    def settles_deleted(self, order_id: str) -> None:
        """Wait until an order is deleted and nothing is left of it anywhere."""
        self.reaches(order_id, "deleted")
        self.books_become(LENDER)
        self.books_become(HOME)
        assert self._counts_on(order_id, 0)

    def answers(self, order: dict[str, Any]) -> bool:
        """Whether the machine's ssh server is heard on the internet, through the tunnel that never changes its port."""
        tunnel = next(tunnel for tunnel in order["tunnels"] if tunnel["name"] == "ssh")
        command = ["python3", "-c", BANNER, tunnel["host"], str(tunnel["port"])]
        return self.lab.run(USER, command, check=False).stdout.startswith("SSH-2.0-")

    def _counts_on(self, order_id: str, number: int) -> dict[str, Any] | None:
        """The order, if all of its attempts but so many have ended."""
        told = self.person.ask("order", "why", order_id)
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
        order_id = life.begin()
        life.asks_lender(order_id)
        yield order_id


@contextmanager
def asked(life: Life) -> Iterator[str]:
    """The lender does not look at the request."""
    with frozen(life.lab, f"{LENDER}/member"):
        order_id = life.begin()
        life.asks_lender(order_id)
        yield order_id


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
