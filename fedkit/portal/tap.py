"""A tap: an interface whose frames this process sends and receives, with virtio-net headers (Documentation/networking/tuntap).

A portal's is persistent, so it stays in its bridge while no process holds it, and it is asked for super-frames or not at any time: with
`offloads(False)` the kernel itself cuts and sums, and each frame is one that fits a wire.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from fedkit.portal.errors import NoTap
from fedkit.portal.frames import VNET

DEVICE = Path("/dev/net/tun")
NAME_LIMIT = 15  # octets (IFNAMSIZ - 1)
# linux/if_tun.h
TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
TUNSETOFFLOAD, TUNSETVNETHDRSZ, TUNSETVNETLE = 0x400454D0, 0x400454D8, 0x400454DC
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
CHECKSUMS, TSO, USO = 0x01, 0x02 | 0x04 | 0x08, 0x20 | 0x40  # USO: Linux 6.2


class Tap:
    """An open tap; made if it is not there. It `stays` when nobody holds it any more, or goes. Raises `NoTap`."""

    def __init__(self, name: str, device: Path = DEVICE, *, stays: bool = True) -> None:
        self.name = name
        try:
            self.fd = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise NoTap(
                f"{device} cannot be opened: {error.strerror}. A portal needs it, and CAP_NET_ADMIN."
            ) from error
        try:
            fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
            fcntl.ioctl(self.fd, TUNSETPERSIST, int(stays))
            fcntl.ioctl(self.fd, TUNSETVNETHDRSZ, struct.pack("i", VNET.size))
            fcntl.ioctl(self.fd, TUNSETVNETLE, struct.pack("i", 1))
            self.takes_uso = self._offload(CHECKSUMS | TSO | USO)
            self.offloads(False)
        except OSError as error:
            os.close(self.fd)
            raise NoTap(f"The tap {name} cannot be had: {error.strerror}.") from error

    def offloads(self, on: bool, uso: bool = False) -> None:
        """Hand out super-frames, those of UDP only with `uso`; or frames as they go over a wire."""
        self._offload((CHECKSUMS | TSO | (USO if uso else 0)) if on else 0)

    def _offload(self, what: int) -> bool:
        try:
            fcntl.ioctl(self.fd, TUNSETOFFLOAD, what)
        except OSError as error:
            # An older kernel knows no such bit. Of a tap that somebody deleted its reader tells.
            if what & USO or error.errno == errno.EBADFD:
                return False
            raise
        return True

    def close(self) -> None:
        """Let it go; it stays in its bridge."""
        os.close(self.fd)
