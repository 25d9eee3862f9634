"""The order in which Tcl lists the keys of a hash table: Emulab numbers its links by it, so whoever wants the same
addresses needs the same order.

Tcl's string tables (generic/tclHash.c, Tcl 8): 4 buckets at first, four times as many when there are three entries a bucket; the
hash of a key is h = 9 h + c over its bytes, its bucket the low bits; a new entry goes to the head of its bucket. When the
table grows, the old buckets are walked in order and each entry is pushed at the head of its new bucket. A listing walks the buckets
in order, each from its head. Real Tcl is the reference of the tests.
"""

from __future__ import annotations

from collections.abc import Iterator

_FIRST_BUCKETS = 4
_ENTRIES_PER_BUCKET = 3
_GROWTH = 4


class TclTable:
    """A set of keys in Tcl's order."""

    def __init__(self) -> None:
        self._buckets: list[list[str]] = [[] for _ in range(_FIRST_BUCKETS)]  # the head of each is its last entry
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return (key for bucket in self._buckets for key in reversed(bucket))

    def __contains__(self, key: str) -> bool:
        return key in self._bucket(key)

    def add(self, key: str) -> None:
        """Insert a key; one that is there keeps its place."""
        bucket = self._bucket(key)
        if key in bucket:
            return
        bucket.append(key)
        self._size += 1
        if self._size >= _ENTRIES_PER_BUCKET * len(self._buckets):
            self._grow()

    def remove(self, key: str) -> None:
        """Delete a key that is there."""
        self._bucket(key).remove(key)
        self._size -= 1

    def _bucket(self, key: str) -> list[str]:
        return self._buckets[_hash(key) & (len(self._buckets) - 1)]

    def _grow(self) -> None:
        keys = list(self)
        self._buckets = [[] for _ in range(_GROWTH * len(self._buckets))]
        for key in keys:
            self._bucket(key).append(key)


def _hash(key: str) -> int:
    value = 0
    for byte in key.encode():
        value = (value * 9 + byte) & 0xFFFFFFFF
    return value
