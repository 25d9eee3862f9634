"""Who may try to log in: bounds what strangers can make the server do before they have proved anything.

A key exchange costs the server about a millisecond of signing, a waiting login a socket. So there is a limit on connections that
have not logged in yet, in all and for each address, and an address whose logins keep failing is not heard for a while.
An address that holds a tunnel is never shut out for failures: all machines of a site may come from one address, and one of them
with a dead key must not lock out the others. Keys cannot be guessed; this protects time, not secrets.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from reverse_tunnel.config import LimitsSection

MEMORY_SECONDS = 60.0  # how long a failure counts
MOST_ADDRESSES = 10_000  # remembered for failures


class Gate:
    """Counts connections and failures by address; `monotonic` is the clock, in seconds."""

    def __init__(self, limits: LimitsSection, monotonic: Callable[[], float]) -> None:
        self._limits = limits
        self._now = monotonic
        self._waiting: Counter[str] = Counter()
        self._holding: Counter[str] = Counter()
        self._failures: dict[str, deque[float]] = {}

    def arrive(self, address: str) -> bool:
        """Count a new connection and tell whether it may try; if not, it is not counted."""
        source = source_of(address)
        if (
            self._waiting.total() >= self._limits.logins_at_once
            or self._waiting[source] >= self._limits.logins_per_address
            or self._is_shut_out(source)
        ):
            return False
        self._waiting[source] += 1
        return True

    def log_in(self, address: str) -> None:
        """A connection that arrived has logged in."""
        source = source_of(address)
        _decrement(self._waiting, source)
        self._holding[source] += 1
        self._failures.pop(source, None)

    def give_up(self, address: str) -> None:
        """A connection that arrived is gone without having logged in."""
        _decrement(self._waiting, source_of(address))

    def leave(self, address: str) -> None:
        """A connection that had logged in is gone."""
        _decrement(self._holding, source_of(address))

    def fail(self, address: str) -> None:
        """Count a failed login."""
        source = source_of(address)
        times = self._failures.pop(source, None) or deque(maxlen=self._limits.failures_per_minute)
        times.append(self._now())
        self._failures[source] = times  # at the end: the order is that of the last failure
        while len(self._failures) > MOST_ADDRESSES:
            del self._failures[next(iter(self._failures))]

    def _is_shut_out(self, source: str) -> bool:
        times = self._failures.get(source)
        if times is None or source in self._holding:
            return False
        while times and times[0] <= self._now() - MEMORY_SECONDS:
            times.popleft()
        if not times:
            del self._failures[source]
        return len(times) >= self._limits.failures_per_minute


def source_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that one IPv6 host can choose from."""
    parsed = ip_address(address.partition("%")[0])
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network(f"{parsed}/64", strict=False))


def _decrement(counts: Counter[str], source: str) -> None:
    counts[source] -= 1
    if counts[source] <= 0:
        del counts[source]
