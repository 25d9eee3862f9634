"""Follows an experiment by its event stream, telling each line of its log on stderr.

The stream may break off at any time (a member restarts); it is opened again after the last line that was told. What ends the
following is the experiment as the member shows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from deploy.commands.client import Client, Event, segment
from deploy.commands.errors import NotFulfilled, NotReachable, Refused, TimedOut
from deploy.commands.output import say

ENDED = frozenset({"terminated", "failed"})
PAUSE = 0.5  # seconds between attempts to reach a member that went away


def follow_until(
    client: Client, wanted: str, state: str, timeout: float, credentials: Mapping[str, str], after: int = 0
) -> dict[str, Any]:
    """Return the experiment once it is in `state`, and nothing is being added to it; tell lines of its log after that of a number.

    Raises `TimedOut` after `timeout` seconds, `NotFulfilled` if it ended otherwise, `Refused` if it may not be seen any more.
    """
    shown: dict[str, Any] | None = None
    for event in _events(client, wanted, timeout, credentials, after):
        match event.name:
            case "log":
                say(f"{event.data['at']} {event.data['state']}: {event.data['reason']}")
            case "now":
                shown = event.data
                if shown["state"] == state and not shown["extending"]:
                    return shown
                if shown["state"] in ENDED:
                    raise NotFulfilled(f"The experiment {shown['name']} is {shown['state']}: {shown['reason']}")
            case "end":
                raise Refused(event.data)
    now = f"{shown['state']}: {shown['reason']}" if shown else "not heard of"
    raise TimedOut(
        f"After {timeout:g} s not {state}; it is {now}. It goes on; `fed experiment log {wanted}` tells more."
    )


def _events(client: Client, wanted: str, timeout: float, credentials: Mapping[str, str], after: int) -> Iterator[Event]:
    """All of its events after that line of the log, each line once, until the time is up."""
    deadline = time.monotonic() + timeout
    last = str(after)
    while (left := deadline - time.monotonic()) > 0:
        try:
            for event in client.events(last, left, f"/experiments/{segment(wanted)}/events", credentials):
                last = event.id or last
                yield event
        except TimeoutError:
            return
        except (NotReachable, OSError) as error:
            say(f"The connection to {client.url} broke off ({error}); trying again.")
        time.sleep(min(PAUSE, max(deadline - time.monotonic(), 0)))
