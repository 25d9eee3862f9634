"""The corpus: one idea of the ns2 dialect or of topdl a file, beside it what follows from the rules, worked out by hand.

An expectation says only what its idea is about; whatever it leaves out may be anything, but for errors and warnings, which are all
listed (as line and code). `corpus/README.md` tells its shape. The numbering of addresses is compared with real Tcl's as well.
"""

from __future__ import annotations

import json
import random
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from fedkit.topology import topdl
from fedkit.topology.addresses import BadAddress
from fedkit.topology.errors import BadDescription, Problem
from fedkit.topology.json_form import as_json
from fedkit.topology.model import Attributes, Described, Topology
from fedkit.topology.ns2 import reader, worker, writer
from fedkit.topology.numbering import numbered

CORPUS = Path(__file__).parent / "corpus"
NS2 = sorted(path.stem for path in (CORPUS / "ns2").glob("*.ns"))
TOPDL = sorted(path.stem for path in (CORPUS / "topdl").glob("*.xml"))
THROUGH_THE_READER = ("address-seed-example", "delay-odd-on-a-lan-warns", "every-mistake-is-told")
RANDOM_TOPOLOGIES = 200


def expectation(form: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CORPUS / form / f"{name}.json").read_text())
    return {"errors": [], "warnings": []} | found


def problems(found: tuple[Problem, ...] | list[Problem]) -> list[list[Any]]:
    """Line and code of each, with the file before them where it is one sent along."""
    return [[problem.file, problem.line, problem.code][problem.file in ("x.ns", "x.xml") :] for problem in found]


def values(attributes: Attributes) -> dict[str, Any]:
    """A name that occurs more than once has a list of values."""
    by_name: dict[str, list[str]] = {}
    for attribute in attributes:
        by_name.setdefault(attribute.name, []).append(attribute.value)
    return {name: found[0] if len(found) == 1 else found for name, found in by_name.items()}


