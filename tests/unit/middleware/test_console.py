"""Text of strangers, made fit to be shown and sent."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.middleware.console import OCTETS, last_of, printable
from fedkit.mesh.envelope import INLINE_LIMIT
from fedkit.protocol.lending import CONSOLE_LIMIT, Console


@given(st.text())
def test_nothing_in_it_controls_a_terminal(text: str) -> None:
    shown = printable(text)
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("\x1b[2J\x1b[Hlogin: ", "login: "),
        ("\x1b(B\x00\x08x", "x"),
    ],
)
def test_escape_sequences_go_as_a_whole(written: str, shown: str) -> None:
    assert printable(written) == shown


@given(st.text(alphabet='ab\n"\\é\U0001f600', min_size=1, max_size=200), st.integers(1, 2000))
def test_the_end_always_fits_one_answer(text: str, times: int) -> None:
    end = last_of(text * times)
    assert (text * times).endswith(end)
    assert len(end) <= CONSOLE_LIMIT
    assert OCTETS < INLINE_LIMIT
    assert len(Console(text=end).model_dump_json().encode()) <= INLINE_LIMIT
    assert len(json.dumps(end, ensure_ascii=False).encode()) <= OCTETS + 2


def test_it_begins_with_a_whole_line_and_short_texts_stay() -> None:
    assert last_of("short") == "short"
    assert last_of("x" * 20_000 + "\nlast line" * 4000).startswith("last line")
