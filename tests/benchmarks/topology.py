"""How fast descriptions are read and split: `python -m tests.benchmarks.topology`.

A program of LANs in a ring of links over five testbeds, as an experimenter writes it. The reference in the same run is Tcl alone:
`tclsh` runs the same program with procedures that do nothing, which is the least that Emulab's parser can take.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import time
from dataclasses import asdict, dataclass

from fedkit.topology.formats import Form, read
from fedkit.topology.split import split

TESTBEDS = 5
LAN = 10  # nodes of one
NOTHING = """\
proc handle {args} { incr ::count; interp alias {} h$::count {} handle; return h$::count }
proc new {class args} { handle }
proc source {file} {}
foreach name {tb-set-node-testbed tb-set-node-os tb-set-hardware} { proc $name args {} }
"""


@dataclass(frozen=True)
class Row:
    """Seconds, for so many nodes."""

    nodes: int
    tclsh: float
    read: float
    split: float

    @property
    def ours(self) -> float:
        """From the text to the pieces."""
        return self.read + self.split


def program(nodes: int) -> str:
    """An experiment of so many nodes: each LAN is on one testbed, and every LAN's first node is linked to the next LAN's."""
    return f"""\
source tb_compat.tcl
set ns [new Simulator]
for {{set i 0}} {{$i < {nodes}}} {{incr i}} {{
    set node($i) [$ns node]
    tb-set-node-testbed $node($i) "tb[expr $i * {TESTBEDS} / {nodes}]"
    tb-set-node-os $node($i) FBSD-STD
}}
for {{set i 0}} {{$i < {nodes}}} {{incr i {LAN}}} {{
    set members ""
    for {{set j $i}} {{$j < $i + {LAN}}} {{incr j}} {{ append members "$node($j) " }}
    set lan($i) [$ns make-lan $members 100Mb 2ms]
    set link($i) [$ns duplex-link $node($i) $node([expr ($i + {LAN}) % {nodes}]) 10Mb 5ms DropTail]
}}
$ns rtproto Static
$ns run
"""


def of_tcl_alone(text: str) -> float:
    """Seconds that `tclsh` takes for a program whose commands do nothing."""
    began = time.perf_counter()
    subprocess.run(["tclsh"], input=NOTHING + text, text=True, capture_output=True, check=True)
    return time.perf_counter() - began


async def measure(nodes: int) -> Row:
    """Read and split it once."""
    text = program(nodes)
    reference = of_tcl_alone(text)
    began = time.perf_counter()
    described = await read(text.encode(), "bench.ns", Form.NS2)
    known = time.perf_counter()
    pieces = split(described.topology).pieces
    done = time.perf_counter()
    assert len(pieces) == TESTBEDS
    assert sum(len(list(piece.topology.computers)) for piece in pieces) >= nodes
    return Row(nodes, reference, known - began, done - known)


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("-o", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    rows = [asyncio.run(measure(nodes)) for nodes in arguments.nodes]
    if arguments.o == "json":
        print(json.dumps([asdict(row) | {"ours": row.ours} for row in rows]))
        return
    print(f"{'nodes':>8}{'tclsh alone':>14}{'read':>10}{'split':>10}{'together':>10}  seconds")
    for row in rows:
        print(f"{row.nodes:8}{row.tclsh:14.2f}{row.read:10.2f}{row.split:10.2f}{row.ours:10.2f}")


if __name__ == "__main__":
    main()
