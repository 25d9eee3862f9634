"""What the server counts, as plain integers beside the byte path, and as Prometheus reads them.

A metric object takes a lock for each increment; here the numbers are only collected when somebody asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass
class Traffic:
    """Totals since the process started."""

    to_machine: int = 0  # octets
    to_public: int = 0  # octets
    logins: int = 0
    public_connections: int = 0
    refusals: Counter[str] = field(default_factory=Counter)


class TrafficCollector(Collector):
    """Shows the totals, and what is open now: `open_now` returns (ssh connections, ports up)."""

    def __init__(self, traffic: Traffic, open_now: Callable[[], tuple[int, int]]) -> None:
        self._traffic = traffic
        self._open_now = open_now

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        connections, up = self._open_now()
        yield GaugeMetricFamily(
            "fedmesh_tunnel_connections", "Machines' ssh connections that are logged in.", connections
        )
        yield GaugeMetricFamily("fedmesh_tunnel_ports_up", "Public ports that a machine holds open.", up)
        traffic = self._traffic
        yield CounterMetricFamily("fedmesh_tunnel_logins", "Successful logins.", traffic.logins)
        yield CounterMetricFamily(
            "fedmesh_tunnel_public_connections", "Public connections taken.", traffic.public_connections
        )
        octets = CounterMetricFamily("fedmesh_tunnel_bytes", "Octets carried.", labels=["to"])
        octets.add_metric(["machine"], traffic.to_machine)
        octets.add_metric(["public"], traffic.to_public)
        yield octets
        refusals = CounterMetricFamily("fedmesh_tunnel_refusals", "What was refused.", labels=["code"])
        for code, count in sorted(traffic.refusals.items()):
            refusals.add_metric([code], count)
        yield refusals
