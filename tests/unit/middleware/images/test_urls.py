"""What a URL of an image may say."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from federation_member.middleware.contract import UnusableImage
from federation_member.middleware.images.urls import parse, redirect

PORTS = [80, 443]
START = URL("https://images.example/a/b.qcow2")


@pytest.mark.parametrize(
    "text", ["http://images.example/x", "https://images.example:443/x?token=1", "http://[2606:4700::1]/x"]
)
def test_plain_urls_are_taken(text: str) -> None:
    assert parse(text, PORTS) == URL(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("file:///etc/shadow", "begins with http"),
        ("ftp://images.example/x", "begins with http"),
        ("gopher://images.example/x", "begins with http"),
        ("//images.example/x", "begins with http"),
        ("images.example", "begins with http"),
        ("http:///x", "URL of an image"),
        ("", "begins with http"),
        ("http://user@images.example/", "no user name"),
        ("http://:secret@images.example/", "no user name"),
        ("http://images.example:22/", "not from 22"),
        ("https://images.example:8443/", "not from 8443"),
        ("http://images.example:99999/", "not a URL"),
        ("http://[::1/", "not a URL"),
        ("http://x/" + "a" * 3000, "at most"),
    ],
)
def test_others_are_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(UnusableImage, match=why):
        parse(text, PORTS)


def test_the_fragment_stays_here() -> None:
    assert str(parse("http://images.example/x#secret", PORTS)) == "http://images.example/x"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("c.qcow2", "https://images.example/a/c.qcow2"),
        ("/c", "https://images.example/c"),
        ("//mirror.example/c", "https://mirror.example/c"),
        ("https://mirror.example/c", "https://mirror.example/c"),
    ],
)
def test_redirects_lead_on(location: str, target: str) -> None:
    assert redirect(START, location, PORTS) == URL(target)


@pytest.mark.parametrize(
    "location", ["http://images.example/", "file:///etc/passwd", "//u:p@images.example/", "https://[", "https://x:22/"]
)
def test_redirects_lead_nowhere_else(location: str) -> None:
    with pytest.raises(UnusableImage):
        redirect(START, location, PORTS)


@given(st.text(max_size=200))
def test_any_text_is_taken_or_refused(text: str) -> None:
    for prefix in ("", "http://", "https://x/", "http://x:"):
        with suppress(UnusableImage):
            url = parse(prefix + text, PORTS)
            assert url.host
            assert redirect(url, text, PORTS).scheme in ("http", "https")
