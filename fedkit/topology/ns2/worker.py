"""The process in which a program runs: it bounds itself, reads one JSON text, writes two lines of JSON, and ends.

    {"file", "text", "files": {name: text}}  ──►  {"errors", "warnings", "output"}
                                                  the topology, if there are no errors

Time, memory, files and processes are bounded by the kernel (setrlimit), because a Tcl program can loop without a single command
that could be counted, or ask for gigabytes with one; a program that passes a bound ends this process and nothing else.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import NoReturn

from pydantic import TypeAdapter

from fedkit.topology import addresses
from fedkit.topology.model import Service, Topology
from fedkit.topology.ns2.build import build
from fedkit.topology.ns2.program import Enough, Program
from fedkit.topology.ns2.tcl import Interpreter
from fedkit.topology.services import BadService, parse_service

MEMORY_LIMIT = 1024 * 1024 * 1024  # octets of address space
_SERVICE = "# SERVICE:"


def main() -> None:
    """Bound this process to the seconds of CPU time in its argument, then run the program that stands on standard input."""
    for what, limit in (
        (resource.RLIMIT_CPU, int(sys.argv[1])),
        (resource.RLIMIT_AS, MEMORY_LIMIT),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    asked = json.load(sys.stdin)
    program, topology, output = run(asked["file"], asked["text"], asked["files"])
    tell(program, topology, output)


def tell(program: Program, topology: Topology | None = None, output: str = "") -> None:
    """Write the answer."""
    told = {
        "errors": [problem.as_json() for problem in program.errors],
        "warnings": [problem.as_json() for problem in program.warnings],
        "output": output,
    }
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n")
    if topology is not None:
        sys.stdout.buffer.write(TypeAdapter(Topology).dump_json(topology))
    sys.stdout.buffer.flush()


def give_up(program: Program) -> NoReturn:
    """Tell what was found so far and end."""
    tell(program)
    os._exit(0)


def run(file: str, text: str, files: dict[str, str]) -> tuple[Program, Topology | None, str]:
    """Run a program in this very process; returns it, the topology if nothing was wrong, and what it wrote."""
    interpreter = Interpreter(file, files, give_up)
    program = interpreter.program
    topology = None
    try:
        services = list(_services(program, file, text))
        interpreter.run(text)
        if not program.errors:
            topology = build(program, services, interpreter.options())
    except addresses.BadAddress as error:
        program.fail(file, None, "ns2.bad_address", error.message)
    except Enough:
        give_up(program)
    return program, topology, "\n".join(interpreter.output)


def _services(program: Program, file: str, text: str) -> Iterator[Service]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().startswith(_SERVICE):
            try:
                yield parse_service(line.strip().removeprefix(_SERVICE).strip())
            except BadService as error:
                program.fail(file, number, error.code, error.message)


if __name__ == "__main__":
    main()
