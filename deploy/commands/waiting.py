"""Waits for orders on the event stream, telling each step on stderr.

The stream may break off at any time (a member restarts); it is opened again where it was. What ends the waiting is
always an order as the member shows it, never an event alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from deploy.commands.client import Client, Event, segment
from deploy.commands.errors import NotFulfilled, NotReachable, TimedOut
from deploy.commands.output import say

# From which states another can no longer be reached.
FINAL = {"closed", "deleted"}
AFTER = {"fulfilled": {"closed", "deleting", "deleted"}}
PAUSE = 0.5  # seconds between attempts to reach a member that went away


def wait_for(client: Client, order_ids: list[str], state: str, timeout: float) -> list[dict[str, Any]]:
    """Wait until all orders are in `state` and return them.

    Raises `TimedOut` after `timeout` seconds, `NotFulfilled` as soon as an order can no longer get there.
    """
    deadline = time.monotonic() + timeout
    waiting = dict.fromkeys(order_ids)
    done: dict[str, dict[str, Any]] = {}
    told: dict[str, int] = {}
    for order in _changes(client, order_ids, deadline):
        if order["id"] not in waiting:
            continue
        if told.get(order["id"]) != order["revision"]:
            say(f"{order['id']}: {order['state']}: {order['reason']}")
            told[order["id"]] = order["revision"]
        if order["state"] == state:
            done[order["id"]] = order
        elif order["state"] in AFTER.get(state, FINAL):
            raise NotFulfilled(
                f"Order {order['id']} is {order['state']}: {order['reason']} See `fed order why {order['id']}`.",
                code=order["code"],
            )
        if len(done) == len(waiting):
            return [done[order_id] for order_id in order_ids]
    missing = ", ".join(order_id for order_id in order_ids if order_id not in done)
    raise TimedOut(f"After {timeout:g} s not {state}: {missing}. It goes on; `fed order why {missing}` tells more.")


def wait_until(client: Client, order_id: str, so: Callable[[dict[str, Any]], bool], timeout: float) -> dict[str, Any]:
    """Wait until a running order is `so` and return it; raises `TimedOut`, or `NotFulfilled` if it does not run any more."""
    for order in _changes(client, [order_id], time.monotonic() + timeout):
        if order["id"] != order_id:
            continue
        if order["state"] != "fulfilled":
            raise NotFulfilled(f"Order {order_id} is {order['state']}: {order['reason']}", code=order["code"])
        if so(order):
            return order
    raise TimedOut(f"After {timeout:g} s not yet so. It goes on; `fed order show {order_id}` tells more.")


def _changes(client: Client, order_ids: list[str], deadline: float) -> Iterator[dict[str, Any]]:
    """Yield the orders as they are now, and each of the user's orders as it changes, until the deadline."""
    while (left := deadline - time.monotonic()) > 0:
        try:
            stream = client.events(None, left)
            next(stream, None)  # the stream is open from here on: what we read now cannot have been missed
            for order_id in order_ids:
                yield client.get(f"/orders/{segment(order_id)}")
            yield from _orders_of(stream, deadline)
        except (NotReachable, OSError) as error:
            if deadline - time.monotonic() <= PAUSE:
                return
            say(f"The connection to {client.url} broke off ({error}); trying again.")
            time.sleep(PAUSE)


def _orders_of(stream: Iterator[Event], deadline: float) -> Iterator[dict[str, Any]]:
    for event in stream:
        if event.name == "order" and event.data["now"]:
            yield event.data["now"]
        if time.monotonic() >= deadline:
            return
