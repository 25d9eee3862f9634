"""The list: revisions, pages, expiry, and whom to tell."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import delete, update

from fedkit.mesh.envelope import INLINE_LIMIT
from fedkit.protocol.lending import Image, Offer
from fedkit.protocol.rendezvous import SIGNED_LIMIT
from fedkit.store import Tx
from rendezvous import feed, store
from rendezvous.errors import Full, NotAnnounced, StaleAnnouncement, UnknownRevision
from rendezvous.model import KEEP
from tests.unit.rendezvous.support import NOON, Book, Site

EPOCH = "0" * 32


def tell_all(book: Book) -> list[str]:
    """Begin a notice to everybody who is behind; return their addresses."""

    def tell(tx: Tx) -> list[str]:
        behind = store.subscribers_to_tell(tx, store.lock_state(tx), 100)
        for subscriber in behind:
            store.notice_sent(tx, subscriber.peer.fedid, "notice")
        return sorted(subscriber.peer.address for subscriber in behind)

    return book.write(tell)


def test_a_sign_of_life_is_no_change(book: Book) -> None:
    site = Site("site-a.test")
    first = book.announce(site)
    assert book.announce(site) == first
    assert book.announce(site, Offer(kinds=["compute"])) == first + 1


def test_a_stale_serial_is_refused(book: Book) -> None:
    site = Site("site-a.test")
    old = site.announce()
    book.announce(site)
    with pytest.raises(StaleAnnouncement) as caught:
        book.write(lambda tx: store.announce(tx, old, 60, NOON, 10))
    assert caught.value.details["serial"] == site.serial


def test_a_full_list_takes_no_more_but_keeps_whom_it_has(book: Book) -> None:
    site, other = Site("site-a.test"), Site("site-b.test")
    book.announce(site)
    heard = other.announce()
    with pytest.raises(Full):
        book.write(lambda tx: store.announce(tx, heard, 60, NOON, 1))
    again = site.announce()
    book.write(lambda tx: store.announce(tx, again, 60, NOON, 1))


def test_silence_means_gone_then_forgotten(book: Book) -> None:
    site, other = Site("site-a.test"), Site("site-b.test")
    book.announce(site, ttl=60)
    book.announce(other, ttl=90)
    book.clock.advance(59)
    assert book.write(lambda tx: store.expire(tx, book.clock())) == []
    book.clock.advance(1)
    assert book.write(lambda tx: store.expire(tx, book.clock())) == [site.key.fedid]
    assert book.listed() == {site.key.fedid: False, other.key.fedid: True}
    book.clock.advance(KEEP.total_seconds())
    book.write(lambda tx: store.expire(tx, book.clock()))
    assert book.listed() == {other.key.fedid: False}


def test_due_times_are_those_of_what_expires_next(book: Book) -> None:
    assert book.read(store.next_due) is None
    book.announce(Site("site-a.test"), ttl=60)
    book.announce(Site("site-b.test"), ttl=30)
    due = book.read(store.next_due)
    assert due is not None
    assert (due - NOON).total_seconds() == 30
    book.clock.advance(60)
    book.write(lambda tx: store.expire(tx, book.clock()))
    assert book.read(store.next_due) == due + KEEP


def test_a_sign_of_life_extends_the_term(book: Book) -> None:
    site = Site("site-a.test")
    book.announce(site, ttl=60)
    book.clock.advance(50)
    book.write(lambda tx: store.still_alive(tx, site.key.fedid, site.serial, book.clock()))
    book.clock.advance(50)
    assert book.write(lambda tx: store.expire(tx, book.clock())) == []


def test_whoever_is_not_listed_so_must_announce_itself(book: Book) -> None:
    site = Site("site-a.test")
    with pytest.raises(NotAnnounced):
        book.write(lambda tx: store.still_alive(tx, site.key.fedid, 1, NOON))
    book.announce(site, ttl=60)
    with pytest.raises(NotAnnounced):
        book.write(lambda tx: store.still_alive(tx, site.key.fedid, site.serial + 1, NOON))
    book.write(lambda tx: store.leave(tx, site.key.fedid, NOON))
    with pytest.raises(NotAnnounced):
        book.write(lambda tx: store.still_alive(tx, site.key.fedid, site.serial, NOON))


def test_a_late_good_bye_does_not_end_a_newer_life(book: Book) -> None:
    site = Site("site-a.test")
    said = book.clock()
    book.clock.advance(1)
    book.announce(site)
    assert not book.write(lambda tx: store.leave(tx, site.key.fedid, said))
    assert book.write(lambda tx: store.leave(tx, site.key.fedid, book.clock()))
    assert not book.write(lambda tx: store.leave(tx, site.key.fedid, book.clock()))
    assert book.listed() == {site.key.fedid: False}


def test_a_page_needs_no_entry_to_begin_behind(book: Book) -> None:
    sites = sorted((Site(f"site-{n}.test") for n in range(4)), key=lambda site: site.key.fedid)
    for site in sites:
        book.announce(site)
    first = book.read(lambda conn: store.members_page(conn, "", 2))
    book.write(
        lambda tx: tx.conn.execute(delete(store.entries).where(store.entries.c.fedid == first.members[-1].fedid))
    )
    second = book.read(lambda conn: store.members_page(conn, first.members[-1].fedid, 2))
    assert [m.fedid for m in second.members] == [site.key.fedid for site in sites[2:]]
    assert (first.count, first.complete, second.count, second.complete) == (4, False, 3, True)


def test_a_count_alone_can_be_asked(book: Book) -> None:
    assert book.read(lambda conn: store.members_page(conn, "", 0)).complete
    book.announce(Site("site-a.test"))
    page = book.read(lambda conn: store.members_page(conn, "", 0))
    assert (page.members, page.count, page.complete) == ([], 1, False)


def test_every_page_fits_a_stanza(book: Book) -> None:
    offer = Offer(images=[Image(name=f"image-{n}", description="d" * 500) for n in range(50)])
    for n in range(5):
        book.announce(Site(f"site-{n}.test"), offer)
    for n in range(200):
        book.announce(Site(f"small-{n}.test"))
    pages = list(book.changes(0, 100))
    assert sum(len(page.members) for page in pages) == 205
    assert all(len(page.model_dump_json()) <= INLINE_LIMIT for page in pages)
    assert len(pages) > 5
    first = book.read(lambda conn: store.members_page(conn, "", 100))
    assert len(first.model_dump_json()) <= INLINE_LIMIT


def test_the_largest_announcement_fits_a_page(book: Book) -> None:
    site = Site("site-a.test")
    book.announce(site)
    largest = "x" * SIGNED_LIMIT
    book.write(lambda tx: tx.conn.execute(update(store.entries).values(signed=largest)))
    page = book.read(lambda conn: store.members_page(conn, "", 100))
    assert [m.signed for m in page.members] == [largest]
    assert len(page.model_dump_json()) <= INLINE_LIMIT


def test_changes_that_cannot_be_told_are_refused(book: Book) -> None:
    site, other = Site("site-a.test"), Site("site-b.test")
    book.announce(site, ttl=60)
    book.clock.advance(60)
    book.write(lambda tx: store.expire(tx, book.clock()))
    book.clock.advance(KEEP.total_seconds())
    floor = book.announce(other, ttl=60) - 1
    book.write(lambda tx: store.expire(tx, book.clock()))
    assert [m.fedid for page in book.changes(floor, 10) for m in page.members] == [other.key.fedid]
    for epoch, since in ((EPOCH, floor - 1), (EPOCH, floor + 2), ("1" * 32, floor)):
        with pytest.raises(UnknownRevision):
            book.read(partial(feed.changes_page, epoch=epoch, since=since, maximum=10))


def test_one_notice_at_a_time(book: Book) -> None:
    site, other = Site("site-a.test"), Site("site-b.test")
    book.announce(site)
    assert tell_all(book) == []
    book.announce(other)
    assert tell_all(book) == ["fm.site-a.test"]
    revision = book.announce(other, Offer(kinds=["compute"]))
    assert tell_all(book) == []
    book.write(lambda tx: store.notice_ended(tx, site.key.fedid, "notice", revision - 1))
    assert tell_all(book) == ["fm.site-a.test"]
    book.write(lambda tx: store.notice_ended(tx, site.key.fedid, "notice", revision))
    assert tell_all(book) == []


def test_whoever_does_not_answer_is_told_when_it_lives(book: Book) -> None:
    site, other = Site("site-a.test"), Site("site-b.test")
    book.announce(site)
    book.announce(other)
    assert tell_all(book) == ["fm.site-a.test"]
    book.write(lambda tx: store.notice_ended(tx, site.key.fedid, "notice", None))
    book.announce(other, Offer(kinds=["compute"]))
    assert tell_all(book) == []
    state, ttl = book.write(lambda tx: store.still_alive(tx, site.key.fedid, site.serial, NOON))
    assert (state.revision, ttl) == (3, 60)
    book.announce(other)
    assert tell_all(book) == ["fm.site-a.test"]


def test_an_old_notice_s_end_means_nothing(book: Book) -> None:
    site, other = Site("site-a.test"), Site("site-b.test")
    book.announce(site)
    book.announce(other)
    assert tell_all(book) == ["fm.site-a.test"]
    book.write(lambda tx: store.notice_ended(tx, site.key.fedid, "another", None))
    assert tell_all(book) == []
    book.write(lambda tx: store.notice_ended(tx, "f" * 40, "notice", 1))


def test_after_a_restart_everybody_gets_its_term_and_hears_of_us(book: Book) -> None:
    site, other = Site("site-a.test"), Site("site-b.test")
    book.announce(site, ttl=60)
    book.announce(other, ttl=60)
    book.clock.advance(1000)
    book.write(lambda tx: store.grant_grace(tx, book.clock()))
    assert book.write(lambda tx: store.expire(tx, book.clock())) == []
    assert tell_all(book) == ["fm.site-a.test", "fm.site-b.test"]
    book.clock.advance(60)
    assert len(book.write(lambda tx: store.expire(tx, book.clock()))) == 2


def test_the_epoch_outlives_a_restart(book: Book) -> None:
    book.write(lambda tx: store.create_list(tx, "1" * 32))
    assert book.read(store.read_state).epoch == EPOCH
