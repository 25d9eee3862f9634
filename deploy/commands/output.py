"""Data goes to stdout, in the form that `-o` names; words go to stderr.

A table is for people: columns as wide as they need, nothing cut off, so that it can be searched with grep as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """How data is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


OutputOption = Annotated[Format, typer.Option("-o", "--output", help="How to write the data.", show_default=True)]


def say(words: str) -> None:
    """Say something to the person; nothing in it, such as a lender's words, can control the terminal."""
    print("\n".join(map(printable, words.split("\n"))), file=sys.stderr, flush=True)


def printable(line: str) -> str:
    """A line without what could control a terminal."""
    return "".join(char if char.isprintable() else " " for char in line)


def show(data: Any, output: Format, columns: Mapping[str, str]) -> None:
    """Write an object or a list of objects; a table has the `columns`: title → dotted path of the value."""
    if output is Format.JSON:
        print(json.dumps(data, indent=2, ensure_ascii=False))
    elif output is Format.YAML:
        import yaml

        print(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), end="")
    elif isinstance(data, list):
        _table(data, columns)
    else:
        _record(data, columns)


def _table(rows: Sequence[Any], columns: Mapping[str, str]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in columns:
        table.add_column(title.upper(), no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(value_at(row, path)) for path in columns.values()))
    _print(table)


def _record(data: Any, columns: Mapping[str, str]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    for title, path in columns.items():
        table.add_row(title, _cell(value_at(data, path)))
    _print(table)


def _print(table: Any) -> None:
    """Print with as many columns as the table needs; the terminal, not we, folds what is too long for it."""
    import io

    from rich.console import Console

    buffer = io.StringIO()
    wide = Console(file=buffer, width=10_000, force_terminal=sys.stdout.isatty(), highlight=False)
    wide.print(table)
    print("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()))


def value_at(data: Any, path: str) -> Any:
    """Follow a dotted path through objects; None where it ends early."""
    for step in path.split("."):
        data = data.get(step) if isinstance(data, Mapping) else None
    return data


def _cell(value: Any) -> Any:
    from rich.text import Text

    if value is None or value == "":
        return Text("-")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list):
        return Text(", ".join(str(item) for item in value) or "-")
    # Control characters of a peer's text must not reach the terminal.
    return Text(printable(str(value)))
