"""The load of the tunnel benchmark: a service on the machine's side, and a public client; both cheap enough not to be measured.

A connection's first octet says what it is: `u` the service reads until the end and answers one octet, `d` it sends as many
octets as the next eight say, `e` it echoes.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time

BLOCK = 256 * 1024
_block = memoryview(bytearray(BLOCK))


def serve() -> None:
    """Serve for ever on a port that is printed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    selector = selectors.EpollSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                sock = listener.accept()[0]
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(sock, selectors.EVENT_READ, [b""])
                continue
            connection: socket.socket = key.fileobj  # type: ignore[assignment]
            if not _serve_one(connection, key.data):
                selector.unregister(connection)
                connection.close()


def _serve_one(sock: socket.socket, state: list[bytes]) -> bool:
    if not state[0]:
        kind = sock.recv(1)
        if kind == b"d":
            _source(sock, struct.unpack(">Q", sock.recv(8))[0])
            return False
        state[0] = kind
        return bool(kind)
    if state[0] == b"u":
        if sock.recv_into(_block):
            return True
        sock.sendall(b".")
        return False
    data = sock.recv(4096)
    if data:
        sock.sendall(data)
    return bool(data)


def _source(sock: socket.socket, size: int) -> None:
    while size > 0:
        size -= sock.send(_block[: min(BLOCK, size)])


def up(port: int, size: int) -> float:
    """Send `size` octets to the machine; return seconds until it has them all."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"u")
        start = time.perf_counter()
        _source(sock, size)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b"."
        return time.perf_counter() - start


def down(port: int, size: int) -> float:
    """Fetch `size` octets from the machine; return seconds."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        start = time.perf_counter()
        sock.sendall(b"d" + struct.pack(">Q", size))
        left = size
        while left > 0:
            got = sock.recv_into(_block)
            assert got, "the tunnel ended early"
            left -= got
        return time.perf_counter() - start


def requests(port: int, streams: int, count: int) -> tuple[float, list[float]]:
    """Send `count` 64-octet requests over parallel streams; return seconds in all, and of each."""
    selector = selectors.EpollSelector()
    socks = []
    for _ in range(streams):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"e")
        socks.append(sock)
        selector.register(sock, selectors.EVENT_READ, [0.0])
    message = b"x" * 64
    times: list[float] = []
    start = time.perf_counter()
    for key in selector.get_map().values():
        key.data[0] = time.perf_counter()
        key.fileobj.send(message)  # type: ignore[union-attr]
    while len(times) < count:
        for key, _ in selector.select():
            key.fileobj.recv(64)  # type: ignore[union-attr]
            now = time.perf_counter()
            times.append(now - key.data[0])
            key.data[0] = now
            key.fileobj.send(message)  # type: ignore[union-attr]
    seconds = time.perf_counter() - start
    for sock in socks:
        sock.close()
    return seconds, times


def connections(port: int, parallel: int, count: int) -> tuple[float, list[float]]:
    """Open `count` connections and echo one octet through each; return seconds in all, and of each."""
    selector = selectors.EpollSelector()

    def begin() -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", port))
        selector.register(sock, selectors.EVENT_WRITE, time.perf_counter())

    start = time.perf_counter()
    for _ in range(parallel):
        begin()
    times: list[float] = []
    started = parallel
    while len(times) < count:
        for key, events in selector.select():
            sock: socket.socket = key.fileobj  # type: ignore[assignment]
            if events & selectors.EVENT_WRITE:
                sock.send(b"ex")
                selector.modify(sock, selectors.EVENT_READ, key.data)
                continue
            assert sock.recv(1) == b"x"
            times.append(time.perf_counter() - key.data)
            selector.unregister(sock)
            sock.close()
            if started < count:
                begin()
                started += 1
    return time.perf_counter() - start, times


if __name__ == "__main__":
    serve()
