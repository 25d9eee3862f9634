"""The living members as any XMPP client sees them: disco#items (XEP-0030 §4) in pages (XEP-0059).

Members speak `rendezvous.members` instead, which is signed; this is for the operators that the configuration names, with
whatever client they use. Items stand in order of fedid, which is also their UID, so that a page may begin behind a
member that has gone meanwhile. Paging forwards, backwards and for the count alone; not by index.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from slixmpp import JID, ComponentXMPP
from slixmpp.exceptions import XMPPError
from slixmpp.plugins.xep_0030 import DiscoItems

from fedkit.protocol.announcement import recall_announcement
from fedkit.store import Database
from rendezvous import store

RSM = "http://jabber.org/protocol/rsm"
LARGEST_PAGE = 100


def install(xmpp: ComponentXMPP, db: Database, operators: Collection[str]) -> None:
    """Answer disco#items about this component's root with the living members, to these bare JIDs."""

    async def items(_jid: JID, _node: str, sender: JID, iq: Any) -> DiscoItems:
        if sender.bare not in operators:
            raise XMPPError("forbidden", etype="auth", text="Only the operators of this component may do this.")
        return await list_members(db, iq.xml.find(f".//{{{RSM}}}set"))

    xmpp.plugin["xep_0030"].set_node_handler("get_items", jid=xmpp.boundjid, node="", handler=items)


async def list_members(db: Database, wanted: Element | None) -> DiscoItems:
    """Return the page that the XEP-0059 element `wanted` asks for; the first one without it."""
    maximum, backwards, uid = _read_request(wanted)
    page = await db.read(lambda conn: store.living_page(conn, uid, maximum, backwards=backwards))
    items = DiscoItems()
    for entry in page.entries:
        said = recall_announcement(entry.signed)
        items.add_item(JID(said.address), name=said.name)
    told = SubElement(items.xml, f"{{{RSM}}}set")
    if page.entries:
        first = SubElement(told, f"{{{RSM}}}first", index=str(page.index))
        first.text = page.entries[0].fedid
        SubElement(told, f"{{{RSM}}}last").text = page.entries[-1].fedid
    SubElement(told, f"{{{RSM}}}count").text = str(page.count)
    return items


def _read_request(wanted: Element | None) -> tuple[int, bool, str]:
    """Return how many at most, whether backwards, and the UID to begin behind (or before)."""
    if wanted is None:
        return LARGEST_PAGE, False, ""
    if wanted.find(f"{{{RSM}}}index") is not None:
        raise XMPPError("feature-not-implemented", etype="cancel", text="Pages are not found by index here.")
    maximum = wanted.findtext(f"{{{RSM}}}max", str(LARGEST_PAGE)).strip()
    if not (maximum.isascii() and maximum.isdigit()) or len(maximum) > len(str(10**9)):
        raise XMPPError("bad-request", etype="modify", text="max is a number.")
    before = wanted.findtext(f"{{{RSM}}}before")
    uid = before if before is not None else wanted.findtext(f"{{{RSM}}}after", "")
    return min(int(maximum), LARGEST_PAGE), before is not None, (uid or "").strip()[:40]
