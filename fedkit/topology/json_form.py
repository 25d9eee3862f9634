"""A topology as `fed topology convert --to json` and the dashboard show it (DESIGN §9): what people ask of one, flat.

Computers and substrates stand in the order of the file. A substrate's `latency_ms` is that from one member to another, an interface's
that of its own hop; what an interface does not say of itself is its substrate's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedkit.topology.model import Computer, Described, Interface, Service, Software, Substrate, Topology

_SHOWN = {"testbed", "type", "startup", "failureaction", "ip4_address", "ip4_netmask", "loss"}


def as_json(described: Described) -> dict[str, Any]:
    """The whole shape, with warnings."""
    return topology_as_json(described.topology) | {"warnings": [w.as_json() for w in described.warnings]}


def topology_as_json(topology: Topology) -> dict[str, Any]:
    """The topology's part of it."""
    substrates = {substrate.name: substrate for substrate in topology.substrates}
    return {
        "computers": [computer_as_json(computer, substrates) for computer in topology.computers],
        "substrates": [substrate_as_json(topology, substrate) for substrate in topology.substrates],
        "services": [_service(service) for service in topology.services],
        "routing": topology.routing,
    }


def computer_as_json(computer: Computer, substrates: Mapping[str, Substrate]) -> dict[str, Any]:
    """One computer."""
    return {
        "name": computer.name,
        "testbed": computer.testbed,
        "os": computer.osid,
        "hardware": computer.hardware,
        "startup": computer.startup,
        "failure_action": computer.failure_action,
        "software": [_software(software) for software in computer.software],
        "attributes": {a.name: a.value for a in computer.attributes if a.name not in _SHOWN},
        "interfaces": [
            _interface(interface, substrates[name])
            for interface in computer.interfaces
            for name in interface.substrates
        ],
    }


def substrate_as_json(topology: Topology, substrate: Substrate) -> dict[str, Any]:
    """One link or LAN."""
    return {
        "name": substrate.name,
        "kind": topology.kind_of(substrate),
        "capacity_kbps": _number(substrate.capacity.rate if substrate.capacity else None),
        "latency_ms": _number(2 * substrate.latency.time if substrate.latency else 0),
    }


def _interface(interface: Interface, substrate: Substrate) -> dict[str, Any]:
    capacity = interface.capacity or substrate.capacity
    latency = interface.latency or substrate.latency
    return {
        "name": interface.name,
        "substrate": substrate.name,
        "ip4": interface.ip4,
        "netmask": interface.netmask,
        "capacity_kbps": _number(capacity.rate if capacity else None),
        "latency_ms": _number(latency.time if latency else 0),
        "loss": _number(interface.loss),
    }


def _software(software: Software) -> dict[str, str | None]:
    return {"location": software.location, "install": software.install}


def _service(service: Service) -> dict[str, Any]:
    return {
        "name": service.name,
        "exporters": list(service.exporters),
        "importers": list(service.importers),
        "import_all": service.import_all,
        "attributes": {attribute.name: attribute.value for attribute in service.attributes},
    }


def _number(value: float | None) -> float | int | None:
    """Whole numbers without a point."""
    return int(value) if value is not None and value == int(value) else value
