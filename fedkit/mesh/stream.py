"""The stream of an XMPP component (XEP-0114) on asyncio and expat: octets in, stanzas of bounded size out.

    server ══ TCP ══ Stream ──► handshake ──► `up`          each stanza ──► `take(stanza, whole)`
                        │                                     lost, for whatever reason ──► `down`
                        └◄── `write(octets)`

Whatever a stranger makes its server pass on is measured here, before anything is built of it. A stanza too deep or with too many
elements is handed over without its children (`whole` is False), so that it can be refused; one of too many octets, or what
XMPP forbids (RFC 6120 §11.1), ends the stream. expat remembers every name that it ever saw, so the parser is exchanged for a
new one now and then: else a peer with ever new names fills the memory. And it is given whole tags only: since it was taught not to
read half a tag again and again (CVE-2023-52425), it may let one that came in two pieces lie until something else comes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import cast
from xml.etree.ElementTree import Element, SubElement
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from fedkit.mesh.stanzas import COMPONENT

STREAMS = "http://etherx.jabber.org/streams"
CONDITIONS = "urn:ietf:params:xml:ns:xmpp-streams"
DEPTH_LIMIT = 16  # elements, one in the other, the stanza itself among them
ELEMENT_LIMIT = 2000
OCTET_LIMIT = 1024 * 1024  # of a stanza; servers carry half of that
PARSER_LIFE = 8 * 1024 * 1024  # octets after which a parser is exchanged between two stanzas …
PARSER_END = 64 * 1024 * 1024  # … and after which the stream ends if there never was a gap
READ_SIZE = 64 * 1024  # octets at once
CLOSE_TIMEOUT = 1.0  # seconds
_HEADER = f"<stream:stream xmlns='{COMPONENT}' xmlns:stream='{STREAMS}'"
_HANDSHAKE = f"{{{COMPONENT}}}handshake"
_ERROR = f"{{{STREAMS}}}error"

Take = Callable[[Element, bool], None]


class _Forbidden(Exception):
    """The server sent what ends the stream."""


class Stream(asyncio.BufferedProtocol):
    """One connection. `up` tells whether the server accepts us; `down`, when the stream has ended, why."""

    def __init__(self, address: str, secret: str, take: Take) -> None:
        loop = asyncio.get_running_loop()
        self.up: asyncio.Future[bool] = loop.create_future()
        self.down: asyncio.Future[str] = loop.create_future()
        self.condition = ""  # of the server's stream error
        self._address = address
        self._secret = secret
        self._take = take
        self._transport: asyncio.Transport | None = None
        self._reason = "the server closed the connection"
        self._greeted = False
        self._buffer = bytearray(READ_SIZE)  # one for all reads: asyncio would get a quarter of a MiB for each
        self._open: list[Element] = []
        self._rest = b""  # the beginning of what is not whole yet
        self._begin_parser()

    def write(self, octets: bytes) -> None:
        """Send; what is written after the end is lost."""
        if self._transport is not None:
            self._transport.write(octets)

    def abort(self, reason: str) -> None:
        """End at once."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """End in order, within a second."""
        if self._transport is None:
            return
        self.write(b"</stream:stream>")
        self._transport.close()
        await asyncio.wait({self.down}, timeout=CLOSE_TIMEOUT)
        self.abort("closed")

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the stream (XEP-0114 §3)."""
        self._transport = cast(asyncio.Transport, transport)
        self.write(f"{_HEADER} to={quoteattr(self._address)}>".encode())

    def get_buffer(self, sizehint: int) -> bytearray:
        """Say where the next octets go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what came."""
        self._octets += nbytes
        self._parsed += nbytes
        received = memoryview(self._buffer)[:nbytes]
        end = self._buffer.rfind(b">", 0, nbytes) + 1
        try:
            if end:
                self._parser.Parse(self._rest + received[:end] if self._rest else received[:end])
                self._rest = bytes(received[end:])
            else:
                self._rest += received
        except (expat.ExpatError, _Forbidden) as error:
            self.abort(str(error))
            return
        if self._octets > OCTET_LIMIT:
            self.abort(f"a stanza of more than {OCTET_LIMIT} octets")
        elif self._parsed > PARSER_LIFE and self._depth == 1 and not self._rest:
            self._begin_parser()
            self._parser.Parse(f"{_HEADER}>".encode())
        elif self._parsed > PARSER_END:
            self.abort("no gap between stanzas")

    def connection_lost(self, error: Exception | None) -> None:
        """Tell that it is over."""
        self._transport = None
        if not self.up.done():
            self.up.set_result(False)
        if not self.down.done():
            self.down.set_result(self.condition or (str(error) if error else self._reason))

    # What the parser calls.

    def _begin_parser(self) -> None:
        self._parser = parser = expat.ParserCreate(namespace_separator="}", intern=None)
        parser.buffer_text = True
        parser.buffer_size = 64 * 1024
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype
        self._depth = self._octets = self._parsed = 0

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            if not self._greeted:  # a new parser is begun with the header, too
                self._shake_hands(attributes.get("id", ""))
            return
        named = {_tag(key) if "}" in key else key: value for key, value in attributes.items()}
        if self._depth == 2:
            self._open = [Element(_tag(name), named)]
            self._whole, self._count = True, 1
            return
        self._count += 1
        if self._depth - 1 > DEPTH_LIMIT or self._count > ELEMENT_LIMIT:
            self._whole = False
        if self._whole:
            self._open.append(SubElement(self._open[-1], _tag(name), named))

    def _end(self, _name: str) -> None:
        self._depth -= 1
        if self._depth == 0:
            raise _Forbidden(self._reason)
        if self._depth == 1:
            self._octets = 0
            self._stanza(self._open[0])
        elif self._whole:
            self._open.pop()

    def _text(self, text: str) -> None:
        if self._depth < 2 or not self._whole:
            return
        element = self._open[-1]
        if not len(element):  # what stands between elements means nothing in XMPP
            element.text = (element.text or "") + text

    def _doctype(self, *_declared: object) -> None:
        raise _Forbidden("a document type declaration")

    def _stanza(self, stanza: Element) -> None:
        if stanza.tag == _HANDSHAKE:
            if not self.up.done():
                self.up.set_result(True)
        elif stanza.tag == _ERROR:
            self.condition = next(
                (child.tag.rpartition("}")[2] for child in stanza if CONDITIONS in child.tag), "error"
            )
        elif self.up.done():
            if not self._whole:
                del stanza[:]
            self._take(stanza, self._whole)

    def _shake_hands(self, identifier: str) -> None:
        digest = hashlib.sha1(f"{identifier}{self._secret}".encode())  # noqa: S324  as XEP-0114 §3 has it
        self.write(f"<handshake>{digest.hexdigest()}</handshake>".encode())
        self._greeted = True


def _tag(name: str) -> str:
    return "{" + name if "}" in name else name
