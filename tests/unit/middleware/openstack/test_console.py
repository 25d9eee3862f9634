"""A machine's console on somebody's terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.middleware.openstack.console import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[  OK  ] Started\r\nlogin: ", "[  OK  ] Started\nlogin: "),
        ("\x1b[0;32m  OK  \x1b[0m", "  OK  "),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("a\tb\x00\x08\x7f", "a\tb"),
        ("Grüße", "Grüße"),
    ],
)
def test_only_what_is_written_remains(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.text(alphabet="\x1b[]0;mH\x07\n\\"))
def test_no_text_moves_the_cursor(text: str) -> None:
    assert all(letter.isprintable() or letter in "\n\t" for letter in printable(text))
