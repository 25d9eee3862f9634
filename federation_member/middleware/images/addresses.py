"""Which addresses an image may be fetched from, when a stranger named the server.

Without this, an order is a way into the intranet: `http://10.0.0.7/`, `http://169.254.169.254/` (metadata services), a name that
resolves to one of these, or that resolves to something else at the second look. So the judgement is made where nothing can come
in between: on the very address of the socket that is about to connect (`open_socket`), for each connection, redirects too.

Permitted is what the operator allows, and otherwise what is globally routable: the tables are the IANA registries of
special-purpose addresses (RFC 6890). Of IPv6 that is 2000::/3 without its special parts; forms that carry an IPv4 address to the
same host (mapped, RFC 4291; translated, RFC 6052) are judged by that address, and 6to4 and Teredo are refused.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from federation_member.middleware.contract import UnusableImage

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
AddressInfo = tuple[Any, Any, int, str, Any]  # as getaddrinfo(3) gives it

SPECIAL_4 = [
    IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
]
UNICAST_6 = IPv6Network("2000::/3")
SPECIAL_6 = [IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
TRANSLATED = IPv6Network("64:ff9b::/96")  # RFC 6052
# The same words for every reason: whoever asks is not told what names mean inside.
NOWHERE = "Images are fetched from public addresses only, and the host that the URL names has none."


class Border:
    """The rule of one site; `refuse` wins over `allow`."""

    def __init__(self, allow: Iterable[Network] = (), refuse: Iterable[Network] = ()) -> None:
        self._allow, self._refuse = list(allow), list(refuse)

    def permits(self, address: Address) -> bool:
        """Whether something may be fetched from there."""
        address = embedded(address)
        if any(address in network for network in self._refuse):
            return False
        return is_public(address) or any(address in network for network in self._allow)

    def open_socket(self, info: AddressInfo) -> socket.socket:
        """Make the socket for a connection to this address; raise `UnusableImage` if it may not be made."""
        family, kind, protocol, _, where = info
        if not self.permits(ip_address(where[0])):
            raise UnusableImage(NOWHERE)
        return socket.socket(family, kind, protocol)


def embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, else the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in TRANSLATED:
            return IPv4Address(address.packed[-4:])
    return address


def is_public(address: Address) -> bool:
    """Whether this address means the same host everywhere on the internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in SPECIAL_4)
    return address in UNICAST_6 and not any(address in network for network in SPECIAL_6)
