"""Rates, delays and losses in the words of tc(8). Standard library alone: the program that makes nodes of containers uses it too.

A rate by itself is a token bucket (tc-tbf(8)); delay and loss need netem (tc-netem(8)), which then keeps the rate as well. What netem
delays counts against its limit, so that has room for it besides the queue.
"""

from __future__ import annotations

from math import ceil

PACKET = 1514  # octets on the wire
QUEUE = 100  # packets that wait, where the description does not say
MOST = 10_000  # packets that are kept of each, whatever a description says: the memory is the kernel's
FASTEST = 1_000_000  # kb/s that a link without a rate is thought to have
BURST = (
    0.01  # seconds at full rate that may pass at once; at least as much as passes between two ticks of a slow kernel
)
SMALLEST_BURST = 4 * PACKET


def words(rate: float | None, delay: float, loss: float, queue: int | None, *, netem: bool = True) -> str:
    """The queue for what leaves a device: `rate` in kb/s, `delay` in ms, `loss` from 0 to 1; empty if there is nothing to do.

    Without `netem` there is the rate alone.
    """
    limit = min(queue or QUEUE, MOST)
    if netem and (delay or loss):
        limit += min(ceil((rate or FASTEST) * delay / (PACKET * 8)), MOST)  # kb/s * ms are bits
        speed = f" rate {speed_of(rate)}" if rate else ""
        return f"netem limit {limit} delay {delay:g}ms loss {loss * 100:g}%{speed}"
    if not rate:
        return ""
    burst = max(int(rate * 1000 / 8 * BURST), SMALLEST_BURST)
    return f"tbf rate {speed_of(rate)} burst {burst} limit {limit * PACKET + burst}"


def speed_of(rate: float) -> str:
    """A rate in kb/s; tc counts whole octets a second, and takes none as no rate at all."""
    bits = max(round(rate * 1000), 8)
    return f"{bits}bit" if bits % 1000 else f"{bits // 1000}kbit"
