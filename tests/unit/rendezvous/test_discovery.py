"""What an operator's XMPP client sees of the members."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest
from slixmpp import JID, ComponentXMPP
from slixmpp.exceptions import XMPPError
from slixmpp.plugins.xep_0030 import DiscoItems

from fedkit.mesh.services import describe
from fedkit.store import Database
from rendezvous import discovery, store
from tests.unit.rendezvous.support import Book, Site

RSM = discovery.RSM
SITES = sorted((Site(f"site-{n}.test") for n in range(5)), key=lambda site: site.key.fedid)
FEDIDS = [site.key.fedid for site in SITES]


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(f"sqlite:///{tmp_path / 'list.db'}") as db:
        store.metadata.create_all(db.engine)
        book = Book(db)
        book.write(lambda tx: store.create_list(tx, "0" * 32))
        gone = Site("gone.test")
        for site in [*SITES, gone]:
            book.announce(site)
        book.write(lambda tx: store.leave(tx, gone.key.fedid, book.clock()))
        yield db


def wanted(inside: str) -> Element:
    return fromstring(f"<set xmlns='{RSM}'>{inside}</set>")


def told(items: DiscoItems) -> dict[str, str | None]:
    page = items.xml.find(f"{{{RSM}}}set")
    assert page is not None
    said = {child.tag.partition("}")[2]: child.text for child in page}
    return said | {"index": first.get("index") if (first := page.find(f"{{{RSM}}}first")) is not None else None}


def addresses(items: DiscoItems) -> list[str]:
    return [item[0] for item in sorted(items["items"], key=lambda item: item[0])]


async def test_everybody_alive_without_being_asked_for_pages(db: Database) -> None:
    items = await discovery.list_members(db, None)
    assert addresses(items) == sorted(site.peer.address for site in SITES)
    assert told(items) == {"first": FEDIDS[0], "last": FEDIDS[-1], "count": "5", "index": "0"}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("<max>2</max>", FEDIDS[:2]),
        (f"<max>2</max><after>{FEDIDS[1]}</after>", FEDIDS[2:4]),
        (f"<max>2</max><after>{FEDIDS[1][:-1]}</after>", FEDIDS[1:3]),
        ("<max>2</max><before/>", FEDIDS[3:]),
        (f"<max>2</max><before>{FEDIDS[3]}</before>", FEDIDS[1:3]),
        ("<max>1000</max>", FEDIDS),
    ],
    ids=["first", "after", "after one that is gone", "last", "before", "all"],
)
async def test_pages(db: Database, request_: str, expected: list[str]) -> None:
    page = told(await discovery.list_members(db, wanted(request_)))
    assert page == {
        "first": expected[0],
        "last": expected[-1],
        "count": "5",
        "index": str(FEDIDS.index(expected[0])),
    }


@pytest.mark.parametrize("request_", ["<max>0</max>", f"<after>{'f' * 40}</after>"])
async def test_an_empty_page_has_the_count(db: Database, request_: str) -> None:
    assert told(await discovery.list_members(db, wanted(request_))) == {"count": "5", "index": None}


@pytest.mark.parametrize("request_", ["<max>many</max>", "<max>-1</max>", "<max>٣</max>", "<max/>", "<index>3</index>"])
async def test_what_is_no_page_is_refused(db: Database, request_: str) -> None:
    with pytest.raises(XMPPError):
        await discovery.list_members(db, wanted(request_))


async def test_only_operators_see_it(db: Database) -> None:
    xmpp = ComponentXMPP("rendezvous.site-a.test", "secret", "127.0.0.1", 1)  # type: ignore[no-untyped-call]
    describe(xmpp)
    discovery.install(xmpp, db, ["ann@site-a.test"])
    iq = xmpp.make_iq_get(queryxmlns="http://jabber.org/protocol/disco#items")
    ask = xmpp.plugin["xep_0030"].api["get_items"]
    items = await ask(xmpp.boundjid, "", JID("ann@site-a.test/laptop"), iq)
    assert len(addresses(items)) == 5
    with pytest.raises(XMPPError, match="forbidden"):
        await ask(xmpp.boundjid, "", JID("eve@site-b.test"), iq)
