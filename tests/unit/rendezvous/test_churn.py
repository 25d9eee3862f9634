"""Whatever comes and goes between two pages: a walk and the changes since its first page are the list."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fedkit.protocol.lending import Offer
from fedkit.store import Database
from rendezvous import store
from tests.unit.rendezvous.support import Book, Site

SITES = [Site(f"site-{n}.test") for n in range(8)]
OFFERS = [Offer(), Offer(kinds=["compute"])]

Deed = tuple[str, object, object]
deeds = st.one_of(
    st.tuples(st.just("announce"), st.sampled_from(SITES), st.sampled_from(OFFERS)),
    st.tuples(st.just("leave"), st.sampled_from(SITES), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([10, 40]), st.none()),
)


@contextmanager
def empty_book() -> Iterator[Book]:
    with tempfile.TemporaryDirectory() as folder:
        book = Book(Database(f"sqlite:///{Path(folder) / 'list.db'}"))
        store.metadata.create_all(book.db.engine)
        book.write(lambda tx: store.create_list(tx, "0" * 32))
        yield book
        book.db.engine.dispose()


def do(book: Book, deed: Deed) -> None:
    match deed:
        case ("announce", Site() as site, Offer() as offer):
            book.announce(site, offer)
        case ("leave", Site() as site, _):
            book.write(lambda tx: store.leave(tx, site.key.fedid, book.clock()))
        case ("wait", int() as seconds, _):
            book.clock.advance(seconds)
            book.write(lambda tx: store.expire(tx, book.clock()))


@settings(max_examples=60, deadline=None)
@given(
    before=st.lists(deeds, max_size=12),
    during=st.lists(st.lists(deeds, max_size=3), max_size=8),
    maximum=st.integers(1, 4),
)
def test_a_walk_survives_churn(before: list[Deed], during: list[list[Deed]], maximum: int) -> None:
    with empty_book() as book:
        for deed in before:
            do(book, deed)
        rounds = iter(during)

        def churn() -> None:
            for deed in next(rounds, []):
                do(book, deed)

        first, seen = book.walk(maximum, churn)
        revisions = []
        for page in book.changes(first.revision, maximum):
            seen |= {member.fedid: member.alive for member in page.members}
            revisions += [member.revision for member in page.members]
        assert seen == book.listed()
        assert revisions == sorted(set(revisions))


@settings(max_examples=60, deadline=None)
@given(deeds=st.lists(deeds, max_size=20), since=st.integers(0, 20), maximum=st.integers(1, 4))
def test_changes_are_all_that_changed(deeds: list[Deed], since: int, maximum: int) -> None:
    with empty_book() as book:
        known: dict[str, bool] = {}
        reached = 0
        for deed in deeds:
            do(book, deed)
            if book.read(store.read_state).revision <= since:
                known, reached = book.listed(), book.read(store.read_state).revision
        pages = list(book.changes(reached, maximum))
        for page in pages:
            known |= {member.fedid: member.alive for member in page.members}
        assert known == book.listed()
        assert all(len(page.members) <= maximum for page in pages)
        assert pages[-1].revision == book.read(store.read_state).revision
