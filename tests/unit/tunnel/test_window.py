"""The window of a forwarded connection grows where the machine would wait for it, and nowhere else."""

from __future__ import annotations

import math
import socket
from typing import Any

import pytest
from asyncssh.packet import SSHPacket

from reverse_tunnel.channel import FIRST_WINDOW, LARGEST_WINDOW, MSG_CHANNEL_WINDOW_ADJUST, PACKET, PortChannel
from reverse_tunnel.traffic import Traffic

PIECE = bytes(PACKET)


class Loop:
    """An event loop as far as a channel needs one; its time stands still."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def nothing(self, *_args: object) -> None:
        pass

    add_reader = remove_reader = add_writer = remove_writer = nothing


class Connection:
    """The ssh connection of one channel: counts what window the machine is granted."""

    def __init__(self, budget: int) -> None:
        self.loop = Loop()
        self.traffic = Traffic()
        self.round_trip = math.inf
        self.budget = budget
        self.granted = 0

    def add_channel(self, _channel: object) -> int:
        return 0

    def remove_channel(self, _number: int) -> None:
        pass

    def send_packet(self, kind: int, *parts: bytes) -> None:
        if kind == MSG_CHANNEL_WINDOW_ADJUST:
            self.granted += int.from_bytes(parts[0][4:], "big")

    def take_window(self, size: int) -> bool:
        if size <= self.budget:
            self.budget -= size
            return True
        return False

    def return_window(self, size: int) -> None:
        self.budget += size


def window_of(*, round_trip: float, rate: float, budget: int = LARGEST_WINDOW) -> int:
    """The window after 32 MiB that a machine sent at `rate` octets a second, `round_trip` seconds away."""
    conn: Any = Connection(budget)
    here, public = socket.socketpair()
    with here, public:
        here.setblocking(False)
        channel = PortChannel(conn, here, lambda: None)
        channel.open("ssh", 1, ("192.0.2.1", 1))
        conn.loop.now += round_trip
        channel.process_open_confirmation(0, 1 << 20, PACKET, SSHPacket(b""))
        for _ in range((32 << 20) // PACKET):
            conn.loop.now += PACKET / rate
            channel.gather(memoryview(PIECE))
            channel.deliver()
            public.recv(2 * PACKET)
        window = FIRST_WINDOW + conn.granted - conn.traffic.to_public + channel._consumed
        channel.process_connection_close(None)
    assert conn.budget == budget  # given back
    return int(window)


@pytest.mark.parametrize(
    ("round_trip", "rate", "window"),
    [
        (0.040, 100e6, LARGEST_WINDOW),  # a long fast line: 4 MB are under way
        (0.040, 20e6, 2 * 1024 * 1024),
        (0.040, 1e6, FIRST_WINDOW),  # a long slow line
        (0.0001, 1e9, FIRST_WINDOW),  # the same host
        (0.001, 1e9, 2 * 1024 * 1024),  # the same host, busy
    ],
)
def test_it_grows_to_what_the_line_holds(round_trip: float, rate: float, window: int) -> None:
    assert window_of(round_trip=round_trip, rate=rate) == window


def test_it_does_not_grow_beyond_the_budget_of_the_connection() -> None:
    assert window_of(round_trip=0.040, rate=100e6, budget=3 * FIRST_WINDOW) == 4 * FIRST_WINDOW
