"""The reference of experiments.py, run by Debian's Python that has Mininet: hosts and LANs from standard input, seconds to output."""

import json
import sys
import time

from mininet.net import Mininet  # type: ignore[import-not-found]
from mininet.nodelib import LinuxBridge  # type: ignore[import-not-found]
from mininet.topo import Topo  # type: ignore[import-not-found]


class Asked(Topo):  # type: ignore[misc]
    """What is asked for: so many hosts, and the numbers of those on each LAN."""

    def build(self, hosts: int, lans: list[list[int]]) -> None:
        """Name everything."""
        for number in range(hosts):
            self.addHost(f"n{number}")
        for number, members in enumerate(lans):
            self.addSwitch(f"s{number}")
            for host in members:
                self.addLink(f"n{host}", f"s{number}")


def main() -> None:
    """Start and stop it once."""
    asked = json.load(sys.stdin)
    began = time.perf_counter()
    net = Mininet(Asked(hosts=asked["hosts"], lans=asked["lans"]), switch=LinuxBridge, controller=None)
    net.start()
    up = time.perf_counter() - began
    began = time.perf_counter()
    net.stop()
    print(json.dumps({"up": up, "down": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
