"""`--follow` goes on where its stream was cut off, and ends by what the member shows."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from deploy.commands.client import Client
from deploy.commands.errors import NotFulfilled, Refused, TimedOut
from deploy.commands.experiment_following import follow_until

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
PATIENCE = 60.0


def log(number: int, state: str) -> str:
    """A line of the log, as the stream tells it."""
    data = {"number": number, "at": "now", "state": state, "code": "", "reason": f"line {number}"}
    return f"id: {number}\nevent: log\ndata: {json.dumps(data)}\n\n"


def now(state: str) -> str:
    """The whole."""
    return (
        f"event: now\ndata: {json.dumps({'name': 'exp', 'state': state, 'reason': 'so it is', 'extending': False})}\n\n"
    )


@contextmanager
def member(*streams: str) -> Iterator[tuple[Client, list[str]]]:
    """A member that answers one request after another with these streams; what each asked to go on after."""
    asked: list[str] = []

    def serve() -> None:
        for stream in streams:
            connection, _ = listener.accept()
            with connection:
                request = connection.recv(4096).decode()
                asked.extend(re.findall(r"Last-Event-ID: (\d+)", request))
                connection.sendall((HEAD + stream).encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "token"), asked
        finally:
            thread.join()


def test_it_goes_on_after_the_last_line_it_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    first = now("allocating") + log(1, "allocating") + log(2, "starting")
    with member(first, now("starting") + log(3, "active") + now("active")) as (client, asked):
        shown = follow_until(client, "exp", "active", PATIENCE, {})
    assert (shown["state"], asked) == ("active", ["0", "2"])
    assert re.findall(r"line (\d)", capsys.readouterr().err) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("stream", "raises"),
    [
        (now("failed"), NotFulfilled),
        (
            'event: end\ndata: {"code": "experiments.not_granted", "title": "x", "status": 403, "exit": 1, "detail": "no"}\n\n',
            Refused,
        ),
    ],
)
def test_it_ends_when_there_is_nothing_to_wait_for(stream: str, raises: type[Exception]) -> None:
    with member(stream) as (client, _asked), pytest.raises(raises):
        follow_until(client, "exp", "active", PATIENCE, {})


def test_what_happened_before_is_not_told() -> None:
    with member(now("active")) as (client, asked):
        follow_until(client, "exp", "active", PATIENCE, {}, after=7)
    assert asked == ["7"]


def test_it_waits_no_longer_than_it_was_told() -> None:
    follow: Callable[..., Any] = follow_until
    with member(now("allocating")) as (client, _asked), pytest.raises(TimedOut, match="allocating"):
        follow(client, "exp", "active", 0.2, {})
