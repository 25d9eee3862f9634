"""Requirement expressions: what a machine or its member must be, written in CEL.

    vcpu >= 2 && ram_mb >= 1024 && member == "site-b.test" && attributes.arch in ["x86_64", "aarch64"]

The old ClassAd spelling (`Glue2vCPU >= 2 && Glue2CloudComputeManagerID == "…"`) is translated to the same names. What is refused
is refused when the order is made: bad syntax, unknown names (with the nearest one), comparisons that can never be made. After
that an expression that cannot be evaluated (an attribute that some member lacks) does not match; it never matches by accident.

An expression comes from strangers: length, nesting and number of tokens are bounded, and comprehensions and functions
other than a few cheap ones are refused, so evaluation is linear in its length.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import cel

from federation_member.errors import UnknownRequirement, UnusableRequirements

MEMBER_NAMES = ("member", "fedid", "address", "attributes")
MACHINE_NAMES = ("vcpu", "ram_mb", "disk_gb", "flavour", "image")
FUNCTIONS = frozenset({"startsWith", "endsWith", "contains", "size", "has"})
GLUE = {"glue2vcpu": "vcpu", "glue2ram": "ram_mb", "glue2disk": "disk_gb"}
GLUE_MEMBER = "glue2cloudcomputemanagerid"
GLUE_SPELLING = ("Glue2vCPU", "Glue2RAM", "Glue2Disk", "Glue2CloudComputeManagerID")
MAX_LENGTH = 4096
MAX_TOKENS = 512
MAX_DEPTH = 24
SAMPLE: Mapping[str, Any] = {
    "vcpu": 1,
    "ram_mb": 1,
    "disk_gb": 1,
    "flavour": "",
    "image": "",
    "member": "",
    "fedid": "",
    "address": "",
    "attributes": {},
}

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[0-9][0-9A-Za-z_]*(?:\.[0-9]+)?)
      | (?P<mark>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Clause:
    """One part of an expression, all of which must hold: as its author wrote it, and compiled."""

    source: str
    program: cel.Program

    def refusal(self, names: Mapping[str, Any]) -> str | None:
        """Return None if `names` meet this clause, else why not."""
        try:
            result = _guarded(lambda: self.program.execute(dict(names)))
        except KeyError as error:
            return f"{self.source}: has no {error.args[0]}"
        except Exception as error:
            return f"{self.source}: {_first_sentence(error)}"
        return None if result is True else self.source


@dataclass(frozen=True)
class Requirement:
    """A whole expression as the clauses that its top-level `&&` joins; without clauses it accepts all."""

    clauses: tuple[Clause, ...] = ()

    def refusal(self, names: Mapping[str, Any]) -> str | None:
        """Return None if `names` meet every clause, else the first that they do not, and why."""
        for clause in self.clauses:
            refusal = clause.refusal(names)
            if refusal is not None:
                return refusal
        return None


@lru_cache(maxsize=1024)
def parse(expression: str, *, machine: bool) -> Requirement:
    """Read an expression; `machine` tells whether the names of a machine (vcpu, …) exist or only those of a member.

    Raises `UnusableRequirements` or `UnknownRequirement`.
    """
    if not expression.strip():
        return Requirement()
    if len(expression) > MAX_LENGTH:
        raise UnusableRequirements(f"Requirements may have {MAX_LENGTH} characters; these have {len(expression)}.")
    tokens = _tokens(expression)
    _check_bounds(tokens)
    whole = _compile(_translate(tokens))
    _check_names(whole, MEMBER_NAMES + (MACHINE_NAMES if machine else ()))
    _check_types(whole)
    return Requirement(tuple(_clause(expression, part) for part in _conjuncts(tokens)))


def _tokens(expression: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            raise UnusableRequirements(f"Requirements cannot be read at: {expression[position : position + 20]!r}")
        kind = str(match.lastgroup)
        if kind == "string" and tokens and tokens[-1].end == position and tokens[-1].kind in ("name", "string"):
            raise UnusableRequirements("Strings are written as 'text' or \"text\", without prefix.")
        if kind != "space":
            tokens.append(_Token(kind, match.group(), position, match.end()))
        position = match.end()
    return tokens


def _check_bounds(tokens: list[_Token]) -> None:
    if len(tokens) > MAX_TOKENS:
        raise UnusableRequirements(f"Requirements may have {MAX_TOKENS} words and marks; these have {len(tokens)}.")
    depth = 0
    for token in tokens:
        depth += (token.text in "([{") - (token.text in ")]}") if token.kind == "mark" else 0
        if depth > MAX_DEPTH:
            raise UnusableRequirements(f"Requirements may be nested {MAX_DEPTH} deep.")
    for name, mark in itertools.pairwise(tokens):
        if name.kind == "name" and mark.text == "(" and name.text not in FUNCTIONS | {"in"}:
            raise UnusableRequirements(
                f"Requirements have no function {name.text}; there are: {', '.join(sorted(FUNCTIONS))}."
            )


def _translate(tokens: list[_Token]) -> str:
    """Write tokens as CEL, old names replaced."""
    words: list[str] = []
    index = 0
    while index < len(tokens):
        comparison = tokens[index : index + 3]
        texts = [token.text.lower() for token in comparison]
        if len(comparison) == 3 and texts[1] in ("==", "!=") and GLUE_MEMBER in (texts[0], texts[2]):
            value = comparison[2 if texts[0] == GLUE_MEMBER else 0].text
            words.append(f"{'!' if texts[1] == '!=' else ''}({value} in [address, member, fedid])")
            index += 3
        else:
            is_name = tokens[index].kind == "name" and words[-1:] != ["."]
            words.append(GLUE.get(texts[0], tokens[index].text) if is_name else tokens[index].text)
            index += 1
    return " ".join(words)


def _compile(source: str) -> cel.Program:
    try:
        program: cel.Program = _guarded(lambda: cel.compile(source))
    except Exception as error:
        raise UnusableRequirements(f"Requirements cannot be read: {_syntax_error(error)}") from error
    return program


def _check_names(program: cel.Program, known: tuple[str, ...]) -> None:
    for name in program.variables():
        if name in known:
            continue
        if name.lower() == GLUE_MEMBER:
            raise UnusableRequirements(f'{name} can only be compared: {name} == "…" or {name} != "…".')
        spellings = {spelling.lower(): spelling for spelling in (*known, *GLUE_SPELLING)}
        near = difflib.get_close_matches(name.lower(), spellings, 1, cutoff=0.5)
        hint = f"did you mean {spellings[near[0]]}?" if near else f"known here: {', '.join(known)}."
        raise UnknownRequirement(f"Requirements have no name {name}; {hint}", name=name)


def _check_types(program: cel.Program) -> None:
    try:
        result = _guarded(lambda: program.execute(dict(SAMPLE)))
    except TypeError as error:
        raise UnusableRequirements("Requirements compare numbers with numbers and text with text.") from error
    except Exception:
        return  # depends on values, such as an attribute that only some member has
    if not isinstance(result, bool):
        raise UnusableRequirements("Requirements must be a condition, such as: vcpu >= 2")


def _conjuncts(tokens: list[_Token]) -> list[list[_Token]]:
    """Split at top-level `&&`; what a looser operator joins stays whole."""
    parts: list[list[_Token]] = [[]]
    depth = 0
    for token in tokens:
        if token.kind == "mark":
            depth += (token.text in "([{") - (token.text in ")]}")
            if depth == 0 and token.text in ("||", "?"):
                return [tokens]
            if depth == 0 and token.text == "&&":
                parts.append([])
                continue
        parts[-1].append(token)
    return parts


def _clause(expression: str, tokens: list[_Token]) -> Clause:
    return Clause(expression[tokens[0].start : tokens[-1].end], _compile(_translate(tokens)))


def _guarded(call: Callable[[], Any]) -> Any:
    """Call the CEL library; a panic in it is derived from BaseException and must not pass for the end of our thread."""
    try:
        return call()
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as panic:
        raise ValueError(str(panic)) from panic


def _first_sentence(error: BaseException) -> str:
    return str(error).split(". ")[0].split(": ")[0].strip()[:200]


def _syntax_error(error: BaseException) -> str:
    match = re.search(r"<input>:\d+:(\d+): (.*?)(?: expecting |\n|$)", str(error))
    return f"column {match[1]}, {match[2]}" if match else _first_sentence(error)
