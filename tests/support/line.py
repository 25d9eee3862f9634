"""A long line between two network namespaces: delay, rate, a queue that is full at some time, and loss, in one process.

    python -m tests.support.line NAMESPACE NAMESPACE --delay 0.01 --mbps 300 --queue 0.05 --loss 0.001

An interface `wan` appears in each, and lasts as long as this runs. It stands in for netem, which not every kernel has. `--delay` is
one way; what is lost is chosen with a fixed seed, for each direction alike in every run.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field

from tests.support.plain_tap import open_tap

LARGEST = 65536
AT_ONCE = 64  # frames of one direction before the other has a turn


@dataclass
class Direction:
    """Frames from one end to the other."""

    source: int
    target: int
    delay: float  # seconds
    rate: float  # octets each second
    queue: float  # seconds until what waits would have left
    loss: float
    chance: random.Random
    free: float = 0.0  # when the line has sent what it has
    under_way: deque[tuple[float, bytes]] = field(default_factory=deque)

    def take(self) -> None:
        """Read what the end sends."""
        for _ in range(AT_ONCE):
            try:
                frame = os.read(self.source, LARGEST)
            except BlockingIOError:
                return
            now = time.monotonic()
            begin = max(now, self.free)
            if begin - now > self.queue or self.chance.random() < self.loss:
                continue
            self.free = begin + len(frame) / self.rate
            self.under_way.append((self.free + self.delay, frame))

    def give(self) -> float:
        """Write what has arrived; return the seconds until the next does."""
        while self.under_way:
            wait = self.under_way[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, frame = self.under_way.popleft()
            try:
                os.write(self.target, frame)
            except OSError:  # the interface is down, or full
                continue
        return 1.0


def main() -> None:
    """Be the line until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("namespaces", nargs=2)
    for name, value in (("delay", 0.0), ("mbps", 1000.0), ("queue", 0.05), ("loss", 0.0)):
        parser.add_argument(f"--{name}", type=float, default=value)
    said = parser.parse_args()
    taps: list[int] = []
    for namespace in said.namespaces:
        name = f"w{os.getpid()}-{len(taps)}"
        taps.append(open_tap(name))
        subprocess.run(["ip", "link", "set", name, "netns", namespace, "name", "wan"], check=True)
    (a, b), shape = taps, (said.delay, said.mbps * 1e6 / 8, said.queue, said.loss)
    directions = [Direction(a, b, *shape, random.Random(1)), Direction(b, a, *shape, random.Random(2))]
    print("ready", flush=True)
    while True:
        wait = min(direction.give() for direction in directions)
        readable, _, _ = select.select([a, b, sys.stdin], [], [], min(wait, 1.0))
        if sys.stdin in readable:
            return
        for direction in directions:
            if direction.source in readable:
                direction.take()


if __name__ == "__main__":
    main()
