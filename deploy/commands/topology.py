"""`fed topology` and the part of `fed experiment` that needs nothing but the description: look at it before anything is asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.commands.errors import UnusableFile, UnusableOption
from deploy.commands.output import Format, OutputOption, say, show

if TYPE_CHECKING:
    from fedkit.topology.errors import Problem
    from fedkit.topology.model import Described
    from fedkit.topology.placement import Room
    from fedkit.topology.split import Piece, Split
    from fedkit.topology.sub_experiment import Manner

app = typer.Typer(
    no_args_is_help=True,
    help="""Descriptions of experiments, from one form to another.

    fed topology convert --from ns2 --to topdl exp.ns

    fed topology convert --to json exp.xml
""",
)
experiment = typer.Typer(
    no_args_is_help=True,
    help="""Experiments over several testbeds.

    fed experiment check exp.ns

    fed experiment split exp.ns -o json

    fed experiment split exp.ns --to ns2 --testbed ucb > ucb.ns

    fed experiment picture exp.ns > exp.svg

    fed experiment create exp.ns --map deter=site-a.test --map ucb=site-b.test --follow

    fed experiment terminate exp --follow
""",
)


class Source(StrEnum):
    """A form that can be read."""

    NS2 = "ns2"
    TOPDL = "topdl"
    RSPEC = "rspec"


class PieceForm(StrEnum):
    """A form that a testbed takes its piece in."""

    NS2 = "ns2"
    TOPDL = "topdl"


class Target(StrEnum):
    """A form that can be written."""

    NS2 = "ns2"
    TOPDL = "topdl"
    RSPEC = "rspec"
    JSON = "json"


FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="An ns2 program, a topdl file or an RSpec request.")]
WithOption = Annotated[list[Path], typer.Option("--with", help="A file that the program sources; repeatable.")]
NONE: list[Path] = []
ProjectOption = Annotated[
    list[str], typer.Option(help="With --to: the project that it runs in, of a testbed if TESTBED=PROJECT; repeatable.")
]
NO_PROJECTS: list[str] = []
FromOption = Annotated[Source | None, typer.Option("--from", help="What FILE is; found out if it is not said.")]


@app.command()
def convert(
    file: FileArgument,
    to: Annotated[Target, typer.Option("--to", help="What to write.")],
    source: FromOption = None,
    sent: WithOption = NONE,
) -> None:
    """Write FILE in another form on stdout; every interface gets its address.

    Example: `fed topology convert --from ns2 --to topdl exp.ns > exp.xml`

    A bad file ends with status 2; with --to json its errors are told as data: file, line, code and message of each.
    """
    from fedkit.topology.formats import WRITERS, Form
    from fedkit.topology.json_form import as_json

    described = _read(file, source, sent, as_data=to is Target.JSON)
    if to is Target.JSON:
        print(json.dumps(as_json(described), indent=2, ensure_ascii=False))
    else:
        print(WRITERS[Form(to.value)](described.topology), end="")


@experiment.command()
def check(
    file: FileArgument,
    source: FromOption = None,
    sent: WithOption = NONE,
    output: OutputOption = Format.TABLE,
) -> None:
    """Tell what is wrong with FILE, line by line; nothing is asked of anybody.

    Example: `fed experiment check exp.ns`
    """
    described = _read(file, source, sent, as_data=output is not Format.TABLE)
    topology = described.topology
    computers = list(topology.computers)
    testbeds = list(dict.fromkeys(computer.testbed or "-" for computer in computers))
    data = {
        "computers": len(computers),
        "substrates": len(topology.substrates),
        "testbeds": testbeds,
        "warnings": [warning.as_json() for warning in described.warnings],
    }
    show(data, output, {name: name for name in ("computers", "substrates", "testbeds")})


@experiment.command()
def split(
    file: FileArgument,
    portals: Annotated[int, typer.Option(min=1, max=64, help="Portals between two testbeds, at most.")] = 1,
    places: Annotated[
        list[str] | None,
        typer.Option(
            "--place", help="Put computers that name no testbed here: TESTBED, or TESTBED=MACHINES at most; repeatable."
        ),
    ] = None,
    source: FromOption = None,
    sent: WithOption = NONE,
    to: Annotated[
        PieceForm | None,
        typer.Option("--to", help="Write each piece in this form, with portals and the federation kit."),
    ] = None,
    testbed: Annotated[str | None, typer.Option(help="With --to: this piece only.")] = None,
    project: ProjectOption = NO_PROJECTS,
    name: Annotated[str, typer.Option(help="With --to: what the experiment is called at its testbeds.")] = "experiment",
    master: Annotated[str | None, typer.Option(help="With --to: the testbed that exports to the others.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the piece that each testbed would get, and the portals that join them.

    Example: `fed experiment split exp.ns -o json`

    Example: `fed experiment split exp.ns --place deter=20 --place ucb`

    Example: `fed experiment split exp.ns --to ns2 --name bwfed --project deter=emulab-ops --project ucb=Deter`
    """
    from fedkit.topology import split as splitting
    from fedkit.topology.placement import place

    described = _read(file, source, sent, as_data=output is not Format.TABLE)
    topology = place(described.topology, [_room(text) for text in places]) if places else described.topology
    done = splitting.split(topology, portals)
    if to is not None:
        _write_pieces(done, to, testbed, _manner(project, name, master))
        return
    if output is not Format.TABLE:
        show(done.as_json(), output, {})
        return
    show(
        [_row(piece) for piece in done.pieces], output, {name: name for name in ("testbed", "computers", "connectors")}
    )
    say(f"cut: {', '.join(done.crossings) or 'nothing'}")


