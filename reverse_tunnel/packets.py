"""The data of a public connection, from its socket into packets: up to four with one system call.

All buffers are shared by every connection of the process: whoever fills one empties it before returning to the event loop.
"""

from __future__ import annotations

import socket
import struct

from fedkit.ssh.packets import OVERHEAD, PADDING, GcmPackets, padding_for

PACKET_DATA = 32 * 1024  # octets of data in one packet: what every client accepts (RFC 4253 §6.1)
MOST_PACKETS = 4  # made at once: what is read is still in the processor's cache when it is encrypted and sent
CHANNEL_DATA = 94  # SSH_MSG_CHANNEL_DATA (RFC 4254 §5.2)

_PREFIX = struct.Struct(">BBII")  # padding length, message, channel, length of data


class Outlet:
    """Up to four packets in the making: data is read behind the place of a header, and encrypted from there, packet by packet.

    The padding of a packet covers the first octets of the next one's data, and the header of that one the last octets of
    data already encrypted; so only the former are put back.
    """

    def __init__(self) -> None:
        most = MOST_PACKETS * PACKET_DATA
        self._plain = memoryview(bytearray(_PREFIX.size + most + len(PADDING)))
        self._data = self._plain[_PREFIX.size : _PREFIX.size + most]
        self._sealed = memoryview(bytearray(most + MOST_PACKETS * (_PREFIX.size + len(PADDING) + OVERHEAD)))

    def read(self, sock: socket.socket, most: int, packet: int) -> int:
        """Read at most `most` octets, for packets of at most `packet` (PACKET_DATA); return how many, 0 at the end of the stream."""
        room = MOST_PACKETS * packet
        return sock.recv_into(self._data, most if most < room else room)

    def pieces(self, size: int, packet: int) -> list[memoryview]:
        """What was read, one view for each packet."""
        return [self._data[start : min(size, start + packet)] for start in range(0, size, packet)]

    def seal(self, cipher: GcmPackets, channel: int, size: int, packet: int) -> memoryview:
        """Encrypt what was read as CHANNEL_DATA packets; the result is valid until the next call, the data no longer."""
        plain, sealed = self._plain, self._sealed
        start = end = 0
        while size > 0:
            data = packet if size > packet else size
            padding = padding_for(_PREFIX.size - 1 + data)
            tail = start + _PREFIX.size + data
            behind = tail + padding
            following = bytes(plain[tail:behind]) if size > data else b""
            _PREFIX.pack_into(plain, start, padding, CHANNEL_DATA, channel, data)
            plain[tail:behind] = PADDING[:padding]  # over what another machine's data may have left there
            end += cipher.seal_into(plain[start:behind], sealed[end:])
            if following:
                plain[tail:behind] = following
            start += data
            size -= data
        return sealed[:end]