def shown(described: Described) -> dict[str, Any]:
    """The JSON form by names, with the attributes that it leaves out."""
    topology = described.topology
    flat = as_json(described)
    computers = {computer["name"]: computer for computer in flat["computers"]}
    for computer in topology.computers:
        told = computers[computer.name]
        told["attributes"] = values(computer.attributes)
        told["interfaces"] = {
            one["substrate"]: one | {"attributes": values(interface.attributes)}
            for one, interface in zip(told["interfaces"], computer.interfaces, strict=True)
        }
    substrates = {
        told["name"]: told | {"attributes": values(substrate.attributes)}
        for told, substrate in zip(flat["substrates"], topology.substrates, strict=True)
    }
    agents = [attribute.value.split("\n") for attribute in topology.attributes if attribute.name == "agent"]
    return {
        "names": list(computers),
        "computers": computers,
        "wires": list(substrates),
        "substrates": substrates,
        "attributes": values(topology.attributes),
        "agents": {lines[1]: lines for lines in agents},
        "services": flat["services"],
        "routing": flat["routing"],
        "output": described.output,
        "warnings": problems(described.warnings),
        "errors": [],
    }


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where `found` lacks what is expected; null means that there is nothing."""
    if isinstance(expected, dict) and isinstance(found, dict) and (expected or not found):
        return [line for key, one in expected.items() for line in differences(one, found.get(key), f"{where}/{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for number, (one, other) in pairs for line in differences(one, other, f"{where}/{number}")]
    if _same(expected, found):
        return []
    return [f"{where}: expected {expected!r}, found {found!r}"]


def _same(expected: Any, found: Any) -> bool:
    """Halves of a loss are square roots: equal to twelve digits, also where they stand as text."""
    try:
        return expected == found or float(found) == pytest.approx(float(expected), rel=1e-12, abs=1e-12)
    except (TypeError, ValueError):
        return False


def run_ns2(text: str, files: dict[str, str]) -> dict[str, Any]:
    program, topology, output = worker.run("x.ns", text, files)
    if topology is None or program.errors:
        return {"errors": problems(program.errors), "warnings": problems(program.warnings)}
    return shown(Described(topology, tuple(program.warnings), output))


@pytest.mark.parametrize("name", NS2)
def test_ns2(name: str) -> None:
    expected = expectation("ns2", name)
    files = expected.pop("files", {})
    found = run_ns2((CORPUS / "ns2" / f"{name}.ns").read_text(), files)
    assert differences(expected, found) == []


@pytest.mark.parametrize("name", THROUGH_THE_READER)
async def test_ns2_through_the_bounded_process(name: str) -> None:
    try:
        found = shown(await reader.read((CORPUS / "ns2" / f"{name}.ns").read_bytes(), "x.ns"))
    except BadDescription as error:
        found = {"errors": problems(error.problems), "warnings": []}
    assert differences(expectation("ns2", name), found) == []


@pytest.mark.parametrize("name", TOPDL)
def test_topdl(name: str) -> None:
    """`topology` is the model, and `numbered` the addresses that computers get."""
    try:
        topology = topdl.read((CORPUS / "topdl" / f"{name}.xml").read_bytes(), "x.xml")
        computers = numbered(topology).computers
    except BadDescription as error:
        found: dict[str, Any] = {"errors": problems(error.problems), "warnings": []}
    except BadAddress as error:
        found = {"errors": [[None, error.code]], "warnings": []}
    else:
        addresses = {
            computer.name: {interface.name: interface.ip4 for interface in computer.interfaces}
            for computer in computers
        }
        model = TypeAdapter(Topology).dump_python(topology, mode="json")
        kinds = [type(element).__name__.lower() for element in topology.elements]
        found = {"topology": model, "kinds": kinds, "numbered": addresses, "errors": [], "warnings": []}
        assert topdl.read(topdl.write(topology)) == topology
    assert differences(expectation("topdl", name), found) == []


def test_the_corpus_is_as_large_as_it_must_be() -> None:
    assert len(NS2) >= 60
    assert len(TOPDL) >= 20
    for form, suffix in (("ns2", "ns"), ("topdl", "xml")):
        stems = [{path.stem for path in (CORPUS / form).glob(f"*.{ending}")} for ending in (suffix, "json")]
        assert stems[0] == stems[1]


class Drawn:
    """A random ns2 program, and the same steps on an array as Emulab's parser takes them in Tcl."""

    def __init__(self, chance: random.Random, array: str) -> None:
        nodes = [f"n{number}" for number in range(chance.randrange(2, 9))]
        self.lines = ["set ns [new Simulator]", *(f"set {node} [$ns node]" for node in nodes)]
        self.steps: list[str] = []
        self.members: dict[str, list[str]] = {}
        wires = chance.randrange(280, 300) if chance.random() < 0.02 else chance.randrange(1, 70)
        for number in range(1, wires + 1):
            size = 2 if chance.random() < 0.7 else chance.randrange(2, len(nodes) + 1)
            members = chance.sample(nodes, size)
            link = size == 2 and chance.random() < 0.7
            automatic = f"{'tblink-l' if link else 'tblan-lan'}{len(nodes) + number}"
            made = (
                f"duplex-link ${members[0]} ${members[1]}"
                if link
                else f'make-lan "{" ".join(f"${m}" for m in members)}"'
            )
            made = f"[$ns {made} 1Gb 0ms{' DropTail' if link else ''}]"
            self.steps.append(f"set {array}({automatic}) 1")
            name = automatic
            if chance.random() < 0.85:
                name, variable = chance.choice(
                    [
                        (f"link{number}", f"link{number}"),
                        (f"x-{number}", f"x({number})"),
                        (f"lan-a{number}", f"lan-a{number}"),
                    ]
                )
                self.steps += [f"unset {array}({automatic})", f"set {array}({name}) 1"]
                made = f"set {variable} {made}"
            self.lines.append(made if name != automatic else f"lappend unnamed {made}")
            self.members[name] = members
        self.steps.append(f"puts [array names {array}]")
        self.text = "\n".join([*self.lines, "$ns run", ""])

    def addresses(self, listing: list[str]) -> dict[tuple[str, str], str]:
        """Subnets in that order, 254 to each second number, hosts from 2 up in the order of the members."""
        return {
            (node, wire): f"10.{1 + place // 254}.{1 + place % 254}.{2 + host}"
            for place, wire in enumerate(listing)
            for host, node in enumerate(self.members[wire])
        }


def test_addresses_are_numbered_as_by_real_tcl() -> None:
    chance = random.Random(5)
    drawn = [Drawn(chance, f"t{number}") for number in range(RANDOM_TOPOLOGIES)]
    script = "\n".join(step for one in drawn for step in one.steps)
    told = subprocess.run(["tclsh"], input=script, capture_output=True, text=True, check=True).stdout.splitlines()
    assert max(len(one.members) for one in drawn) > 254
    for one, listing in zip(drawn, told, strict=True):
        program, topology, _output = worker.run("x.ns", one.text, {})
        assert topology is not None, program.errors
        found = {(c.name, i.substrates[0]): i.ip4 for c in topology.computers for i in c.interfaces}
        assert found == one.addresses(listing.split())


@pytest.mark.parametrize("name", [name for name in NS2 if not expectation("ns2", name)["errors"]])
def test_ns2_written_and_read_again_is_the_same(name: str) -> None:
    files = expectation("ns2", name).get("files", {})
    _program, topology, _output = worker.run("x.ns", (CORPUS / "ns2" / f"{name}.ns").read_text(), files)
    assert topology is not None
    program, again, _output = worker.run("x.ns", writer.write(topology), {})
    assert (program.errors, again) == ([], topology)
    assert topdl.read(topdl.write(topology)) == replace(topology, services=(), routing=None)
