"""Which services are there: every entry point of the group `fedmesh.service`, the six of fedd among them."""

from __future__ import annotations

from importlib.metadata import entry_points

from fedkit.services.contract import Service, Services

GROUP = "fedmesh.service"


def installed() -> Services:
    """One of each, by name; a plug-in that cannot be loaded raises what Python says."""
    found: dict[str, Service] = {}
    for point in entry_points(group=GROUP):
        service: Service = point.load()()
        found[service.name] = service
    return found
