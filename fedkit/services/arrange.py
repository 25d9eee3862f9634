"""From the services that a description asks for to what its nodes are told.

    Topology.services ─► uses: known, complete, with testbeds by their full names ─► expanded ─► the topology extended ─► settings by node

Every mistake is told before anything is asked of anybody, with what to write instead.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fedkit.services.contract import Services, Use
from fedkit.services.errors import UnknownService, UnusableService
from fedkit.services.scene import Project, Scene
from fedkit.topology.model import Service as Asked
from fedkit.topology.model import Topology
from fedkit.topology.numbering import numbered

IMPORT_ALL = "importall"  # as an attribute, where a service is one line of text
_YES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Arranged:
    """The topology with the services' own nodes, and what each node is told (keys and values, in order)."""

    topology: Topology
    settings: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict, repr=False)  # hold secrets


def arrange(
    topology: Topology, known: Services, *, secret: str, user: str, project_of: Callable[[str], Project]
) -> Arranged:
    """Carry out the services of a topology whose computers all have a testbed and addresses.

    Raises `UnknownService`, `UnusableService`, or what a service itself refuses with.
    """
    if not topology.services:
        return Arranged(topology)
    uses = [use for asked in uses_of(topology, known) for use in _expanded(asked, topology, known)]
    for use in sorted(uses, key=lambda use: known[use.service].turn):
        topology = known[use.service].extend(use, topology)
    scene = Scene(numbered(topology), secret, user, project_of)
    settings: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for use in uses:
        for setting in known[use.service].settings(use, scene):
            settings[setting.node].append((setting.key, setting.value))
    return Arranged(scene.topology, dict(settings))


def uses_of(topology: Topology, known: Services) -> list[Use]:
    """What the description says, checked; not expanded yet."""
    testbeds = list(dict.fromkeys(str(computer.testbed) for computer in topology.computers))
    uses = [_use(f"s{number}", asked, testbeds, known) for number, asked in enumerate(topology.services)]
    for use in uses:
        known[use.service].check(use, topology)
    return uses


def _expanded(use: Use, topology: Topology, known: Services) -> Iterator[Use]:
    for one in known[use.service].expand(use):
        if one.service not in known:
            raise UnknownService(f"{use.service} needs the service {one.service}, which is not installed.")
        if one.service == use.service:
            yield one
        else:
            _check_attributes(one, known)
            known[one.service].check(one, topology)
            yield from _expanded(one, topology, known)


def _use(number: str, asked: Asked, testbeds: Sequence[str], known: Services) -> Use:
    if asked.name not in known:
        spelled = {name.lower(): name for name in known}
        near = difflib.get_close_matches(asked.name.lower(), spelled, 1, 0.7)
        hint = f"did you mean {spelled[near[0]]}?" if near else f"there are {', '.join(sorted(known))}."
        raise UnknownService(f"There is no service {asked.name[:80]!r}; {hint}")
    attributes = {}
    for attribute in asked.attributes:
        if attribute.name in attributes:
            raise UnusableService(f"{asked.name} has {attribute.name} twice; write its values as one, with commas.")
        attributes[attribute.name] = attribute.value
    to_all = asked.import_all or _yes(asked.name, attributes.pop(IMPORT_ALL, "no"))
    exporters = _testbeds(asked.name, asked.exporters, testbeds)
    importers = [name for name in testbeds if name not in exporters] if to_all else list(asked.importers)
    use = Use(number, asked.name, exporters, _testbeds(asked.name, importers, testbeds), attributes)
    least, most = known[use.service].exporters
    if not least <= len(exporters) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise UnusableService(
            f"{use.service} is exported by {wanted} testbed, not by {len(exporters)}; write "
            f"{use.service}:EXPORTER:IMPORTER,…, of {', '.join(testbeds[:10])}."
        )
    _check_attributes(use, known)
    return use


def _yes(service: str, value: str) -> bool:
    if value.lower() not in _YES:
        raise UnusableService(f"{IMPORT_ALL} of {service} is true or false, not {value[:80]!r}.")
    return _YES[value.lower()]


def _testbeds(service: str, named: Sequence[str], testbeds: Sequence[str]) -> tuple[str, ...]:
    """By their full names: `ucb` stands for all of `ucb/…`."""
    found: dict[str, None] = {}
    for name in named:
        meant = [testbed for testbed in testbeds if name in (testbed, testbed.partition("/")[0])]
        if not meant:
            raise UnusableService(f"{service} names the testbed {name}, and there is {', '.join(testbeds[:10])}.")
        found.update(dict.fromkeys(meant))
    return tuple(found)


def _check_attributes(use: Use, known: Services) -> None:
    wanted = known[use.service].attributes
    for name, value in use.attributes.items():
        if name not in wanted:
            takes = f"it takes {', '.join(wanted)}" if wanted else "it takes none"
            raise UnusableService(f"{use.service} has no attribute {name[:80]!r}; {takes}.")
        if not wanted[name].pattern.fullmatch(value):
            raise UnusableService(f"{name} of {use.service} is {wanted[name].says}; {value[:80]!r} is not.")
    for name, attribute in wanted.items():
        if attribute.required and name not in use.attributes:
            raise UnusableService(f"{use.service} needs the attribute {name}={attribute.says}.")


def under(use: Use, service: str, **attributes: str | None) -> Use:
    """Another service's use that this one stands for, with its id and testbeds."""
    given = {name: value for name, value in attributes.items() if value is not None}
    return replace(use, service=service, attributes=given)
