"""Who is at the other end of a unix socket."""

from __future__ import annotations

import socket
import struct

CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


def peer_credentials(connection: socket.socket) -> tuple[int, int]:
    """Pid and uid of the process at the other end, as the kernel knows them (SO_PEERCRED, unix(7))."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, _ = CREDENTIALS.unpack(packed)
    return pid, uid
