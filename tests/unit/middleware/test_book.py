"""The book of instances: what it says is what is on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.middleware.containers.book import Book, Record, check_key
from federation_member.middleware.contract import MiddlewareError, UnusableSpec
from fedkit.protocol.lending import Instance


def record(key: str, number: int = 1) -> Record:
    """A record."""
    return Record(key=key, kind="compute", number=number, instance=Instance(name="box", address="10.0.0.2"))


def reopened(folder: Path) -> Book:
    """As the next member finds it."""
    book = Book(folder)
    book.load()
    return book


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans())))
def test_disk_and_memory_agree(steps: list[tuple[str, bool]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        book = reopened(Path(name))
        for key, add in steps:
            known = book.get(key)
            if known is None and add:
                book.put(record(key, book.free_number()))
            elif known is not None and add:
                book.put(known.model_copy(update={"complete": True}))
            elif known is not None:
                book.remove(key)
        there = {one.key: one for one in book}
        assert there == {one.key: one for one in reopened(Path(name))}
        numbers = [one.number for one in there.values()]
        assert len(set(numbers)) == len(numbers)
        assert book.free_number() == min(set(range(1, 9)) - set(numbers))


def test_what_a_crash_interrupted_is_finished(tmp_path: Path) -> None:
    book = reopened(tmp_path)
    book.put(record("a"))
    (tmp_path / ".gone-b").mkdir()
    (tmp_path / ".new-c").mkdir()
    assert [one.key for one in reopened(tmp_path)] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_record_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    reopened(tmp_path).put(record("a"))
    (tmp_path / "a" / "record.json").write_text("{")
    with pytest.raises(MiddlewareError, match=r"record\.json cannot be read"):
        reopened(tmp_path)


@pytest.mark.parametrize("key", ["", ".", "..", "../x", "a/b", "a\n", "x" * 65, ".new-a", "-rf"])
def test_keys_that_are_no_file_names(key: str) -> None:
    with pytest.raises(UnusableSpec):
        check_key(key)
