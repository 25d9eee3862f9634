"""Reads ns2 programs, hostile ones included: looks at the text, has a bounded process run it, checks what comes back."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from fedkit.topology.errors import BadDescription, Problem
from fedkit.topology.model import Described, Topology

SIZE_LIMIT = 4 * 1024 * 1024  # octets of all files; 10,000 nodes written out one by one take about 2 MB
ANSWER_LIMIT = 256 * 1024 * 1024  # octets
CPU_LIMIT = 20  # seconds; 10,000 nodes take about 4
PATIENCE = 3  # times that, on the clock of a busy machine
_CONFLICT = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
_MARKUP = re.compile(r"\s*<(!doctype|html|head|body|\?xml)\b", re.IGNORECASE)


async def read(
    data: bytes, file: str = "experiment.ns", files: Mapping[str, bytes] | None = None, cpu_seconds: int = CPU_LIMIT
) -> Described:
    """Read a program that may take `cpu_seconds`; raise `BadDescription` with every problem found.

    `files` are sent along with it, by the names that it sources them by.
    """
    sent = files or {}
    if len(data) + sum(map(len, sent.values())) > SIZE_LIMIT:
        raise _bad(file, None, "ns2.too_large", f"A description and its files have at most {SIZE_LIMIT} octets.")
    text = _text(file, data)
    _look(file, text)
    question = {"file": file, "text": text, "files": {name: _text(name, content) for name, content in sent.items()}}
    answer = _answer(file, await _ask(file, json.dumps(question).encode(), cpu_seconds))
    if answer.errors:
        raise BadDescription(answer.errors, answer.warnings)
    return answer.described


def _text(file: str, data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _bad(file, line, "ns2.not_text", "Not UTF-8 text.") from error
    if "\0" in text:
        raise _bad(
            file, text.count("\n", 0, text.index("\0")) + 1, "ns2.not_text", "There is a zero octet in the text."
        )
    return text.replace("\r\n", "\n")


def _look(file: str, text: str) -> None:
    """Mistakes that Tcl would report as something else."""
    if _MARKUP.match(text):
        raise _bad(
            file, 1, "ns2.not_ns2", "This is HTML or XML, no ns2 program; was the page saved instead of the file?"
        )
    conflict = _CONFLICT.search(text)
    if conflict:
        line = text.count("\n", 0, conflict.start()) + 1
        raise _bad(file, line, "ns2.merge_conflict", "There is a merge conflict here; settle it first.")
    if not text.strip():
        raise _bad(file, None, "ns2.empty", "The file is empty.")


async def _ask(file: str, question: bytes, cpu_seconds: int) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fedkit.topology.ns2.worker",
        str(cpu_seconds),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=ANSWER_LIMIT,
    )
    try:
        async with asyncio.timeout(PATIENCE * cpu_seconds):
            told, _words = await process.communicate(question)
    except TimeoutError as error:
        raise _bad(file, None, "ns2.limit", f"The program did not end within {PATIENCE * cpu_seconds} s.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        text = "The program took more time or memory than a description may; look for an endless loop."
        raise _bad(file, None, "ns2.limit", text)
    return told


class _Answer:
    """What the process said, checked."""

    def __init__(self, told: bytes) -> None:
        line, _, topology = told.partition(b"\n")
        answer = json.loads(line)
        self.errors = [Problem(**problem) for problem in answer["errors"]]
        self.warnings = tuple(Problem(**problem) for problem in answer["warnings"])
        self.output = str(answer["output"])
        self.topology = None if self.errors else _TOPOLOGY.validate_json(topology)

    @property
    def described(self) -> Described:
        assert self.topology is not None
        return Described(self.topology, self.warnings, self.output)


_TOPOLOGY = TypeAdapter(Topology)


def _answer(file: str, told: bytes) -> _Answer:
    try:
        return _Answer(told)
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        raise _bad(file, None, "ns2.limit", "The program ended without a result.") from error


def _bad(file: str, line: int | None, code: str, message: str) -> BadDescription:
    return BadDescription([Problem(file, line, code, message)])
