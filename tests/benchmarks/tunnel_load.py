"""The load of the tunnel benchmark: a service on the machine's side, and a public client.

Both share the cores with what is measured, so they do as little as Python can: what arrives is counted without being copied
(MSG_TRUNC), what is sent stays in the processor's cache, and sockets are looked up by descriptor.

A connection's first octet says what it is: `u` the service reads until the end and answers one octet, `d` it sends as many
octets as the next eight say, `e` it echoes.
"""

from __future__ import annotations

import select
import socket
import struct
import time

BLOCK = 256 * 1024  # octets of one call
_block = memoryview(bytearray(BLOCK))
_reply = bytearray(4096)


def serve() -> None:
    """Serve for ever on a port that is printed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    open_now: dict[int, tuple[socket.socket, bytes]] = {}
    with select.epoll() as poll:
        poll.register(listener, select.EPOLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == listener.fileno():
                    sock = listener.accept()[0]
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    poll.register(sock, select.EPOLLIN)
                    open_now[sock.fileno()] = sock, b""
                    continue
                sock, kind = open_now[fd]
                if not kind:
                    kind = sock.recv(1)
                    open_now[fd] = sock, kind
                if not _serve_one(sock, kind):
                    del open_now[fd]
                    sock.close()


def _serve_one(sock: socket.socket, kind: bytes) -> bool:
    if kind == b"e":
        try:
            size = sock.recv_into(_reply, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True  # only the kind has come
        if size:
            sock.send(memoryview(_reply)[:size])
        return bool(size)
    if kind == b"u":
        while sock.recv_into(_block, BLOCK, socket.MSG_TRUNC):
            pass
        sock.send(b".")
    elif kind == b"d":
        send(sock, struct.unpack(">Q", sock.recv(8))[0])
    return False


def send(sock: socket.socket, size: int) -> None:
    """Send `size` octets."""
    while size > 0:
        size -= sock.send(_block[: min(BLOCK, size)])


def up(port: int, size: int) -> float:
    """Send `size` octets to the machine; return seconds until it has them all."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"u")
        start = time.perf_counter()
        send(sock, size)
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
            got = sock.recv_into(_block, BLOCK, socket.MSG_TRUNC)
            assert got, "the tunnel ended early"
            left -= got
        return time.perf_counter() - start


def requests(port: int, streams: int, count: int) -> tuple[float, list[float]]:
    """Send `count` 64-octet requests over parallel streams; return seconds in all, and of each."""
    socks: dict[int, socket.socket] = {}
    message, clock = b"x" * 64, time.perf_counter
    with select.epoll() as poll:
        for _ in range(streams):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(b"ex")
            assert sock.recv(1) == b"x"  # the channel is open
            socks[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
        times: list[float] = []
        began = {}
        start = clock()
        for fd, sock in socks.items():
            began[fd] = clock()
            sock.send(message)
        while len(times) < count:
            for fd, _ in poll.poll():
                sock = socks[fd]
                sock.recv_into(_reply)
                now = clock()
                times.append(now - began[fd])
                began[fd] = now
                sock.send(message)
        seconds = clock() - start
    for sock in socks.values():
        sock.close()
    return seconds, times


def connections(port: int, parallel: int, count: int) -> tuple[float, list[float]]:
    """Open `count` connections and echo one octet through each; return seconds in all, and of each."""
    began: dict[int, tuple[socket.socket, float]] = {}
    with select.epoll() as poll:

        def begin() -> None:
            sock = socket.socket()
            sock.setblocking(False)
            began[sock.fileno()] = sock, time.perf_counter()
            sock.connect_ex(("127.0.0.1", port))
            poll.register(sock, select.EPOLLOUT)

        start = time.perf_counter()
        for _ in range(parallel):
            begin()
        times: list[float] = []
        started = parallel
        while len(times) < count:
            for fd, events in poll.poll():
                sock, since = began[fd]
                if events & select.EPOLLOUT:
                    sock.send(b"ex")
                    poll.modify(fd, select.EPOLLIN)
                    continue
                assert sock.recv(1) == b"x"
                times.append(time.perf_counter() - since)
                sock.close()
                if started < count:
                    begin()
                    started += 1
        return time.perf_counter() - start, times


if __name__ == "__main__":
    serve()
