"""Our packets are octet for octet those of stock asyncssh."""

from __future__ import annotations

import socket

import pytest
from asyncssh.encryption import get_encryption
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from fedkit.ssh.packets import BLOCK, LENGTH, TAG, GcmPackets, adopt, padding_for
from reverse_tunnel.packets import MOST_PACKETS, PACKET_DATA, Outlet

KEY, IV = bytes(range(16)), b"\xff" * 12  # the counter wraps at its first packet
payloads = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5)


def stock(key: bytes = KEY) -> object:
    return get_encryption(b"aes128-gcm@openssh.com" if len(key) == 16 else b"aes256-gcm@openssh.com", key, IV)


def open_with_stock(cipher: object, sealed: bytes, seq: int) -> bytes:
    """Take a packet as asyncssh's `_recv_packet` does; return its payload."""
    first, length = cipher.decrypt_header(seq, sealed[:16], 4)  # type: ignore[attr-defined]
    size = int.from_bytes(length, "big")
    assert len(sealed) == LENGTH + size + TAG
    plain = cipher.decrypt_packet(seq, first, sealed[16:-TAG], 4, sealed[-TAG:])  # type: ignore[attr-defined]
    assert plain is not None
    return bytes(plain[1 : -plain[0]])


@given(payloads, st.sampled_from([KEY, KEY * 2]))
def test_stock_asyncssh_reads_what_we_seal(many: list[bytes], key: bytes) -> None:
    ours, theirs = adopt(stock(key)), stock(key)
    for seq, payload in enumerate(many):
        assert open_with_stock(theirs, ours.seal(payload), seq) == payload


@given(payloads)
def test_we_seal_octet_for_octet_as_stock_does(many: list[bytes]) -> None:
    ours, theirs, reader = adopt(stock()), stock(), GcmPackets(KEY, IV)
    for seq, payload in enumerate(many):
        sealed = ours.seal(payload)
        padding = padding_for(len(payload))
        opened = memoryview(bytearray(len(sealed) - LENGTH - TAG))
        reader.open_into(memoryview(sealed)[:LENGTH], memoryview(sealed)[LENGTH:], opened)
        packet, mac = theirs.encrypt_packet(seq, sealed[:LENGTH], bytes(opened))  # type: ignore[attr-defined]
        assert packet + mac == sealed
        assert opened[0] == padding
        assert len(opened) % BLOCK == 0


@given(payloads, payloads)
def test_it_can_be_adopted_after_any_packet(before: list[bytes], after: list[bytes]) -> None:
    sender, receiver = stock(), stock()
    for seq, payload in enumerate(before):
        plain = b"\x04" + payload + bytes(4)
        packet, mac = sender.encrypt_packet(seq, len(plain).to_bytes(4, "big"), plain)  # type: ignore[attr-defined]
        header = receiver.decrypt_header(seq, packet[:8], 4)[0]  # type: ignore[attr-defined]
        assert receiver.decrypt_packet(seq, header, packet[8:], 4, mac) == plain  # type: ignore[attr-defined]
    ours, theirs = adopt(sender), receiver
    for seq, payload in enumerate(after, len(before)):
        assert open_with_stock(theirs, ours.seal(payload), seq) == payload


def test_a_changed_packet_is_noticed_and_not_counted() -> None:
    ours, theirs = GcmPackets(KEY, IV), GcmPackets(KEY, IV)
    sealed = bytearray(ours.seal(b"hello"))
    sealed[-1] ^= 1
    view = memoryview(sealed)
    out = memoryview(bytearray(len(sealed) - LENGTH - TAG))
    with pytest.raises(InvalidTag):
        theirs.open_into(view[:LENGTH], view[LENGTH:], out)
    sealed[-1] ^= 1
    for _ in range(2):
        theirs.open_into(view[:LENGTH], view[LENGTH:], out)
        theirs.step_back()
    assert bytes(out[1 : 1 + 5]) == b"hello"


@pytest.mark.parametrize(
    "size", [1, 100, PACKET_DATA - 1, PACKET_DATA, PACKET_DATA + 1, 3 * PACKET_DATA, 4 * PACKET_DATA]
)
@pytest.mark.parametrize("packet", [PACKET_DATA, 1000])
@pytest.mark.parametrize("most", [10**9, PACKET_DATA + 5])
def test_outlet_makes_channel_data_of_what_a_socket_had(size: int, packet: int, most: int) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sent = bytes(i * 7 % 251 for i in range(size))
        far.sendall(sent[:200_000])
        outlet, cipher, theirs = Outlet(), adopt(stock()), stock()
        got = outlet.read(near, most, packet)
        assert 0 < got <= min(most, MOST_PACKETS * packet)
        assert b"".join(outlet.pieces(got, packet)) == sent[:got]
        sealed = bytes(outlet.seal(cipher, 7, got, packet))
        received, seq = b"", 0
        while sealed:
            end = LENGTH + int.from_bytes(sealed[:LENGTH], "big") + TAG
            payload = open_with_stock(theirs, sealed[:end], seq)
            assert payload[:5] == b"\x5e\x00\x00\x00\x07"
            assert int.from_bytes(payload[5:9], "big") == len(payload) - 9 <= packet
            received += payload[9:]
            sealed, seq = sealed[end:], seq + 1
        assert received == sent[:got]


def test_outlet_does_not_leak_what_they_held_before() -> None:
    """The padding of a short packet lies where another machine's data was."""
    near, far = socket.socketpair()
    with near, far:
        outlet, cipher, reader = Outlet(), GcmPackets(KEY, IV), GcmPackets(KEY, IV)
        for data in (b"secret" * 1000, b"x"):
            far.sendall(data)
            sealed = memoryview(bytearray(outlet.seal(cipher, 1, outlet.read(near, 10**6, PACKET_DATA), PACKET_DATA)))
            plain = memoryview(bytearray(len(sealed) - LENGTH - TAG))
            reader.open_into(sealed[:LENGTH], sealed[LENGTH:], plain)
        assert b"ecret" not in bytes(plain)
