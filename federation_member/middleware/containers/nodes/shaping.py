"""Rates, delays and losses at the outer ends of nodes' interfaces, where no node can change them.

    back (to the node)     leaves the outer end: its own queue, and what is dropped on the way out
    to (from the node)     enters at the outer end: passes an intermediate device (ifb) with a queue of its own

Delay needs netem, which not every kernel has: where it is missing another interface delays (wires.py), and loss is the packet filter's
(nft, `numgen random`), which every kernel has that the fence needs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from typing import Any

from fedkit.node.queues import words

PARTS = 1_000_000  # of which so many are lost

Way = tuple[float | None, float, float]  # kb/s, ms, share lost


def has_netem() -> bool:
    """Whether the kernel can delay; tried on `lo` of the present network namespace."""
    queue = ["dev", "lo", "root", "netem", "delay", "1ms"]
    if subprocess.run(["tc", "qdisc", "add", *queue], capture_output=True, check=False).returncode:
        return False
    subprocess.run(["tc", "qdisc", "delete", "dev", "lo", "root"], capture_output=True, check=False)
    return True


class Commands:
    """Lines for `ip`, `tc` and `nft`, in this order, once the interfaces are there."""

    def __init__(self, *, netem: bool) -> None:
        self._netem = netem
        self.ip: list[str] = []
        self.tc: list[str] = []
        self.nft: list[str] = []

    def add(self, plugs: Iterable[dict[str, Any]]) -> None:
        """What is to be done for these."""
        for plug in plugs:
            if plug["shape"]:
                self._shape(plug["outside"], plug["shape"])

    def _shape(self, device: str, shape: dict[str, Any]) -> None:
        self._queue(device, shape["back"], shape["queue"])
        if self._needs_queue(shape["to"]):
            between = f"i{device}"
            self.ip += [f"link add {between} up type ifb"]
            self._queue(between, shape["to"], shape["queue"])
            match = "protocol all u32 match u32 0 0 action mirred egress redirect"
            self.tc += [
                f"qdisc add dev {device} ingress",
                f"filter add dev {device} parent ffff: {match} dev {between}",
            ]
        if not self._netem:
            self._drops(device, {"ingress": shape["to"][2], "egress": shape["back"][2]})

    def _needs_queue(self, way: Way) -> bool:
        rate, delay, loss = way
        return bool(rate or (self._netem and (delay or loss)))

    def _queue(self, device: str, way: Way, queue: int | None) -> None:
        if said := words(*way, queue, netem=self._netem):
            self.tc.append(f"qdisc add dev {device} root {said}")

    def _drops(self, device: str, losses: dict[str, float]) -> None:
        table = f"netdev {device}"
        rules = {hook: round(loss * PARTS) for hook, loss in losses.items() if loss}
        if not rules:
            return
        self.nft += [f"add table {table}", f"delete table {table}", f"add table {table}"]
        for hook, parts in rules.items():
            self.nft.append(f'add chain {table} {hook} {{ type filter hook {hook} device "{device}" priority 0; }}')
            self.nft.append(f"add rule {table} {hook} numgen random mod {PARTS} < {parts} drop")