@experiment.command()
def picture(file: FileArgument, source: FromOption = None, sent: WithOption = NONE) -> None:
    """Draw FILE as SVG on stdout: a box for each testbed, portals at its edges.

    Example: `fed experiment picture exp.ns > exp.svg`
    """
    from fedkit.topology.picture import draw

    print(draw(_read(file, source, sent, as_data=False).topology), end="")


def _room(text: str) -> Room:
    from fedkit.topology.placement import Room

    testbed, equals, machines = text.partition("=")
    if not testbed or (equals and not machines.isdecimal()):
        raise UnusableOption(f"--place wants TESTBED or TESTBED=MACHINES, such as deter=20; {text!r} is neither.")
    return Room(testbed, int(machines) if equals else None)


def _manner(projects: Sequence[str], name: str, master: str | None) -> Manner:
    from fedkit.topology.sub_experiment import Manner

    by_testbed = dict(text.split("=", 1) for text in projects if "=" in text)
    general = [text for text in projects if "=" not in text]
    return Manner(name, by_testbed, general[-1] if general else Manner.project, master)


def _write_pieces(done: Split, to: PieceForm, testbed: str | None, manner: Manner) -> None:
    """Print the pieces one after the other, each after a comment that names its testbed."""
    from fedkit.topology import topdl
    from fedkit.topology.ns2 import writer
    from fedkit.topology.sub_experiment import sub_experiments

    pieces = sub_experiments(done, manner)
    for asked in (testbed, manner.master):
        if asked is not None and asked not in pieces:
            raise UnusableOption(f"No piece is for {asked}; there are pieces for {', '.join(pieces)}.")
    for name, topology in pieces.items():
        if testbed is None:
            print(f"# {name}" if to is PieceForm.NS2 else f"<!-- {name} -->")
        if testbed in (None, name):
            text = writer.write(topology, as_piece=True) if to is PieceForm.NS2 else topdl.write(topology).decode()
            print(text, end="")


def _row(piece: Piece) -> dict[str, Any]:
    ways = [
        f"{connector.name}({', '.join(crossing.substrate for crossing in connector.crossings)})"
        for connector in piece.connectors
    ]
    computers = [computer.name for computer in piece.topology.computers]
    return {"testbed": piece.testbed, "computers": computers, "connectors": ways}


def _read(file: Path, source: Source | None, sent: Sequence[Path], *, as_data: bool) -> Described:
    from fedkit.topology.errors import BadDescription
    from fedkit.topology.formats import Form, read

    form = None if source is None else Form(source.value)
    files = {path.name: _content(path) for path in sent}
    try:
        described = asyncio.run(read(_content(file), str(file), form, files))
    except BadDescription as error:
        if as_data:
            told = {"errors": error.problems, "warnings": error.warnings}
            print(json.dumps({kind: [one.as_json() for one in problems] for kind, problems in told.items()}, indent=2))
        _tell(error.warnings, "warning: ")
        _tell(error.problems[1:] if len(error.problems) > 1 else ())
        raise
    _tell(described.warnings, "warning: ")
    if described.output:
        say(described.output)
    return described


def _tell(problems: Sequence[Problem], prefix: str = "") -> None:
    for problem in problems:
        say(f"{prefix}{problem}")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}.") from error
