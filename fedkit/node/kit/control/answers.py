"""What children answer, read by whoever asked them: it is about the child itself, whatever it says.

A node's agent tells of its own node. A controller below a master tells of nodes that the master does not know, and is believed.
Whoever is root on a node has its agent's key, so an answer may have any shape; reading it raises one of `NONSENSE` then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

NONSENSE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)

DEPTH = (
    16  # to which an answer may be nested: what Python can just read it could not write again, to whoever asked for all
)

T = TypeVar("T")
Reader = Callable[[Any, str | None], T]  # what was answered, and the only node that it may be about


def shallow(said: Any, depth: int = DEPTH) -> Any:
    """What was answered; raises `ValueError` where it is nested deeper than that."""
    inner = said.values() if isinstance(said, dict) else said if isinstance(said, list) else ()
    if not depth and inner:
        raise ValueError("it is nested too deep")
    for one in inner:
        shallow(one, depth - 1)
    return said


def nodes(answer: Any, only: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """How nodes are, and why some are not reached."""
    told = {name: dict(one) for name, one in _of(answer["nodes"], only).items()}
    return told, _texts(_of(answer["unreachable"], only))


def output(answer: Any, only: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """What a command printed, and where it was not run."""
    return _of(answer["output"], only), _texts(_of(answer["failed"], only))


def events(answer: Any, only: str | None) -> dict[int, dict[str, Any]]:
    """Events with what came of them, by their numbers."""
    told = [dict(event) for event in answer["events"]]
    return {int(event["seq"]): event for event in told if only in (None, event["node"])}


def _of(said: Any, only: str | None) -> dict[str, Any]:
    return {name: one for name, one in dict(said).items() if only in (None, name)}


def _texts(said: dict[str, Any]) -> dict[str, str]:
    return {name: str(one) for name, one in said.items()}
