"""The event stream as `fed` follows it: heartbeats keep a connection open, not a command."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from deploy.commands.client import Client

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: 1\nevent: state\ndata: {}\n\n"
BEATS = 200


@pytest.fixture
def beating() -> Iterator[int]:
    """The port of a server that sends one event and then, for ten seconds, nothing but heartbeats."""
    done = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(HEAD)
            for _ in range(BEATS):
                if done.wait(0.05):
                    return
                try:
                    connection.sendall(b": beat\n\n")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        done.set()
        thread.join()


def test_heartbeats_do_not_put_the_deadline_off(beating: int) -> None:
    events = Client(f"http://127.0.0.1:{beating}", "token").events(None, 0.5)
    assert next(events).id == "1"
    with pytest.raises(TimeoutError):
        list(events)
