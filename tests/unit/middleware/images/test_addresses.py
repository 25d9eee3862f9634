"""Which addresses images may come from."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.middleware.contract import UnusableImage
from federation_member.middleware.images.addresses import SPECIAL_4, TRANSLATED, Border

BORDER = Border()


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.9", "169.254.169.254"),
        *("172.16.0.1", "172.31.255.255", "192.0.0.8", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.1.1.1"),
        *("240.0.0.1", "255.255.255.255", "192.88.99.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1", "100::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2002:a00:1::1", "2001:0:1::", "2001:10::1", "fec0::1", "4000::1"),
    ],
)
def test_what_is_not_the_same_host_everywhere_is_refused(text: str) -> None:
    assert not BORDER.permits(ip_address(text))


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses_are_permitted(text: str) -> None:
    assert BORDER.permits(ip_address(text))


def test_the_operator_allows_and_refuses_and_refusing_wins() -> None:
    border = Border(
        allow=[IPv4Network("10.5.0.0/16"), IPv6Network("fd00::/64")],
        refuse=[IPv4Network("10.5.6.0/24"), IPv4Network("1.1.1.0/24")],
    )
    verdicts = {
        text: border.permits(ip_address(text))
        for text in ("10.5.1.1", "::ffff:10.5.1.1", "fd00::5", "10.5.6.1", "::ffff:10.5.6.1", "1.1.1.1", "10.6.0.1")
    }
    assert [text for text, verdict in verdicts.items() if verdict] == ["10.5.1.1", "::ffff:10.5.1.1", "fd00::5"]


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_in_an_ipv6_dress_is_judged_alike(address: IPv4Address) -> None:
    mapped = IPv6Address(f"::ffff:{address}")
    translated = IPv6Address(int(TRANSLATED.network_address) | int(address))
    assert BORDER.permits(address) == BORDER.permits(mapped) == BORDER.permits(translated)


@given(st.ip_addresses())
def test_what_the_standard_library_calls_private_is_never_permitted(address: IPv4Address | IPv6Address) -> None:
    if BORDER.permits(address) and not (isinstance(address, IPv6Address) and address in TRANSLATED):
        bare = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
        assert bare.is_global
        assert not bare.is_multicast


def test_a_socket_is_made_only_for_what_is_permitted() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 80))
    with pytest.raises(UnusableImage, match="public addresses only"):
        BORDER.open_socket(info)
    Border(allow=SPECIAL_4).open_socket(info).close()
