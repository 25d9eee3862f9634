"""What is believed of what portals say of themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from federation_member.middleware.containers.nodes.portals import APART, LIMIT, PATIENCE, Brief, Watched, read

JOINED: Brief = {"joined": True, "plane": "superframes", "delay_ms": 1.2, "mbps": 3.0}
SECOND = 1.0


def seen(*said: Brief | None) -> list[Brief | None]:
    """What is told of a portal that says this, second by second; None: nothing new."""
    watched, told = Watched(0.0), []
    for now, brief in enumerate(said):
        watched.saw(now, brief, now * SECOND)
        told.append(watched.told(now * SECOND))
    return told


def test_a_short_absence_is_no_news() -> None:
    short = int(PATIENCE) - 2
    assert seen(APART, JOINED, *[APART] * short, JOINED)[1:] == [JOINED] * (short + 2)


@pytest.mark.parametrize("after", [APART, None])
def test_a_long_one_is_told_whether_it_says_so_or_is_silent(after: Brief | None) -> None:
    told = seen(JOINED, *[after] * 20)
    apart = told.index(APART)
    assert apart == int(PATIENCE)
    assert told[apart:] == [APART] * (21 - apart)


def test_who_repeats_an_old_file_is_silent() -> None:
    watched = Watched(0.0)
    for now in range(20):
        watched.saw("the same", JOINED, now * SECOND)
    assert watched.told(20.0) == APART


def test_who_never_says_anything_is_apart_and_then_not_known() -> None:
    told = seen(*[None] * 20)
    assert told == [APART] * int(PATIENCE) + [None] * (20 - int(PATIENCE))
    assert seen(*[None] * 20, APART)[-1] == APART


def test_measures_are_told_anew_when_they_are_others() -> None:
    said: list[Brief | None] = [JOINED | {"mbps": rate} for rate in (3.0, 3.5, 2.5, 3.8, 3.5, 0.0, 0.1)]
    assert [told["mbps"] for told in seen(*said) if told] == [3.0, 3.0, 3.0, 3.8, 3.8, 0.0, 0.1]


def test_what_it_says_is_read(tmp_path: Path) -> None:
    file = tmp_path / "brief.json"
    file.write_text(json.dumps(JOINED | {"delay_ms": 1.2345, "mbps": 0.01}))
    stamp, brief = read(str(file))
    assert brief == JOINED | {"delay_ms": 1.2, "mbps": 0.0}
    assert read(str(file))[0] == stamp


NONSENSE: list[Any] = ["", "x" * LIMIT * 2, "[" * LIMIT, "[]", "{", '"joined"']
ODD: dict[str, list[Any]] = {
    "joined": ["true", 1, None, {}],
    "plane": ["a b", "x" * 33, 7, "../..", "", "Ⅷ"],
    "delay_ms": [-1, 1e300, True, "1", 10**400],
    "mbps": [[], None],
}


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "brief.json").write_text(text)
    assert read(str(tmp_path / "brief.json"))[1] is None


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in ODD.items() for value in values])
def test_what_it_may_not_say_counts_as_not_said(tmp_path: Path, key: str, value: Any) -> None:
    (tmp_path / "brief.json").write_text(json.dumps(JOINED | {key: value}))
    assert read(str(tmp_path / "brief.json"))[1] == JOINED | {key: APART[key]}


def test_not_a_number_is_none(tmp_path: Path) -> None:
    (tmp_path / "brief.json").write_text('{"joined": true, "mbps": NaN, "delay_ms": Infinity}')
    assert read(str(tmp_path / "brief.json"))[1] == APART | {"joined": True}


def test_what_is_no_file_is_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(JOINED))
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing", "."):
        assert read(str(tmp_path / name))[1] is None
