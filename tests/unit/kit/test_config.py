"""A configuration mistake is told with file, key and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from fedkit.config import Section, UnusableConfig, load


class Store(Section):
    url: str


class Lend(Section):
    members: list[str]


class Config(Section):
    name: str
    store: Store
    lend: list[Lend] = Field(default_factory=list)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "member.toml"
    path.write_text(text)
    return path


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "a"\n[store]\nurl = "x"\n')
    config = load(path, Config, "FED", {"FED__STORE__URL": "y", "OTHER": "z"})
    assert config.store.url == "y"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name = "a"\n[store]\nulr = "x"\n', "store.ulr: unknown key; did you mean url?"),
        ('name = "a"\nstroe = 1\n[store]\nurl = "x"\n', "stroe: unknown key; did you mean store?"),
        ('name = "a"\n[store]\nurl = "x"\n[[lend]]\nmembers = []\nmenbers = []\n', "did you mean members?"),
        ("[store]\n", "name: Field required"),
        ("name = ", "is not TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UnusableConfig, match=r"member\.toml") as error:
        load(write(tmp_path, text), Config, "FED", {})
    assert expected in error.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableConfig, match="cannot be read"):
        load(tmp_path / "none.toml", Config, "FED", {})
