"""What the API shows of descriptions that are not run yet, and of where everything stands in a picture."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import Field

from federation_member.experiments.preview import Preview, Shown
from federation_member.web.views import View
from fedkit.topology.errors import Problem
from fedkit.topology.layout import Layout


class ProblemView(View):
    """What is wrong, or should be looked at; without a line the whole is meant."""

    file: str
    line: int | None
    code: str
    message: str


class PointView(View):
    """A place, in the picture's own units."""

    x: float
    y: float


class FrameView(PointView):
    """The box of a testbed, by its upper left corner."""

    testbed: str
    width: float
    height: float


class SpotView(PointView):
    """The middle of a computer."""

    name: str
    testbed: str


class GateView(SpotView):
    """The middle of a portal, and the testbed that it leads to."""

    peer: str


class LineView(View):
    """From one place to another."""

    x1: float
    y1: float
    x2: float
    y2: float


class WireView(View):
    """A link or LAN within one testbed."""

    substrate: str
    testbed: str
    lines: list[LineView]
    hub: PointView | None = Field(description="where the lines of a LAN meet")
    label: PointView | None = Field(description="where its name stands; null: it crosses, and is named there")


class WayView(View):
    """What joins the portals of two testbeds."""

    testbeds: list[str]
    substrates: list[str]
    line: LineView
    label: PointView


class LayoutView(View):
    """Where everything stands in a picture of a topology."""

    width: float
    height: float
    testbeds: list[FrameView]
    computers: list[SpotView]
    portals: list[GateView]
    wires: list[WireView]
    ways: list[WayView]


class CrossingView(View):
    """A link or LAN that goes on beyond a portal: the computers there, and their addresses on it."""

    substrate: str
    stands_for: list[str]
    ip4: list[str]


class ConnectorView(View):
    """A portal of a piece."""

    name: str
    peer: str
    crossings: list[CrossingView]


class PieceView(View):
    """What one testbed would get."""

    testbed: str
    member: str | None = Field(description="who would be asked for it, and nobody else; null: whoever lends it")
    computers: list[dict[str, Any]] = Field(description="as `fed topology convert --to json` writes them")
    substrates: list[dict[str, Any]]
    connectors: list[ConnectorView]


class PreviewView(View):
    """What would come of a description: errors, or pieces and a picture."""

    errors: list[ProblemView]
    warnings: list[ProblemView]
    output: str = Field(description="what the program itself wrote")
    pieces: list[PieceView]
    crossings: list[str] = Field(description="links and LANs that reach several testbeds")
    layout: LayoutView | None


def layout_view(layout: Layout) -> LayoutView:
    """Show a layout."""
    return LayoutView.model_validate(asdict(layout))


def preview_view(preview: Preview) -> PreviewView:
    """Show a preview."""
    shown = preview.shown
    return PreviewView(
        errors=_problems(preview.errors),
        warnings=_problems(preview.warnings),
        output=preview.output,
        pieces=[] if shown is None else _pieces(shown),
        crossings=[] if shown is None else list(shown.split.crossings),
        layout=None if shown is None else layout_view(shown.layout),
    )


def _pieces(shown: Shown) -> list[PieceView]:
    pieces = zip(shown.split.pieces, shown.locations, strict=True)
    return [PieceView.model_validate(piece.as_json() | {"member": location}) for piece, location in pieces]


def _problems(problems: tuple[Problem, ...]) -> list[ProblemView]:
    return [ProblemView.model_validate(problem.as_json()) for problem in problems]
