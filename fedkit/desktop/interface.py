"""The desktop's interface: a tap that goes with the last process that holds it, and with it its address and routes.

So nothing of it is left when that process dies, however it dies. Nothing that comes in by it is sent on to other networks of the
machine, and no router of the experiment becomes the machine's own. Needs root of the network namespace, /dev/net/tun and `ip`.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from fedkit.desktop.errors import DesktopError
from fedkit.portal.frames import MTU
from fedkit.portal.tap import CHECKSUMS, TSO, TUNSETPERSIST, USO, Tap

SETTINGS = {  # of an interface of experimenters, who may send what they like
    "ipv4/conf/{}/forwarding": "0",
    "ipv4/conf/{}/accept_redirects": "0",
    "ipv4/conf/{}/rp_filter": "1",  # nobody there sends in the name of other networks
    "ipv6/conf/{}/disable_ipv6": "1",
}
SYSCTL = Path("/proc/sys/net")


class Held(Tap):
    """A tap that is open already; closing this leaves it to whoever holds it besides."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.fd = os.dup(descriptor)
        self.takes_uso = self._offload(CHECKSUMS | TSO | USO)
        self.offloads(False)


def make(name: str, address: IPv4Interface, routes: Sequence[tuple[IPv4Network, IPv4Address]]) -> Tap:
    """An interface that is up, with an address and routes; raises `DesktopError` or `NoTap`, and leaves nothing then."""
    tap = Tap(name)
    try:
        fcntl.ioctl(tap.fd, TUNSETPERSIST, 0)
        for path, value in SETTINGS.items():
            _set(SYSCTL / path.format(name), value)
        lines = [
            f"link set dev {name} mtu {MTU} up",
            f"address add {address} dev {name}",
            *(f"route add {network} via {via} dev {name}" for network, via in routes),
        ]
        _ip(lines)
    except BaseException:
        tap.close()
        raise
    return tap


def _set(path: Path, value: str) -> None:
    try:
        if path.exists() and path.read_text().strip() != value:  # a kernel without IPv6 has no such setting
            path.write_text(value)
    except OSError as error:
        raise DesktopError(f"{path} cannot be set to {value}: {error.strerror}.") from error


def _ip(lines: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            ["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise DesktopError(f"ip cannot be run: {error.strerror}. Install iproute2.") from error
    if done.returncode:
        raise DesktopError(f"ip: {done.stderr.strip()[:500]}")
