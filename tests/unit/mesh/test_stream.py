"""The component stream: its handshake, and what it does not let a stranger build in our memory."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, cast
from xml.etree.ElementTree import Element, tostring

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fedkit.mesh import stream
from fedkit.mesh.stream import DEPTH_LIMIT, ELEMENT_LIMIT, OCTET_LIMIT, PARSER_LIFE, Stream

ADDRESS = "fm.site-a.test"
HEADER = "<?xml version='1.0'?><stream:stream xmlns:stream='{}' xmlns='jabber:component:accept' id='42'>"
OPENED = HEADER.format(stream.STREAMS).encode()


class Wire:
    """A stream's transport, and what it gave."""

    def __init__(self) -> None:
        self.sent = b""
        self.taken: list[tuple[Element, bool]] = []
        self.stream = Stream(ADDRESS, "secret", lambda stanza, whole: self.taken.append((stanza, whole)))
        self.stream.connection_made(cast(Any, self))

    def write(self, octets: bytes) -> None:
        self.sent += octets

    def abort(self) -> None:
        self.stream.connection_lost(None)

    def feed(self, *parts: bytes | str) -> Wire:
        for part in parts:
            if not self.stream.down.done():
                octets = part if isinstance(part, bytes) else part.encode()
                for at in range(0, len(octets), stream.READ_SIZE):
                    piece = octets[at : at + stream.READ_SIZE]
                    self.stream.get_buffer(-1)[: len(piece)] = piece
                    self.stream.buffer_updated(len(piece))
        return self

    def open(self) -> Wire:
        return self.feed(OPENED, "<handshake/>")


def nest(depth: int) -> str:
    return "<iq id='1'>" + "<a>" * (depth - 1) + "</a>" * (depth - 1) + "</iq>"


async def test_the_handshake_proves_the_secret() -> None:
    wire = Wire().feed(OPENED)
    assert f'to="{ADDRESS}"' in wire.sent.decode()
    assert hashlib.sha1(b"42secret").hexdigest() in wire.sent.decode()
    assert not wire.stream.up.done()
    assert await wire.feed("<handshake/>").stream.up


async def test_nothing_is_taken_before_we_are_accepted() -> None:
    assert Wire().feed(OPENED, "<iq id='1'/>", "<handshake/>", "<iq id='2'/>").taken[0][0].get("id") == "2"


async def test_a_refusal_is_named() -> None:
    error = "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='x'>no</text></stream:error>"
    wire = Wire().feed(OPENED, error, "</stream:stream>")
    assert wire.stream.condition == "not-authorized"
    assert await wire.stream.down == "not-authorized"
    assert not await wire.stream.up


@given(some.integers(1, 200))
def test_a_stanza_arrives_whole_however_it_is_cut(size: int) -> None:
    async def receive() -> None:
        text = "<iq id='1' xml:lang='de'><q xmlns='urn:x' a='&lt;'>ä&amp;<b/> </q></iq><iq id='2'/>".encode()
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        (one, whole), (other, _) = Wire().open().feed(*pieces).taken
        assert whole
        assert other.get("id") == "2"
        assert one.get("{http://www.w3.org/XML/1998/namespace}lang") == "de"
        assert (one[0].tag, one[0].attrib, one[0].text, one[0][0].tag) == ("{urn:x}q", {"a": "<"}, "ä&", "{urn:x}b")

    asyncio.run(receive())


@pytest.mark.parametrize(
    ("stanza", "whole"),
    [
        (nest(DEPTH_LIMIT), True),
        (nest(DEPTH_LIMIT + 1), False),
        (nest(20_000), False),
        ("<iq id='1'>" + "<a/>" * (ELEMENT_LIMIT - 1) + "</iq>", True),
        ("<iq id='1'>" + "<a>x</a>" * ELEMENT_LIMIT + "</iq>", False),
    ],
)
async def test_a_stanza_out_of_bounds_loses_its_contents_and_the_next_is_read(stanza: str, whole: bool) -> None:
    wire = Wire().open().feed(stanza, "<iq id='2'/>")
    assert [complete for _, complete in wire.taken] == [whole, True]
    assert wire.taken[0][0].get("id") == "1"
    assert (len(wire.taken[0][0]) > 0) is whole


@pytest.mark.parametrize("part", [b"<a>" + b"x" * 60_000 + b"</a>", b"x" * 60_000, b"<a b='" + b"x" * 60_000 + b"'/>"])
async def test_a_stanza_of_too_many_octets_ends_the_stream(part: bytes) -> None:
    wire = Wire().open().feed(b"<iq id='1'>", *[part] * (OCTET_LIMIT // len(part) + 1))
    assert "octets" in await wire.stream.down
    assert not wire.taken


async def test_an_endless_name_ends_the_stream() -> None:
    wire = Wire().open().feed(b"<", *[b"a" * 60_000] * (OCTET_LIMIT // 60_000 + 1))
    assert "octets" in await wire.stream.down


@pytest.mark.parametrize(
    "bad",
    [
        "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        "<iq id='1'>&undefined;</iq>",
        "<a></b>",
        "<a>\x0b</a>",
        "</stream:stream>",
    ],
)
async def test_what_xmpp_forbids_ends_the_stream(bad: str) -> None:
    wire = Wire().open().feed(bad)
    assert wire.stream.down.done()
    assert not wire.taken


async def test_a_new_parser_takes_over_between_two_stanzas() -> None:
    """expat remembers every name that it ever saw."""
    wire = Wire().open()
    first = wire.stream._parser
    text = "<iq id='1'>" + "<q xmlns='urn:x'>" + "x" * 100_000 + "</q></iq>"
    wire.feed(*[text] * (PARSER_LIFE // len(text) + 2), "<iq id='2'", "><stream:x/></iq>")
    assert wire.stream._parser is not first
    assert {whole for _, whole in wire.taken} == {True}
    assert wire.taken[-1][0].get("id") == "2"
    assert stream.STREAMS in tostring(wire.taken[-1][0]).decode()
    assert wire.sent.count(b"<handshake>") == 1
