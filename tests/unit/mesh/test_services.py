"""slixmpp's plugins without slixmpp's stream: an IQ goes in, its answer comes out."""

from __future__ import annotations

import asyncio
from xml.etree.ElementTree import Element, fromstring

import pytest

from fedkit.mesh.services import Services
from fedkit.mesh.stanzas import COMPONENT

ADDRESS = "fm.site-a.test"


def iq(payload: str, kind: str = "get", sender: str = "someone@site-b.test/x") -> Element:
    return fromstring(f"<iq xmlns='{COMPONENT}' id='1' type='{kind}' from='{sender}' to='{ADDRESS}'>{payload}</iq>")


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ("<ping xmlns='urn:xmpp:ping'/>", 'type="result"'),
        ("<query xmlns='http://jabber.org/protocol/disco#info'/>", "urn:fedmesh:1"),
        ("<query xmlns='http://jabber.org/protocol/disco#info'/>", "urn:xmpp:ping"),
        ("<unknown xmlns='urn:example:x'/>", "feature-not-implemented"),
        ("", "feature-not-implemented"),
    ],
)
async def test_an_iq_is_answered_to_its_sender(payload: str, told: str) -> None:
    sent: asyncio.Queue[str] = asyncio.Queue()
    Services(ADDRESS, sent.put_nowait).answer(iq(payload))
    answer = await asyncio.wait_for(sent.get(), 30)
    assert sent.empty()
    assert told in answer
    assert "someone@site-b.test/x" in answer
    assert "xmlns" not in answer.partition(">")[0]  # the stream says it


@pytest.mark.parametrize("sender", ["@", "a@b@c", "/", "x" * 5000, "a b@c", "\u00ad@site-b.test"])
async def test_a_stanza_that_cannot_be_read_hurts_nobody(sender: str) -> None:
    services = Services(ADDRESS, lambda answer: None)
    services.answer(iq("<ping xmlns='urn:xmpp:ping'/>", sender=sender))
